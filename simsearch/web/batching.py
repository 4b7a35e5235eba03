"""Dynamic batching: images of requests that arrive together pass through the network together.

A batch is what has arrived while the last one was computed, so that no request waits for others.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from simsearch.backbones.backbone import Backbone
from simsearch.embedding.batching import choose_batch_size

if TYPE_CHECKING:
    from numpy.typing import NDArray


BATCH_SIZES = (1, 2, 4, 8)
TIMING_ROUNDS = 5


def fastest_batch_size(backbone: Backbone) -> int:
    """Measure how many images a network is quickest with, up to 8; on a GPU, take the usual.

    On a processor more are not always better: what a large batch saves, it may lose again where
    it no longer fits the caches.
    """
    if backbone.device.type != "cpu":
        return choose_batch_size(None, 1, on_cpu=False)
    batches = [np.repeat(backbone.probe(), size, axis=0) for size in BATCH_SIZES]
    reserve = [[_seconds(backbone, batch) for batch in batches] for _ in range(TIMING_ROUNDS + 1)]
    costs = np.median(reserve[1:], axis=0) / BATCH_SIZES  # the first round wakes everything up
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
    most
        Images per batch, at most.
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
        self.original, self._most, self._observe = backbone, max_images, observe
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._open, self._opening = True, threading.Lock()
        self._thread = threading.Thread(target=self._work, name="simsearch-batches", daemon=True)
        self._thread.start()

    def embed(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """Embed prepared images, as `Backbone.embed` does, together with those of others."""
        job = _Job(batch, Future())
        with self._opening:
            if not self._open:  # a library that was replaced may still have questions to answer
                return self.original.embed(batch)
            self._jobs.put(job)
        return job.result.result()

    def close(self) -> None:
        """Finish what is waiting, and stop; what comes later is embedded alone."""
        with self._opening:
            self._open = False
            self._jobs.put(None)
        self._thread.join()

    def _work(self) -> None:
        while True:
            jobs, open_ = self._gather()
            for alike in _group_by_shape(jobs):
                self._answer(alike)
            if not open_:
                return

    def _gather(self) -> tuple[list[_Job], bool]:
        """Wait for a job and take along what has come in since; False at the end."""
        jobs: list[_Job] = []
        while sum(len(job.inputs) for job in jobs) < self._most:
            try:
                job = self._jobs.get(block=not jobs)
            except queue.Empty:
                break
            if job is None:
                return jobs, False
            jobs.append(job)
        return jobs, True

    def _answer(self, jobs: list[_Job]) -> None:
        inputs = np.concatenate([job.inputs for job in jobs])
        self._observe(len(inputs))
        try:
            embeddings = self.original.embed(inputs)
        except Exception as error:  # such as no memory for so many: perhaps for each alone
            if len(jobs) == 1:
                jobs[0].result.set_exception(error)
            else:
                for job in jobs:
                    self._answer([job])
            return
        start = 0
        for job in jobs:
            job.result.set_result(embeddings[start : start + len(job.inputs)])
            start += len(job.inputs)


def _group_by_shape(jobs: list[_Job]) -> list[list[_Job]]:
    """Part jobs whose images cannot be stacked: a user's own transform may not cut squares."""
    groups: dict[tuple[int, ...], list[_Job]] = {}
    for job in jobs:
        groups.setdefault(job.inputs.shape[1:], []).append(job)
    return list(groups.values())
