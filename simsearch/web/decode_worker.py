"""The processes that decode for a server: one that forks, and those that it forks.

`python -m simsearch.web.decode_worker FD` forks a worker for each socket that it is sent, and kills
one when it is told to. It decodes nothing itself, so that each worker begins as clean as the first.
A worker answers with plain bytes alone: what it says is not trusted more than the files it reads.
"""

from __future__ import annotations

import gc
import io
import json
import os
import pickle
import signal
import socket
import struct
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from simsearch.backbones import long_pictures
from simsearch.errors import ImageError, QueryError, SimsearchError
from simsearch.images import (  # loaded before the first fork, not in each worker
    alpha,
    compare,
    depth,
    fallback,
    large,
    orientation,
    profile,
    read_signature,
    repair,
    scans,
    tiff,
)
from simsearch.images.allocator import limit_allocator
from simsearch.images.budget import use_budget
from simsearch.images.crop import load_parts
from simsearch.images.decode import load_image, register_formats
from simsearch.images.header import measure, read_shape
from simsearch.images.signature import SIGNATURE
from simsearch.web.jpeg import encode_jpeg, make_thumbnail

if TYPE_CHECKING:
    from PIL import Image

    from simsearch.backbones.preprocessing import Preprocessing
    from simsearch.images.decode import ImageSource

PRELOADED = (
    *(alpha, depth, fallback, large, orientation, profile, repair, scans, tiff),
    long_pictures,
)
IMAGE, ARRAY, BYTES, JSON, PARTS, ERROR = b"I", b"A", b"B", b"J", b"P", b"E"
RESERVE, RELEASE = b"R", b"F"
GRANTED, READY, RETIRED = b"granted", b"ready", b"retired"
SIGNED = np.dtype([("frames", np.uint32), ("signature", SIGNATURE)])  # of a picture, as an array
SIZE = struct.Struct("<II")  # width and height of an image
PID = struct.Struct("<q")
FORK, KILL = b"F", b"K"
SPARE_BYTES = 192 * 2**20  # of a job, beyond what it has reserved
MAX_JOBS, MAX_RESIDENT_BYTES = 500, 160 * 2**20  # after which a worker is replaced
NICENESS = 5  # where processors are scarce, the process that answers comes first
OOM_SCORE = "600"  # out of 1000: where memory runs out, workers go before the server
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


