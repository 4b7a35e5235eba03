"""The forms in which matches are printed, in a pipe and on a terminal."""

import csv
import io
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from contextlib import redirect_stdout
from fcntl import ioctl
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import simsearch as ss
from simsearch.cli.results import print_matches
from simsearch.cli.table import GREEN, width_of

ROOT = Path(ss.__file__).parents[1]
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def expected():
    return ss.search(ss.ImageLibrary.load("outputs"), 0, k=3)


def on_terminal(*arguments, columns=80, **environment):
    """Run a command in a pseudo-terminal of so many columns; return what is seen there."""
    parent, child = pty.openpty()
    ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    inherited = {k: v for k, v in os.environ.items() if k not in {"NO_COLOR", "COLUMNS"}}
    process = subprocess.Popen(
        [sys.executable, "-m", "simsearch.cli", *map(str, arguments)],
        stdin=child,
        stdout=child,
        stderr=child,
        env=inherited | {"PYTHONPATH": str(ROOT), "TERM": "xterm-256color"} | environment,
    )
    os.close(child)
    parts = []
    try:
        while part := os.read(parent, 1 << 16):
            parts.append(part)
    except OSError:  # how Linux says that the other end is closed
        pass
    os.close(parent)
    assert process.wait(60) == 0
    return b"".join(parts).decode().replace("\r\n", "\n")


def test_a_pipe_gets_the_lines_that_the_library_prints(run):
    assert run("search", 0, "-k", 3)[1] == f"{expected()}\n"
    assert run("search", 0, "-k", 3, "--format", "text")[1] == f"{expected()}\n"


def test_json_has_two_spellings(run):
    status, out, _ = run("search", 0, "-k", 3, "--format", "json")
    assert (status, json.loads(out)) == (0, expected().to_dict())
    assert run("search", 0, "-k", 3, "--json")[1] == out
    assert run("search", 0, "--json", "--paths")[0] == 2


@pytest.mark.parametrize(("form", "separator"), [("csv", ","), ("tsv", "\t")])
def test_rows_are_those_of_the_matches(run, form, separator):
    _, out, _ = run("search", 0, 1, "-k", 3, "--format", form)
    rows = list(csv.DictReader(io.StringIO(out), delimiter=separator))
    assert [row["query"] for row in rows] == [f"dataset/cats/{n}.png" for n in "aaabbb"]
    assert [row["path"] for row in rows[:3]] == expected().paths
    assert [float(row["score"]) for row in rows[:3]] == pytest.approx(expected().scores)


def test_a_table_of_facts_comes_along(run):
    Path("m.csv").write_text("path,price,title\ncats/b.png,=5,a cat\n")
    _, out, _ = run("search", 0, "--metadata", "m.csv", "--format", "csv")
    row = next(r for r in csv.DictReader(io.StringIO(out)) if r["path"].endswith("b.png"))
    assert (row["title"], row["price"]) == ("a cat", "'=5")  # which no spreadsheet runs


def test_paths_are_what_other_programs_take(run, project):
    assert run("search", 0, "-k", 3, "--paths")[1].splitlines() == expected().paths
    assert run("search", 0, "-k", 3, "-0")[1].split("\0") == [*expected().paths, ""]


def test_paths_keep_bytes_that_are_no_text(run, project, capfdbinary):
    name = os.fsdecode(b"odd\xff\n.png")
    Image.new("RGB", (40, 40)).save(project / "dataset" / name)
    library = ss.ImageLibrary(np.eye(2), [f"dataset/{name}", "dataset/cats/a.png"])
    library.root = "dataset"
    library.save("odd")
    from simsearch.cli.main import main

    assert main(["search", "odd", "1", "-0"]) == 0
    assert capfdbinary.readouterr().out == b"dataset/odd\xff\n.png\0"


