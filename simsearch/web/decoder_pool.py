"""Decoding in processes of their own, within one budget of memory: a bad file costs one request.

A worker that crashes, or takes too long, is killed and replaced. Where processes cannot be forked
safely (only Linux can), the server decodes in its own.
"""

from __future__ import annotations

import io
import json
import logging
import os
import pickle
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from simsearch.errors import ImageError, QueryError, SimsearchError
from simsearch.images.address import is_uri, local_path
from simsearch.images.budget import MemoryBudget
from simsearch.images.compare import Verdict
from simsearch.images.decode import DECODER
from simsearch.images.header import Header, measure, read_shape
from simsearch.images.read import read_file
from simsearch.images.read_signature import Signed
from simsearch.web import decode_worker as worker
from simsearch.work import checkpoint

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from simsearch.backbones.preprocessing import Preprocessing

Source = str | os.PathLike[str] | bytes

JOB_SECONDS = 30.0  # of work; time that is spent waiting for memory is not counted
POLL_SECONDS = 0.25  # between looks whether the client has left
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

logger = logging.getLogger("simsearch.web")


class _Worker:
    """One process, and the connection to it."""

    def __init__(self, pid: int, connection: Connection) -> None:
        self.pid, self.connection = pid, connection


class DecoderPool:
    """Decodes files and bytes in other processes; see `simsearch.images.decoder.Decoder`.

    Parameters
    ----------
    workers
        How many files are decoded at the same time.
    memory
        Bytes that they may take together, small pictures aside; a picture that needs more is
        decoded while no other one is.
    """

    def __init__(self, workers: int, memory: int) -> None:
        self.budget = MemoryBudget(memory)
        self._slots = threading.BoundedSemaphore(workers)
        self._idle: list[_Worker] = []
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._closed = False
        self._background = Background(self)

    @contextmanager
    def in_use(self, *, one_at_a_time: bool = False) -> Iterator[None]:
        """Decode here whatever this thread decodes, if there can be other processes.

        Work in the background, on however many threads, takes one at a time: requests have the
        others.
        """
        decoder = self._background if one_at_a_time else self
        token = DECODER.set(decoder if self.start() else None)
        try:
            yield
        finally:
            DECODER.reset(token)

    def start(self) -> bool:
        """Start the process that forks workers; tell whether there is one."""
        with self._lock:
            if self._closed or not sys.platform.startswith("linux"):
                return False
            if self._process is None or self._process.poll() is not None:
                self._start_process()
            return self._process is not None

    def close(self) -> None:
        """End all processes."""
        with self._lock:
            self._closed = True
            self._stop_process()

    def load(self, source: Source, min_side: int | None) -> Image.Image:
        """Decode as `load_image` does."""
        image: Image.Image = self._run("load", _at_hand(source), min_side)
        return image

    def parts(self, source: Source, boxes: Sequence[Sequence[float]]) -> list[Image.Image]:
        """Decode and crop as `load_parts` does."""
        parts: list[Image.Image] = self._run("parts", _at_hand(source), boxes)
        return parts

    def prepare(self, source: Source, min_side: int, transform: Preprocessing) -> NDArray[np.uint8]:
        """Decode an image and make a network's input of it."""
        prepared: NDArray[np.uint8] = self._run("prepare", _at_hand(source), min_side, transform)
        return prepared

    def thumbnail(self, source: Source, size: int, quality: int, comment: bytes) -> bytes:
        """Make a small JPEG of an image."""
        data: bytes = self._run("thumbnail", _at_hand(source), size, quality, comment)
        return data

    def jpeg(self, source: Source, quality: int) -> bytes:
        """Make a JPEG of an image."""
        data: bytes = self._run("jpeg", _at_hand(source), quality)
        return data

    def measure(self, source: Source) -> tuple[Header, int]:
        """Read format, size and coded pixels of an image as `measure` does."""
        if not self.start():
            return measure(source)
        header, pixels = self._run("measure", _at_hand(source))
        return Header(*header), pixels

    def shape(self, source: Source) -> tuple[int, int]:
        """Read width and height as `read_shape` does."""
        if not self.start():
            return read_shape(source)
        width, height = self._run("shape", _at_hand(source))
        return width, height

    def compare(self, a: str, b: str) -> Verdict | None:
        """Compare two files as `compare_files` does."""
        found = self._run("compare", a, b)
        return None if found is None else Verdict(*found)

    def equal(self, a: str, b: str) -> bool:
        """Compare two files as `equal_pixels` does."""
        return bool(self._run("equal", a, b))

    def signature(self, path: str) -> Signed | None:
        """Read a picture's signature as `read_signature` does."""
        try:
            found: NDArray[np.void] = self._run("signature", _at_hand(path))
        except SimsearchError:
            return None
        if found.shape != (1,) or found.dtype != worker.SIGNED:
            return None
        return Signed(found["signature"][0], int(found["frames"][0]))

    def _run(self, job: str, *arguments: Any) -> Any:  # noqa: ANN401
        """Run a job in a worker.

        Raises
        ------
        ImageError
            If the file cannot be read, takes too much time or memory, or ends the worker.
        """
        with self._slots:
            one = self._take()
            stays = False
            try:
                one.connection.send_bytes(pickle.dumps((job, arguments)))
                result, stays = self._receive(one.connection)
            except (EOFError, OSError) as error:
                raise ImageError("the decoder failed") from error
            finally:
                self._release(one, stays=stays)
        if isinstance(result, Exception):
            raise result
        return result

    def _receive(self, connection: Connection) -> tuple[Any, bool]:
        """Return the result of a job, and whether its worker is ready for another."""
        with ExitStack() as reserved:
            deadline = time.monotonic() + JOB_SECONDS
            frame = _receive_frame(connection, deadline)
            while frame[:1] in {worker.RESERVE, worker.RELEASE}:
                if frame[:1] == worker.RELEASE:
                    reserved.close()
                else:
                    start = time.monotonic()
                    reserved.close()  # of one picture at a time: who holds some never waits
                    reserved.enter_context(self.budget.reserve(int(frame[1:]), checkpoint))
                    deadline += time.monotonic() - start
                    connection.send_bytes(worker.GRANTED)
                frame = _receive_frame(connection, deadline)
            result = _read_result(connection, frame, deadline)
            return result, _receive_frame(connection, deadline) == worker.READY

    def _take(self) -> _Worker:
        """Return an idle worker, or a new one."""
        with self._lock:
            while self._idle:
                one = self._idle.pop()
                if not one.connection.poll():  # what is there to read is its end
                    return one
                one.connection.close()
            if self._process is None or self._process.poll() is not None:
                self._start_process()
            return self._fork()

    def _release(self, one: _Worker, *, stays: bool) -> None:
        """Keep a worker for the next job, or end it."""
        with self._lock:
            if stays and not self._closed:
                self._idle.append(one)
                return
            one.connection.close()
            if self._control is not None:
                with suppress(OSError):
                    self._control.sendall(worker.KILL + worker.PID.pack(one.pid))

    def _fork(self) -> _Worker:
        """Let a worker be forked."""
        if self._control is None:
            raise ImageError("no decoder can be started; the server's log says why")
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                socket.send_fds(self._control, [worker.FORK], [theirs.fileno()])
                (pid,) = worker.PID.unpack(self._control.recv(worker.PID.size))
            except (OSError, struct.error) as error:
                ours.close()
                raise ImageError("no decoder can be started") from error
        return _Worker(pid, Connection(ours.detach()))

    def _start_process(self) -> None:
        self._stop_process()
        self._control, theirs = socket.socketpair()
        package = str(Path(worker.__file__).parents[2])
        path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH", "")]))
        with theirs:
            try:
                self._process = subprocess.Popen(  # noqa: S603 (this interpreter)
                    [sys.executable, "-P", "-m", worker.__name__, str(theirs.fileno())],
                    pass_fds=[theirs.fileno()],
                    env=os.environ | ONE_THREAD | {"PYTHONPATH": path},
                    stdin=subprocess.DEVNULL,
                )
            except OSError as error:
                logger.warning("pictures are decoded in this process: %s", error)
                self._control.close()
                self._control = None

    def _stop_process(self) -> None:
        for one in self._idle:
            one.connection.close()
        self._idle.clear()
        if self._control is not None:
            self._control.close()  # which ends it, and all that it has forked
            self._control = None
        if self._process is not None:
            self._process.wait()
            self._process = None


