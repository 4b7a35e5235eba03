"""The collections of one published library on Milvus: calls with retries, records and parts.

pymilvus is imported on use.
"""

from __future__ import annotations

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
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simsearch.cluster.milvus.failures import MENDS, Kind, explain, without_secrets
from simsearch.cluster.milvus.lite_file import close_lite_file, open_lite_file
from simsearch.cluster.milvus.schema import FORMAT, VersionRecord
from simsearch.errors import MissingExtraError, QueryError, RemoteError
from simsearch.files import iter_blocks
from simsearch.plain_json import dumps
from simsearch.retrieval.faiss_compat import keep_search_parameters

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self


STATE_ID = "state"  # of the record of the current version
CHUNK_BYTES = 48_000  # of a part: with base64 they still fit in a text field
RECORDS_PER_WRITE = 64
ATTEMPT_SHARE = 6  # of the timeout, one attempt may take this part
FIRST_PAUSE_SECONDS = 0.25  # before the second attempt, doubled before each further one
MAX_PAUSE_SECONDS = 4.0
SLOW_METHODS = {"flush", "load_collection", "create_collection"}  # may build or read an index
SLOW_FACTOR = 10  # times as long they may take
NAME_PATTERN = re.compile(r"[A-Za-z_]\w{0,200}", re.ASCII)


