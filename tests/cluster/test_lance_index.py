"""Approximate indexes of tables in LanceDB: recall, conditions, versions, and what is refused."""

import numpy as np
import pandas as pd
import pytest

import simsearch as ss
from simsearch.cluster import lance_index
from simsearch.cluster.lance import LanceLibrary
from simsearch.cluster.lance_index import LanceListIndex

lancedb = pytest.importorskip("lancedb")

COUNT, DIM = 3_000, 16


def make_library(seed=0):
    centres = np.random.default_rng(0).standard_normal((60, DIM))
    rng = np.random.default_rng(seed + 1)
    rows = centres[rng.integers(0, 60, COUNT)] + rng.standard_normal((COUNT, DIM))
    paths = [f"{'abc'[i % 3]}/{i:04}.jpg" for i in range(COUNT)]
    table = pd.DataFrame({"path": paths, "price": [i % 40 for i in range(COUNT)]})
    return ss.ImageLibrary(rows.astype("f4"), paths).attach(table)


@pytest.fixture(scope="module", params=["ivf_hnsw_sq", "ivf_pq"])
def indexed(request, tmp_path_factory):
    """A library, and a table of it with an index of several lists."""
    library = make_library()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lance_index, "MIN_ROWS", 1_000)
        patch.setattr(lance_index, "GRAPH_ROWS", 1_000)
        patch.setattr(lance_index, "LIST_ROWS", 300)
        patch.setattr(lance_index, "QUERIES", 40)
        folder = tmp_path_factory.mktemp("db") / "x.lancedb"
        published = LanceLibrary.publish(library, folder, "a")
        return library, published.build_index(request.param), request.param


def new_queries(count=12):
    """Rows of the same kind that are in no library."""
    return np.asarray(make_library(seed=1).embeddings[:count])


def recall(searched, library, where=None):
    hits = 0
    for query in new_queries():
        found, exact = (ss.search(one, query, 10, where=where) for one in (searched, library))
        hits += len({*found.paths} & {*exact.paths})
        known = dict(zip(exact.paths, exact.scores, strict=True))
        for path, score in zip(found.paths, found.scores, strict=True):
            assert score == known.get(path, score)  # in float64, as of files
    return hits / (10 * len(new_queries()))


def test_the_recall_asked_for_is_stated_and_reached(indexed):
    library, searched, kind = indexed
    report = searched.index.report
    assert (report.kind, report.rows) == (kind, COUNT)
    assert 1 <= report.probes <= report.lists
    assert report.recall_at_10 >= 0.93  # of 20 queries: a hundred say more
    assert recall(searched, library) >= 0.9
    assert not ss.search(searched, 3, 5).exact


def test_conditions_hold(indexed, monkeypatch):
    library, searched, _ = indexed
    assert recall(searched, library, "a/*") >= 0.9  # a third of the rows
    for match in ss.search(searched, new_queries()[0], 50, where={"price": (0, 19)}):
        assert match.metadata["price"] <= 19
    for gathered in (0, 4096):  # few rows are ranked exactly, by a scan or by reading them
        monkeypatch.setattr("simsearch.cluster.lance_scan.GATHERED_ROWS", gathered)
        monkeypatch.setattr(lance_index, "GATHERED_ROWS", gathered)
        assert recall(searched, library, {"price": 5}) == 1


def test_more_than_the_lists_hold_is_found_by_a_scan(indexed, monkeypatch):
    library, searched, _ = indexed
    monkeypatch.setattr(lance_index, "find_in_table", lambda *_, **__: (np.arange(3), np.ones(3)))
    assert ss.search(searched, 7, 20).paths == ss.search(library, 7, 20).paths


def test_it_can_be_left_aside_and_ends_with_the_next_publication(indexed, tmp_path):
    library, searched, _ = indexed
    place = searched._place
    assert isinstance(LanceLibrary(*place).index, LanceListIndex)
    exact = LanceLibrary(*place, use_index=False)
    assert recall(exact, library) == 1
    assert ss.search(exact, 3, 5).exact
    LanceLibrary.publish(library, tmp_path / "y.lancedb", "a")
    again = LanceLibrary.publish(library, tmp_path / "y.lancedb", "a")
    assert again.index.exact


def test_what_is_refused(tmp_path):
    library = make_library()
    published = LanceLibrary.publish(library, tmp_path / "x.lancedb", "a")
    with pytest.raises(ss.LibraryError, match="fewer than 10,000 are searched as quickly"):
        published.build_index()
    with pytest.raises(ss.QueryError, match="give one of 'ivf_hnsw_sq', 'ivf_pq'"):
        published.build_index("hnsw")
    with pytest.raises(ss.QueryError, match=r"give a share from 0\.5"):
        published.build_index(recall=1)
    LanceLibrary.publish(library, tmp_path / "x.lancedb", "a")
    with pytest.raises(ss.LibraryError, match="has a newer version: call refresh"):
        published.build_index()
