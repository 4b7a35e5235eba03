"""`build_index`: choice of the kind, tuning, measurement, report."""

import math
import time
from itertools import count

import numpy as np
import pytest
from faiss_cases import D, N, cosines, library_of, recall, unit
from numpy.testing import assert_allclose

from simsearch.errors import QueryError
from simsearch.retrieval import faiss_build
from simsearch.retrieval.exact import ExactIndex, TopK
from simsearch.retrieval.faiss import FaissIndex
from simsearch.retrieval.faiss_build import build_index
from simsearch.retrieval.faiss_candidates import CandidateIndex, SearchEffort
from simsearch.retrieval.faiss_held_out import EMPTY_TOP_K, ask_questions, hold_out, recall_of
from simsearch.retrieval.faiss_tune import measure_recall, median_ms

faiss = pytest.importorskip("faiss")


@pytest.fixture(scope="module")
def hard():
    """A library without clusters or principal axes, and its inverted lists."""
    library = library_of(np.random.default_rng(0).standard_normal((N, D)))
    return library, build_index(library, "ivf", progress=False)


def measured(library, kind):
    """The queries of one kind that measured, and the rows that were in the index by then."""
    new, held = hold_out(library)
    kept = np.ones(len(library), bool)
    kept[held] = False
    (asked,) = [one for one in ask_questions(library, new, held)[1] if one.kind == kind]
    return asked, kept


def as_measured(index, library, kept):
    """The index before the rows that were held out, its last ones, were added."""
    now, count = index.candidates, np.count_nonzero(kept)
    raw = faiss.clone_index(now.raw)
    raw.remove_ids(faiss.IDSelectorRange(int(count), len(library)))
    candidates = CandidateIndex(raw, now.kind, now.rows, now.margins)
    return FaissIndex(candidates, index.effort, index.report, library.embeddings)


@pytest.mark.parametrize("queries_of", ["like", "new", "unlike"])
def test_reported_recall_equals_brute_force(index, library, queries_of):
    if index.exact and queries_of == "new":
        assert index.report.recall_new is None
        return
    asked, kept = measured(library, queries_of)
    kept |= index.exact
    is_graph = index.kind == "hnsw"  # is another one since, and lets no row go
    then = index if is_graph or index.exact else as_measured(index, library, kept)
    hits = []
    for vector, row in zip(asked.vectors, asked.own, strict=True):
        scores = np.where(kept, cosines(library, vector), -2)
        if row >= 0:
            scores[row] = -2
        found = next(then.top_k(library, vector[None], 11, kept if is_graph else None)).rows
        tenth = np.sort(scores)[-10]  # one that scores as high counts as well
        hits.append(np.count_nonzero(scores[found[found != row][:10]] >= tenth - 1e-6))
    reported = getattr(index.report, f"recall_{queries_of}")
    error = 0.02 if is_graph else 0.0005
    assert reported == pytest.approx(sum(hits) / (10 * len(hits)), abs=error)
    assert index.report.recall_at_10 >= 0.99


def test_new_queries_and_their_near_copies_are_not_in_the_index(library):
    new, held = hold_out(library)
    assert set(new) <= set(held)
    assert len(new) > 20
    assert len(held) <= 0.2 * len(library)
    asked, kept = measured(library, "new")
    for vector, best in zip(asked.vectors, asked.truth, strict=True):
        scores = np.sort(cosines(library, vector))[::-1]
        limit = (scores[1] + scores[100]) / 2
        assert best.scores[0] <= limit
        assert kept[best.rows].all()


def test_report_of_a_weak_index_is_measured(hard):
    """Its recall is measured, not the one that the effort was tuned for."""
    library, index = hard
    candidates = CandidateIndex(index.candidates.raw, "ivf")
    lazy = FaissIndex(candidates, SearchEffort(20, 3), index.report, library.embeddings)
    asked, _ = measured(library, "like")
    recalls = measure_recall(lazy, library, [asked])
    assert recalls["recall_at_10"] == recalls["recall_like"] < 0.7
    assert recalls["recall_floor"] <= recalls["recall_like"]


