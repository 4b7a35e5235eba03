"""Files, servers, retries and secrets of a store."""

import json
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from milvus_cases import Proxy, assert_same, make_library, small

import simsearch as ss
from simsearch.cli.main import main
from simsearch.cluster.milvus.lite_file import lite_servers
from simsearch.cluster.milvus.store import Store

pytest.importorskip("pymilvus")
pytest.importorskip("milvus_lite")


def test_invalid_files_are_refused(tmp_path):
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
    assert str(file) not in lite_servers


def test_damaged_records_are_refused(tmp_path):
    file = tmp_path / "x.db"
    ss.publish(small(), file, "x", progress=False)
    store = Store(file, "x", None, 20)
    version = store.read_version()
    store.write_part(1, "background", b"other")
    with (
        ss.RemoteLibrary(file, "x") as remote,
        pytest.raises(ss.RemoteError, match="its part 'background' is damaged"),
    ):
        ss.search(remote, 0)
    store.write_records([("state", 0, json.dumps(version.to_record() | {"format": 99}))])
    with pytest.raises(ss.RemoteError, match="its format is 99, not 1"):
        ss.RemoteLibrary(file, "x")
    store.write_records([("state", 0, "{")])
    with pytest.raises(ss.RemoteError, match="its state is damaged"):
        ss.RemoteLibrary(file, "x")
    store.close()


def test_requests_at_once_open_a_collection_once(tmp_path, monkeypatch):
    """Milvus Lite would give each its own: what the one loads or writes, the other lacks."""
    from milvus_lite import db

    file, read = tmp_path / "x.db", db.load_schema
    ss.publish(small(), file, "x", progress=False)
    monkeypatch.setattr(db, "load_schema", lambda path: time.sleep(0.2) or read(path))
    with ThreadPoolExecutor(4) as pool:
        opened = list(pool.map(lambda _: ss.RemoteLibrary(file, "x"), range(4)))
    database = lite_servers[str(file)].database
    with ThreadPoolExecutor(4) as pool:
        database._collections.clear()
        assert len(set(pool.map(id, pool.map(database.get_collection, ["x_meta"] * 4)))) == 1
    for remote in opened:
        remote.close()


def test_file_is_open_in_one_process_only(tmp_path, capsys):
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
        code = "import sys; from simsearch.cli.main import main; sys.exit(main())"
        command = [sys.executable, "-c", code, "search", f"{file}#x", "3"]
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=50)
    assert done.returncode == 1
    assert "is open in another process; close it there" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.fixture
def proxied(tmp_path):
    """A library behind a connection that can be closed."""
    file, library = tmp_path / "x.db", small()
    ss.publish(library, file, "x", progress=False)
    store = Store(file, "x", None, 20)
    proxy = Proxy(lite_servers[str(file)].port)
    yield library, proxy
    proxy.disconnect()
    proxy.listener.close()
    store.close()


def test_broken_connection_is_retried(proxied):
    library, proxy = proxied
    remote = ss.RemoteLibrary(proxy.address, "x", timeout=20)
    assert_same(ss.search(remote, 3), ss.search(library, 3))
    proxy.disconnect()
    threading.Timer(1.0, lambda: setattr(proxy, "up", True)).start()
    assert_same(ss.search(remote, 4), ss.search(library, 4))
    remote.close()


def test_retries_end_at_the_timeout(proxied):
    _, proxy = proxied
    remote = ss.RemoteLibrary(proxy.address, "x", timeout=3)
    proxy.disconnect()
    started = time.monotonic()
    with pytest.raises(ss.RemoteError, match=r"127.0.0.1:\d+#x cannot be used: .*check that the s"):
        ss.search(remote, 3)
    assert time.monotonic() - started < 12
    remote.close()


def test_only_transient_errors_are_retried(tmp_path, monkeypatch):
    from pymilvus.exceptions import MilvusException

    ss.publish(small(), tmp_path / "x.db", "x", progress=False)
    store = Store(tmp_path / "x.db", "x", None, 20)
    pauses = []
    clock = "simsearch.cluster.milvus.store.time"
    monkeypatch.setattr(f"{clock}.sleep", pauses.append)
    monkeypatch.setattr(f"{clock}.monotonic", lambda: sum(pauses))
    late = "attempt #4: rpc error: code = DeadlineExceeded desc = context deadline exceeded"
    errors = [
        MilvusException(code=1, message=late),  # of a busy server within itself
        MilvusException(code=8, message="rate limit"),
        MilvusException(retriable=True),
    ]

    def query(*_, **__):
        if errors:
            raise errors.pop()
        return "answer"

    monkeypatch.setattr(store._client, "query", query)
    assert store.call("query", "x") == "answer"
    assert len(pauses) == 3
    assert 0.125 <= pauses[0] <= 0.25 <= pauses[1] <= 0.5 <= pauses[2] <= 1
    errors[:] = [MilvusException(code=100, message="collection not found")]
    with pytest.raises(ss.RemoteError, match="query: collection not found"):
        store.call("query", "x")
    assert len(pauses) == 3
    before = sum(pauses)
    errors[:] = [MilvusException(code=8, message="rate limit")] * 99
    with pytest.raises(ss.RemoteError, match="rate limit"):
        store.call("query", "x")
    assert 12 <= sum(pauses) - before <= 20  # until the timeout
    assert max(pauses) <= 4
    monkeypatch.undo()
    store.close()


def test_errors_contain_no_secrets(monkeypatch):
    monkeypatch.setenv("MILVUS_TOKEN", "root:Secret1")
    with pytest.raises(ss.RemoteError) as told:
        ss.RemoteLibrary("http://me:Secret2@127.0.0.1:9", "x", timeout=1)
    assert "Secret" not in str(told.value)
    assert "http://127.0.0.1:9#x" in str(told.value)


def test_folder_of_other_files_is_left_unchanged(tmp_path):
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


def test_stored_names_of_the_version_record(tmp_path):
    """What is published stays readable by later versions of simsearch, under these names."""
    ss.publish(small(), tmp_path / "x.db", "x", progress=False)
    store = Store(tmp_path / "x.db", "x", None, 20)
    store.call("load_collection", store.meta)
    store.call("load_collection", "x_rows_1")
    (line,) = store.call("get", store.meta, ids=["state"], output_fields=["text"])
    record = json.loads(line["text"])
    assert set(record) == {
        *("format", "complete", "version", "floor", "generation", "next", "rows", "dim", "index"),
        *("root", "start", "source", "head", "fingerprint", "captions", "parts"),
    }
    assert set(record["parts"]) == {"dead", "columns", "overview", "background", "order"}
    (row,) = store.call("query", "x_rows_1", filter="id == 3", output_fields=["*"])
    numbers = {f"number_{i}" for i in range(8)}
    assert set(row) == {"id", "row", "key", "digest", "about", "words", "vector"} | numbers
    store.close()


def test_missing_packages_name_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "milvus_lite.adapter.grpc.server", None)
    with pytest.raises(ss.MissingExtraError, match="needs milvus-lite 3: pip install"):
        ss.publish(small(), tmp_path / "x.db", "x", progress=False)
    monkeypatch.setitem(sys.modules, "pymilvus", None)
    with pytest.raises(ss.MissingExtraError, match="needs pymilvus: pip install"):
        ss.RemoteLibrary("http://127.0.0.1:9", "x")
