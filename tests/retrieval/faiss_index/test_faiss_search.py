"""Results of FAISS indexes beside brute force; filters."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from faiss_cases import (
    KINDS,
    N,
    assert_equal,
    assert_sound,
    clustered,
    cosines,
    library_of,
    recall,
    unit,
)
from hypothesis import example, given, settings
from hypothesis import strategies as st

import simsearch as ss
from simsearch.retrieval.exact import ExactIndex
from simsearch.retrieval.faiss import FaissIndex
from simsearch.retrieval.faiss_build import build_index, make_index
from simsearch.retrieval.faiss_candidates import CandidateIndex, SearchEffort

faiss = pytest.importorskip("faiss")


def test_index_finds_what_brute_force_finds(index, library, queries):
    assert recall(index, library, queries) >= (1 if index.exact else 0.98)
    assert recall(index, library, queries[:20], k=60) >= (1 if index.exact else 0.95)


def test_index_answers_without_a_scan(index, library, queries, no_scan):
    """A scan would hide a low recall."""
    for vector, found in zip(queries, index.top_k(library, queries, 10), strict=True):
        assert_sound(found, library, vector, 10)


@pytest.mark.parametrize("k", [1, 10, 100, N - 1, N, N + 1, 10 * N])
def test_k_rows_are_returned(index, library, queries, k):
    for vector, found in zip(queries[:3], index.top_k(library, queries[:3], k), strict=True):
        assert_sound(found, library, vector, k)


def test_single_query_equals_the_same_query_in_a_batch(index, library, queries):
    together = list(index.top_k(library, queries, 10))
    alone = [next(index.top_k(library, vector[None], 10)) for vector in queries]
    assert_equal(together, alone)
    assert list(index.top_k(library, queries[:0], 10)) == []


def test_blocks_of_queries_keep_their_order(indexes, library, queries, monkeypatch):
    expected = list(indexes["hnsw"].top_k(library, queries, 5))
    monkeypatch.setattr("simsearch.retrieval.faiss.BATCH_QUERIES", 7)
    assert_equal(indexes["hnsw"].top_k(library, queries, 5), expected)


def test_only_flat_is_exact(indexes):
    assert [kind for kind, index in indexes.items() if index.exact] == ["flat"]


@settings(deadline=None, max_examples=40)
@given(
    rows=st.integers(60, 400),
    dim=st.integers(1, 80),
    k=st.integers(1, 20),
    kind=st.sampled_from(["spread", "duplicates", "near ties", "few directions"]),
    filtered=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_flat_equals_exact(rows, dim, k, kind, filtered, seed):
    rng = np.random.default_rng(seed)
    spread = rng.standard_normal((rows, dim))
    embeddings = {
        "spread": spread,
        "duplicates": spread[rng.integers(0, 1 + rows // 20, rows)],
        "near ties": spread[:1] + 1e-8 * spread,
        "few directions": rng.integers(-1, 2, (rows, dim)) + np.eye(1, dim) * 3,
    }[kind]
    library = ss.ImageLibrary(embeddings, [f"{n:04}.jpg" for n in rng.permutation(rows)])
    index = untuned_flat_index(library)
    mask = rng.random(rows) < 0.7 if filtered else None
    vectors = np.concatenate([library.embeddings[:3], unit(rng.standard_normal((3, dim)))])
    found = list(index.top_k(library, vectors, k, mask))
    assert_equal(found, ExactIndex().top_k(library, vectors, k, mask))


def untuned_flat_index(library):
    """The flat index of `build_index`, without its measurements."""
    candidates = CandidateIndex(make_index(library, "flat", progress=False), "flat")
    report = ss.IndexReport("flat", "", len(library), 1, 1, 1, 1, 1)
    return FaissIndex(candidates, SearchEffort(1, 1), report, library.embeddings)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(1, 1), (1, 70), (2, 3), (15, 2), (50, 7), (200, 65), (300, 1)])
def test_any_shape_can_be_indexed(kind, shape):
    library = library_of(np.random.default_rng(0).standard_normal(shape))
    index = build_index(library, kind, progress=False)
    for vector, found in zip(
        library.embeddings[:5], index.top_k(library, library.embeddings[:5], 4), strict=True
    ):
        assert_sound(found, library, vector, 4)
    assert 0 <= index.report.recall_at_10 <= 1


@pytest.mark.parametrize("kind", KINDS)
def test_equal_rows_can_be_indexed(kind):
    library = library_of(np.tile(clustered(1, 80), (200, 1)))
    index = build_index(library, kind, progress=False)
    assert index.report.recall_at_10 == 1
    found = next(index.top_k(library, library.embeddings[:1], 5))
    assert_sound(found, library, library.embeddings[0], 5)


@pytest.mark.parametrize("kind", ["hnsw", "ivf"])
def test_missing_candidates_are_searched_for_again(indexes, library, queries, monkeypatch, kind):
    """A list may hold few rows, and not every row of a graph can be reached from everywhere."""
    index, find = indexes[kind], CandidateIndex.find

    def lose(self, vectors, effort, mask=None):
        found = find(self, vectors, effort, mask)
        if effort.candidates < 100:
            found.rows[::2, 4:] = -1
        return found

    monkeypatch.setattr(CandidateIndex, "find", lose)
    for vector, found in zip(queries, index.top_k(library, queries, 10), strict=True):
        assert_sound(found, library, vector, 10)


def test_search_from_several_threads(indexes, library, queries):
    index = indexes["hnsw"]
    expected = list(index.top_k(library, queries, 10))
    with ThreadPoolExecutor(4) as pool:
        answers = pool.map(lambda vector: next(index.top_k(library, vector[None], 10)), queries)
    assert_equal(answers, expected)


def test_number_of_faiss_threads_is_restored(indexes, library, queries):
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(3)
    try:
        list(indexes["ivf"].top_k(library, queries[:1], 10))
        assert faiss.omp_get_max_threads() == 3
    finally:
        faiss.omp_set_num_threads(before)


# Filters


@settings(deadline=None, max_examples=60)
@given(
    kind=st.sampled_from(KINDS),
    share=st.floats(0, 1),
    k=st.integers(1, 150),
    bias=st.sampled_from(["any", "near", "far"]),
    seed=st.integers(0, 99),
)
@example(kind="ivf", share=0.11, k=150, bias="far", seed=0)
@example(kind="hnsw", share=0.11, k=150, bias="far", seed=0)
@example(kind="flat", share=0.0, k=1, bias="any", seed=0)
def test_filtered_search_returns_k_allowed_rows(
    indexes, library, queries, kind, share, k, bias, seed
):
    mask = filtered(library, queries[seed], share, bias, seed)
    vectors = queries[seed : seed + 2]
    for vector, found in zip(vectors, indexes[kind].top_k(library, vectors, k, mask), strict=True):
        assert_sound(found, library, vector, k, mask)


def filtered(library, vector, share, bias, seed):
    """Allow about this share of the rows: any, the nearest to a query, or the farthest."""
    if bias == "any":
        return np.random.default_rng(seed).random(len(library)) < share
    scores = cosines(library, vector) * (1 if bias == "near" else -1)
    return scores >= np.quantile(scores, 1 - share)


@pytest.mark.parametrize("bias", ["any", "near", "far"])
@pytest.mark.parametrize("share", [0.5, 0.15, 0.01])
def test_filter_keeps_recall(index, library, queries, bias, share):
    """Also where all allowed rows lie far from the query: the effort is not tuned for that."""
    shares = []
    for seed, vector in enumerate(queries[:20]):
        mask = filtered(library, vector, share, bias, seed)
        shares.append(recall(index, library, vector[None], 10, mask))
    assert np.mean(shares) >= (1 if index.exact or share < 0.1 else 0.98)


def test_an_index_is_built_and_searched_after_training():
    """FAISS's torch utilities, which pytorch-metric-learning loads, replace some of its calls."""
    code = (
        "import faiss.contrib.torch_utils, numpy as np, simsearch as ss\n"
        "rows = np.random.default_rng(0).normal(size=(3000, 32))\n"
        "library = ss.ImageLibrary(rows, [f'{i}.jpg' for i in range(3000)])\n"
        "for kind in ('ivf', 'rabitq', 'hnsw'):\n"
        "    index = ss.build_index(library, kind)\n"
        "    assert ss.search(library, 0, k=3, index=index, exclude_query=False)[0].row == 0\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning", "-c", code],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
