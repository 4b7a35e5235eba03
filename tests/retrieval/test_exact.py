"""The scan against brute force, on data of every kind and through every way to an answer."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import KINDS, answers, clustered, expected, make_library, make_rows, unit

from simsearch.library.library import ImageLibrary
from simsearch.retrieval import (
    exact,
    gather,
    likely_best,
    pruned,
    pruned_copy,
    pruned_store,
    short_sums,
)


@pytest.fixture
def small(monkeypatch):
    """Let small libraries have a sketch."""
    monkeypatch.setattr(exact, "PRUNED_FROM_BYTES", 0)
    monkeypatch.setattr(pruned_copy, "LEVEL_COLUMNS", (2, 4, 8))
    monkeypatch.setattr(pruned_copy, "MAX_COLUMNS", 16)


def force(patch, width, count, kind="energy", shares=None):
    """Have every sketch made of so many levels, along directions that are good, any, or bad."""

    def plan(rows):
        rng = np.random.default_rng(0)
        dim = rows.shape[1]
        wide, levels = (width, count) if width * count <= dim else (1, 1)
        seen = {
            "energy": rows.T.astype(float) @ rows,
            "any": np.cov(rng.standard_normal((dim, 3 * dim))).reshape(dim, dim),
            "axes": np.diag(np.arange(dim)),
        }[kind]
        basis = np.linalg.eigh(seen)[1][:, ::-1][:, : wide * levels]
        left = tuple(shares or np.geomspace(0.1, 0.01, levels).tolist())[:levels]
        return pruned_copy.Plan(np.ascontiguousarray(basis, np.float32), wide, left)

    patch.setattr(exact, "PRUNED_FROM_BYTES", 0)
    patch.setattr(pruned_copy, "make_plan", plan)


def refuse(*_):
    pytest.fail("this way is not to be taken")


# Exact


@settings(max_examples=200, deadline=None)
@given(data=st.data(), seed=st.integers(0, 2**32), kind=st.sampled_from(KINDS))
def test_every_way_finds_what_brute_force_finds(data, seed, kind):
    rng = np.random.default_rng(seed)
    count, dim = data.draw(st.integers(1, 300)), data.draw(st.integers(1, 48))
    rows = make_rows(kind, count, dim, rng)
    library = ImageLibrary(rows, [f"{n:04}.jpg" for n in rng.integers(0, 2 * count, count)])
    few = library.embeddings[rng.integers(0, count, 3)]
    near, far = unit(few + 0.01 * rng.standard_normal(few.shape)), rng.standard_normal((2, dim))
    vectors = np.concatenate([few, near, -few[:1], unit(far), np.eye(1, dim, dtype=np.float32)])
    vectors = vectors[: data.draw(st.sampled_from([1, 3, len(vectors)]))]
    share = data.draw(st.none() | st.sampled_from([0, 0.01, 0.3, 0.9, 1]))
    among = None if share is None else rng.random(count) < share
    k = data.draw(st.integers(1, count + 1) | st.integers(1, 8))
    with pytest.MonkeyPatch.context() as patch:
        width, levels = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 4))
        force(patch, width, levels, data.draw(st.sampled_from(["energy", "any", "axes"])))
        patch.setattr(pruned, "DEEP_SHARE", data.draw(st.sampled_from([1 / 8, 1 / 2, 2])))
        crowded = data.draw(st.sampled_from([-2.0, 1 / 50, 2]))
        patch.setattr(exact, "CROWDED_SHARE", crowded)
        patch.setattr(pruned, "CROWDED_SHARE", crowded)
        patch.setattr(likely_best, "GROUP_ROWS", data.draw(st.sampled_from([2, 5, 64])))
        patch.setattr(likely_best, "GROUPS_PER_ROW", data.draw(st.sampled_from([1, 8])))
        patch.setattr(gather, "GATHERED_NUMBERS", data.draw(st.sampled_from([1, 100, 2**18])))
        patch.setattr(exact, "SCORES_BYTES", data.draw(st.sampled_from([1, 2**26])))
        patch.setattr(exact, "GATHER_COST", data.draw(st.sampled_from([0.0, 1.75, 10.0])))
        patch.setattr(exact, "GATHER_ROW_COST", data.draw(st.sampled_from([0.0, 60.0])))
        found = answers(library, vectors, k, among)
    assert found == [expected(library, vector, k, among) for vector in vectors]


@pytest.mark.parametrize("kind", KINDS)
def test_a_sketch_that_is_chosen_by_measure_finds_them_too(small, kind):
    rng = np.random.default_rng(1)
    library = make_library(make_rows(kind, 700, 40, rng))
    vectors = np.concatenate([library.embeddings[:20], unit(rng.standard_normal((20, 40)))])
    for k in (1, 6, 100, 700):
        assert answers(library, vectors, k) == [expected(library, v, k) for v in vectors]


def test_scores_over_one_tie_through_a_sketch(monkeypatch):
    force(monkeypatch, 1, 1)
    monkeypatch.setattr(pruned, "DEEP_SHARE", 2)
    rows = np.eye(1, 8, dtype=np.float32) * np.linspace(1, 1.000009, 9, dtype=np.float32)[:, None]
    library = ImageLibrary(rows, [f"{9 - i}.jpg" for i in range(9)])
    assert library.embeddings.max() > 1
    for sign in (1, -1):
        (found,) = exact.exact_index(library).top_k(
            library, sign * np.eye(1, 8, dtype=np.float32), 3
        )
        assert library.paths[found.rows].tolist() == ["1.jpg", "2.jpg", "3.jpg"]
        assert found.scores.tolist() == [sign] * 3


def test_no_rows_are_found_where_none_may_be(small):
    library = make_library(clustered())
    for k, among in ((0, None), (3, np.zeros(1500, bool))):
        assert answers(library, library.embeddings[:2], k, among) == [([], [])] * 2


def test_no_queries_have_no_answers(small):
    assert answers(make_library(clustered()), np.empty((0, 48)), 3) == []


# In the cheapest way


def test_most_rows_are_never_read(small, monkeypatch):
    monkeypatch.setattr(exact, "GATHER_ROW_COST", 0.0)  # which such narrow rows would not be worth
    library = make_library(clustered())
    read = []
    gathered = gather.gathered_scores

    def spy(matrix, rows, vectors):
        if matrix.shape == library.embeddings.shape:
            read.append(len(rows))
        return gathered(matrix, rows, vectors)

    monkeypatch.setattr(
        exact.ExactScan, "rank_all", lambda self, vectors: iter(map(refuse, vectors))
    )
    for module in (gather, pruned):
        monkeypatch.setattr(module, "gathered_scores", spy)
    vectors = library.embeddings[:40]
    for blocks in (np.split(vectors, 40), [vectors]):  # one at a time, and together
        read.clear()
        found = [answer for block in blocks for answer in answers(library, block, 5)]
        assert found == [expected(library, vector, 5) for vector in vectors]
        assert 5 < sum(read) / 40 < 150  # of 1500


def test_a_query_unlike_the_library_reads_every_row(small, monkeypatch):
    library = make_library(clustered())
    plain, lost = pruned.PrunedScan.rank_all, []

    def spy(self, vectors):
        lost.append(len(vectors))
        return plain(self, vectors)

    monkeypatch.setattr(
        pruned.PrunedScan, "rank_all", lambda self, vectors: (yield from spy(self, vectors))
    )
    strange = np.zeros((2, 48), np.float32)
    strange[[0, 1], [-1, -2]] = 1  # where the rows have least energy
    vectors = np.concatenate([library.embeddings[:3], strange])[[0, 3, 1, 4, 2]]
    assert answers(library, vectors, 5) == [expected(library, v, 5) for v in vectors]
    assert lost == [2]


def test_who_wants_many_rows_reads_every_row(small, monkeypatch):
    library = make_library(clustered())
    monkeypatch.setattr(pruned, "ready_copy", refuse)
    assert answers(library, library.embeddings[:1], 1500)[0] == expected(
        library, library.embeddings[0], 1500
    )


def test_of_few_rows_only_these_are_read(small, monkeypatch):
    library = make_library(clustered())
    monkeypatch.setattr(pruned, "ready_copy", refuse)
    monkeypatch.setattr(exact.ExactScan, "rank_all", refuse)
    among = np.zeros(1500, bool)
    among[[7, 8, 900]] = True
    for k in (2, 10):
        vectors = library.embeddings[:3]
        assert answers(library, vectors, k, among) == [
            expected(library, v, k, among) for v in vectors
        ]


def test_small_libraries_need_no_sketch(monkeypatch):
    monkeypatch.setattr(pruned_store, "make_copy", refuse)
    library = make_library(clustered())
    assert answers(library, library.embeddings[:1], 5)[0] == expected(
        library, library.embeddings[0], 5
    )


# Near ties


def test_short_sums_err_less_than_they_promise():
    rng = np.random.default_rng(0)
    rows = np.abs(rng.standard_normal((300, 2048)))  # all of one sign: the sums grow, and round
    rows = unit(rows)
    scores, error = short_sums.short_sum_scores(rows, rows[:7])
    reference = rows[:7].astype(float) @ rows.T.astype(float)
    assert error < exact.rounding_error(2048) / 15
    assert 0 < np.abs(scores - reference).max() < error


def test_a_crowd_is_thinned_before_it_is_scored(monkeypatch):
    rng = np.random.default_rng(0)
    rows = rng.standard_normal(512) + 0.05 * rng.standard_normal((3000, 512)) / np.sqrt(512)
    library = make_library(rows)
    seen = []
    careful = short_sums.short_sum_scores
    monkeypatch.setattr(
        short_sums, "short_sum_scores", lambda *args: seen.append(1) or careful(*args)
    )
    vectors = np.concatenate([library.embeddings[:2], unit(rng.standard_normal((1, 512)))])
    among = rng.random(3000) < 0.8
    for mask in (None, among):
        assert answers(library, vectors, 6, mask) == [
            expected(library, v, 6, mask) for v in vectors
        ]
    assert len(seen) == 2


# Memory


@pytest.mark.parametrize("sketched", [True, False])
def test_memory_stays_bounded_however_many_ask(small, monkeypatch, sketched):
    monkeypatch.setattr(exact, "SCORES_BYTES", 2**18)
    library = make_library(clustered(4000))
    vectors = library.embeddings[:2000]
    if sketched:
        assert pruned_store.pruned_copy_of(library).depth(16) > 0
    else:
        monkeypatch.setattr(exact, "PRUNED_FROM_BYTES", 2**40)
    next(exact.exact_index(library).top_k(library, vectors[:1], 5))
    tracemalloc.start()
    try:
        for found in exact.exact_index(library).top_k(library, vectors, 5):
            assert len(found.rows) == 5
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 8 * 2**18 < 4 * len(library) * len(vectors) / 10
