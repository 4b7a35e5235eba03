"""Decoding in processes of their own, for a network on a GPU: threads do not keep up with one.

Threads take turns at Python's lock: with 16 cores and an H200, 16 of them decode and sign 369 small
pictures a second, hardly more than one alone (334); 16 processes 2,231 (`benchmarks/README.md`).
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections import deque
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, closing
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np

# Its processes do not run the caller's script again, as those of the standard library do.
from joblib.externals.loky import ProcessPoolExecutor

from simsearch.backbones.preprocessing import Preprocessing
from simsearch.embedding.batching import Batch, embed_batch, keep_finite
from simsearch.errors import ImageError
from simsearch.files import iter_blocks
from simsearch.images.address import is_uri, local_path
from simsearch.images.budget import MemoryBudget, decoding_budget, use_budget

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Sequence
    from typing import Any

    from numpy.typing import NDArray

    from simsearch.backbones.backbone import Backbone
    from simsearch.embedding.batching import Signer
    from simsearch.images.decode import ImageSource

MIN_SOURCES = 1000  # fewer are decoded in threads before processes, which start in a second, win
IDLE_SECONDS = 30  # after which a process without work ends
LOOK_SECONDS = 1.0  # between looks of a process at whether its caller lives
CRASHED = "the process that decoded it crashed or was killed, perhaps as memory ran out"
logger = logging.getLogger("simsearch")
_lasting = ExitStack()  # what holds as long as a process


def suits(sources: Sequence[ImageSource], backbone: Backbone) -> bool:
    """Tell whether sources are better decoded in other processes: many files, for a device."""
    return (
        backbone.device.type != "cpu"
        and isinstance(backbone.transform, Preprocessing)
        and len(sources) >= MIN_SOURCES
        and all(isinstance(source, str) and not is_uri(local_path(source)) for source in sources)
    )


def where_it_suits(
    sources: Sequence[ImageSource],
    backbone: Backbone,
    batch_size: int,
    workers: int,
    sign: Signer | None,
) -> Generator[Batch] | None:
    """Embed by processes; None where threads do as well, or there can be no processes."""
    if not suits(sources, backbone):
        return None
    return embed_by_processes(sources, backbone, batch_size, workers, sign)


def embed_by_processes(
    sources: Sequence[ImageSource],
    backbone: Backbone,
    batch_size: int,
    workers: int,
    sign: Signer | None = None,
) -> Generator[Batch] | None:
    """Embed as `embed_batches` does: processes decode, this one runs the network.

    A picture at which a process crashes is reported as one that cannot be read.

    Returns
    -------
    Generator of Batch or None
        None where there can be no processes, of which a line in the log tells the reason.
    """
    job = partial(_decode, reader=_Reader(backbone), sign=sign)
    processes = _Processes(workers, job, sources)
    try:
        processes.submit(slice(0, 0)).result()
    except Exception as error:  # of a system that allows none, or where the package is not found
        processes.close()
        logger.warning("pictures are decoded in threads, as processes cannot be started: %s", error)
        return None
    return _embed_blocks(backbone, iter_blocks(len(sources), batch_size), processes)


def _embed_blocks(
    backbone: Backbone, blocks: Iterator[slice], processes: _Processes
) -> Generator[Batch]:
    waiting: deque[tuple[slice, Future[_Decoded]]] = deque()
    with closing(processes):
        while True:
            for block in islice(blocks, 2 * processes.workers - len(waiting)):
                waiting.append((block, processes.submit(block)))
            if not waiting:
                return
            block, future = waiting.popleft()
            found: Iterable[_Decoded]
            try:
                found = [future.result()]
            except BrokenProcessPool:
                found = processes.decode_each([block, *(block for block, _ in waiting)])
                waiting.clear()
            for decoded in found:
                yield _embed(decoded, backbone)


class _Decoded(NamedTuple):
    """One batch as its process has read it."""

    batch: Batch  # with rows of zeros
    inputs: list[NDArray[Any]] | NDArray[Any]  # of the network, for each that could be read
    logged: list[logging.LogRecord]


class _Reader:
    """Stands for a backbone where pictures are read: it keeps the inputs, and its rows are zeros.

    Attributes
    ----------
    inputs : list of numpy.ndarray or numpy.ndarray
        Of the network, one for each picture; an array if all have one shape.
    """

    dim = 1

    def __init__(self, backbone: Backbone) -> None:
        self.min_side, self.prepare = backbone.min_side, backbone.transform
        self.inputs: list[NDArray[Any]] | NDArray[Any] = []

    def embed_all(self, inputs: list[NDArray[Any]]) -> NDArray[np.float32]:
        """Keep what a network would be given."""
        alike = len({each.shape for each in inputs}) == 1
        self.inputs = np.stack(inputs) if alike else inputs
        return np.zeros((len(inputs), self.dim), np.float32)


def _decode(
    sources: Sequence[ImageSource], start: int, reader: _Reader, sign: Signer | None
) -> _Decoded:
    """Read one batch, in another process."""
    _heard.records = []
    batch = embed_batch(sources, start, cast("Backbone", reader), sign)
    return _Decoded(batch, reader.inputs, _heard.records)


def _embed(decoded: _Decoded, backbone: Backbone) -> Batch:
    """Embed a batch that was read, and say what was said about it."""
    batch, inputs, logged = decoded
    for record in logged:
        logging.getLogger(record.name).handle(record)
    if not batch.positions:
        return batch
    rows = backbone.embed_all(inputs) if isinstance(inputs, list) else backbone.embed(inputs)
    return keep_finite(batch._replace(embeddings=rows), backbone)


class _Heard(logging.Handler):
    """Keeps what is logged in a process, for its caller to log: its own output nobody may see."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record as plain text, which can be sent."""
        record.msg, record.args = record.getMessage(), None
        record.exc_info = None
        self.records.append(record)


