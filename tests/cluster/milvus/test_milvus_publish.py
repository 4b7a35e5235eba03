"""Publications: changes that are sent, versions that readers see, killed publications."""

import signal
import subprocess
import sys
import threading
import time
import tracemalloc

import numpy as np
import pandas as pd
import pytest
from milvus_cases import assert_same, small, subset
from part_cases import store_parts

import simsearch as ss
from simsearch.cluster.milvus import changes
from simsearch.cluster.milvus.changes import RowEncoder, send_changes
from simsearch.cluster.milvus.lite_file import lite_servers
from simsearch.cluster.milvus.publish import Publication
from simsearch.cluster.milvus.store import Store

pytest.importorskip("pymilvus")
pytest.importorskip("milvus_lite")


def stored(file, name="x"):
    """Count the rows that the engine holds, also those that are not part of a version."""
    store = Store(file, name, None, 20)
    try:
        rows = store.rows_name(store.read_version().generation)
        store.call("load_collection", rows)
        return len(store.call("query", rows, filter="id >= 0", output_fields=["id"]))
    finally:
        store.close()


def test_only_changes_are_sent_and_rows_keep_their_numbers(tmp_path, monkeypatch):
    file, library = tmp_path / "x.db", small()
    sent = []
    call = Store.call

    def counting(self, method, *args, **options):
        if method == "upsert" and "_rows_" in args[0]:
            sent.append(len(args[1]))
        return call(self, method, *args, **options)

    monkeypatch.setattr(Store, "call", counting)
    assert ss.publish(library, file, "x", progress=False) == ss.Published(1, 30, 0, 0, 0)
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
    assert_same(ss.search(first, 5, 30), ss.search(library, 5, 30))  # unchanged for its reader
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
    with pytest.raises(
        ss.StaleVersionError, match=r"at version 1, .* since version 2: call refresh\(\)"
    ):
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
    assert str(file) not in lite_servers


def test_changed_metadata_is_sent(tmp_path):
    file, library = tmp_path / "x.db", small()
    table = pd.DataFrame({"path": library.paths, "price": range(30)})
    ss.publish(library, file, "x", progress=False)
    assert ss.publish(library.attach(table), file, "x", progress=False).changed == 30
    table.loc[4, "price"] = 99
    assert ss.publish(library.attach(table), file, "x", progress=False).changed == 1
    with ss.RemoteLibrary(file, "x") as remote:
        assert remote.page(0, 9, {"price": (50, None)}) == [4]
        assert remote.facts(4) == {"price": 99}


def test_refresh_that_fails_leaves_nothing_open(tmp_path, monkeypatch):
    file, library = tmp_path / "x.db", small()
    ss.publish(library, file, "x", progress=False)
    with ss.RemoteLibrary(file, "x") as remote:
        ss.publish(subset(library, np.r_[0:20]), file, "x", progress=False)
        fail = ss.RemoteError("a part is missing")
        monkeypatch.setattr(Store, "read_part", lambda *_: (_ for _ in ()).throw(fail))
        with pytest.raises(ss.RemoteError, match="a part is missing"):
            remote.refresh()
        monkeypatch.undo()
        assert len(remote) == len(remote.page(0, 99)) == 30
    assert str(file) not in lite_servers


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
    assert_same(ss.search(reader, 3), ss.search(library, 3))
    newest = reader.refresh()
    assert_same(ss.search(newest, 3), ss.search(other, 3))
    ss.publish(other, file, "x", progress=False)
    with pytest.raises(ss.StaleVersionError):
        ss.search(reader, 3, where=[8, 9])
    reader.close()
    newest.close()


def test_readers_see_complete_versions_during_publications(tmp_path):
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
    assert str(file) not in lite_servers