class Background:
    """Decodes in a pool, one file at a time."""

    def __init__(self, pool: DecoderPool) -> None:
        self._pool, self._turn = pool, threading.Lock()

    def __getattr__(self, job: str) -> Any:  # noqa: ANN401
        """Return a job of the pool that waits for its turn."""
        run = getattr(self._pool, job)

        def in_turn(*arguments: Any) -> Any:  # noqa: ANN401
            with self._turn:
                return run(*arguments)

        return in_turn


def _at_hand(source: Source) -> Source:
    """Return bytes, a path, or what an address leads to: workers use no network."""
    if isinstance(source, bytes) or not is_uri(local_path(source)):
        return source
    return read_file(os.fspath(source))


def _receive_frame(connection: Connection, deadline: float) -> bytes:
    """Receive a frame; raise when it is late, or its request has been cancelled."""
    while not connection.poll(POLL_SECONDS):
        checkpoint()
        if time.monotonic() > deadline:
            raise ImageError(f"decoding it took over {JOB_SECONDS:g} seconds")
    return connection.recv_bytes()


def _read_result(connection: Connection, frame: bytes, deadline: float) -> Any:  # noqa: ANN401
    """Read what a worker answers: plain bytes, as it may have been taken over by a file."""
    kind, content = frame[:1], memoryview(frame)[1:]
    if kind == worker.IMAGE:
        return _read_image(content)
    if kind == worker.ARRAY:
        return np.load(io.BytesIO(content), allow_pickle=False)
    if kind == worker.BYTES:
        return bytes(content)
    if kind == worker.JSON:
        return json.loads(bytes(content))
    if kind == worker.PARTS:
        count = int.from_bytes(content, "little")
        frames = (_receive_frame(connection, deadline) for _ in range(count))
        return [_read_result(connection, each, deadline) for each in frames]
    name, reason = json.loads(bytes(content))
    return QueryError(reason) if name == "QueryError" else ImageError(reason)


def _read_image(content: memoryview) -> Image.Image:
    length = worker.SIZE.size
    size, full_size = (worker.SIZE.unpack(content[at : at + length]) for at in (0, length))
    image = Image.frombytes("RGB", size, content[2 * length :])
    if size != full_size:
        image.full_size = full_size  # type: ignore[attr-defined]
    return image
