"""Shared by the tests of FAISS indexes: a library of clusters, its indexes, brute force."""

import shutil

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import simsearch as ss
from simsearch.retrieval.exact import ExactIndex
from simsearch.retrieval.faiss_build import build_index
from simsearch.retrieval.faiss_compat import faiss_threads

KINDS = ("flat", "sq", "hnsw", "ivf", "ivfpq", "rabitq")
N, D = 3000, 96


def clustered(rows, dim, seed=0):
    """Rows around centres, with variances that fall from axis to axis, as in embeddings."""
    rng = np.random.default_rng(seed)
    spread = np.arange(1, dim + 1) ** -0.5
    centres = rng.standard_normal((max(1, rows // 50), dim))
    nearby = rng.standard_normal((rows, dim))
    return (1 + centres[rng.integers(0, len(centres), rows)] + 0.6 * nearby) * spread


def library_of(rows):
    return ss.ImageLibrary(rows, [f"{i:05d}.jpg" for i in range(len(rows))])


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def new_queries(rows, count, seed=9):
    """Queries unlike every row: each between two rows, nearer to the first."""
    rng = np.random.default_rng(seed)
    one, other = rng.integers(0, len(rows), (2, count))
    return unit(rows[one] + 0.3 * rows[other])


def cosines(library, vector):
    return np.clip(library.embeddings.astype(np.float64) @ vector.astype(np.float64), -1, 1)


def brute_force(library, vector, k, mask=None):
    """Rows of the k best: score every row, sort them all."""
    scores = cosines(library, vector)
    order = np.lexsort((library.paths, -scores))
    return (order if mask is None else order[mask[order]])[:k]


def recall(index, library, vectors, k=10, mask=None):
    hits = [
        len(set(found.rows) & set(brute_force(library, vector, k, mask)))
        for vector, found in zip(vectors, index.top_k(library, vectors, k, mask), strict=True)
    ]
    return sum(hits) / (k * len(vectors))


def assert_sound(found, library, vector, k, mask=None):
    """Allowed rows, k of them or all there are, none twice, best first, with true scores."""
    allowed = len(library) if mask is None else mask.sum()
    assert len(found.rows) == len(set(found.rows.tolist())) == min(k, allowed)
    assert mask is None or mask[found.rows].all()
    assert_allclose(found.scores, cosines(library, vector)[found.rows], rtol=0, atol=1e-12)
    order = np.lexsort((library.paths[found.rows], -found.scores))
    assert_array_equal(order, np.arange(len(order)))


def assert_equal(some, others):
    for one, other in zip(some, others, strict=True):
        assert_array_equal(one.rows, other.rows)
        assert_allclose(one.scores, other.scores, rtol=0, atol=1e-12)


@pytest.fixture
def no_scan(monkeypatch):
    """Fail where the exact search is used."""

    def fail(*args, **kwargs):
        raise AssertionError("the library was scanned")

    monkeypatch.setattr(ExactIndex, "top_k", fail)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """On a busy machine, FAISS's threads wait for each other longer than these tests take."""
    with faiss_threads(1):
        yield


@pytest.fixture(scope="session")
def library():
    return library_of(clustered(N, D))


@pytest.fixture(scope="session")
def queries(library):
    return new_queries(library.embeddings, 100)


@pytest.fixture(scope="session")
def indexes(library):
    """One of each kind."""
    with faiss_threads(1):
        return {kind: build_index(library, kind, progress=False) for kind in KINDS}


@pytest.fixture(params=KINDS)
def index(request, indexes):
    return indexes[request.param]


@pytest.fixture(scope="module")
def folder(library, tmp_path_factory):
    """A folder of a small library, with a graph beside it."""
    place = tmp_path_factory.mktemp("library")
    library_of(library.embeddings[:500]).save(place)
    build_index(ss.ImageLibrary.load(place), "hnsw", progress=False)
    return place


@pytest.fixture
def stored(folder, tmp_path):
    """A library in a copy of the folder, for tests that damage it."""
    shutil.copytree(folder, tmp_path / "outputs")
    return ss.ImageLibrary.load(tmp_path / "outputs")
