"""Lists that a query reads: those whose centres are about as near as the nearest."""

import json

import numpy as np
import pytest
from faiss_cases import assert_equal, brute_force, clustered, library_of, new_queries, recall
from hypothesis import given, settings
from hypothesis import strategies as st

import simsearch as ss
from simsearch.library.user_key import signed
from simsearch.retrieval import faiss_build
from simsearch.retrieval.blas import one_blas_thread
from simsearch.retrieval.faiss import load_index
from simsearch.retrieval.faiss_build import build_index, count_lists
from simsearch.retrieval.faiss_candidates import CandidateIndex, Margins

pytest.importorskip("faiss")


@pytest.fixture(scope="module")
def listed():
    """A library of 3,000 rows, and its index of 30 lists."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(faiss_build, "CODES_PER_LIST", 100)
        patch.setattr(faiss_build, "LISTED_ROWS", 0)
        library = library_of(clustered(3000, 96))
        return library, build_index(library, "rabitq", progress=False)


def lists_read(monkeypatch):
    """Return a list that grows by how many lists each search of FAISS reads, and for how many."""
    read, find = [], CandidateIndex.find

    def spy(self, vectors, effort, mask=None):
        read.append((effort.reach, len(vectors)))
        return find(self, vectors, effort, mask)

    monkeypatch.setattr(CandidateIndex, "find", spy)
    return read


def test_a_query_reads_the_lists_near_it_and_no_others(listed, monkeypatch):
    library, index = listed
    queries, read = new_queries(library.embeddings, 60), lists_read(monkeypatch)
    for vector in queries:
        next(index.top_k(library, vector[None], 10))
    first = {reach for reach, _ in read}
    assert len(first) > 3
    assert np.median([reach for reach, _ in read]) < 30
    assert recall(index, library, queries) >= 0.98


def test_the_only_list_of_an_index_is_read_without_looking_at_its_centre(monkeypatch):
    library = library_of(clustered(1000, 48))
    index = build_index(library, "rabitq", progress=False)
    queries, read = new_queries(library.embeddings, 20), lists_read(monkeypatch)
    monkeypatch.setattr(CandidateIndex, "centre_distances", lambda *_: pytest.fail("not needed"))
    next(index.top_k(library, queries[:1], 10))
    assert read[0] == (1, 1)
    assert index.candidates.list_count == 1
    assert recall(index, library, queries) >= 0.98


def test_the_lists_of_nearly_all_near_rows_are_among_them(listed):
    library, index = listed
    candidates, queries = index.candidates, new_queries(library.embeddings, 200, seed=5)
    counts = candidates.near_lists(queries)
    order = candidates.centre_distances(queries).argsort(axis=1)
    missed = 0
    for vector, count, lists in zip(queries, counts, order, strict=True):
        near = library.embeddings[brute_force(library, vector, 10)]
        own = candidates.centre_distances(near).argmin(axis=1)
        missed += np.count_nonzero(~np.isin(own, lists[:count]))
    assert missed <= 0.02 * 10 * len(queries)


def test_queries_of_a_batch_share_searches(listed, monkeypatch):
    library, index = listed
    queries, read = new_queries(library.embeddings, 200), lists_read(monkeypatch)
    together = list(index.top_k(library, queries, 10))
    assert sum(reach % 4 == 0 for reach, _ in read) >= len({reach for reach, _ in read}) - 1
    assert len(read) <= 2 * 30 / 4
    alone = [next(index.top_k(library, vector[None], 10)) for vector in queries]
    same = [set(a.rows) == set(b.rows) for a, b in zip(together, alone, strict=True)]
    assert np.mean(same) >= 0.95


def test_a_filter_far_from_the_query_is_searched_beyond_them(listed):
    """The nearest lists hold none of the rows that are allowed."""
    library, index = listed
    shares = []
    for vector in new_queries(library.embeddings, 15, seed=6):
        scores = library.embeddings @ vector
        shares.append(recall(index, library, vector[None], 10, scores < np.median(scores)))
    assert np.mean(shares) >= 0.98


@settings(deadline=None, max_examples=30)
@given(k=st.integers(1, 80), count=st.integers(1, 9), seed=st.integers(0, 2**32))
def test_every_query_gets_k_rows_in_its_place(listed, k, count, seed):
    library, index = listed
    rng = np.random.default_rng(seed)
    queries = np.concatenate([new_queries(library.embeddings, count, seed), -np.eye(1, 96)])
    queries = queries[rng.permutation(len(queries))].astype(np.float32)
    for vector, found in zip(queries, index.top_k(library, queries, k), strict=True):
        assert len(set(found.rows.tolist())) == k
        np.testing.assert_allclose(
            found.scores, library.embeddings[found.rows].astype(float) @ vector, atol=1e-6
        )


def test_an_index_of_an_earlier_version_is_searched_by_the_distances_of_rows(
    listed, tmp_path, monkeypatch
):
    monkeypatch.setattr(faiss_build, "CODES_PER_LIST", 100)
    monkeypatch.setattr(faiss_build, "LISTED_ROWS", 0)
    rows = listed[0].embeddings[:1500]
    library_of(rows).save(tmp_path)
    library = ss.ImageLibrary.load(tmp_path)
    built = build_index(library, "rabitq", progress=False)
    assert built.candidates.knows_near_lists
    record = json.loads((tmp_path / "index.json").read_text())
    assert len(record["margins"]) == 4
    record["margins"].pop()
    (tmp_path / "index.json").write_text(json.dumps(signed(record, "index.json")))
    old = load_index(library)
    assert not old.candidates.knows_near_lists
    queries = new_queries(rows, 40)
    assert recall(old, library, queries) >= 0.98
    again = load_index(library)
    assert_equal(again.top_k(library, queries, 10), old.top_k(library, queries, 10))


def test_margins_are_read_as_they_were_written():
    assert Margins.read([0.1, 0.2, 0.3]) == Margins(0.1, 0.2, 0.3, None)
    assert Margins.read([0.1, 0.2, 0.3, None]).spread is None
    assert Margins.read([0.1, 0.2, 0.3, 0.4]).spread == 0.4
    for wrong in ([0.1, 0.2], [0.1, None, 0.3], ["x", 0.2, 0.3]):
        with pytest.raises((TypeError, ValueError)):
            Margins.read(wrong)


@pytest.mark.parametrize(
    ("rows", "lists"), [(10, 1), (7500, 1), (99_999, 1), (100_000, 40), (1_000_000, 400)]
)
def test_lists_of_short_codes_are_long(rows, lists):
    assert count_lists(rows, "rabitq") == lists


def test_one_blas_thread_and_then_as_many_as_before():
    from threadpoolctl import ThreadpoolController

    pools = ThreadpoolController().select(user_api="blas")

    def counts():
        return [pool.get_num_threads() for pool in pools.lib_controllers]

    with pools.limit(limits=2):
        before = counts()
        with one_blas_thread():
            with one_blas_thread():
                assert set(counts()) == {1}
            assert set(counts()) == {1}
        assert counts() == before
