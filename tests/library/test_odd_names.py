"""Names that are not valid Unicode, with spaces, umlauts, tildes: all that a library does works."""

import json
import logging
import os
from pathlib import Path

import pytest
from dataset_cases import paint
from PIL import Image
from tiny import tiny_backbone

import simsearch as ss
from simsearch.library.skipped import read_skipped

NAMES = [b"caf\xe9.png", b"a b.png", "größe 象.png".encode(), b"~.png", b"100%25.png", b"n\nl.png"]
FOLDER = os.fsdecode(b"d\xe9j\xe0")


@pytest.fixture
def library(tmp_path, monkeypatch):
    """Pictures with odd names in a folder with an odd name, and one that is no picture."""
    monkeypatch.chdir(tmp_path)
    for i, name in enumerate(NAMES):
        paint(Path("data") / "plain" / f"{i}.png", i % 5)
        folder = Path("data", FOLDER)
        folder.mkdir(exist_ok=True)
        Path(f"data/plain/{i}.png").rename(folder / os.fsdecode(name))
    for i in range(3):
        paint(Path("data") / "plain" / f"{i}.png", 50 + i)
    Path("data", os.fsdecode(b"\xff.png")).touch()
    return ss.embed_dataset("data", "out", tiny_backbone(), progress=True)


def test_every_name_is_in_the_library_and_is_found(library, capsys):
    names = {f"data/{FOLDER}/{os.fsdecode(name)}" for name in NAMES}
    assert names < set(library.paths.tolist())
    again = ss.ImageLibrary.load("out", backbone=tiny_backbone())
    for name in names:
        assert again.find(name) is not None
        assert ss.search(again, name, k=2).query == name
    assert read_skipped("out") == [(f"data/{os.fsdecode(bytes([255]))}.png", "the file is empty")]


def test_results_print_and_become_frames_and_json(library):
    matches = ss.search(library, 1, k=8)
    str(matches).encode("utf-8")
    matches._repr_html_().encode("utf-8")
    library.describe().encode("utf-8")
    assert matches.to_frame()["path"].tolist() == matches.paths
    assert matches.to_frame()["score"].dtype.kind == "f"
    assert [m["path"] for m in json.loads(matches.to_json())["matches"]] == matches.paths
    copies = ss.duplicates(library, -1, level="similar", progress=False)
    str(copies).encode("utf-8")
    assert sorted(copies.to_frame()["path"]) == sorted(library.paths)
    copies.save("copies.csv")
    assert os.fsencode(library.paths[0]) in Path("copies.csv").read_bytes()


def test_table_is_attached_by_names_that_are_not_utf8(library):
    Path("m.csv").write_text("path,price\nplain/1.png,5\nplain/2.png,6\n")
    library.attach("m.csv")
    assert library.where({"price": "5"}).sum() == 1


def test_classes_with_names_that_are_not_utf8_are_evaluated(library):
    evaluation = ss.evaluate(library, k=2)
    assert FOLDER in evaluation.confusion().index
    assert FOLDER in evaluation.to_frame().index.get_level_values(0)


def test_odd_names_are_drawn_and_logged(library, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        figure, _ = ss.show_matches(ss.search(library, 1, k=8))
        figure.savefig(tmp_path / "figure.png")
    with Image.open(tmp_path / "figure.png") as drawn:
        assert drawn.size[0] > 100


def test_library_saved_and_extended_keeps_every_name(library):
    library.save("copy")
    again = ss.ImageLibrary.load("copy", backbone=tiny_backbone())
    assert again.paths.tolist() == library.paths.tolist()
    assert ss.embed_dataset("data", "out", tiny_backbone(), progress=False).report.embedded == 0