_heard = _Heard()


class _Processes:
    """Processes that decode blocks of sources, and new ones when they have broken down."""

    def __init__(
        self, workers: int, job: partial[_Decoded], sources: Sequence[ImageSource]
    ) -> None:
        self.workers, self._job, self._sources = workers, job, sources
        self._pool = self._start()

    def _start(self) -> ProcessPoolExecutor:
        share = getattr(decoding_budget(), "size", 0) // self.workers
        return ProcessPoolExecutor(
            self.workers,
            timeout=IDLE_SECONDS,
            initializer=_begin,
            initargs=(share,),
            env={"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )

    def submit(self, block: slice) -> Future[_Decoded]:
        """Let a block be decoded; where the processes have broken down, the future says so."""
        future: Future[_Decoded]
        try:
            future = self._pool.submit(self._job, self._sources[block], block.start)
        except BrokenProcessPool as error:
            future = Future()
            future.set_exception(error)
        return future

    def decode_each(self, blocks: Iterable[slice]) -> Generator[_Decoded]:
        """Decode lost blocks picture by picture, so that the one at fault is found."""
        self._restart()
        for block in blocks:
            for i in range(*block.indices(len(self._sources))):
                try:
                    yield self.submit(slice(i, i + 1)).result()
                except BrokenProcessPool:
                    self._restart()
                    failed = Batch([], np.empty((0, 1), np.float32), [(i, ImageError(CRASHED))])
                    yield _Decoded(failed, [], [])

    def _restart(self) -> None:
        self.close()
        self._pool = self._start()

    def close(self) -> None:
        """End them; what is under way is lost."""
        self._pool.shutdown(wait=True, kill_workers=True)


def _end_with(parent: int) -> None:
    """End this process when its caller was killed; on Windows, `IDLE_SECONDS` do that."""
    while os.getppid() == parent:
        time.sleep(LOOK_SECONDS)
    os._exit(1)


def _begin(share: int) -> None:
    """Begin a process: Ctrl-C and log are the caller's, and all share the memory for decoding."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logger.addHandler(_heard)
    logger.propagate = False
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    if share:
        _lasting.enter_context(use_budget(MemoryBudget(share)))
