"""A Milvus server, cluster or Lite file as a store: calls that are tried again, and records.

Nothing here knows a library. pymilvus and milvus-lite are imported when a store is opened.
"""

from __future__ import annotations

import atexit
import base64
import hashlib
import json
import logging
import os
import random
import re
import threading
import time
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

from simsearch.errors import LibraryBusyError, MissingExtraError, QueryError, RemoteError
from simsearch.retrieval.faiss_compat import keep_search_parameters

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from typing_extensions import Self


FORMAT = 1
STATE = "state"  # the record that says which version counts
CHUNK = 48_000  # bytes: with base64 they still fit in a text field
TEXT = 65_535  # bytes that a text field may hold
_ATTEMPTS = 6
_SLOW = {"flush", "load_collection", "create_collection"}  # they may build or read an index
_PATIENCE = 10  # times as long they may take
_PAUSE = 0.25  # seconds before the second attempt, doubled before each further one, and jittered
_NAME = re.compile(r"[A-Za-z_]\w{0,200}", re.ASCII)
_CODES = {"UNAVAILABLE", "DEADLINE_EXCEEDED", "ABORTED"}  # of gRPC, that may pass
_LIMITED = 8  # Milvus' own code for "too many requests"

_served: dict[str, list[Any]] = {}  # Lite file: [server, database, port, how many use it]
_serving = threading.Lock()


