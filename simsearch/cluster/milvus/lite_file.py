"""Files of Milvus Lite, served in this process; milvus-lite is imported on use."""

from __future__ import annotations

import atexit
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

from simsearch.errors import LibraryBusyError, MissingExtraError, RemoteError

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
    place = Path(file)
    if place.is_dir() and any(place.iterdir()) and not (place / "LOCK").exists():
        raise RemoteError(
            f"{file!r} is a folder with other things in it, and none of Milvus Lite; "
            "give a name of its own, such as images.db"
        )
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        server = LiteServer(*start_server_in_thread(file))
    except DataDirLockedError as error:
        raise LibraryBusyError(
            f"{file!r} is open in another process; close it there, or run a Milvus server "
            "for several processes at once"
        ) from error
    except (MilvusLiteError, OSError, ValueError, RuntimeError) as error:
        raise RemoteError(
            f"{file!r} cannot be opened as a Milvus Lite file: {error}; give another"
        ) from error
    _open_collections_one_at_a_time(server.database)
    return server


def _open_collections_one_at_a_time(database: Any) -> None:  # noqa: ANN401
    """Let requests that open a collection at once get the same one.

    Milvus Lite opens it on first use, unguarded: two requests would each get their own, and what
    went to the one, rows included, would be missing from the other.
    """
    lock = threading.RLock()

    def guarded(method: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(method)
        def call(*args: Any, **options: Any) -> Any:  # noqa: ANN401
            with lock:
                return method(*args, **options)

        return call

    for name in ("create_collection", "get_collection", "drop_collection"):
        setattr(database, name, guarded(getattr(database, name)))


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
