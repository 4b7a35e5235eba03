"""What a network never saw of long pictures is said, of libraries that embed their centre."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import tiny_backbone

import simsearch as ss
from simsearch.embedding import rows as embedding_rows
from simsearch.embedding.parts import embed_parts
from simsearch.errors import ImageError
from simsearch.library import long_pictures
from simsearch.library.long_pictures import count_long

SIZES = {"a.png": (210, 100), "b.png": (100, 300), "c.png": (200, 100), "d.png": (150, 120)}


def paint_sizes(sizes):
    Path("dataset").mkdir(exist_ok=True)
    for i, (name, size) in enumerate(sizes.items()):
        noise = np.random.default_rng(i).integers(0, 256, (*size[::-1], 3), np.uint8)
        Image.fromarray(noise).save(f"dataset/{name}")


def embed(**options):
    kept = {"progress": False, "long": "centre", **options}
    return ss.embed_dataset("dataset", "outputs", "efficientnet_lite0", **kept)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    paint_sizes(SIZES)


def test_the_summary_says_how_many_are_seen_in_their_middle_alone(capsys):
    library = embed(progress=True)
    told = "2 pictures are longer than 2:1: only their centre square is compared; parts="
    assert told in library.report.centre_only
    shown = capsys.readouterr()
    assert told in shown.out + shown.err
    assert count_long(library) == (2, 4)


def test_nothing_is_said_where_all_is_seen():
    assert embed(parts="grid").report.centre_only == ""
    own = ss.embed_dataset("dataset", "others", tiny_backbone(), progress=False)
    assert own.report.centre_only == ""  # its transform may see all


def test_boxes_do_not_show_all_of_a_picture():
    Path("boxes.csv").write_text("path,left,top,right,bottom\na.png,0,0,50,50\n")
    library = embed()
    embed_parts(library, "boxes.csv", progress=False)
    assert count_long(library).number == 2


def test_one_picture_is_one():
    Path("dataset/b.png").unlink()
    assert embed().report.centre_only.startswith("1 picture is longer than 2:1: only its centre")


def test_sizes_are_known_from_signatures_without_a_second_look(monkeypatch):
    monkeypatch.setattr(embedding_rows, "SIGNED_FILES", 1)
    library = embed()

    def read(path):
        raise AssertionError(f"{path} is read again")

    monkeypatch.setattr(long_pictures, "read_header", read)
    assert count_long(library) == (2, 4)


def test_files_that_are_gone_and_those_beyond_the_limit_are_not_counted(monkeypatch):
    library = embed()
    monkeypatch.setattr(long_pictures, "READ_HEADERS", 3)
    assert count_long(library).looked_at == 3
    monkeypatch.setattr(long_pictures, "READ_HEADERS", 2000)
    Path("dataset/b.png").unlink()
    assert count_long(library) == (1, 3)
    assert long_pictures.describe_long(library).startswith("at least 1 picture is longer")

    def unreadable(path):
        raise ImageError(f"{path} cannot be read")

    monkeypatch.setattr(long_pictures, "read_header", unreadable)
    assert count_long(library) == (0, 0)


@pytest.mark.parametrize(
    ("parts", "told"), [(None, "with parts (box, regions)"), ("grid", "by parts (parts=True")]
)
def test_a_long_query_is_told_what_sees_all_of_it(parts, told, caplog):
    library = embed(parts=parts)
    query = Image.fromarray(np.random.default_rng(9).integers(0, 256, (60, 240, 3), np.uint8))
    notes = ss.search(library, query, k=1).notes
    assert told in notes[0]
    assert told in caplog.text
    if parts:
        assert ss.search(library, query, k=1, parts=True).notes == ()
