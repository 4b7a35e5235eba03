"""Text for terminals and tables for spreadsheets, whatever names files have."""

import csv
import logging
import os
import re
import unicodedata
from itertools import product
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from simsearch import cli
from simsearch.cli.main import main
from simsearch.csv_file import read_csv, write_csv
from simsearch.library.skipped import read_skipped
from simsearch.printable import one_line, valid_unicode

NAMES = st.one_of(st.text(), st.binary().map(os.fsdecode))
ESCAPE = "\x1b]0;mine\x07\x1b[2J"


@given(NAMES)
@example("a\x9b31mb")
@example("\u202egpj.exe")
def test_text_for_a_terminal_has_no_control_characters(name):
    shown = valid_unicode(name)
    shown.encode("utf-8")
    assert {each for each in shown if unicodedata.category(each) == "Cc"} <= {"\n"}
    assert not {each for each in shown if unicodedata.bidirectional(each) in {"RLO", "LRO", "RLI"}}
    assert one_line(name) == shown.replace("\n", r"\x0a")


@given(st.text(st.characters(categories=["L", "N", "P", "S", "M"])))
def test_printable_text_stays_as_it_is(name):
    assert valid_unicode(name) == name


@given(st.lists(st.lists(NAMES, min_size=1), min_size=1))
@example([["=1+1", "'=1+1", "''", "-", "@x", "+", "\tx"]])
def test_tables_hold_no_formula_and_are_read_as_written(tmp_path_factory, rows):
    file = tmp_path_factory.mktemp("table") / "x.csv"
    write_csv(file, ["a"], rows)
    with file.open(encoding="utf-8", errors="surrogateescape", newline="") as stream:
        cells = [cell for row in csv.reader(stream) for cell in row]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]
    assert read_csv(file) == [["a"], *rows]


def test_numbers_are_no_formulas(tmp_path):
    write_csv(tmp_path / "x.csv", ["a"], [[-1.5]])
    assert (tmp_path / "x.csv").read_text().split() == ["a", "-1.5"]


def test_commands_print_in_one_way():
    """Which leaves no name of a file as it is, whatever it holds."""
    printing = [
        file.name
        for file in Path(cli.__file__).parent.glob("*.py")
        if re.search(r"(?<!\w)print\(", file.read_text("utf-8"))
    ]
    assert sorted(printing) == ["frames.py", "output.py", "results.py"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
def test_names_with_escapes_reach_no_terminal(sample, tmp_path, capsys, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    source = next(sample.rglob("*.jpg"))
    folder = tmp_path / "odd"
    folder.mkdir()
    for name in (f"{ESCAPE}.jpg", f"-{ESCAPE}\n.jpg"):
        (folder / name).write_bytes(source.read_bytes())
    (folder / f"=cmd{ESCAPE}.jpg").write_bytes(b"")
    monkeypatch.chdir(folder)
    command = ["embed", ".", "../out", "--backbone", "efficientnet_lite0"]
    assert main(command) == 0
    assert main(["search", "../out", f"{ESCAPE}.jpg"]) == 0
    assert main(["duplicates", "../out", "--csv", "../found.csv"]) == 0
    assert main(["search", "../out", f"gone{ESCAPE}"]) == 1
    for command in ("info", "trust", "verify", "check", "albums"):
        assert main([command, "../out"]) == 0
    for command, form in product(("duplicates", "check", "albums"), ("json", "csv", "tsv")):
        assert main([command, "../out", "--format", form]) == 0
    assert main(["recommend", "../out", "--liked", "0"]) == 0
    assert main(["search", "../out", "0", "--json"]) == 0
    assert main(["info", f"none{ESCAPE}"]) == 1
    assert main(["sample", f"sample{ESCAPE}"]) == 0
    logging.getLogger("simsearch").warning("a file is at fault: %s", ESCAPE)
    shown = capsys.readouterr()
    assert r"\x1b]0;mine\x07" in shown.out
    assert "\x1b" not in shown.out + shown.err.replace("\x1b[A", "")  # by which tqdm goes up
    assert [each.name for each in read_skipped("../out")] == [f"=cmd{ESCAPE}.jpg"]
    assert (tmp_path / "out/skipped.csv").read_text().splitlines()[1].startswith("'=cmd")