@pytest.mark.parametrize("columns", [60, 80, 140])
def test_a_terminal_gets_an_aligned_table(project, columns):
    seen = on_terminal("search", 0, "-k", 5, columns=columns)
    assert COLOUR.search(seen)
    title, header, *rows = COLOUR.sub("", seen).rstrip("\n").split("\n")
    assert title == "5 matches for dataset/cats/a.png"
    assert header.split() == ["#", "score", "of", "random", "pairs", "image"]
    assert {row.index("dataset/") for row in rows} == {header.index("image")}
    assert all(width_of(row) <= columns for row in rows)


@pytest.mark.parametrize("columns", [60, 140])
def test_what_has_no_room_beside_a_path_stands_below_it(project, columns):
    lines = [f"{name},a caption of some forty letters or more" for name in ("cats/b.png",)]
    Path("m.csv").write_text("\n".join(["path,caption", *lines]))
    seen = COLOUR.sub("", on_terminal("search", 0, "--metadata", "m.csv", columns=columns))
    line = next(each for each in seen.splitlines() if "a caption" in each)
    assert ("cats/b.png" in line) == (columns == 140)
    assert all(
        width_of(each) <= columns
        for each in seen.splitlines()
        if "WARN" not in each[:60] and "m.csv" not in each
    )


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def seen(project, monkeypatch):
    """What a terminal in this process gets of matches."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")

    def show(answers, columns=60, **options):
        monkeypatch.setenv("COLUMNS", str(columns))
        with redirect_stdout(Terminal()) as terminal:
            print_matches(answers, options)
        return terminal.getvalue()

    return show


def test_each_answer_is_a_table_of_its_own(seen):
    answers = ss.search(ss.ImageLibrary.load("outputs"), [0, 1], k=3)
    shown = seen(answers)
    tables = COLOUR.sub("", shown).removesuffix("\n").split("\n\n")
    for matches, table in zip(answers, tables, strict=True):
        title, _, *rows = table.split("\n")
        assert title == f"3 matches for {matches.query}"
        cells = [(row.split()[0], row.split()[1], row.split()[-1]) for row in rows]
        assert cells == [(str(m.rank), f"{m.score:.3f}", m.path) for m in matches]
    assert shown.count(GREEN) == 6


@pytest.mark.parametrize(("columns", "below"), [(60, 1), (140, 0)])
def test_a_caption_stands_where_there_is_room(seen, columns, below):
    caption = "a caption of thirty letters"
    Path("m.csv").write_text(f"path,caption\ncats/b.png,{caption}\n")
    found = ss.search(ss.ImageLibrary.load("outputs").attach("m.csv"), 0)
    lines = COLOUR.sub("", seen([found], columns)).splitlines()
    place = next(i for i, line in enumerate(lines) if line.endswith(caption))
    assert "dataset/cats/b.png" in lines[place - below]
    assert all(width_of(line) <= columns for line in lines)


@pytest.mark.parametrize("options", [{"paths": True}, {}], ids=str)
def test_a_name_moves_no_cursor_of_a_terminal(seen, options):
    found = ss.search(ss.ImageLibrary(np.eye(2), ["a.png", "b\x1b[2J\n.png"]), 0)
    lines = COLOUR.sub("", seen([found], **options)).splitlines()
    assert "b" in lines[-1]
    assert lines[-1].endswith(".png")
    assert "\x1b" not in "".join(lines)


def test_no_color_is_respected(project):
    plain = on_terminal("search", 0, NO_COLOR="1")
    assert "\x1b" not in plain
    assert "\x1b" not in on_terminal("search", 0, TERM="dumb")
    assert COLOUR.sub("", on_terminal("search", 0)) == plain


def test_a_figure_opens_in_the_viewer(run, project, monkeypatch):
    (project / "bin").mkdir()
    program = project / "bin" / "xdg-open"
    program.write_text('#!/bin/sh\ncp "$1" seen.png\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{project / 'bin'}:/usr/bin:/bin")
    assert run("search", 0, "--open")[0] == 0
    for _ in range(100):
        if Path("seen.png").exists():
            break
        import time

        time.sleep(0.05)
    assert Path("seen.png").stat().st_size > 1000
    monkeypatch.setenv("PATH", str(project))
    status, _, err = run("search", 0, "--open")
    assert (status, "--open: this system has no xdg-open" in err) == (1, True)