class Store:
    """The collections that hold one published library: its rows, and the records beside them.

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
        If the engine does not take the name.
    LibraryBusyError
        If a Lite file is open in another process.
    RemoteError
        If it cannot be opened.
    MissingExtraError
        If pymilvus, or milvus-lite for a file, is not installed.
    """

    def __init__(
        self, uri: str | os.PathLike[str], collection: str, token: str | None, timeout: float
    ) -> None:
        if not NAME_PATTERN.fullmatch(collection):
            raise QueryError(
                f"collection {collection!r}: a name has letters, digits and _, and no digit first"
            )
        uri = os.fspath(uri)
        self.collection, self.timeout = collection, timeout
        self.address = without_secrets(uri)
        self.file = None if "://" in uri else str(Path(uri).expanduser().absolute())
        self.meta = f"{collection}_meta"  # the collection of records
        self._users, self._lock, self._loaded = 1, threading.Lock(), False
        client, options = import_client(), {"timeout": timeout / ATTEMPT_SHARE, "dedicated": True}
        if token is None:  # an address with a user in it needs none
            token = "" if self.address != uri else os.environ.get("MILVUS_TOKEN", "")
        with ExitStack() as opened:
            if self.file:
                uri, token = open_lite_file(self.file), ""
                opened.callback(close_lite_file, self.file)
            self._client = self._retry("connect", partial(client, uri, token=token, **options))
            opened.callback(self._client.close)
            self._opened = opened.pop_all()

    def __repr__(self) -> str:
        return f"{self.address}#{self.collection}"

    def share(self) -> Self:
        """Count one more user, who closes it too."""
        with self._lock:
            self._users += 1
        return self

    def close(self) -> None:
        """Count one user less; the last one closes the connection and the Lite file."""
        with self._lock:
            self._users -= 1
            if self._users:
                return
        self._opened.close()

    def call(self, method: str, *args: Any, **options: Any) -> Any:  # noqa: ANN401
        """Call a method of the client, again after a transient error.

        Every call may be made twice: rows are written under ids of their own.
        """
        if self.file:  # which is searched by FAISS, in this process
            keep_search_parameters()
        seconds = self.timeout / ATTEMPT_SHARE * (SLOW_FACTOR if method in SLOW_METHODS else 1)
        function = partial(getattr(self._client, method), *args, timeout=seconds, **options)
        return self._retry(method, function)

    def _retry(self, name: str, attempt: Callable[[], Any]) -> Any:  # noqa: ANN401
        """Attempt it until the timeout, with exponential backoff and jitter."""
        from grpc import FutureTimeoutError, RpcError
        from pymilvus.exceptions import MilvusException

        deadline, pause = time.monotonic() + self.timeout, FIRST_PAUSE_SECONDS
        while True:
            try:
                return attempt()
            except (MilvusException, RpcError, FutureTimeoutError) as error:
                reason, transient, kind = explain(error)
                late = time.monotonic() + pause > deadline
                if late or not transient:
                    raise self.error(f"{name}: {reason}", kind) from error
            time.sleep(pause * random.uniform(0.5, 1))  # noqa: S311
            pause = min(2 * pause, MAX_PAUSE_SECONDS)

    def error(self, reason: str, kind: Kind = "damaged") -> RemoteError:
        """Return the error that names the collection, the reason and the mend."""
        of_file = "check that the file is one of Milvus Lite and whole, or publish to another"
        mend = of_file if self.file else MENDS[kind]
        return RemoteError(f"{self!r} cannot be used: {without_secrets(reason)}; {mend}")

    def create(self, name: str, schema: Any, index: Any) -> None:  # noqa: ANN401
        """Create a collection whose readers see all that was written before they ask."""
        options = {"schema": schema, "index_params": index, "consistency_level": "Strong"}
        self.call("create_collection", name, **options)

    # Collections of rows

    def rows_name(self, generation: int) -> str:
        """Name of the collection that holds the rows of a generation."""
        return f"{self.collection}_rows_{generation}"

    def generations(self) -> list[int]:
        """Return the numbers of all such collections, also of abandoned ones."""
        pattern = re.compile(f"{self.collection}_rows_([0-9]+)")
        names = self.call("list_collections")
        return sorted(int(match[1]) for name in names if (match := pattern.fullmatch(name)))

    # Records

    def read_version(self) -> VersionRecord | None:
        """Read the record of the current version; None where nothing was ever published.

        Raises
        ------
        RemoteError
            If what is there was not published by simsearch, or in another format.
        """
        if not self._loaded:
            if not self.call("has_collection", self.meta):
                return None
            self.call("load_collection", self.meta)  # a Lite file forgets that when it is closed
            self._loaded = True
        text = self._read_text(STATE_ID)
        if text is None:
            return None
        try:
            record = json.loads(text)
            if record["format"] == FORMAT and record["complete"]:
                return VersionRecord.from_record(record)
        except (ValueError, KeyError, TypeError) as error:
            raise self.error(f"its state is damaged ({error!r})") from error
        raise self.error(f"its format is {record['format']!r}, not {FORMAT}")

    def write_version(self, version: VersionRecord) -> None:
        """Make a version the current one, by one write."""
        self.write_records([(STATE_ID, 0, dumps(version.to_record()))])

    def write_records(self, records: list[tuple[str, int, str]]) -> None:
        """Write records: id, version and text of each."""
        rows = [
            {"id": key, "version": version, "text": text, "vector": [1.0, 0.0]}
            for key, version, text in records
        ]
        self.call("upsert", self.meta, rows)

    def _read_text(self, key: str) -> str | None:
        found = self.call("get", self.meta, ids=[key], output_fields=["text"])
        return str(found[0]["text"]) if found else None

    # Parts of a version: bytes, in chunks

    def write_part(
        self, version: int, name: str, data: bytes, chunk_bytes: int = CHUNK_BYTES
    ) -> dict[str, Any]:
        """Store bytes beside the rows, in chunks; return what `read_part` needs."""
        chunks = list(iter_blocks(len(data), chunk_bytes))
        for block in iter_blocks(len(chunks), RECORDS_PER_WRITE):
            numbered = enumerate(chunks[block], block.start)
            self.write_records(
                [
                    (f"{version}/{name}/{i}", version, base64.b64encode(data[chunk]).decode())
                    for i, chunk in numbered
                ]
            )
        digest = hashlib.sha256(data).hexdigest()
        return {"chunks": len(chunks), "bytes": len(data), "sha256": digest}

    def read_part(self, version: VersionRecord, name: str) -> bytes:
        """Read bytes back.

        Raises
        ------
        RemoteError
            If they are not what was stored.
        """
        part = version.parts[name]
        data = b"".join(self.read_chunk(version, name, i) for i in range(part["chunks"]))
        if hashlib.sha256(data).hexdigest() != part["sha256"]:
            raise self.error(f"its part {name!r} is damaged")
        return data

    def read_chunk(self, version: VersionRecord, name: str, number: int) -> bytes:
        """Read one chunk of a part."""
        key = f"{version.version}/{name}/{number}"
        text = self._read_text(key)
        if text is None:
            raise self.error(f"its part {key!r} is missing")
        return base64.b64decode(text)


def pack(value: Any) -> bytes:  # noqa: ANN401
    """Compress plain values, as JSON."""
    return zlib.compress(dumps(value).encode())


def unpack(data: bytes) -> Any:  # noqa: ANN401
    """Return the values that `pack` has compressed."""
    return json.loads(zlib.decompress(data))


def import_client() -> Any:  # noqa: ANN401 (pymilvus has no types)
    """Import the client's class, and silence its own log.

    Raises
    ------
    MissingExtraError
        If pymilvus is not installed.
    """
    try:
        from pymilvus import MilvusClient
    except ImportError as error:
        raise MissingExtraError(
            "Milvus needs pymilvus: pip install 'simsearch[cluster]'"
        ) from error
    # It logs each error with its stack before it raises it; here each becomes a RemoteError.
    for name in ("decorators", "client.connection_manager"):
        logging.getLogger(f"pymilvus.{name}").setLevel(logging.CRITICAL)
    return MilvusClient