@pytest.mark.parametrize("missing", ["x_meta", "x_rows_1"])
def test_either_collection_alone_is_no_publication(tmp_path, monkeypatch, missing):
    file, library, create = tmp_path / "x.db", small(), Store.create

    def half(self, name, *options):
        if name == missing:
            raise ss.RemoteError("the server is gone")
        create(self, name, *options)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "create", half)
        with pytest.raises(ss.RemoteError, match="is gone"):
            ss.publish(library, file, "x", progress=False)
    with pytest.raises(ss.RemoteError, match="holds no library"):
        ss.RemoteLibrary(file, "x")
    assert ss.publish(library, file, "x", progress=False).version == 1
    with ss.RemoteLibrary(file, "x") as remote:
        assert_same(ss.search(remote, 3), ss.search(library, 3))
    assert stored(file) == len(library)


KILLED = """
import os, signal, sys
import numpy as np
import simsearch as ss
from simsearch.cluster.milvus import changes
from simsearch.cluster.milvus.store import Store
changes.BATCH_BYTES = 4 * 8 * 7  # seven rows a batch
call, left = Store.call, int(sys.argv[2])
def fatal(self, method, *args, **options):
    global left
    if method in {"upsert", "delete", "flush", "create_collection", "drop_collection"}:
        left -= 1
        if not left:
            if sys.argv[3] == "after":
                call(self, method, *args, **options)
            os.kill(os.getpid(), signal.SIGKILL)
    return call(self, method, *args, **options)
Store.call = fatal
rows = np.load(sys.argv[4])
print(ss.publish(ss.ImageLibrary(rows, [f"{i:03}.jpg" for i in range(len(rows))]), sys.argv[1], "x",
                 progress=False, replace=True), flush=True)
"""


@pytest.mark.parametrize(("at", "when", "dim"), [
    (2, "before", 8),  # the clean-up after the version before
    (6, "after", 8),  # among the rows
    (9, "before", 8),  # among the records
    (15, "before", 8),  # before the last record counts
    (5, "after", 5),  # rows in a collection of their own
])  # fmt: skip
def test_killed_publication_changes_nothing(tmp_path, at, when, dim):
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
    assert stored(file) == 29  # rows of the killed publications are deleted
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
    monkeypatch.setattr(Publication, "commit", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        ss.publish(more, file, "x", progress=False)
    with ss.RemoteLibrary(file, "x") as remote:
        for query in (3, 100, 250):
            for options in ({}, {"k": 300}, {"where": "a/*", "k": 20}, {"where": "*7.jpg"}):
                assert_same(
                    ss.search(remote, query, **options), ss.search(library, query, **options)
                )


def test_a_publication_holds_no_list_of_paths(monkeypatch):
    """Beside the library itself: a batch, and less than 100 bytes of numbers per row."""
    count, length = 20_000, 800
    monkeypatch.setattr(changes, "BATCH_ROWS", 100)
    library = small(count)
    library.paths = np.array([f"{i:0{length}}.jpg" for i in range(count)])
    library.root = "."
    encoder, sent = RowEncoder(library, progress=False), []
    tracemalloc.start()
    send_changes(encoder, None, None, lambda rows: sent.append(len(rows)))
    library.overview()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sent == [100] * 200
    assert peak < 100 * count + 2_000 * length < count * length / 4


def test_second_writer_is_refused(tmp_path, monkeypatch):
    file, library = tmp_path / "x.db", small()
    ss.publish(library, file, "x", progress=False)
    commit = Publication.commit

    def late(self, last, state):
        monkeypatch.undo()
        ss.publish(subset(library, np.r_[0:20]), file, "x", progress=False)
        commit(self, last, state)

    monkeypatch.setattr(Publication, "commit", late)
    with pytest.raises(ss.RemoteError, match="published by another process meanwhile"):
        ss.publish(subset(library, np.r_[0:10]), file, "x", progress=False)
    with ss.RemoteLibrary(file, "x") as remote:
        assert len(remote) == 20


def test_parts_are_not_published_and_it_is_said(tmp_path, caplog):
    library = store_parts(tmp_path / "outputs", [2, 1, None], np.random.default_rng(0))
    assert ss.publish(library, tmp_path / "x.db", "x", progress=False).added == 3
    assert "the parts of the pictures are not published" in caplog.text
