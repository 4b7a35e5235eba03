"""`build_index`: choice of the kind, tuning, measurement, report."""

import math
import time
from itertools import count

import numpy as np
import pytest
from faiss_cases import D, N, cosines, library_of, recall
from numpy.testing import assert_allclose

from simsearch.errors import QueryError
from simsearch.retrieval import faiss_build
from simsearch.retrieval.exact import ExactIndex, TopK
from simsearch.retrieval.faiss import FaissIndex
from simsearch.retrieval.faiss_build import EMPTY_TOP_K, build_index, measure, median_ms, recall_of
from simsearch.retrieval.faiss_candidates import SearchEffort

pytest.importorskip("faiss")


@pytest.fixture(scope="module")
def hard():
    """A library without clusters or principal axes, and its inverted lists."""
    library = library_of(np.random.default_rng(0).standard_normal((N, D)))
    return library, build_index(library, "ivf", progress=False)


def test_reported_recall_equals_brute_force(index, library):
    rows = np.sort(np.random.default_rng(2).choice(N, 300, replace=False))
    hits = []
    for row in rows:
        scores = cosines(library, library.embeddings[row])
        scores[row] = -2
        best = np.argsort(-scores)[:10]
        found = next(index.top_k(library, library.embeddings[row][None], 11)).rows
        hits.append(len(set(found[found != row][:10]) & set(best)))
    assert index.report.recall_at_10 == pytest.approx(sum(hits) / 3000, abs=1e-9)
    assert index.report.recall_at_10 >= 0.99


def test_report_of_a_weak_index_is_measured(hard):
    """Its recall is measured, not the one that the effort was tuned for."""
    library, index = hard
    candidates = index._candidates
    lazy = FaissIndex(candidates, SearchEffort(20, 3), index.report, library.embeddings)
    measured = measure(lazy, candidates, library).recall_at_10
    rows = np.sort(np.random.default_rng(2).choice(N, 300, replace=False))
    with_itself = recall(lazy, library, library.embeddings[rows], k=11)
    assert measured == pytest.approx((11 * with_itself - 1) / 10, abs=0.01)
    assert measured < 0.7


def test_hard_rows_get_more_effort(hard, indexes):
    _, index = hard
    assert index._effort.reach > indexes["ivf"]._effort.reach
    assert index.report.recall_at_10 >= 0.99


def test_effort_is_tuned_by_rows_and_by_mixtures(library, monkeypatch):
    asked, real = [], ExactIndex.top_k

    def spy(self, library, vectors, *args):
        asked.append(vectors)
        return real(self, library, vectors, *args)

    monkeypatch.setattr(ExactIndex, "top_k", spy)
    build_index(library, "sq", progress=False)
    nearest = (asked[0] @ library.embeddings.T).max(axis=1)
    assert_allclose(np.linalg.norm(asked[0], axis=1), 1, atol=1e-6)
    assert (nearest > 0.99999).sum() == (nearest < 0.9999).sum() == 300


def test_filter_or_larger_k_takes_more_effort(indexes):
    candidates, reach = indexes["ivf"]._effort
    assert indexes["ivf"].effort_for(10, 1) == (candidates, reach)
    assert indexes["ivf"].effort_for(1, 0.25) == (candidates, 4 * reach)
    assert indexes["ivf"].effort_for(40, 1) == (4 * candidates, 2 * reach)
    assert indexes["flat"].effort_for(40, 0.5).candidates == 56


def test_times_are_medians_of_single_queries():
    asked = count()

    def search(vector):
        assert vector.shape == (1, 4)
        time.sleep((0.001, 0.02, 0.2)[next(asked)])
        yield None

    assert 20 <= median_ms(search, np.zeros((3, 4), np.float32)) < 150


def test_query_exact_and_build_times_are_measured_apart(library, monkeypatch):
    """Exact search slowed by 20 ms shows in `exact_ms` alone, a slow start in the build time."""
    real, make = ExactIndex.top_k, faiss_build.make_index

    def slow(*args):
        time.sleep(0.02)
        return real(*args)

    def slow_make(*args):
        time.sleep(0.3)
        return make(*args)

    monkeypatch.setattr(ExactIndex, "top_k", slow)
    monkeypatch.setattr(faiss_build, "make_index", slow_make)
    started = time.perf_counter()
    report = build_index(library, "sq", progress=False).report
    assert report.exact_ms >= 20 > report.ms_per_query > 0
    assert 0.3 <= report.build_seconds < time.perf_counter() - started


def test_report_prints_recall_kind_and_reason(indexes):
    text = str(indexes["ivf"].report)
    assert text.startswith("ivf index of 3,000 images, approximate: as asked for\nrecall@10  0.99")
    assert "exact" in str(indexes["flat"].report).splitlines()[0]
    assert repr(indexes["hnsw"]) == "FaissIndex(hnsw, 3,000 images)"


def test_quantised_indexes_are_smaller(indexes, library):
    sizes = [indexes[kind].report.size_bytes for kind in ("flat", "hnsw", "sq", "ivfpq")]
    assert sizes == sorted(sizes, reverse=True)
    assert library.embeddings.nbytes <= sizes[0] < 1.01 * library.embeddings.nbytes + 1000


def test_auto_chooses_by_size_and_gives_the_reason(library, monkeypatch):
    small = library_of(library.embeddings[:300])
    for limits, kind in (((301, 302), "flat"), ((300, 300), "hnsw"), ((10, 299), "ivfpq")):
        monkeypatch.setattr(faiss_build, "SCAN_MAX_ROWS", limits[0])
        monkeypatch.setattr(faiss_build, "GRAPH_MAX_ROWS", limits[1])
        index = build_index(small, progress=False)
        assert index.kind == index.report.kind == kind
        assert f"{limits[kind != 'flat']} images" in index.report.why


def test_unknown_kind_is_refused(library):
    with pytest.raises(QueryError, match=r"kind='annoy': choose one of \('auto', 'flat'"):
        build_index(library, "annoy")


def test_progress_bar(library, capsys):
    small = library_of(library.embeddings[:50])
    build_index(small, "sq")
    assert "Indexing: 100%" in capsys.readouterr().err
    build_index(small, "sq", progress=False)
    assert capsys.readouterr().err == ""


def test_recall_counts_equal_scores_alike():
    truth = [TopK(np.array([1, 2, 3]), np.array([0.9, 0.8, 0.8]))]
    tied = [TopK(np.array([1, 7, 8]), np.array([0.9, 0.8, 0.8]))]
    worse = [TopK(np.array([1, 7, 8]), np.array([0.9, 0.8, 0.7]))]
    assert recall_of(tied, truth) == 1
    assert recall_of(worse, truth) == pytest.approx(2 / 3)
    assert recall_of([EMPTY_TOP_K], truth) == 0
    assert recall_of([EMPTY_TOP_K], [EMPTY_TOP_K]) == 1
    assert not math.isnan(recall_of([], []))
