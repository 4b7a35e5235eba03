"""Queries made of numbers, against an oracle of the rule: embeddings, pictures, or refused."""

import array as arrays
import io
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tiny import tiny_backbone

import simsearch as ss
from simsearch.errors import ArrayError, ImageError, QueryError, SimsearchError
from simsearch.images.decode import load_image
from simsearch.library.library import ImageLibrary
from simsearch.retrieval.query import resolve
from simsearch.retrieval.recommend import recommend
from simsearch.retrieval.search import search

ROWS = 12


class Recorder(ImageLibrary):
    """A library that keeps the pictures it is asked to embed, and embeds each as its first row."""

    def encode(self, images):
        """Return the first row for each image."""
        for image in images:
            load_image(image)
        self.pictures = list(images)
        return np.repeat(self.embeddings[:1], len(images), axis=0)


def make_library(dim):
    rows = np.random.default_rng(dim).normal(size=(ROWS, dim))
    library = Recorder(rows, [f"{i:02}.jpg" for i in range(ROWS)])
    library.pictures = []
    return library


def scores(library, vector):
    """Cosines of a vector with all rows, by plain numpy, best first."""
    vector = np.asarray(vector, np.float64)
    return np.sort(library.embeddings @ (vector / np.linalg.norm(vector)))[::-1]


def is_embedding(vector, dim):
    numeric = vector.dtype.kind in "fiu" and vector.shape == (dim,)
    return numeric and bool(np.isfinite(vector).all() and np.any(vector))


def are_pixels(array):
    if array.dtype.kind == "f":
        return bool(((array >= 0) & (array <= 1)).all())
    return array.dtype.newbyteorder("=") in (np.bool_, np.uint8, np.uint16)


def unit_norm(array):
    if array.dtype.kind != "f":
        return False
    norms = np.sqrt((array.astype(np.float64) ** 2).sum(axis=-1))
    return bool((abs(norms - 1) < 0.01).all())


def oracle(array, dim):
    """Return "picture", "refused", or the embeddings that are meant."""
    if array.ndim == 1:
        return array[None] if is_embedding(array, dim) else "refused"
    if array.ndim == 2 and array.shape[1] == dim:
        certain = len(array) == 1 or unit_norm(array)
        certain |= array.dtype.kind != "b" and not are_pixels(array)
        fit = all(is_embedding(row, dim) for row in array)
        return array if certain and fit else "refused"
    channels = array.shape[2] if array.ndim == 3 else 1
    if array.ndim not in {2, 3} or channels not in {1, 3, 4} or not are_pixels(array):
        return "refused"
    grey = array[:, :, 0] if array.ndim == 3 and channels == 1 else array
    if grey.ndim == 3:
        return "refused" if channels == dim and unit_norm(grey) else "picture"
    transposed = len(grey) == dim and unit_norm(grey.T)
    return "refused" if 1 in grey.shape or unit_norm(grey) or transposed else "picture"


DTYPES = ["f2", "f4", "f8", "u1", "u2", "i1", "i4", "i8", "?", "c8", ">f4", ">u2"]


HOW = ["normal", "unit", "levels", "bytes", "zero", "unit columns", "nan"]


@st.composite
def numbers(draw):
    """An array of any shape, dtype and range, and the width of a library's embeddings."""
    dim = draw(st.sampled_from([1, 3, 4, 5]))
    side = st.sampled_from([1, 2, 3, 4, 5, 6])
    shape = draw(
        st.sampled_from([(dim,), (1, dim), (2, dim), (3, dim), (dim, 1), (dim, 3), (2, dim, 1)])
        | st.lists(side, min_size=1, max_size=4).map(tuple)
    )
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    how = draw(
        st.sampled_from(["normal", "unit", "levels", "bytes", "zero", "unit columns", "nan"])
    )
    values = rng.normal(size=shape)
    if how in {"levels", "nan"}:
        values = rng.random(shape)
    if how == "bytes":
        values = rng.integers(0, 256, shape)
    if how == "zero":
        values = np.zeros(shape)
    axis = {"unit": -1, "unit columns": 0}.get(how)
    if axis is not None:
        values = np.abs(values) / np.linalg.norm(values, axis=axis, keepdims=True)
    if how == "nan":
        values.flat[0] = np.nan
    with np.errstate(all="ignore"):
        array = values.astype(draw(st.sampled_from(DTYPES)))
    return np.asfortranarray(array) if draw(st.booleans()) else array, dim


CONTAINERS = {
    "array": lambda array: array,
    "tensor": lambda array: torch.from_numpy(np.ascontiguousarray(array)),
    "frame": lambda array: (pd.Series if array.ndim == 1 else pd.DataFrame)(array),
    "read-only view": lambda array: np.lib.stride_tricks.as_strided(array, writeable=False),
}


def fits(container, array):
    native = array.dtype.isnative and array.dtype != np.uint16
    return {"tensor": native, "frame": native and array.ndim < 3}.get(container, True)