class Store:
    """The collections that hold one published library: its rows, and what is known of them.

    Parameters
    ----------
    uri
        A file for Milvus Lite, or ``http(s)://host:port`` of a server.
    collection
        Name of the published library.
    token
        "user:password" or an API key; by default the environment's ``MILVUS_TOKEN``.
    timeout
        Seconds that a call may take, all attempts together.

    Raises
    ------
    QueryError
        If the name is none that the engine takes.
    RemoteError
        If it cannot be opened.
    MissingExtraError
        If pymilvus, or milvus-lite for a file, is not installed.
    """

    def __init__(
        self, uri: str | os.PathLike[str], collection: str, token: str | None, timeout: float
    ) -> None:
        if not _NAME.fullmatch(collection):
            raise QueryError(
                f"collection {collection!r}: a name has letters, digits and _, and no digit first"
            )
        self.collection, self.timeout = collection, timeout
        self.address = without_secrets(os.fspath(uri))
        self.file = None if "://" in os.fspath(uri) else str(Path(uri).expanduser().absolute())
        self._users, self._loaded = 1, False
        self._lock = threading.Lock()
        address = os.fspath(uri) if self.file is None else _serve(self.file)
        if token is None:  # an address with a user in it needs none
            token = "" if self.address != os.fspath(uri) else os.environ.get("MILVUS_TOKEN", "")
        try:
            self._client = self._tried(
                "connect",
                lambda seconds: _connect(address, "" if self.file else token, seconds),
            )
        except BaseException:
            if self.file:
                _release(self.file)
            raise

    def __repr__(self) -> str:
        return f"{self.address}#{self.collection}"

    def share(self) -> Self:
        """Count one more user, who closes it too."""
        with self._lock:
            self._users += 1
        return self

    def close(self) -> None:
        """Let go of the connection, and of the Lite file, when the last user does."""
        with self._lock:
            self._users -= 1
            if self._users:
                return
        self._client.close()
        if self.file:
            _release(self.file)

    def call(self, method: str, *args: Any, **options: Any) -> Any:  # noqa: ANN401
        """Call a method of the client; try again, a few times, what may pass.

        Every call that is made here may be made twice: rows are written by their own numbers.
        """
        if self.file:  # which is searched by FAISS, in this process
            keep_search_parameters()
        longer = _PATIENCE if method in _SLOW else 1
        return self._tried(
            method,
            lambda seconds: getattr(self._client, method)(
                *args, timeout=longer * seconds, **options
            ),
        )

    def _tried(self, name: str, attempt: Any) -> Any:  # noqa: ANN401
        started, pause = time.monotonic(), _PAUSE
        for left in reversed(range(_ATTEMPTS)):
            try:
                return attempt(self.timeout / _ATTEMPTS)
            except Exception as error:
                if not _is_engines(error):
                    raise
                spent = time.monotonic() - started
                if not left or spent + pause > self.timeout or not _may_pass(error):
                    raise self.error(f"{name}: {_reason(error)}") from error
                time.sleep(pause * random.uniform(0.5, 1))  # noqa: S311
                pause *= 2
        raise AssertionError  # the last attempt returns or raises

    def error(self, reason: str) -> RemoteError:
        """Put what went wrong in words."""
        mend = (
            "check that the file is one of Milvus Lite and whole, or publish to another"
            if self.file
            else "check that the server runs, its address and the token (MILVUS_TOKEN)"
        )
        return RemoteError(f"{self!r} cannot be used: {without_secrets(reason)}; {mend}")

    # The rows

    def rows_name(self, generation: int) -> str:
        """Name of the collection that holds the rows."""
        return f"{self.collection}_rows_{generation}"

    def generations(self) -> list[int]:
        """Return the numbers of all such collections, also of abandoned ones."""
        mark = f"{self.collection}_rows_"
        names = [name for name in self.call("list_collections") if name.startswith(mark)]
        return sorted(
            int(name[len(mark) :])
            for name in names
            if name[len(mark) :].isascii() and name[len(mark) :].isdigit()
        )

    # The records beside them

    @property
    def meta(self) -> str:
        """Name of the collection that holds the records."""
        return f"{self.collection}_meta"

    def read_state(self) -> dict[str, Any] | None:
        """Read which version counts; None where nothing was ever published.

        Raises
        ------
        RemoteError
            If what is there was not published by simsearch, or by another format of it.
        """
        if not self._loaded:
            if not self.call("has_collection", self.meta):
                return None
            self.call("load_collection", self.meta)  # a Lite file forgets that when it is closed
            self._loaded = True
        found = self.call("get", self.meta, ids=[STATE], output_fields=["text"])
        if not found:
            return None
        try:
            state = json.loads(found[0]["text"])
            usable = state["format"] == FORMAT and state["complete"]
        except (ValueError, KeyError, TypeError) as error:
            raise self.error(f"its state is damaged ({error!r})") from error
        if not usable:
            raise self.error(f"its format is {state['format']!r}, not {FORMAT}")
        return dict(state)

    def write_state(self, state: dict[str, Any]) -> None:
        """Let a version count, by one write."""
        self._write([(STATE, 0, json.dumps(state))])

    def write_part(self, version: int, name: str, data: bytes, size: int = CHUNK) -> dict[str, Any]:
        """Store bytes beside the rows, in pieces; return what `read_part` needs."""
        records = (
            (f"{version}/{name}/{i}", version, base64.b64encode(data[at : at + size]).decode())
            for i, at in enumerate(range(0, len(data), size))
        )
        batch = []
        for record in records:
            batch.append(record)
            if len(batch) == 64:
                self._write(batch)
                batch = []
        self._write(batch)
        return {
            "chunks": -(-len(data) // size),
            "bytes": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
        }

    def read_part(self, state: dict[str, Any], name: str) -> bytes:
        """Read bytes back.

        Raises
        ------
        RemoteError
            If they are not what was stored.
        """
        seal = state["parts"][name]
        data = b"".join(self.read_chunk(state, name, i) for i in range(seal["chunks"]))
        if hashlib.sha256(data).hexdigest() != seal["sha256"]:
            raise self.error(f"its part {name!r} is damaged")
        return data

    def read_chunk(self, state: dict[str, Any], name: str, number: int) -> bytes:
        """Read one piece of a part."""
        key = f"{state['version']}/{name}/{number}"
        found = self.call("get", self.meta, ids=[key], output_fields=["text"])
        if not found:
            raise self.error(f"its part {key!r} is missing")
        return base64.b64decode(found[0]["text"])

    def _write(self, records: list[tuple[str, int, str]]) -> None:
        if records:
            rows = [
                {"id": key, "version": version, "text": text, "vector": [1.0, 0.0]}
                for key, version, text in records
            ]
            self.call("upsert", self.meta, rows)

    def make_meta(self) -> None:
        """Make the collection of records, if it is not there."""
        from pymilvus import DataType, MilvusClient

        if self.call("has_collection", self.meta):
            return
        schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=200)
        schema.add_field("version", DataType.INT64)
        schema.add_field("text", DataType.VARCHAR, max_length=TEXT)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=2)  # every collection needs one
        index = MilvusClient.prepare_index_params()
        index.add_index("vector", index_type="FLAT", metric_type="COSINE")
        self.make(self.meta, schema, index)

    def make(self, name: str, schema: Any, index: Any) -> None:  # noqa: ANN401
        """Make a collection whose readers see all that was written before they ask."""
        self.call(
            "create_collection",
            name,
            schema=schema,
            index_params=index,
            consistency_level="Strong",
        )


