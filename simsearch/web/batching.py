"""Dynamic batching: images of requests that arrive together pass through the network together.

A batch is what has arrived while the last one was computed, so that no request waits for others.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from simsearch.backbones.backbone import Backbone
from simsearch.backbones.preprocessing import Preprocessing
from simsearch.embedding.batching import choose_batch_size
from simsearch.images.decode import DECODER
from simsearch.web.decoder_pool import DecoderPool

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from simsearch.images.decode import ImageSource

BATCH_SIZES = (1, 2, 4, 8)
TIMING_ROUNDS = 5


def fastest_batch_size(backbone: Backbone) -> int:
    """Return the number of images per batch, up to 8, with the least time per image.

    Measured on a CPU, where a large batch may be slower as it no longer fits the caches; on a GPU,
    the default of `choose_batch_size`.
    """
    if backbone.device.type != "cpu":
        return choose_batch_size(None, 1, on_cpu=False)
    batches = [np.repeat(backbone.probe(), size, axis=0) for size in BATCH_SIZES]
    seconds = [[_seconds(backbone, batch) for batch in batches] for _ in range(TIMING_ROUNDS + 1)]
    costs = np.median(seconds[1:], axis=0) / BATCH_SIZES  # the first round is a warm-up
    return BATCH_SIZES[int(costs.argmin())]


def _seconds(backbone: Backbone, batch: NDArray[Any]) -> float:
    start = time.perf_counter()
    backbone.embed(batch)
    return time.perf_counter() - start


class _Job(NamedTuple):
    inputs: NDArray[Any]
    result: Future[NDArray[np.float32]]


class BatchedBackbone(Backbone):
    """A backbone that embeds the images of many threads in batches.

    Parameters
    ----------
    backbone
        What embeds; name, fingerprint and dimension are the same.
    max_images
        Images per batch, at most; one request's images are never split.
    observe
        Called with the size of each batch.

    Attributes
    ----------
    original : Backbone
        What it was made from.
    """

    def __init__(
        self, backbone: Backbone, max_images: int, observe: Callable[[int], object] = lambda _: None
    ) -> None:
        vars(self).update(vars(backbone))
        self.original, self._max_images, self._observe = backbone, max_images, observe
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._open, self._lock = True, threading.Lock()
        self._thread = threading.Thread(target=self._work, name="simsearch-batches", daemon=True)
        self._thread.start()

    def embed(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """Embed prepared images, as `Backbone.embed` does, batched with those of other threads."""
        job = _Job(batch, Future())
        with self._lock:
            if not self._open:  # requests to a library that was replaced meanwhile
                return self.original.embed(batch)
            self._jobs.put(job)
        return job.result.result()

    def read(self, source: ImageSource) -> NDArray[Any]:
        """Decode and prepare an image, in another process where there is one."""
        decoder, transform = DECODER.get(), self.transform
        if isinstance(decoder, DecoderPool) and isinstance(transform, Preprocessing):  # noqa: SIM102
            if isinstance(source, (str, os.PathLike, bytes)):
                return decoder.prepare(source, transform.resize, transform)
        return super().read(source)

    def close(self) -> None:
        """Embed what is waiting and stop the thread; later calls embed without batching."""
        with self._lock:
            self._open = False
            self._jobs.put(None)
        self._thread.join()

    def _work(self) -> None:
        is_open = True
        while is_open:
            jobs, is_open = self._gather()
            for group in _group_by_shape(jobs):
                self._embed_group(group)

    def _gather(self) -> tuple[list[_Job], bool]:
        """Wait for a job and return it with all that are waiting; False if the queue is closed."""
        jobs: list[_Job] = []
        while sum(len(job.inputs) for job in jobs) < self._max_images:
            try:
                job = self._jobs.get(block=not jobs)
            except queue.Empty:
                break
            if job is None:
                return jobs, False
            jobs.append(job)
        return jobs, True

    def _embed_group(self, jobs: list[_Job]) -> None:
        inputs = np.concatenate([job.inputs for job in jobs])
        self._observe(len(inputs))
        try:
            embeddings = self.original.embed(inputs)
        except Exception as error:
            if len(jobs) == 1:
                jobs[0].result.set_exception(error)
                return
            for job in jobs:  # such as too little memory for all: each may succeed alone
                self._embed_group([job])
            return
        ends = np.cumsum([len(job.inputs) for job in jobs])
        for job, part in zip(jobs, np.split(embeddings, ends[:-1]), strict=True):
            job.result.set_result(part)


def _group_by_shape(jobs: list[_Job]) -> list[list[_Job]]:
    """Group jobs whose images can be stacked: a user's own transform may return any shape."""
    groups: dict[tuple[int, ...], list[_Job]] = {}
    for job in jobs:
        groups.setdefault(job.inputs.shape[1:], []).append(job)
    return list(groups.values())
