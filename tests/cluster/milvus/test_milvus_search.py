"""Searches in a Milvus Lite file, beside the same searches of the library itself."""

import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from milvus_cases import COUNT, DIM, assert_same, clustered

import simsearch as ss
from simsearch.cluster.milvus.filters import describe_columns, filter_expression

pytest.importorskip("pymilvus")
pytest.importorskip("milvus_lite")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"k": 50},
        {"k": 2 * COUNT},
        {"exclude_query": False},
        {"threshold": 0.5},
        {"threshold": "auto", "k": 30},
        {"unique": True, "k": 8},
        {"diversity": 0.5},
        {"unique": 0.9, "diversity": 0.2},
        {"rerank": "k-reciprocal", "k": 20},
        {"rerank": "background", "k": 20},
        {"where": "a/b/*"},
        {"where": "a/*", "k": 40},
        {"where": {"price": (None, 0), "tags": ["red", "hat"]}},
        {"where": {"title": "item 1*"}, "k": 9},
        {"where": [5, 9, 11, 200]},
        {"where": {"new": True, "since": ("2024-01-03", "2024-01-20")}, "k": 30},
    ],
    ids=str,
)
def test_search_equals_search_of_the_library(library, remote, options):
    for query in (3, str(library.paths[100]), library.embeddings[7] + 0.01):
        assert_same(ss.search(remote, query, **options), ss.search(library, query, **options))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"combine": "mean"},
        {"combine": "mean", "weights": [1, 0.5, -0.2]},
        {"combine": "max", "where": {"weight": (0, None)}},
    ],
    ids=str,
)
def test_several_queries_equal_those_of_the_library(library, remote, options):
    assert_same(
        ss.search(remote, [3, 40, 77], **options), ss.search(library, [3, 40, 77], **options)
    )


def test_recommendations_equal_those_of_the_library(library, remote):
    options = {"disliked": [9], "exclude": [str(library.paths[20]), 21, "gone.jpg"], "k": 12}
    assert_same(
        ss.recommend(remote, [3, 4], where="a/*", **options),
        ss.recommend(library, [3, 4], where="a/*", **options),
    )
    seen = ss.search(library, 3, 100).paths  # many that may not be found
    assert_same(ss.recommend(remote, 3, exclude=seen), ss.recommend(library, 3, exclude=seen))


@pytest.mark.parametrize("kind", ["hnsw", "hnsw_sq8", "ivf", "flat"])
def test_recall_of_each_index_kind(tmp_path, kind):
    rows = clustered(3000, 48, seed=1)
    library = ss.ImageLibrary(rows, [f"{i}.jpg" for i in range(3000)])
    ss.publish(library, tmp_path / "x.db", "x", kind=kind, progress=False)
    queries = list(clustered(60, 48, seed=2).astype(np.float32))
    with ss.RemoteLibrary(tmp_path / "x.db", "x") as remote:
        found, wanted = ss.search(remote, queries, 10), ss.search(library, queries, 10)
    hits = [len(set(a.paths) & set(b.paths)) for a, b in zip(found, wanted, strict=True)]
    assert sum(hits) >= 0.99 * 600
    assert not found[0].exact
    for a, b in zip(found, wanted, strict=True):
        exact = dict(zip(b.paths, b.scores.tolist(), strict=True))
        assert all(abs(exact.get(m.path, m.score) - m.score) < 1e-3 for m in a)


# Conditions

texts = st.sampled_from(
    [
        "shoe",
        "HAT",
        "red",
        "blue",
        "strasse",
        "green",
        "Straße|GREEN",
        "item 7",
        "item ?",
        "*e*",
        "[rb]*",
        "",
    ]
) | st.text("aeb;|%_\"'\\*?[]", max_size=4)
numbers = st.integers(-25, 25) | st.floats(-3, 3).map(lambda x: round(x, 2))
limits = st.none() | numbers
ranges = st.tuples(limits, limits)
of_columns = {
    "title": texts | st.lists(texts, max_size=3),
    "tags": texts | st.lists(texts, max_size=3),
    "price": numbers | ranges | st.lists(numbers | ranges, max_size=3) | numbers.map(str),
    "weight": numbers | ranges,
    "new": st.booleans() | st.sampled_from(["true", "False", "t*"]),
    "since": st.sampled_from(["2024-01-05 00:00:00", "2024-01-05", "2024-01-1*", "*T00:00:00"])
    | st.tuples(
        st.none() | st.sampled_from(["2024-01-05", "2024-01-20"]),
        st.none() | st.sampled_from(["2024-01-10", "2025-01-01"]),
    ),
    'odd "name"': st.integers(0, 3) | ranges,
    "path": st.sampled_from(["a/*", "a/b/*", "*1.jpg", "e;f/*", "c d/0003.jpg", "A/*", "[ac]*"]),
    "folder": st.sampled_from(["a", "a/b", "a/*", "c*", "nothing"]) | st.just(["a/B", "c d"]),
}
singles = st.one_of(
    [
        st.builds(dict, st.tuples(st.tuples(st.just(name), each)))
        for name, each in of_columns.items()
    ]
)
conditions = singles | st.builds(lambda one, other: one | other, singles, singles)
globs = st.sampled_from(["a/*", "*/b/*", "c d/00*", "x", "*", "", "a/b/0001.jpg"]) | st.text(
    "abc/*?[]! d", max_size=6
)


@settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(where=globs | conditions)
def test_conditions_match_the_same_images(library, remote, where):
    expected = library.page(0, COUNT, where)
    assert remote.page(0, COUNT, where) == expected
    found = ss.search(remote, library.embeddings[1], 7, where=where)
    assert_same(found, ss.search(library, library.embeddings[1], 7, where=where))


@pytest.mark.parametrize(
    "value",
    ['" or id >= 0 or words like "', "') or (id > 0", "a\\", "%", "|", "\x00", "\ud800", "[["],
)
def test_user_text_never_reaches_an_expression(library, remote, value):
    columns = describe_columns(library.metadata)
    for where in (
        f"{value}/*",
        {"title": value},
        {"tags": [value, "red"]},
        {"folder": f"{value}/x"},
    ):
        text = filter_expression(where, columns)
        assert re.fullmatch(r'(words like "%\|([0-9a-f]{16}|more)\|%"|[()]| or | and )*', text)
        assert remote.page(0, COUNT, where) == library.page(0, COUNT, where)
    with pytest.raises(ss.QueryError, match="no column"):
        ss.search(remote, 3, where={value: 1})


@pytest.mark.parametrize(
    "where",
    [{"colour": 1}, {"price": (1, 2, 3)}, {"title": (1, 2)}, {"price": "cheap"}],
    ids=str,
)
def test_invalid_conditions_give_the_same_error(library, remote, where):
    with pytest.raises(ss.QueryError) as there:
        library.where(where)
    with pytest.raises(ss.QueryError) as here:
        ss.search(remote, 3, where=where)
    assert re.sub("such as .*", "", str(here.value)) == re.sub("such as .*", "", str(there.value))


def test_more_columns_and_tokens_than_fit(tmp_path):
    library = ss.ImageLibrary(clustered(20, 4), [f"{i}.jpg" for i in range(20)])
    table = pd.DataFrame({f"n{j}": np.arange(20) * (j + 1) for j in range(10)})
    table["words"] = [";".join(f"w{i * j}" for j in range(4000)) for i in range(20)]
    library.attach(table.assign(path=library.paths))
    ss.publish(library, tmp_path / "x.db", "x", progress=False)
    with ss.RemoteLibrary(tmp_path / "x.db", "x") as remote:
        for where in ({"n9": (50, 90)}, {"n0": 3}, {"words": "w3999"}, {"words": "w7"}):
            assert remote.page(0, 20, where) == library.page(0, 20, where) != []


# Rows, pages, metadata


def test_rows_pages_and_facts_equal_those_of_the_library(library, remote):
    assert (len(remote), remote.dim, remote.root) == (COUNT, DIM, "data")
    assert remote.overview() == library.overview()
    assert remote.threshold() == library.threshold()
    for offset, limit, where in ((0, 5, None), (630, 50, None), (3, 4, "a/*"), (900, 5, None)):
        assert remote.page(offset, limit, where) == library.page(offset, limit, where)
    assert remote.count() == COUNT
    assert remote.count({"price": (0, None)}) == library.count({"price": (0, None)})
    for row in (0, 4, 5, 639):
        assert remote.facts(row) == library.facts(row)
        assert remote.caption(row) == library.caption(row)
        assert remote.paths[row] == library.paths[row]
        assert remote.names[row] == library.names[row]
        assert (remote.embeddings[row] == library.embeddings[row]).all()
    assert (remote.embeddings[[5, 2]] == library.embeddings[[5, 2]]).all()
    assert remote.paths[np.array([5, 2])].tolist() == library.paths[[5, 2]].tolist()
    assert remote.find("./data/a/0000.jpg") == library.find("data/a/0000.jpg") == 0
    assert remote.find("nothing.jpg") is remote.find("\x00") is None
    assert [remote.has_row(row) for row in (0, COUNT, -1)] == [True, False, False]
    with pytest.raises(ss.QueryError, match="not in memory"):
        np.asarray(remote.embeddings)
    with pytest.raises(ss.QueryError, match=f"row {COUNT}"):
        ss.search(remote, COUNT)
    with pytest.raises(ss.QueryError, match="chooses no rows"):
        ss.search(remote, 3, where=np.ones(COUNT, bool))


def test_overview_of_folders_and_columns(library):
    overview = library.overview()
    assert dict(overview.folders) == {"a": 128, "a/b": 128, "a/B": 128, "c d": 128, "e;f": 128}
    columns = {column["name"]: column for column in overview.columns}
    prices = library.metadata["price"].dropna()
    assert (columns["price"]["min"], columns["price"]["max"]) == (prices.min(), prices.max())
    assert columns["price"]["kind"] == "number"
    assert {"red", "blue", "Straße", "GREEN"} < set(columns["tags"]["values"])
    assert len(columns["title"]["values"]) <= 100


def test_faiss_index_is_refused(library, remote):
    with pytest.raises(ss.QueryError, match="index= goes with a library of files"):
        ss.search(remote, 3, index=ss.build_index(library, "flat"))


def test_parts_are_refused_and_regions_compare_whole_pictures(remote):
    with pytest.raises(ss.QueryError, match="has no parts, which lie in a folder"):
        ss.search(remote, 3, parts=True)
    with pytest.raises(ss.QueryError, match="an embedding has no parts"):  # it was understood
        ss.search(remote, np.ones(DIM, np.float32), regions=True)
