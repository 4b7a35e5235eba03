"""Connections to Milvus: servers, Lite files served in this process, and errors worth a retry.

pymilvus and milvus-lite are imported when a connection is made.
"""

from __future__ import annotations

import atexit
import logging
import os
import re
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from simsearch.errors import LibraryBusyError, MissingExtraError, RemoteError

if TYPE_CHECKING:
    from typing import Any


TRANSIENT_CODES = {"UNAVAILABLE", "DEADLINE_EXCEEDED", "ABORTED"}  # of gRPC
TRANSIENT_MESSAGES = ("Retry timeout", "Fail connecting")
RATE_LIMIT_CODE = 8  # Milvus' own
REASON_CHARACTERS = 300
CLOSE_SECONDS = 2  # that requests under way have to end

lite_servers: dict[str, LiteServer] = {}  # by file
_lite_lock = threading.Lock()


@dataclass
class LiteServer:
    """A Lite file that is served in this process."""

    server: Any
    database: Any
    port: int
    users: int = 0


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


def open_lite_file(file: str) -> str:
    """Serve a Lite file, or count one more user of its server; return the server's address.

    Raises
    ------
    MissingExtraError
        If milvus-lite is not installed.
    LibraryBusyError
        If the file is open in another process.
    RemoteError
        If it cannot be opened.
    """
    with _lite_lock:
        if file not in lite_servers:
            atexit.unregister(_close_lite_files)
            atexit.register(_close_lite_files)
            lite_servers[file] = _start_lite_server(file)
        lite_servers[file].users += 1
        return f"http://127.0.0.1:{lite_servers[file].port}"


def _start_lite_server(file: str) -> LiteServer:
    try:
        from milvus_lite.adapter.grpc.server import start_server_in_thread
        from milvus_lite.exceptions import DataDirLockedError, MilvusLiteError
    except ImportError as error:
        raise MissingExtraError(
            f"{file!r} needs milvus-lite 3: pip install 'simsearch[cluster]', or give the "
            "address of a server"
        ) from error
    logging.getLogger("milvus_lite").setLevel(logging.CRITICAL)  # its errors come as answers, too
    _check_folder(Path(file))
    try:
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        return LiteServer(*start_server_in_thread(file))
    except DataDirLockedError as error:
        raise LibraryBusyError(
            f"{file!r} is open in another process; close it there, or run a Milvus server "
            "for several processes at once"
        ) from error
    except (MilvusLiteError, OSError, ValueError, RuntimeError) as error:
        raise RemoteError(
            f"{file!r} cannot be opened as a Milvus Lite file: {error}; give another"
        ) from error


def _check_folder(file: Path) -> None:
    """Refuse a folder of other files, in which Milvus Lite would create its own."""
    if file.is_dir() and any(file.iterdir()) and not (file / "LOCK").exists():
        raise RemoteError(
            f"{os.fspath(file)!r} is a folder with other things in it, and none of Milvus Lite; "
            "give a name of its own, such as images.db"
        )


def close_lite_file(file: str) -> None:
    """Count one user less; the last one stops the server."""
    with _lite_lock:
        entry = lite_servers[file]
        entry.users -= 1
        if not entry.users:
            del lite_servers[file]
            entry.server.stop(grace=CLOSE_SECONDS).wait()
            entry.database.close()


def _close_lite_files() -> None:
    """Close what was left open, so that its threads do not keep the process alive."""
    for file, entry in list(lite_servers.items()):
        entry.users = 1
        close_lite_file(file)


def engine_errors() -> tuple[type[Exception], ...]:
    """Return what a call to Milvus raises where the engine or the network fails."""
    import grpc
    from pymilvus.exceptions import MilvusException

    return MilvusException, grpc.RpcError, grpc.FutureTimeoutError


def is_transient(error: Exception) -> bool:
    """Tell whether another attempt may succeed: after network errors and rate limits."""
    import grpc

    if isinstance(error, grpc.FutureTimeoutError):
        return True
    code = error.code() if isinstance(error, grpc.RpcError) else getattr(error, "code", None)
    return (
        getattr(code, "name", "") in TRANSIENT_CODES
        or code == RATE_LIMIT_CODE
        or bool(getattr(error, "retriable", False))
        or any(words in str(error) for words in TRANSIENT_MESSAGES)
    )


def reason_of(error: Exception) -> str:
    """Return one line about an error of the engine."""
    import grpc

    if isinstance(error, grpc.RpcError):
        return f"{error.code().name.lower()}, {error.details()}"
    # Its first line: an engine may repeat a whole expression below it.
    return str(getattr(error, "message", "") or error).partition("\n")[0][:REASON_CHARACTERS]


def without_secrets(text: str) -> str:
    """Leave user and password out of an address."""
    return re.sub(r"(\w+://)[^/@\s]*@", r"\1", text)