def test_low_recall_is_told(library, monkeypatch, caplog):
    monkeypatch.setattr(faiss_build, "tune", lambda index, *_: (SearchEffort(20, 1), None))
    report = build_index(library, "ivf", progress=False).report
    assert report.recall_at_10 < 0.9
    assert "below 0.99" in str(report)
    assert "less than 0.99" in caplog.text


def test_hard_rows_get_more_effort(hard, indexes):
    _, index = hard
    assert index.effort.reach > indexes["ivf"].effort.reach
    assert index.report.recall_at_10 >= 0.99


def test_pictures_unlike_any_are_far_from_all_rows(library):
    asked, _ = measured(library, "unlike")
    assert_allclose(np.linalg.norm(asked.vectors, axis=1), 1, atol=1e-6)
    rows, _ = measured(library, "like")
    nearest = [np.median([best.scores[0] for best in some.truth]) for some in (asked, rows)]
    assert nearest[0] < nearest[1] - 0.02


def test_own_queries_are_measured(library, queries):
    report = build_index(library, "rabitq", progress=False, queries=queries).report
    assert report.recall_asked >= 0.99
    assert "your queries" in str(report)
    assert build_index(library, "sq", progress=False).report.recall_asked is None


def test_whole_library_is_found_after_rows_were_held_out(index, library):
    _, held = hold_out(library)
    for row, found in zip(
        held[:50], index.top_k(library, library.embeddings[held[:50]], 1), strict=True
    ):
        assert found.rows[0] == row


def test_stated_recall_holds_for_pictures_unlike_the_library():
    """Six views of each picture; new ones differ in directions in which the library does not."""
    rng = np.random.default_rng(0)
    dim, falling = 256, np.arange(1, 257) ** -0.5
    pictures = rng.standard_normal((1500, dim)) * falling
    views = np.repeat(pictures, 6, axis=0) + 0.1 * rng.standard_normal((9000, dim)) * falling[::-1]
    library = library_of(views)
    new = unit(
        0.5 * rng.standard_normal((100, dim)) * falling
        + rng.standard_normal((100, dim)) * falling[::-1]
    )
    for kind in ("rabitq", "sq", "hnsw", "ivf"):
        index = build_index(library, kind, progress=False)
        assert recall(index, library, new) >= min(index.report.recall_at_10, 0.99) - 0.01, kind


def test_filter_or_larger_k_takes_more_effort(indexes):
    candidates, reach = indexes["ivf"].effort
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
    real, make = ExactIndex.top_k, faiss_build.empty_index

    def slow(*args):
        time.sleep(0.02)
        return real(*args)

    def slow_make(*args):
        time.sleep(0.3)
        return make(*args)

    monkeypatch.setattr(ExactIndex, "top_k", slow)
    monkeypatch.setattr(faiss_build, "empty_index", slow_make)
    started = time.perf_counter()
    report = build_index(library, "sq", progress=False).report
    assert report.exact_ms >= 20 > report.ms_per_query > 0
    assert 0.3 <= report.build_seconds < time.perf_counter() - started


def test_report_prints_recall_kind_and_reason(indexes):
    text = str(indexes["ivf"].report)
    assert text.startswith("ivf index of 3,000 images, approximate: as asked for\nrecall@10  ")
    for words in (
        "images of the library ",
        "new images ",
        "images unlike any ",
        "worst fifth",
    ):
        assert words in text
    assert "exact" in str(indexes["flat"].report).splitlines()[0]
    assert repr(indexes["hnsw"]) == "FaissIndex(hnsw, 3,000 images)"


def test_quantised_indexes_are_smaller(indexes, library):
    sizes = [indexes[kind].report.size_bytes for kind in ("flat", "hnsw", "sq", "ivfpq", "rabitq")]
    assert sizes == sorted(sizes, reverse=True)
    assert library.embeddings.nbytes <= sizes[0] < 1.01 * library.embeddings.nbytes + 1000


def test_auto_chooses_by_size_and_gives_the_reason(library, monkeypatch):
    small = library_of(library.embeddings[:300])
    for limit, kind, why in ((301, "flat", "301 images"), (300, "rabitq", "smallest")):
        monkeypatch.setattr(faiss_build, "SCAN_MAX_ROWS", limit)
        index = build_index(small, progress=False)
        assert index.kind == index.report.kind == kind
        assert why in index.report.why


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
