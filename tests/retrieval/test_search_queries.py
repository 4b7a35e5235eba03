"""Search by queries of every kind: files, pictures, parts, and what cannot be read."""

import http.server
import math
import os
import re
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from local_server import serve
from PIL import Image
from search_cases import BACKBONE, circle, found

from simsearch.backbones.backbone import load_backbone
from simsearch.embedding.images import embed_images
from simsearch.errors import BackboneError, ImageError, QueryError
from simsearch.library.library import ImageLibrary
from simsearch.retrieval.compose import REGIONS
from simsearch.retrieval.search import search


@pytest.fixture(scope="module")
def outside(views):
    """A photo that the library does not hold."""
    return min((views / "seg_test" / "cat").iterdir())


@pytest.fixture(scope="module")
def server(views):
    """Serve the views over HTTP on this machine, and give the address."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    handler = partial(Quiet, directory=views)
    with serve(handler) as address:
        yield address


def label(path):
    return Path(path).parent.name


def test_unseen_views_find_their_own_photo(library, views):
    queries = sorted((views / "seg_test").rglob("*.jpg"))
    answers = search(library, queries, k=5)
    assert len(answers) == 44
    first = [
        label(matches.paths[0]) == label(query)
        for query, matches in zip(queries, answers, strict=True)
    ]
    assert np.mean(first) > 0.8  # 1 in 22 by chance; some classes look alike on purpose
    assert [matches.query for matches in answers] == [str(query) for query in queries]


def kinds_of(path, server):
    """One picture in every form."""
    url = f"{server}/seg_test/cat/{path.name}"
    with Image.open(path) as opened:
        image = opened.convert("RGB")
    return {
        "path": str(path),
        "Path": path,
        "relative path": os.path.relpath(path),
        "URL": url,
        "bytes": path.read_bytes(),
        "PIL": image,
        "uint8 array": np.asarray(image),
        "float array": np.asarray(image) / 255,
        "embedding": embed_images(path, BACKBONE)[0],
    }


def test_every_kind_of_query_gives_the_same_answer(library, outside, server):
    queries = kinds_of(outside, server)
    answers = {kind: search(library, query, k=8) for kind, query in queries.items()}
    expected = answers.pop("path")
    assert label(expected.paths[0]) == "cat"
    for kind, matches in answers.items():
        assert matches.paths == expected.paths, kind
        np.testing.assert_allclose(matches.scores, expected.scores, atol=1e-5, err_msg=kind)
    width, height = queries["PIL"].size
    assert {kind: matches.query for kind, matches in answers.items()} == {
        "Path": str(outside),
        "relative path": os.path.relpath(outside),
        "URL": queries["URL"],
        "bytes": f"{len(queries['bytes']):,} bytes",
        "PIL": f"PIL image {width}×{height}",
        "uint8 array": f"array ({height}, {width}, 3)",
        "float array": f"array ({height}, {width}, 3)",
        "embedding": "embedding",
    }


def test_a_mixed_list_is_answered_in_its_order(library, outside, server):
    queries = [*kinds_of(outside, server).values(), 3, str(library.paths[40])]
    together = search(library, queries, k=4)
    alone = [search(library, query, k=4) for query in queries]
    assert isinstance(together, list)
    for matches, expected in zip(together, alone, strict=True):
        assert matches.query == expected.query
        assert matches.paths == expected.paths
        np.testing.assert_allclose(matches.scores, expected.scores, atol=1e-5)


@pytest.fixture(scope="module")
def scene(library):
    """A picture of a cat on the left and bricks on the right."""
    sides = [
        library.find(next(p for p in library.paths if f"/{name}/" in p))
        for name in ("cat", "brick")
    ]
    pictures = [Image.open(library.paths[row]).resize((200, 200)) for row in sides]
    sheet = Image.new("RGB", (400, 200))
    for i, picture in enumerate(pictures):
        sheet.paste(picture, (200 * i, 0))
    return sheet


def test_a_part_finds_what_it_shows(library, scene):
    for box, name in (((0, 0, 200, 200), "cat"), ((200, 0, 400, 200), "brick")):
        matches = search(library, scene, k=4, box=box)
        assert {label(path) for path in matches.paths} == {name}
        fractions = search(library, scene, k=4, box=tuple(np.array(box) / (400, 200, 400, 200)))
        assert found(fractions) == found(matches)
        cut = search(library, scene.crop(box), k=4)
        assert found(cut) == found(matches)
        assert matches.box == box
        assert matches.image.size == (200, 200)
        assert matches.query == f"PIL image 400×200, box {' '.join(map(str, box))}"


def test_regions_group_matches_by_what_is_where(library, scene):
    answers = search(library, scene, k=3, regions=True)
    assert [matches.query.rpartition(", ")[2] for matches in answers] == list(REGIONS)
    first = {matches.query.rpartition(", ")[2]: label(matches.paths[0]) for matches in answers}
    assert first["top left"] == first["bottom left"] == "cat"
    assert first["top right"] == first["bottom right"] == "brick"
    for matches, box in zip(answers, REGIONS.values(), strict=True):
        alone = search(library, scene, k=3, box=box)
        assert alone.paths == matches.paths
        np.testing.assert_allclose(alone.scores, matches.scores, atol=1e-5)


def test_a_part_of_a_library_image_does_not_find_that_image(library):
    box = (0.02, 0.02, 0.98, 0.98)
    without = search(library, 20, k=3, box=box)
    assert library.paths[20] not in without.paths
    assert search(library, 20, k=1, box=box, exclude_query=False)[0].row == 20


@pytest.mark.parametrize(
    "box",
    [
        (0.5, 0, 0.5, 1),
        (0, 0, 401, 200),
        (-1, 0, 10, 10),
        (0, 0, 1),
        "abcd",
        (0, 0, math.nan, 1),
        5,
    ],
)
def test_a_box_lies_in_the_image(library, scene, box):
    with pytest.raises(QueryError, match="box="):
        search(library, scene, box=box)


def test_a_tuple_is_as_good_as_a_list_and_may_be_empty():
    library = circle(0, 10, 20)
    assert search(library, (2, "0.jpg")) == search(library, [2, "0.jpg"])
    assert search(library, ()) == search(library, []) == []


def test_every_way_to_name_an_image_of_the_library_is_the_same_query(library):
    row = 20
    path = str(library.paths[row])
    expected = search(library, row, k=8)
    assert path not in expected.paths
    for query in (np.int32(row), path, Path(path), os.path.relpath(path)):
        assert found(search(library, query, k=8)) == found(expected)
        kept = search(library, query, k=9, exclude_query=False)
        assert kept[0].path == path
        assert kept[0].score == pytest.approx(1, abs=1e-6)
        assert found(kept)[1:] == found(expected)
    vector = search(library, library.embeddings[row], k=9)
    assert [match.row for match in vector] == [row, *(match.row for match in expected)]
    np.testing.assert_allclose(vector.scores[1:], expected.scores, atol=1e-6)


def test_an_opened_image_of_the_library_is_left_out_too(library):
    with Image.open(library.paths[20]) as opened:
        matches = search(library, opened, k=8)
        kept = search(library, opened, k=1, exclude_query=False)
    assert matches.paths == search(library, 20, k=8).paths
    assert kept[0].row == 20
    assert kept[0].score > 0.9999


def test_an_opened_image_that_was_edited_is_embedded_as_it_is(library):
    with Image.open(library.paths[20]) as opened:
        opened.paste(Image.open(library.paths[60]).resize(opened.size))
        matches = search(library, opened, k=1)
    assert label(matches.paths[0]) == label(library.paths[60]) != label(library.paths[20])


def test_a_file_that_has_changed_is_embedded_anew(views, tmp_path):
    root = shutil.copytree(views / "seg_train", tmp_path / "dataset")
    shutil.copytree(views / "outputs", tmp_path / "outputs")
    library = ImageLibrary.load(tmp_path / "outputs", root=root)
    brick, cat = root / "brick", root / "cat"
    one, other = min(brick.iterdir()), min(cat.iterdir())
    assert {label(path) for path in search(library, one, k=4).paths} == {"brick"}
    other.replace(one)
    matches = search(library, one, k=4)
    assert {label(path) for path in matches.paths} == {"cat"}
    assert one.as_posix() not in matches.paths


def test_an_unchanged_file_needs_no_backbone(shelf, tmp_path):
    for query in ("0.jpg", tmp_path / "0.jpg", 0):
        assert search(shelf, query, k=1).paths == ["10.jpg"]


def test_a_file_that_has_gone_keeps_its_row(shelf):
    Path("0.jpg").unlink()
    assert search(shelf, "0.jpg", k=1).paths == ["10.jpg"]


@pytest.mark.parametrize("new", ["0.jpg", "other.jpg"])
def test_a_new_picture_needs_the_backbone(shelf, new):
    Image.new("RGB", (50, 50)).save(new)
    with pytest.raises(BackboneError, match="pass backbone= to ImageLibrary"):
        search(shelf, new)


@pytest.mark.parametrize("k", [0, -1, True, 2.5, "5", None, math.nan])
def test_k_is_a_whole_number_from_one(k):
    with pytest.raises(QueryError, match=f"k={re.escape(repr(k))}: ask for .* at least one"):
        search(circle(0, 10), 0, k)


@pytest.mark.parametrize("threshold", [2, -1.01, math.nan, math.inf])
def test_a_threshold_is_a_cosine(threshold):
    with pytest.raises(QueryError, match=f"threshold={threshold}: a cosine lies between -1 and 1"):
        search(circle(0, 10), 0, threshold=threshold)


@pytest.mark.parametrize("row", [-1, 3, np.int64(3), 10**20])
def test_a_row_lies_in_the_library(row):
    with pytest.raises(QueryError, match=f"row {row}: the library has rows 0 to 2"):
        search(circle(0, 10, 20), row)
    with pytest.raises(QueryError, match=f"row {row}"):
        search(circle(0, 10, 20), [0, row])


@pytest.mark.parametrize(
    "vector",
    [
        np.ones(3),
        np.ones(0),
        np.zeros(2),
        np.array([1, np.nan]),
        np.array([1, np.inf], np.float32),
        np.array([1j, 1]),
        np.array([None, 1]),
    ],
    ids=str,
)
def test_an_embedding_fits_the_library(vector):
    message = f"shape {vector.shape} and dtype {vector.dtype} is neither .* this library: (2,)"
    message = re.escape(message).replace(r"\.\*", ".*").replace(r"\ ", " ")
    with pytest.raises(QueryError, match=message):
        search(circle(0, 10), vector)


def test_an_array_of_text_is_paths():
    with pytest.raises(ImageError, match="cannot read a: no such file"):
        search(circle(0, 10), np.array(["a", "b"]))


def test_what_cannot_be_read_is_named(library, tmp_path, server):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8 no picture")
    for query, message in (
        (tmp_path / "none.jpg", r"none\.jpg: no such file"),
        ("a\0b.jpg", "null"),
        (broken, r"broken\.jpg: not a supported image format"),
        (f"{server}/none.jpg", r"/none\.jpg: .*not found"),
        (b"no picture", "10 bytes: not a supported image format"),
        (np.ones((4, 4)) * 300, "float values must lie in"),
        (None, "None: NoneType is not an image source"),
        (True, "True: bool is not an image source"),
        ([0, broken], r"broken\.jpg"),
    ):
        with pytest.raises(ImageError, match=message):
            search(library, query)


def test_the_wrong_backbone_is_refused(library, outside):
    import torch

    network = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    other = load_backbone(network, transform=lambda image: torch.rand(3, 8, 8))
    wrong = ImageLibrary(library.embeddings, library.paths, backbone=other)
    with pytest.raises(BackboneError, match="is not what made this library"):
        search(wrong, outside)
    assert found(search(wrong, 0)) == found(search(library, 0))
