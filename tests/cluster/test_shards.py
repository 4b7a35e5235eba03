"""Several libraries searched as one, beside one library of all their rows."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import simsearch as ss
from simsearch.retrieval.options import SearchOptions


def joined_library(count=60, seed=0, dim=6):
    """Rows of which some are equal, with a table."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((count, dim))
    rows[count // 2] = rows[1]
    rows[-1] = rows[0]
    paths = [f"{'abc'[i % 3]}/{i:03}.jpg" for i in range(count)]
    library = ss.ImageLibrary(rows, paths)
    return library.attach(pd.DataFrame({"path": paths, "price": np.arange(count) % 7}))


def cut(library, at):
    """Cut a library into several at these rows."""
    edges = [0, *at, len(library)]
    return [
        ss.ImageLibrary(library.embeddings[start:stop], library.paths[start:stop]).attach(
            library.metadata[start:stop].assign(path=library.paths[start:stop])
        )
        for start, stop in pairwise(edges)
    ]


def same(found, expected):
    assert found.paths == expected.paths
    assert [match.row for match in found] == [match.row for match in expected]
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-12)
    for one, other in zip(found, expected, strict=True):
        assert one.percentile == other.percentile
        assert (one.caption, one.metadata, one.duplicates) == (
            other.caption,
            other.metadata,
            other.duplicates,
        )


conditions = st.sampled_from(
    [None, "a/*", {"price": (2, 4)}, {"price": 5, "folder": "b"}, [3, 30, 31, 59], "nothing/*"]
)


@settings(max_examples=25, deadline=None)
@given(
    at=st.sets(st.integers(1, 59), max_size=3).map(sorted),
    query=st.integers(0, 59),
    k=st.integers(1, 70),
    where=conditions,
    options=st.sampled_from(
        [{}, {"unique": 0.99}, {"diversity": 0.5}, {"threshold": "auto"}, {"threshold": 0.2}]
    ),
)
def test_search_equals_that_of_one_library(at, query, k, where, options):
    library = joined_library()
    shards = ss.Shards(cut(library, at))
    for asked in (query, library.paths[query], library.embeddings[query] + 0.1):
        same(
            ss.search(shards, asked, k, where=where, **options),
            ss.search(library, asked, k, where=where, **options),
        )
    same(
        ss.search(shards, [query, 7], k, combine="mean", where=where),
        ss.search(library, [query, 7], k, combine="mean", where=where),
    )
    same(
        ss.recommend(shards, [query], disliked=[9], exclude=[4, 40], k=k),
        ss.recommend(library, [query], disliked=[9], exclude=[4, 40], k=k),
    )
    assert shards.page(5, 20, where) == library.page(5, 20, where)
    assert shards.count(where) == library.count(where)
    mask = np.arange(60) % 2 == 0
    same(ss.search(shards, query, k, where=mask), ss.search(library, query, k, where=mask))


@settings(max_examples=10, deadline=None)
@given(at=st.sets(st.integers(1, 59), max_size=3).map(sorted), where=conditions)
def test_a_list_of_libraries_is_searched_as_shards(at, where):
    library = joined_library()
    parts = cut(library, at)
    for libraries in (parts, tuple(parts)):
        same(ss.search(libraries, 7, 9, where=where), ss.search(library, 7, 9, where=where))
        found, expected = (ss.search(each, [3, 50], 4) for each in (libraries, library))
        for one, other in zip(found, expected, strict=True):
            same(one, other)
        same(
            ss.recommend(libraries, [7], [3], where=where),
            ss.recommend(library, [7], [3], where=where),
        )
    assert isinstance(ss.search(parts, 7).library, ss.Shards)


@pytest.mark.parametrize("given", ["outputs", ["outputs"], [joined_library(), 3]])
def test_what_is_no_library_is_told(given):
    with pytest.raises(
        ss.QueryError, match=r"('outputs'|3) is no library: open it first, with Image"
    ):
        ss.search(given, 0)
    with pytest.raises(ss.QueryError, match="holds no library"):
        ss.recommend([], 0)