@settings(max_examples=600, deadline=None)
@given(numbers(), st.sampled_from(sorted(CONTAINERS)))
def test_an_array_is_embeddings_or_a_picture_or_refused(given_numbers, container):
    array, dim = given_numbers
    library, meant = make_library(dim), oracle(array, dim)
    query = CONTAINERS[container](array) if fits(container, array) else array
    if isinstance(meant, str) and meant == "refused":
        with pytest.raises(ArrayError) as error:
            search(library, query)
        assert isinstance(error.value, QueryError)
        assert "Image.fromarray(array)" in str(error.value)
        assert f"({dim},)" in str(error.value)
        assert library.pictures == []
        return
    answers = search(library, query, k=ROWS)
    if isinstance(meant, str):
        (picture,) = library.pictures
        np.testing.assert_array_equal(picture, array)
        return
    assert library.pictures == []
    assert isinstance(answers, list) == (len(meant) > 1)
    for found, vector in zip(answers if len(meant) > 1 else [answers], meant, strict=True):
        np.testing.assert_allclose(found.scores, scores(library, vector), atol=2e-6)


@settings(max_examples=200, deadline=None)
@given(numbers())
def test_a_list_of_floats_is_one_embedding_and_a_list_of_lists_several(given_numbers):
    array, dim = given_numbers
    array = array.astype("f8") if array.dtype.kind in "fiub" else np.zeros((2, dim))
    library = make_library(dim)
    rows = [array] if array.ndim == 1 else list(array)
    rows = [row[0] if row.shape == (1, dim) else row for row in rows]
    for listed in (array.tolist(), tuple(array.tolist())):
        if not all(is_embedding(row, dim) for row in rows):
            with pytest.raises(QueryError):
                search(library, listed)
            continue
        answers = search(library, listed, k=ROWS)
        assert isinstance(answers, list) == (array.ndim > 1)
        for found, row in zip(answers if array.ndim > 1 else [answers], rows, strict=True):
            np.testing.assert_allclose(found.scores, scores(library, row), atol=2e-6)
    assert library.pictures == []


VECTOR = np.array([0.25, -0.5, 1.0, 0, 2.0])


@pytest.mark.parametrize(
    "query",
    [
        VECTOR.tolist(),
        tuple(VECTOR),
        [Fraction(1, 4), Fraction(-1, 2), 1, 0, 2],
        [0.25, -0.5, 1, 0, np.float32(2)],
        arrays.array("d", VECTOR),
        torch.tensor(VECTOR, requires_grad=True),
        torch.tensor(VECTOR[None], dtype=torch.bfloat16),
        pd.Series(VECTOR, index=list("abcde")),
        pd.Series(VECTOR, dtype="Float64"),
        VECTOR.astype(object),
        np.ma.masked_array(VECTOR, mask=False),
        VECTOR * 1e-250,
        VECTOR * 1e250,
        np.longdouble(VECTOR),
        (VECTOR * 4).astype(np.int8)[None],
        np.asfortranarray(np.stack([VECTOR, VECTOR]))[:1],
    ],
    ids=lambda query: type(query).__name__,
)
def test_every_container_of_an_embedding_is_that_embedding(query):
    library = make_library(5)
    expected = search(library, VECTOR, k=ROWS)
    found = search(library, query, k=ROWS)
    assert found.paths == expected.paths
    np.testing.assert_allclose(found.scores, scores(library, VECTOR), atol=1e-6)


@pytest.mark.parametrize(
    "query",
    [
        [True, False, True, False, True],
        [[0.5, 1, 2, 3]],
        [[[0.5, 1, 2, 3, 4]], [[0.5, 1, 2, 3, 4], [1, 2, 3, 4, 5]]],
        [[0.5, [1, 2], 3, 4, 5]],
        [0.5, 10**400, 0, 0, 0],
        [np.ones((2, 5)) * 2],
        np.float64(0.5),
        np.ma.masked_array(VECTOR, mask=[1, 0, 0, 0, 0]),
        pd.Series([1.0, None, 2, 3, 4], dtype="Float64"),
        pd.Series([*"abcd", 5]),
        pd.DataFrame({name: ["a", "b"] for name in "abcde"}),
        torch.ones(5) * 1j,
        torch.eye(5).to_sparse(),
    ],
    ids=str,
)
def test_what_is_no_embedding_is_refused_by_name(query):
    library = make_library(5)
    with pytest.raises((QueryError, ImageError), match=r"array|not an image source"):
        search(library, query)
    assert library.pictures == []


def test_whole_numbers_in_a_list_are_rows():
    library = make_library(3)
    rows = [search(library, row, k=4).paths for row in (2, 0, 1)]
    assert [found.paths for found in search(library, [2, 0, 1], k=4)] == rows
    for one in (np.array(2), torch.tensor(2), np.int8(2)):
        assert search(library, one, k=4).paths == rows[0]
    vector = search(library, np.array([2, 0, 1]), k=ROWS)
    np.testing.assert_allclose(vector.scores, scores(library, [2, 0, 1]), atol=1e-6)


