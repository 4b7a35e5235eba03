"""Notes on queries: of long pictures only the centre is seen, and that is said."""

import io
import json
import logging

import numpy as np
import pytest
from PIL import Image
from search_cases import circle
from tiny import tiny_backbone

from simsearch.backbones.preprocessing import Preprocessing
from simsearch.backbones.squash import SquashPreprocessing
from simsearch.cli.main import main
from simsearch.library.source import Source
from simsearch.retrieval.recommend import recommend
from simsearch.retrieval.search import search
from simsearch.web import schemas

RESNET = Source("resnet50", "IMAGENET1K_V1", "0" * 16, "float32")


@pytest.fixture
def library(tmp_path, monkeypatch):
    """A library with one long picture, whose new queries are all embedded as its first row."""
    monkeypatch.chdir(tmp_path)
    library = circle(0, 10, 20)
    for path, size in zip(library.paths, ((40, 30), (400, 100), (30, 30)), strict=True):
        Image.new("RGB", size).save(path)
    library.source = RESNET
    library.encode = lambda images: np.repeat(library.embeddings[:1], len(images), axis=0)
    return library


def jpeg(width, height):
    data = io.BytesIO()
    Image.new("RGB", (width, height)).save(data, "JPEG")
    return data.getvalue()


def kinds(width, height):
    """A picture of this size as a query of every kind."""
    (path := f"{width}x{height}.jpg") and Image.new("RGB", (width, height)).save(path)
    return [
        path,
        jpeg(width, height),
        Image.new("RGB", (width, height)),
        np.zeros((height, width, 3), np.uint8),
    ]


@pytest.mark.parametrize("size", [(4000, 1000), (100, 400), (160, 90), (64, 100)])
def test_a_long_query_has_a_note_and_one_line_is_logged(library, size, caplog):
    share = round(100 * min(size) / max(size))
    for query in kinds(*size):
        caplog.clear()
        with caplog.at_level(logging.WARNING, "simsearch"):
            (note,) = search(library, query).notes
        assert note == (
            f"of the query only the centre was seen, at most {share}% of {size[0]}×{size[1]} "
            "pixels: search with parts (box, regions) to see the rest"
        )
        assert [record.getMessage() for record in caplog.records] == [f"Note: {note}"]


@pytest.mark.parametrize(
    "size", [(300, 200), (200, 300), (1024, 683), (512, 341), (66, 100), (9, 9)]
)
def test_a_photo_of_a_usual_shape_has_none(library, size, caplog):
    for query in kinds(*size):
        assert search(library, query).notes == ()
    assert caplog.records == []


def test_rows_and_paths_of_the_library_have_the_note_too(library):
    for query in (1, "10.jpg"):
        assert "25% of 400×100" in search(library, query).notes[0]
    assert search(library, 0).notes == search(library, library.embeddings[1]).notes == ()
    library.paths[2] = "s3://bucket/gone.jpg"
    assert search(library, 2).notes == ()


def test_a_part_of_a_long_picture_is_judged_by_its_own_shape(library):
    assert search(library, 1, box=(0, 0, 0.25, 1)).notes == ()
    assert len(search(library, 1, box=(0, 0, 1, 1)).notes) == 1


def test_several_queries_of_one_answer_are_counted(library):
    queries = [jpeg(400, 100), jpeg(30, 30), jpeg(300, 30)]
    for found in (search(library, queries, combine="mean"), recommend(library, queries)):
        (note,) = found.notes
        assert note.startswith("of 2 of 3 queries only the centre was seen, at most 10% of 300×30")
    assert [len(found.notes) for found in search(library, queries)] == [1, 0, 1]


def test_a_transform_of_ones_own_may_see_all(library):
    library.source = Source("Net", "own", "0" * 16, "float32")
    assert search(library, jpeg(400, 100)).notes == ()
    library.source = None
    assert search(library, jpeg(400, 100)).notes == ()


@pytest.mark.parametrize(
    ("name", "whole"),
    [
        ("resnet50", False),
        ("efficientnet_lite0", False),
        ("sscd_disc_mixup", True),
        ("clip:ViT-B-32:openai", False),
        ("clip:ViT-B-16-SigLIP2:webli", True),
        ("clip:PE-Core-B-16:meta", True),
        ("clip:no-such-model", True),  # nothing is known of it
        ("timm:resnet50.a1_in1k", False),
        ("timm:vit_small_patch14_dinov2.lvd142m@224", False),
        ("timm:coat_lite_medium_384.in1k", True),
        ("timm:no_such_model", False),  # as timm prepares what has no settings of its own
    ],
)
def test_backbones_that_squeeze_whole_pictures_have_no_note(library, name, whole):
    library.source = Source(name, "weights", "0" * 16, "float32")
    for query in (jpeg(400, 100), 1):
        assert (search(library, query).notes == ()) == whole


@pytest.mark.parametrize(("kind", "whole"), [(Preprocessing, False), (SquashPreprocessing, True)])
def test_the_preprocessing_of_a_loaded_backbone_is_asked(library, kind, whole):
    backbone = tiny_backbone()
    backbone.transform = kind(8, 8, (0.5,) * 3, (0.5,) * 3)
    library._backbone = backbone
    assert (search(library, 1).notes == ()) == whole


def test_an_orientation_that_is_left_aside_is_noted(library):
    data, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 30)).save(data, "JPEG", exif=exif)
    file = Image.open(data)
    assert search(library, file).notes == ()
    note = "the query carries an EXIF orientation that was not applied"
    assert search(library, file.copy()).notes == (note,)


def test_notes_are_printed_shown_exported_and_answered(library, tmp_path, capsys):
    found = search(library, 1)
    (note,) = found.notes
    assert str(found).splitlines()[-1] == f"note: {note}"
    assert f"<p>Note: {note}</p>" in found._repr_html_()
    assert found.to_dict()["notes"] == json.loads(found.to_json())["notes"] == [note]
    assert schemas.answer(library, "v", found)["notes"] == [note]
    assert "note:" not in str(search(library, 0))
    library.save(tmp_path / "outputs")
    assert main(["search", str(tmp_path / "outputs"), "10.jpg"]) == 0
    assert f"note: {note}" in capsys.readouterr().out