def test_rows_are_numbered_through(tmp_path):
    library = joined_library()
    shards = ss.Shards(cut(library, [20, 45]))
    assert (len(shards), shards.dim) == (60, 6)
    assert shards.find("nowhere.jpg") is None
    assert shards.find(library.paths[46]) == 46
    assert shards.facts(46) == library.facts(46)
    assert dict(shards.overview().folders) == dict(library.overview().folders)
    assert [shards.has_row(row) for row in (0, 59, 60, -1)] == [True, True, False, False]
    with pytest.raises(ss.QueryError, match="row 60"):
        ss.search(shards, 60)
    with pytest.raises(ss.QueryError, match="several libraries"):
        np.asarray(shards.embeddings)


@pytest.mark.parametrize(
    "rows",
    [[3, 60], [-1], [1.5, 2.5], [[0, 1]], ["a/*", "b/*"], np.ones(61, bool), np.ones(59, bool)],
)
def test_rows_that_are_not_there_are_refused_as_by_one_library(rows):
    library = joined_library()
    shards = ss.Shards(cut(library, [20, 45]))
    said = []
    for each in (library, shards):
        with pytest.raises(ss.QueryError, match="chooses no rows") as error:
            each.count(rows)
        said.append(str(error.value))
    assert said[0] == said[1]


def test_a_mask_may_be_a_column_of_a_table():
    library = joined_library()
    shards = ss.Shards(cut(library, [20, 45]))
    dear = library.metadata["price"] > 3
    assert shards.page(0, 60, dear) == library.page(0, 60, dear)


def test_rows_of_a_library_are_looked_up_at_once(monkeypatch):
    library, asked = joined_library(), []

    class Counted:
        def __init__(self, rows):
            self.rows = rows

        def __getitem__(self, rows):
            asked.append(rows.tolist())
            return self.rows[rows]

    counted = property(lambda one: Counted(one.embeddings))
    monkeypatch.setattr(ss.ImageLibrary, "row_lookup", counted)
    shards = ss.Shards(cut(library, [25]))
    wanted = [30, 3, 59, 3, 24]
    assert np.array_equal(shards.embeddings[wanted], library.embeddings[wanted])
    assert asked == [[3, 3, 24], [5, 34]]
    assert shards.names[wanted].tolist() == [library.names[row] for row in wanted]


def test_shards_of_another_origin_are_refused():
    with pytest.raises(ss.QueryError, match=r"holds no library"):
        ss.Shards([])
    with pytest.raises(ss.QueryError, match="one backbone and head"):
        ss.Shards([joined_library(), joined_library(dim=5)])


def test_published_shards_and_one_that_is_away(tmp_path, caplog):
    pytest.importorskip("pymilvus")
    pytest.importorskip("milvus_lite")
    library = joined_library()
    first, second = cut(library, [25])
    ss.publish(second, tmp_path / "x.db", "x", progress=False)
    with ss.RemoteLibrary(tmp_path / "x.db", "x") as remote:
        shards = ss.Shards([first, remote], partial=True)
        for where in (None, {"price": (2, 4)}, [3, 30, 59]):
            found = ss.search(shards, 3, 30, where=where)
            assert found.paths == ss.search(library, 3, 30, where=where).paths
        assert shards.missing == {}

        def away(*_, **__):
            raise ss.RemoteError("x.db#x cannot be used: it is away")

        remote.index.top_k = away
        same_but_percentile = ss.search(shards, 3, 30).paths
        assert same_but_percentile == ss.search(first, 3, 30).paths
        assert [*shards.missing.values()] == ["x.db#x cannot be used: it is away"]
        assert "The answer is partial: x.db#x" in caplog.text
        with pytest.raises(ss.RemoteError, match="it is away"):
            ss.search(ss.Shards([first, remote]), 3)


def test_options_of_a_search_are_those_of_one_library():
    shards = ss.Shards(cut(joined_library(), [30]))
    with pytest.raises(ss.QueryError, match="index= goes with a library of files"):
        ss.search(shards, 3, index=ss.build_index(joined_library(), "flat"))
    assert SearchOptions().k == len(ss.search(shards, 3))