def main() -> None:
    """Fork workers until the server has gone."""
    control = socket.socket(fileno=int(sys.argv[1]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which then closes this
    limit_allocator()
    os.nice(NICENESS)
    register_formats()  # here, and not in each worker
    gc.freeze()  # or the workers' collections would copy the pages that they share
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(OOM_SCORE, "ascii")
    children: set[int] = set()
    try:
        while True:
            message, sockets, *_ = socket.recv_fds(control, 1 + PID.size, 1)
            if not message:
                return
            _reap(children)
            if message[:1] == KILL:
                _kill(children & {PID.unpack(message[1:])[0]})
                continue
            pid = os.fork()
            if not pid:
                control.close()
                _work(sockets[0])
            children.add(pid)
            os.close(sockets[0])
            control.sendall(PID.pack(pid))
    finally:
        _kill(children)


def _reap(children: set[int]) -> None:
    """Forget workers that have ended; until then, no other process has their numbers."""
    for pid in list(children):
        if os.waitpid(pid, os.WNOHANG)[0]:
            children.discard(pid)


def _kill(children: set[int]) -> None:
    for pid in children:
        os.kill(pid, signal.SIGKILL)


def _work(descriptor: int) -> None:
    """Answer jobs until the server closes the socket, or this worker has grown; never return."""
    status = 1
    try:
        connection = Connection(descriptor)
        with use_budget(_ServerBudget(connection)):
            for left in reversed(range(MAX_JOBS)):
                function, arguments = pickle.loads(connection.recv_bytes())  # noqa: S301 (of the server)
                _answer(connection, JOBS[function], arguments)
                stays = left > 0 and _resident_bytes() < MAX_RESIDENT_BYTES
                connection.send_bytes(READY if stays else RETIRED)
                if not stays:
                    break
        status = 0
    except (EOFError, OSError):  # the server has gone
        status = 0
    finally:
        os._exit(status)


def _answer(connection: Connection, function: Callable[..., Any], arguments: Any) -> None:  # noqa: ANN401
    _limit_data(SPARE_BYTES)
    try:
        frames = list(_frames(function(*arguments)))
    except SimsearchError as error:
        kind = "QueryError" if isinstance(error, QueryError) else "ImageError"
        reason = error.reason if isinstance(error, ImageError) else str(error)
        frames = [ERROR + json.dumps([kind, reason]).encode()]
    except MemoryError:
        frames = [ERROR + json.dumps(["ImageError", "it takes too much memory"]).encode()]
    finally:
        _limit_data(None)
    for frame in frames:
        connection.send_bytes(frame)


def _frames(result: Any) -> Iterator[bytes]:  # noqa: ANN401
    """Yield a result as frames: a letter for its kind, then plain bytes."""
    if isinstance(result, list):
        yield PARTS + struct.pack("<I", len(result))
        for part in result:
            yield from _frames(part)
    elif isinstance(result, bytes):
        yield BYTES + result
    elif isinstance(result, np.ndarray):
        data = io.BytesIO()
        np.save(data, result, allow_pickle=False)
        yield ARRAY + data.getvalue()
    elif hasattr(result, "tobytes"):
        full = getattr(result, "full_size", result.size)
        yield IMAGE + SIZE.pack(*result.size) + SIZE.pack(*full) + result.tobytes()
    else:
        yield JSON + json.dumps(result).encode()


class _ServerBudget:
    """Asks the server for memory, and takes no more than it grants."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @contextmanager
    def reserve(self, size: int) -> Iterator[None]:
        """Wait for so many bytes."""
        self._connection.send_bytes(RESERVE + str(size).encode())
        if self._connection.recv_bytes() != GRANTED:
            raise EOFError
        _limit_data(size + SPARE_BYTES)
        try:
            yield
        finally:
            _limit_data(SPARE_BYTES)
            self._connection.send_bytes(RELEASE)


def _limit_data(size: int | None) -> None:
    """Let this process take so many bytes more; None for any number."""
    with suppress(ImportError, ValueError, OSError):
        import resource

        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        soft = resource.RLIM_INFINITY if size is None else _data_bytes() + size
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _data_bytes() -> int:
    """Return the bytes that this process has mapped for itself."""
    return int(Path("/proc/self/statm").read_text("ascii").split()[5]) * PAGE_BYTES


def _resident_bytes() -> int:
    """Return the bytes of this process that are in memory and not of a file; 0 if unknown."""
    with suppress(OSError):
        resident, shared = Path("/proc/self/statm").read_text("ascii").split()[1:3]
        return (int(resident) - int(shared)) * PAGE_BYTES
    return 0


def _prepare(source: ImageSource, min_side: int, transform: Preprocessing) -> np.ndarray[Any, Any]:
    return transform(load_image(source, min_side))


def _thumbnail(source: ImageSource, size: int, quality: int, comment: bytes) -> bytes:
    return encode_jpeg(make_thumbnail(source, size), quality, comment)


def _jpeg(source: ImageSource, quality: int) -> bytes:
    return encode_jpeg(load_image(source), quality)


def _compare(a: str, b: str) -> Sequence[Any] | None:
    return compare.compare_files(a, b)


def _equal(a: str, b: str) -> bool:
    return compare.equal_pixels(a, b)


def _signature(source: ImageSource) -> np.ndarray[Any, Any]:
    """Return a picture's signature and frames as an array of one row."""
    signed = read_signature.sign(source, load_image(source, read_signature.DECODED_SIDE))
    made = np.zeros(1, SIGNED)
    made["signature"], made["frames"] = signed
    return made


def _load(source: ImageSource, min_side: int | None) -> Image.Image:
    return load_image(source, min_side)


JOBS: dict[str, Callable[..., Any]] = {
    "load": _load,
    "parts": load_parts,
    "prepare": _prepare,
    "thumbnail": _thumbnail,
    "jpeg": _jpeg,
    "compare": _compare,
    "equal": _equal,
    "signature": _signature,
    "measure": measure,
    "shape": read_shape,
}

if __name__ == "__main__":
    main()