def pack(value: Any) -> bytes:  # noqa: ANN401
    """Turn plain values into few bytes."""
    return zlib.compress(json.dumps(value).encode())


def unpack(data: bytes) -> Any:  # noqa: ANN401
    """Turn such bytes back."""
    return json.loads(zlib.decompress(data))


def without_secrets(text: str) -> str:
    """Leave user and password out of an address."""
    return re.sub(r"(\w+://)[^/@\s]*@", r"\1", text)


def batches(first: int, stop: int, size: int) -> Iterator[tuple[int, int]]:
    """Cut a range of numbers."""
    for start in range(first, stop, size):
        yield start, min(start + size, stop)


def _connect(address: str, token: str, seconds: float) -> Any:  # noqa: ANN401
    try:
        from pymilvus import MilvusClient
    except ImportError as error:
        raise MissingExtraError(
            "Milvus needs pymilvus: pip install 'simsearch[cluster]'"
        ) from error
    # It logs each error with its stack before it raises it; here all are told in other words.
    for name in ("decorators", "client.connection_manager"):
        logging.getLogger(f"pymilvus.{name}").setLevel(logging.CRITICAL)
    return MilvusClient(address, token=token, timeout=seconds, dedicated=True)


def _serve(file: str) -> str:
    """Open a Lite file, or count one more user of it; return the address that it is served at."""
    try:
        from milvus_lite.adapter.grpc.server import start_server_in_thread
        from milvus_lite.exceptions import DataDirLockedError, MilvusLiteError
    except ImportError as error:
        raise MissingExtraError(
            f"{file!r} needs milvus-lite 3: pip install 'simsearch[cluster]', or give the "
            "address of a server"
        ) from error
    logging.getLogger("milvus_lite").setLevel(logging.CRITICAL)  # its errors come as answers, too
    with _serving:
        if file not in _served:
            if not _served:
                atexit.unregister(_release_all)
                atexit.register(_release_all)
            _check_place(Path(file))
            try:
                Path(file).parent.mkdir(parents=True, exist_ok=True)
                _served[file] = [*start_server_in_thread(file), 0]
            except DataDirLockedError as error:
                raise LibraryBusyError(
                    f"{file!r} is open in another process; close it there, or run a Milvus server "
                    "for several processes at once"
                ) from error
            except (MilvusLiteError, OSError, ValueError, RuntimeError) as error:
                raise RemoteError(
                    f"{file!r} cannot be opened as a Milvus Lite file: {error}; give another"
                ) from error
        _served[file][3] += 1
        return f"http://127.0.0.1:{_served[file][2]}"


def _check_place(file: Path) -> None:
    """See that a folder is one of Milvus Lite's: it would make itself at home in any other."""
    if file.is_dir() and any(file.iterdir()) and not (file / "LOCK").exists():
        raise RemoteError(
            f"{os.fspath(file)!r} is a folder with other things in it, and none of Milvus Lite; "
            "give a name of its own, such as images.db"
        )


def _release(file: str) -> None:
    with _serving:
        entry = _served[file]
        entry[3] -= 1
        if not entry[3]:
            del _served[file]
            entry[0].stop(grace=2).wait()
            entry[1].close()


def _release_all() -> None:
    """Close what was left open, so that nothing of it keeps the process alive."""
    for file in list(_served):
        _served[file][3] = 1
        _release(file)


def _is_engines(error: Exception) -> bool:
    import grpc
    from pymilvus.exceptions import MilvusException

    return isinstance(error, (MilvusException, grpc.RpcError, grpc.FutureTimeoutError))


def _may_pass(error: Exception) -> bool:
    """Tell what another attempt may mend: the network and a crowded server, not a wrong call."""
    import grpc

    if isinstance(error, grpc.FutureTimeoutError):
        return True
    code = error.code() if isinstance(error, grpc.RpcError) else getattr(error, "code", None)
    return (
        getattr(code, "name", "") in _CODES
        or code == _LIMITED
        or bool(getattr(error, "retriable", False))
        or any(words in str(error) for words in ("Retry timeout", "Fail connecting"))
    )


def _reason(error: Exception) -> str:
    import grpc

    if isinstance(error, grpc.RpcError):
        return f"{error.code().name.lower()}, {error.details()}"
    # Its first line: an engine may repeat all of an expression below it.
    return str(getattr(error, "message", "") or error).partition("\n")[0][:300]
