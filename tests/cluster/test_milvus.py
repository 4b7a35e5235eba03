"""Searches on a real Milvus Lite file, beside the same searches on the library itself."""

import contextlib
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from tiny import tiny_backbone

import simsearch as ss
from simsearch.backbones.heads import ProjectionHead
from simsearch.cli.main import main
from simsearch.cluster.milvus import store as milvus
from simsearch.cluster.milvus.filters import columns_of, expression

pytest.importorskip("pymilvus")
pytest.importorskip("milvus_lite")

COUNT, DIM = 640, 24


@pytest.fixture(autouse=True)
def no_hanging():
    """End a test that waits for a server which does not answer."""

    def stop(*_):
        raise TimeoutError("this test took too long")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def clustered(count, dim, seed=0):
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((max(1, count // 40), dim))
    return centres[rng.integers(0, len(centres), count)] + 0.5 * rng.standard_normal((count, dim))


KINDS = ["shoe", "Hat", "red; blue", "Straße|GREEN", 'a "quoted" one', "x' or 1 == 1", "50%_off\\"]


def make_library(count=COUNT, dim=DIM, seed=0):
    """Rows in clusters, some of them twice, with a table that lacks some lines and cells."""
    rng = np.random.default_rng(seed)
    rows = clustered(count, dim, seed)
    rows[count // 2] = rows[3]
    rows[count // 2 + 1] = rows[3] + 1e-3
    folders = ["a", "a/b", "a/B", "c d", "e;f"]
    library = ss.ImageLibrary(
        rows, sorted(f"data/{folders[i % 5]}/{i:04}.jpg" for i in range(count))
    )
    library.root = "data"
    prices = rng.integers(-20, 20, count).astype(object)
    prices[::7] = None
    table = pd.DataFrame(
        {
            "path": library.paths,
            "title": [f"Item {i % 50}, {KINDS[i % 7]}" for i in range(count)],
            "price": prices,
            "weight": rng.standard_normal(count).round(2),
            "tags": [None if i % 5 == 0 else KINDS[i % 7] for i in range(count)],
            "new": [None if i % 11 == 0 else i % 2 == 0 for i in range(count)],
            "since": pd.Timestamp("2024-01-01") + pd.to_timedelta(np.arange(count) % 30, "D"),
            'odd "name"': np.arange(count) % 3,
        }
    )
    return library.attach(table[np.arange(count) % 9 != 4])


@pytest.fixture(scope="module")
def library():
    return make_library()


@pytest.fixture(scope="module")
def remote(library, tmp_path_factory):
    file = tmp_path_factory.mktemp("milvus") / "images.db"
    ss.publish(library, file, "shop", progress=False)
    with ss.RemoteLibrary(file, "shop") as opened:
        yield opened
    assert str(file) not in milvus._served  # its server has ended


def same(found, expected):
    """Compare the answers of two libraries whose rows have the same numbers."""
    if isinstance(expected, list):
        for each in zip(found, expected, strict=True):
            same(*each)
        return
    assert found.paths == expected.paths
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-6)
    for here, there in zip(found, expected, strict=True):
        assert here.percentile == there.percentile
        assert (here.row, here.caption, here.duplicates) == (
            there.row,
            there.caption,
            there.duplicates,
        )
        assert here.metadata == there.metadata
    assert found.query == expected.query


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
        {"where": "a/b/*"},
        {"where": "a/*", "k": 40},
        {"where": {"price": (None, 0), "tags": ["red", "hat"]}},
        {"where": {"title": "item 1*"}, "k": 9},
        {"where": [5, 9, 11, 200]},
        {"where": {"new": True, "since": ("2024-01-03", "2024-01-20")}, "k": 30},
    ],
    ids=str,
)
def test_a_search_finds_what_the_library_finds(library, remote, options):
    for query in (3, str(library.paths[100]), library.embeddings[7] + 0.01):
        same(ss.search(remote, query, **options), ss.search(library, query, **options))


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
def test_several_queries(library, remote, options):
    same(ss.search(remote, [3, 40, 77], **options), ss.search(library, [3, 40, 77], **options))


def test_recommendations(library, remote):
    options = {"disliked": [9], "exclude": [str(library.paths[20]), 21, "gone.jpg"], "k": 12}
    same(
        ss.recommend(remote, [3, 4], where="a/*", **options),
        ss.recommend(library, [3, 4], where="a/*", **options),
    )
    seen = ss.search(library, 3, 100).paths  # many that may not be found
    same(ss.recommend(remote, 3, exclude=seen), ss.recommend(library, 3, exclude=seen))


@pytest.mark.parametrize("kind", ["hnsw", "hnsw_sq8", "ivf", "flat"])
def test_among_many_rows_few_are_missed(tmp_path, kind):
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
    "since": st.tuples(
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
def test_a_condition_is_met_by_the_same_images(library, remote, where):
    expected = library.page(0, COUNT, where)
    assert remote.page(0, COUNT, where) == expected
    found = ss.search(remote, library.embeddings[1], 7, where=where)
    same(found, ss.search(library, library.embeddings[1], 7, where=where))


@pytest.mark.parametrize(
    "value",
    ['" or id >= 0 or words like "', "') or (id > 0", "a\\", "%", "|", "\x00", "\ud800", "[["],
)
def test_nothing_that_is_asked_for_reaches_an_expression(library, remote, value):
    columns = columns_of(library.metadata)
    for where in (
        f"{value}/*",
        {"title": value},
        {"tags": [value, "red"]},
        {"folder": f"{value}/x"},
    ):
        text = expression(where, columns)
        assert re.fullmatch(r'(words like "%\|([0-9a-f]{16}|more)\|%"|[()]| or | and )*', text)
        assert remote.page(0, COUNT, where) == library.page(0, COUNT, where)
    with pytest.raises(ss.QueryError, match="no column"):
        ss.search(remote, 3, where={value: 1})


@pytest.mark.parametrize(
    "where",
    [{"colour": 1}, {"price": (1, 2, 3)}, {"title": (1, 2)}, {"price": "cheap"}],
    ids=str,
)
def test_what_makes_no_sense_is_said_in_the_same_words(library, remote, where):
    with pytest.raises(ss.QueryError) as there:
        library.where(where)
    with pytest.raises(ss.QueryError) as here:
        ss.search(remote, 3, where=where)
    assert re.sub("such as .*", "", str(here.value)) == re.sub("such as .*", "", str(there.value))


def test_more_columns_and_words_than_an_engine_looks_at(tmp_path):
    library = ss.ImageLibrary(clustered(20, 4), [f"{i}.jpg" for i in range(20)])
    table = pd.DataFrame({f"n{j}": np.arange(20) * (j + 1) for j in range(10)})
    table["words"] = [";".join(f"w{i * j}" for j in range(4000)) for i in range(20)]
    library.attach(table.assign(path=library.paths))
    ss.publish(library, tmp_path / "x.db", "x", progress=False)
    with ss.RemoteLibrary(tmp_path / "x.db", "x") as remote:
        for where in ({"n9": (50, 90)}, {"n0": 3}, {"words": "w3999"}, {"words": "w7"}):
            assert remote.page(0, 20, where) == library.page(0, 20, where) != []


# Looking at it


def test_it_is_looked_at_like_a_library(library, remote):
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


def test_an_overview_counts_folders_and_tells_columns(library):
    overview = library.overview()
    assert dict(overview.folders) == {"a": 128, "a/b": 128, "a/B": 128, "c d": 128, "e;f": 128}
    columns = {column["name"]: column for column in overview.columns}
    prices = library.metadata["price"].dropna()
    assert (columns["price"]["min"], columns["price"]["max"]) == (prices.min(), prices.max())
    assert columns["price"]["kind"] == "number"
    assert {"red", "blue", "Straße", "GREEN"} < set(columns["tags"]["values"])
    assert len(columns["title"]["values"]) <= 100


# Publishing again


def small(count=30, seed=0, dim=8):
    return ss.ImageLibrary(
        np.random.default_rng(seed).standard_normal((count, dim)),
        [f"{i:03}.jpg" for i in range(count)],
    )


def subset(library, keep, change=()):
    rows = np.array(library.embeddings)
    rows[list(change)] *= -1
    return ss.ImageLibrary(rows[keep], library.paths[keep])


def stored(file, name="x"):
    """Count the rows that the engine holds, also those that nobody sees."""
    store = milvus.Store(file, name, None, 20)
    try:
        rows = store.rows_name(store.read_state()["generation"])
        store.call("load_collection", rows)
        return len(store.call("query", rows, filter="id >= 0", output_fields=["id"]))
    finally:
        store.close()


def test_only_what_changed_is_sent_and_rows_keep_their_numbers(tmp_path, monkeypatch):
    file, library = tmp_path / "x.db", small()
    sent = []
    call = milvus.Store.call

    def counting(self, method, *args, **options):
        if method == "upsert" and "_rows_" in args[0]:
            sent.append(len(args[1]))
        return call(self, method, *args, **options)

    monkeypatch.setattr(milvus.Store, "call", counting)
    assert ss.publish(library, file, "x", progress=False) == ss.cluster.publishing.Published(
        1, 30, 0, 0, 0
    )
    assert str(ss.publish(library, file, "x")) == (
        "version 1: 0 added, 0 changed, 0 deleted, 30 kept"
    )
    first = ss.RemoteLibrary(file, "x")
    keep = np.r_[2:28]
    done = ss.publish(subset(library, keep, change=[5, 6]), file, "x", progress=False)
    assert (done.version, done.added, done.changed, done.deleted, done.kept) == (2, 0, 2, 4, 24)
    second = first.refresh()
    assert second is not first
    assert second.refresh() is second
    assert (first.version, second.version) == (1, 2)
    same(ss.search(first, 5, 30), ss.search(library, 5, 30))  # it goes on as it was
    assert (len(first), len(second)) == (30, 26)
    assert second.find("005.jpg") == 5  # under its old number
    assert second.find("000.jpg") is None
    np.testing.assert_allclose(second.embeddings[5], -library.embeddings[5])
    assert (
        ss.search(second, 5, 30).paths
        == ss.search(subset(library, keep, change=[5, 6]), 3, 30).paths
    )
    assert second.page(0, 3) == [2, 3, 4]
    assert stored(file) == 32

    done = ss.publish(library, file, "x", progress=False)
    assert (done.added, done.changed, done.deleted, done.kept) == (4, 2, 0, 24)
    with pytest.raises(ss.StaleVersionError, match=r"of version 1, .* refresh\(\)"):
        ss.search(first, 5)
    third = second.refresh()
    assert len(third) == 30
    assert sorted(third.page(0, 50)) == [*range(2, 28), 32, 33, 36, 37]
    assert ss.search(third, "005.jpg", 29).paths == ss.search(library, 5, 29).paths
    ss.publish(library, file, "x", progress=False, keep_previous=False)
    assert stored(file) == 30
    assert sent == [30, 2, 6]
    for one in (first, second, third):
        one.close()
    assert str(file) not in milvus._served


def test_metadata_that_changes_is_sent(tmp_path):
    file, library = tmp_path / "x.db", small()
    table = pd.DataFrame({"path": library.paths, "price": range(30)})
    ss.publish(library, file, "x", progress=False)
    assert ss.publish(library.attach(table), file, "x", progress=False).changed == 30
    table.loc[4, "price"] = 99
    assert ss.publish(library.attach(table), file, "x", progress=False).changed == 1
    with ss.RemoteLibrary(file, "x") as remote:
        assert remote.page(0, 9, {"price": (50, None)}) == [4]
        assert remote.facts(4) == {"price": 99}


def test_rows_of_another_origin_are_refused(tmp_path):
    file, library = tmp_path / "x.db", small()
    ss.publish(library, file, "x", progress=False)
    reader = ss.RemoteLibrary(file, "x")
    other = small(20, 1, dim=5)
    with pytest.raises(
        ss.RemoteError, match=r"8-d rows .* 5-d, .*: publish under another name, or w"
    ):
        ss.publish(other, file, "x", progress=False)
    with pytest.raises(ss.RemoteError, match=r"index of kind HNSW.* for FLAT"):
        ss.publish(library, file, "x", progress=False, kind="flat")
    with pytest.raises(ss.LibraryError, match=r"two rows have the path 'a.jpg'"):
        ss.publish(ss.ImageLibrary(np.eye(2), ["a.jpg"] * 2), file, "y", progress=False)
    assert ss.publish(other, file, "x", progress=False, replace=True).added == 20
    same(ss.search(reader, 3), ss.search(library, 3))
    newest = reader.refresh()
    same(ss.search(newest, 3), ss.search(other, 3))
    ss.publish(other, file, "x", progress=False)
    with pytest.raises(ss.StaleVersionError):
        ss.search(reader, 3, where=[8, 9])
    reader.close()
    newest.close()


def test_readers_see_whole_versions_while_others_are_published(tmp_path):
    file, library = tmp_path / "x.db", small(60)
    versions = [
        library,
        subset(library, np.r_[5:60], [7, 9]),
        subset(library, np.r_[0:40], [9, 30]),
    ]
    query = library.embeddings[9]
    expected = [ss.search(each, query, 60).paths for each in versions]
    ss.publish(library, file, "x", progress=False)
    seen, stop, failed = [], threading.Event(), []

    def read():
        remote = ss.RemoteLibrary(file, "x")
        while not stop.is_set() or not seen or seen[-1] != 3:
            try:
                found = ss.search(remote, query, 60).paths
                if found != expected[remote.version - 1]:
                    failed.append((remote.version, found))
                seen.append(remote.version)
                newest = remote.refresh() if len(seen) % 5 == 0 else remote
            except ss.StaleVersionError:
                newest = remote.refresh()
            if newest is not remote:
                remote.close()
                remote = newest
        remote.close()

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for each in versions[1:]:
        time.sleep(0.3)
        ss.publish(each, file, "x", progress=False)
    stop.set()
    for reader in readers:
        reader.join(30)
    assert not failed
    assert {1, 3} <= set(seen)
    assert str(file) not in milvus._served


KILLED = """
import os, signal, sys
import numpy as np
import simsearch as ss
from simsearch.cluster import milvus, publishing
publishing._BATCH_BYTES = 4 * 8 * 7  # seven rows a batch
call, left = milvus.Store.call, int(sys.argv[2])
def fatal(self, method, *args, **options):
    global left
    if method in {"upsert", "delete", "flush", "create_collection", "drop_collection"}:
        left -= 1
        if not left:
            if sys.argv[3] == "after":
                call(self, method, *args, **options)
            os.kill(os.getpid(), signal.SIGKILL)
    return call(self, method, *args, **options)
milvus.Store.call = fatal
rows = np.load(sys.argv[4])
print(ss.publish(ss.ImageLibrary(rows, [f"{i:03}.jpg" for i in range(len(rows))]), sys.argv[1], "x",
                 progress=False, replace=True), flush=True)
"""


@pytest.mark.parametrize(("at", "when", "dim"), [
    (2, "before", 8),  # the sweep of what the version before has left
    (6, "after", 8),  # among the rows
    (9, "before", 8),  # among the records
    (15, "before", 8),  # before the last record counts
    (5, "after", 5),  # rows in a collection of their own
])  # fmt: skip
def test_a_publication_that_is_killed_has_not_happened(tmp_path, at, when, dim):
    file, library = tmp_path / "x.db", small()
    ss.publish(library, file, "x", progress=False)
    ss.publish(subset(library, np.r_[1:30], [7]), file, "x", progress=False)
    ours = subset(library, np.r_[1:30], [7])
    new = small(45, 3, dim)
    np.save(tmp_path / "new.npy", new.embeddings)
    command = [sys.executable, "-c", KILLED, file, str(at), when, tmp_path / "new.npy"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=50)
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, ""), done.stderr
    with ss.RemoteLibrary(file, "x") as remote:
        assert (remote.version, len(remote)) == (2, 29)
        for query in (0, 6, 28):
            found = ss.search(remote, ours.embeddings[query], 29)
            assert found.paths == ss.search(ours, ours.embeddings[query], 29).paths
        assert [remote.paths[row] for row in remote.page(0, 99)] == ours.paths.tolist()
    assert ss.publish(ours, file, "x", progress=False).version == 2
    assert stored(file) == 29  # what was left half done is cleared up
    assert ss.publish(new, file, "x", progress=False, replace=True).version == 3
    ss.publish(new, file, "x", progress=False)
    assert stored(file) == 45
    with ss.RemoteLibrary(file, "x") as remote:
        assert (
            ss.search(remote, new.embeddings[4], 45).paths
            == ss.search(new, 4, 45, exclude_query=False).paths
        )


def test_rows_of_an_unfinished_publication_are_not_found(library, tmp_path, monkeypatch):
    file = tmp_path / "x.db"
    ss.publish(library, file, "x", progress=False)
    rows, paths = library.embeddings[:300] + 0.01, [f"new/{i}.jpg" for i in range(300)]
    more = ss.ImageLibrary(
        np.concatenate([library.embeddings, rows]), [*library.paths.tolist(), *paths]
    )
    monkeypatch.setattr(ss.cluster.publishing._Writer, "_commit", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        ss.publish(more, file, "x", progress=False)
    with ss.RemoteLibrary(file, "x") as remote:
        for query in (3, 100, 250):
            for options in ({}, {"k": 300}, {"where": "a/*", "k": 20}, {"where": "*7.jpg"}):
                same(ss.search(remote, query, **options), ss.search(library, query, **options))


def test_two_writers_do_not_mix(tmp_path, monkeypatch):
    file, library = tmp_path / "x.db", small()
    ss.publish(library, file, "x", progress=False)
    commit = ss.cluster.publishing._Writer._commit

    def late(self, last, state):
        monkeypatch.undo()
        ss.publish(subset(library, np.r_[0:20]), file, "x", progress=False)
        commit(self, last, state)

    monkeypatch.setattr(ss.cluster.publishing._Writer, "_commit", late)
    with pytest.raises(ss.RemoteError, match="published by another process meanwhile"):
        ss.publish(subset(library, np.r_[0:10]), file, "x", progress=False)
    with ss.RemoteLibrary(file, "x") as remote:
        assert len(remote) == 20


# Files, servers, secrets


def test_files_that_are_none(tmp_path):
    with pytest.raises(ss.RemoteError, match=r"no file .*gone.db.*simsearch.publish"):
        ss.RemoteLibrary(tmp_path / "gone.db", "x")
    (tmp_path / "text.db").write_text("no database")
    with pytest.raises(ss.RemoteError, match="cannot be opened as a Milvus Lite file"):
        ss.RemoteLibrary(tmp_path / "text.db", "x")
    file = tmp_path / "x.db"
    ss.publish(small(), file, "x", progress=False)
    with pytest.raises(ss.RemoteError, match="holds no library; publish one"):
        ss.RemoteLibrary(file, "y")
    with pytest.raises(ss.QueryError, match="letters, digits and _"):
        ss.RemoteLibrary(file, 'x"; drop')
    for part in file.rglob("*.parquet"):
        part.write_bytes(b"damaged")
    for part in file.rglob("*.arrow"):
        part.write_bytes(b"damaged")
    with pytest.raises(ss.RemoteError, match=r"x.db#x cannot be used"):
        ss.RemoteLibrary(file, "x")
    assert str(file) not in milvus._served


def test_a_record_that_is_damaged(tmp_path):
    file = tmp_path / "x.db"
    ss.publish(small(), file, "x", progress=False)
    store = milvus.Store(file, "x", None, 20)
    state = store.read_state()
    store.write_part(1, "background", b"other")
    with (
        ss.RemoteLibrary(file, "x") as remote,
        pytest.raises(ss.RemoteError, match="its part 'background' is damaged"),
    ):
        ss.search(remote, 0)
    store.write_state(state | {"format": 99})
    with pytest.raises(ss.RemoteError, match="its format is 99, not 1"):
        ss.RemoteLibrary(file, "x")
    store._write([("state", 0, "{")])
    with pytest.raises(ss.RemoteError, match="its state is damaged"):
        ss.RemoteLibrary(file, "x")
    store.close()


def test_a_file_is_open_in_one_process(tmp_path, capsys):
    library = small()
    library.save(tmp_path / "outputs")
    file = tmp_path / "x.db"
    assert main(["publish", str(tmp_path / "outputs"), str(file), "x"]) == 0
    assert "version 1: 30 added" in capsys.readouterr().out
    assert main(["search", f"{file}#x", "3", "-k", "2", "--json"]) == 0
    assert ss.search(library, 3, 2).paths[0] in capsys.readouterr().out
    assert main(["search", f"{file}#x", "3", "--root", "elsewhere"]) == 1
    assert "belong to `simsearch publish`" in capsys.readouterr().err
    with ss.RemoteLibrary(file, "x"):
        code = "import sys; from simsearch.cli import main; sys.exit(main())"
        command = [sys.executable, "-c", code, "search", f"{file}#x", "3"]
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=50)
    assert done.returncode == 1
    assert "is open in another process; close it there" in done.stderr
    assert len(done.stderr.splitlines()) == 1


class Proxy:
    """Stands between a client and a server, and hangs up when told to."""

    def __init__(self, port):
        self.port, self.up, self.pairs = port, True, []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            if not self.up:
                client.close()
                continue
            try:
                server = socket.create_connection(("127.0.0.1", self.port))
            except OSError:
                client.close()
                continue
            self.pairs.append((client, server))
            for source, target in ((client, server), (server, client)):
                threading.Thread(target=self.pump, args=(source, target), daemon=True).start()

    def pump(self, source, target):
        try:
            while data := source.recv(65536):
                target.sendall(data)
        except OSError:
            pass
        finally:
            for end in (source, target):
                end.close()

    def hang_up(self):
        self.up = False
        for pair in self.pairs:
            for end in pair:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
        self.pairs.clear()


@pytest.fixture
def proxied(tmp_path):
    """A library behind a line that can be cut."""
    file, library = tmp_path / "x.db", small()
    ss.publish(library, file, "x", progress=False)
    store = milvus.Store(file, "x", None, 20)
    proxy = Proxy(milvus._served[str(file)][2])
    yield library, proxy
    proxy.hang_up()
    proxy.listener.close()
    store.close()


def test_a_line_that_breaks_is_tried_again(proxied):
    library, proxy = proxied
    remote = ss.RemoteLibrary(proxy.address, "x", timeout=20)
    same(ss.search(remote, 3), ss.search(library, 3))
    proxy.hang_up()
    threading.Timer(1.0, lambda: setattr(proxy, "up", True)).start()
    same(ss.search(remote, 4), ss.search(library, 4))
    remote.close()


def test_a_line_that_stays_broken_is_given_up_in_time(proxied):
    _, proxy = proxied
    remote = ss.RemoteLibrary(proxy.address, "x", timeout=3)
    proxy.hang_up()
    started = time.monotonic()
    with pytest.raises(ss.RemoteError, match=r"127.0.0.1:\d+#x cannot be used: .*check that the s"):
        ss.search(remote, 3)
    assert time.monotonic() - started < 12
    remote.close()


def test_only_what_may_pass_is_tried_again(tmp_path, monkeypatch):
    from pymilvus.exceptions import MilvusException

    ss.publish(small(), tmp_path / "x.db", "x", progress=False)
    store = milvus.Store(tmp_path / "x.db", "x", None, 20)
    pauses = []
    monkeypatch.setattr(milvus.time, "sleep", pauses.append)
    errors = [MilvusException(code=8, message="rate limit"), MilvusException(retriable=True)]

    def query(*_, **__):
        if errors:
            raise errors.pop()
        return "answer"

    monkeypatch.setattr(store._client, "query", query)
    assert store.call("query", "x") == "answer"
    assert len(pauses) == 2
    assert 0.125 <= pauses[0] <= 0.25 <= pauses[1] <= 0.5
    errors[:] = [MilvusException(code=100, message="collection not found")]
    with pytest.raises(ss.RemoteError, match="query: collection not found"):
        store.call("query", "x")
    assert len(pauses) == 2
    errors[:] = [MilvusException(code=8, message="rate limit")] * 9
    with pytest.raises(ss.RemoteError, match="rate limit"):
        store.call("query", "x")
    assert len(errors) == 3  # after six attempts
    store.close()


def test_no_secret_is_told(monkeypatch):
    monkeypatch.setenv("MILVUS_TOKEN", "root:Secret1")
    with pytest.raises(ss.RemoteError) as told:
        ss.RemoteLibrary("http://me:Secret2@127.0.0.1:9", "x", timeout=1)
    assert "Secret" not in str(told.value)
    assert "http://127.0.0.1:9#x" in str(told.value)


# Backbones and heads travel


@pytest.fixture(scope="module")
def embedded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for i in range(12):
        pixels = rng.integers(0, 255, (12, 12, 3), np.uint8)
        Image.fromarray(pixels).resize((48, 48)).save(folder / f"{i:02}.png")
    return ss.embed_dataset(
        folder, tmp_path_factory.mktemp("outputs"), tiny_backbone(), progress=False
    )


def projected(library):
    rng = np.random.default_rng(1)
    layer = rng.standard_normal((6, library.dim)), np.zeros(6)
    return library.with_head(ProjectionHead([layer], library.fingerprint))


@pytest.mark.parametrize(
    "change", [lambda x: x, projected, ss.refine], ids=["plain", "head", "refined"]
)
def test_new_images_pass_through_backbone_and_head(embedded, tmp_path, change):
    library = change(embedded)
    ss.publish(library, tmp_path / "x.db", "x", progress=False)
    photo = Image.open(embedded.paths[4]).rotate(90)
    with ss.RemoteLibrary(tmp_path / "x.db", "x", backbone=tiny_backbone()) as remote:
        assert remote.fingerprint == library.fingerprint
        for options in ({}, {"box": (0, 0, 0.5, 0.5)}, {"regions": True}):
            same(ss.search(remote, photo, **options), ss.search(library, photo, **options))
        assert remote.is_current(4)
        same(ss.search(remote, embedded.paths[4]), ss.search(library, embedded.paths[4]))
    other = tiny_backbone(1)
    with (
        ss.RemoteLibrary(tmp_path / "x.db", "x", backbone=other) as remote,
        pytest.raises(ss.BackboneError, match="is not what made this library"),
    ):
        ss.search(remote, photo)
    with (
        ss.RemoteLibrary(tmp_path / "x.db", "x") as remote,
        pytest.raises(ss.BackboneError, match="a module of your own: pass it, as Remote"),
    ):
        ss.search(remote, photo)


def test_an_index_of_files_is_refused(library, remote):
    with pytest.raises(ss.QueryError, match="index= goes with a library of files"):
        ss.search(remote, 3, index=ss.build_index(library, "flat"))


def test_a_folder_of_other_things_is_left_as_it_is(tmp_path):
    library = make_library(20)
    library.save(tmp_path / "outputs")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ss.RemoteError, match="other things in it"):
        ss.RemoteLibrary(tmp_path / "outputs", "shop")
    with pytest.raises(ss.RemoteError, match="other things in it"):
        ss.publish(library, tmp_path / "outputs", "shop", progress=False)
    assert sorted(tmp_path.rglob("*")) == before
    (tmp_path / "empty").mkdir()
    ss.publish(library, tmp_path / "empty", "shop", progress=False)
    with ss.RemoteLibrary(tmp_path / "empty", "shop") as remote:
        assert len(remote) == 20