def test_a_file_that_is_open_is_not_taken_for_a_tensor():
    stream = io.BufferedReader(io.BytesIO(b"abc"))
    assert resolve(make_library(3), stream).vectors is None
    assert stream.read() == b"abc"


@pytest.mark.parametrize("dtype", ["u1", "u2", "?", "f4"])
def test_what_may_be_both_is_refused_and_either_way_to_say_it_works(dtype):
    library = make_library(5)
    array = np.array([[0, 1, 1, 0, 1], [1, 0, 0, 1, 1]], dtype)
    with pytest.raises(ArrayError, match=r"may be a picture or 2 embeddings; say what is meant"):
        search(library, array)
    search(library, Image.fromarray(array))
    assert library.pictures.pop().size == (5, 2)
    if dtype != "?":
        found = search(library, array[0], k=ROWS)
        np.testing.assert_allclose(found.scores, scores(library, array[0]), atol=1e-6)


def test_embeddings_are_weighted_combined_and_recommended_as_queries():
    library = make_library(5)
    several = np.stack([VECTOR, VECTOR[::-1]])
    mean = search(library, several, k=ROWS, combine="mean", weights=[3, 1])
    units = several / np.linalg.norm(several, axis=1, keepdims=True)
    np.testing.assert_allclose(mean.scores, scores(library, [3, 1] @ units), atol=1e-6)
    listed = search(library, [VECTOR[None], VECTOR[None, ::-1]], k=ROWS, combine="mean")
    liked = recommend(library, torch.tensor(several), k=ROWS)
    assert liked.query == "2 liked"
    assert liked.paths == listed.paths
    assert recommend(library, VECTOR.tolist(), k=3).query == "1 liked"
    assert search(library, np.ones((0, 5))) == []


UNIT = np.full((1, 16), 0.25, np.float32)


@pytest.mark.parametrize(
    "array",
    [UNIT, UNIT.T, np.repeat(UNIT, 3, axis=0), np.full((3, 16), 0.5), np.full((1, 9), 0.5)],
    ids=lambda array: str(array.shape),
)
def test_what_embeds_pictures_refuses_embeddings(array):
    backbone = tiny_backbone()
    library = ImageLibrary(np.eye(16), [f"{i}.jpg" for i in range(16)], backbone=backbone)
    for embed in (
        lambda: ss.embed_images(array, backbone),
        lambda: ss.embed_images(["absent.jpg", array], backbone),
        lambda: library.encode([array]),
        lambda: library.encode(array),
        lambda: backbone.encode([array]),
        lambda: ss.heat_map(library, array, library.embeddings[0]),
    ):
        with pytest.raises(ArrayError, match=r"Image\.fromarray\(array\)"):
            embed()


def test_a_bare_picture_is_not_embedded_line_by_line():
    picture = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    backbone = tiny_backbone()
    with pytest.raises(ArrayError, match="give a list of images"):
        backbone.encode(picture)
    stack = np.stack([picture, picture[::-1]])
    np.testing.assert_array_equal(backbone.encode(stack), backbone.encode(list(stack)))


@pytest.mark.parametrize("array", [np.array, lambda paths: np.array(paths, object), pd.Series])
def test_an_array_of_paths_is_queries(array):
    library = make_library(5)
    paths = library.paths[[3, 1]].tolist()
    found = search(library, array(paths), k=2)
    assert [one.paths for one in found] == [one.paths for one in search(library, paths, k=2)]
    assert [one.query for one in found] == paths


@pytest.mark.parametrize(
    "exclude", [VECTOR, [VECTOR], [0.5], None, True, np.array([True, False]), [b"00.jpg"], 1.5]
)
def test_what_is_no_row_cannot_be_left_out(exclude):
    with pytest.raises(QueryError, match="cannot be left out: give row numbers or paths"):
        recommend(make_library(5), [0], exclude=exclude)


@pytest.mark.parametrize(
    "images", ["00.jpg", b"\xff\xd8", {"a": "00.jpg"}, {"00.jpg"}, None, 1.5, iter(["00.jpg"])]
)
def test_one_image_in_place_of_a_list_is_refused(images):
    with pytest.raises(ArrayError, match=r"give a list of images, such as \[image\], not"):
        tiny_backbone().encode(images)


@pytest.mark.parametrize("query", [bytearray(10**6), torch.zeros(3, 9, 9, 9), {*range(1000)}])
def test_what_is_no_query_is_named_in_one_short_line(query):
    with pytest.raises(SimsearchError) as caught:
        search(make_library(5), query)
    assert len(str(caught.value)) < 400
    assert "\n" not in str(caught.value)
