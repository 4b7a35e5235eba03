"""Workers of one run on Ray: actors that embed batches, and what happens when one dies.

A worker that dies costs no more than the batches that it holds: these are embedded again. Actors,
and not `ray.data`, whose pools retry a batch that kills its worker for ever or drop it whole, and
wait for ever for a node; nor `ray.util.ActorPool`, which raises when a worker dies.
"""

from __future__ import annotations

import importlib
import logging
import math
import os
import sys
import time
from collections import deque
from contextlib import suppress
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from simsearch.embedding.batching import OPTIMISED_SOURCES, Batch, embed_batch
from simsearch.errors import EngineError, ImageError
from simsearch.files import iter_blocks
from simsearch.images.decode import ImageSource, describe

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
    from typing import TypeAlias

    from numpy.typing import NDArray

    from simsearch.backbones.backbone import Backbone
    from simsearch.cluster.ray import Share
    from simsearch.embedding.part_batches import PartBatch

    Embedder: TypeAlias = Callable[[Sequence[ImageSource], int, Backbone], Batch | PartBatch]
    """Sources, the position of the first, and what embeds them, in; what became of them, out."""


ray: Any = importlib.import_module("ray")  # half of its functions have no types
logger = logging.getLogger("simsearch")

MIN_COSINE = 0.99  # of one image's embeddings here and there; half precision keeps 0.999
REFERENCE_SOURCES = 32  # among which one is looked for that can be embedded here
START_SECONDS = 30.0  # that a worker may take to start until a warning
POLL_SECONDS = 1.0  # between two looks at workers that have not started
BATCH_DEATHS = 3  # of workers with a batch, until its images are tried one by one
IMAGE_DEATHS = 2  # of workers with one image alone, until it is skipped
# Deaths without a finished batch in between that end the run: these, and more per worker
MAX_DEATHS, MAX_DEATHS_PER_WORKER = 10, 4
BATCHES_PER_THREAD = 2  # one that is embedded, one that waits for it


class Job(NamedTuple):
    """Sources that are embedded together, and how many workers have died with them."""

    positions: range
    deaths: int = 0
    alone: bool = False


class RayRun:
    """The workers of one run, the jobs that each holds, and the jobs that are left.

    No job is sent until a batch has come back and its reader has asked for the next, so that
    memory holds as little as with the local executor.

    Parameters
    ----------
    sources
        What to embed.
    batch_size
        Sources in a job.
    share
        Number and resources of the workers.
    backbone
        Sent to each worker.
    embed
        What a worker does with a job.
    wait_seconds
        Without any worker, until the run ends with an error.

    Raises
    ------
    EngineError
        If the backbone cannot be sent.
    """

    def __init__(
        self,
        sources: Sequence[ImageSource],
        batch_size: int,
        share: Share,
        backbone: Backbone,
        embed: Embedder = embed_batch,
        *,
        wait_seconds: float = math.inf,
    ) -> None:
        self._sources, self._share, self._dim = sources, share, backbone.dim
        blocks = iter_blocks(len(sources), batch_size)
        self._jobs: Iterator[Job] = (Job(range(block.start, block.stop)) for block in blocks)
        self._suspects: deque[Job] = deque()  # single images of batches that killed workers
        # Worker and job of each call under way, by Ray's reference
        self._waiting: dict[Any, tuple[Any, Job | None]] = {}
        self._idle: list[Any] = []
        self._alive: set[Any] = set()
        self._starting: dict[Any, float] = {}  # since when each worker has not started
        self._wait_seconds, self._heard = wait_seconds, time.monotonic()  # from any worker
        self._told = 0  # workers that were last said to be missing
        self._deaths = 0  # since the last finished batch
        if len(sources) >= OPTIMISED_SOURCES and not share.gpus:
            backbone.optimise()  # workers get what embeds here
        self._reference = find_reference(sources, backbone)
        self._start_worker = _worker_starter(backbone, share, embed)
        for _ in range(share.workers):
            self._add_worker()

    def batches(self) -> Generator[Batch | PartBatch]:
        """Send jobs until all are done; yield what comes back.

        Raises
        ------
        EngineError
            If workers embed differently from this machine, die one after the other, or none runs
            for as long as the engine waits.
        """
        while not self._is_done():
            finished = ray.wait(list(self._waiting), timeout=POLL_SECONDS)[0]
            if finished:
                self._heard = time.monotonic()
            self._check_starts()
            if not finished:
                continue
            worker, job = self._waiting.pop(finished[0])
            batch = self._answer(finished[0], worker, job)
            if worker in self._alive:
                self._starting.pop(worker, None)
                self._idle.append(worker)
            while self._idle and (following := self._next_job()):
                self._send(self._idle.pop(0), following)
            if job and batch:
                named = [
                    (i, ImageError(error.reason, describe(self._sources[i])))
                    for i, error in batch.failures
                ]
                yield batch._replace(failures=named)

    def _is_done(self) -> bool:
        """Tell whether a worker is idle and none is busy: whoever has not started is not needed."""
        return bool(self._idle) and not self._is_busy()

    def _is_busy(self) -> bool:
        return any(job for _, job in self._waiting.values())

    def _check_starts(self) -> None:
        """Say how many workers are missing; end the run where there is none for too long."""
        now = time.monotonic()
        missing = sum(now - since > START_SECONDS for since in self._starting.values())
        if len(self._starting) < len(self._alive):
            self._heard = now
        elif now - self._heard > self._wait_seconds:
            raise EngineError(
                f"no worker has run for {self._wait_seconds:g} s: {self._room()}; what was "
                "embedded is kept: add nodes and call it again, or RayEngine(wait_seconds=...)"
            )
        if missing > self._told:
            logger.warning(
                "%s %s.",
                f"Without a place: {missing} of {len(self._alive)} workers; the work goes on."
                if missing < len(self._alive)
                else "Waiting for the cluster: no worker has started yet.",
                self._room(),
            )
        self._told = missing

    def _room(self) -> str:
        """Tell what the cluster has, and what a worker needs."""
        return (
            f"The cluster has {_resources(ray.cluster_resources())}, of which "
            f"{_resources(ray.available_resources())} free; a worker needs {self._share.cpus:g} "
            f"CPUs and {self._share.gpus:g} GPUs"
        )

    def close(self) -> None:
        """End the workers; the jobs that they hold are dropped."""
        for worker in self._alive:
            ray.kill(worker)

    def _add_worker(self) -> None:
        worker = self._start_worker()
        self._alive.add(worker)
        self._starting[worker] = time.monotonic()
        for _ in range(BATCHES_PER_THREAD * self._share.threads):
            self._waiting[worker.check.remote(*self._reference)] = worker, None

    def _answer(self, done: Any, worker: Any, job: Job | None) -> Batch | PartBatch | None:  # noqa: ANN401
        """Return a worker's answer; where it has died, what becomes of its job."""
        try:
            batch: Batch | PartBatch | None = ray.get(done)
        except ray.exceptions.RayTaskError as error:  # raised by the worker's code, not by its end
            raise error.cause from None
        except ray.exceptions.RayError as error:
            self._replace_worker(worker, error)
            return self._retry(job) if job else None
        if job:
            self._deaths = 0
        return batch

    def _replace_worker(self, worker: Any, error: Exception) -> None:  # noqa: ANN401
        """Start another worker in place of a dead one."""
        if worker not in self._alive:  # known from another of its jobs
            return
        with suppress(ray.exceptions.RayError):
            ray.kill(worker)  # it may only be out of reach
        self._alive.remove(worker)
        self._starting.pop(worker, None)
        self._idle = [other for other in self._idle if other != worker]
        self._deaths += 1
        too_many = self._deaths > MAX_DEATHS + MAX_DEATHS_PER_WORKER * self._share.workers
        if too_many or getattr(error, "actor_init_failed", False):
            last_line = str(error).strip().splitlines()[-1].strip()
            raise EngineError(
                f"workers die before they have done anything: {last_line}; every node "
                "needs the packages and modules of this program, and memory for the network"
            ) from error
        logger.warning("A worker has died; another one takes its place.")
        self._add_worker()

    def _retry(self, job: Job) -> Batch | None:
        """Have a job done again; an image that kills every worker comes back as a failure."""
        job = job._replace(deaths=job.deaths + 1)
        if job.alone and job.deaths == IMAGE_DEATHS:
            self._deaths = 0
            failure = job.positions[0], ImageError("the process that reads it dies")
            return Batch([], np.empty((0, self._dim), np.float32), [failure])
        if job.alone:
            self._suspects.append(job)
        elif job.deaths == BATCH_DEATHS:
            self._suspects += [Job(range(i, i + 1), alone=True) for i in job.positions]
        else:
            self._jobs = chain([job], self._jobs)
        return None

    def _send(self, worker: Any, job: Job) -> None:  # noqa: ANN401
        sources = self._sources[job.positions.start : job.positions.stop]
        self._waiting[worker.embed.remote(sources, job.positions.start)] = worker, job

    def _next_job(self) -> Job | None:
        """Return the next job; suspects come last and one by one, so that none shares blame."""
        if job := next(self._jobs, None):
            return job
        if self._suspects and not self._is_busy():
            return self._suspects.popleft()
        return None


class Worker:
    """A Ray actor: the network in a process of its own.

    Parameters
    ----------
    shipped
        Ray's reference to the backbone, in a list: so it is not unpacked before its modules can be
        imported.
    share
        Resources of the worker.
    folder, modules
        Working folder and module search path of the caller.
    embed
        What it does with a job.
    """

    def __init__(
        self,
        shipped: list[Any],
        share: Share,
        folder: str,
        modules: list[str],
        embed: Embedder = embed_batch,
    ) -> None:
        # Paths and modules mean here what they mean to the caller, as far as this node has them.
        with suppress(OSError):
            os.chdir(folder)
        sys.path += [place for place in modules if place not in sys.path]
        self._backbone: Backbone = ray.get(shipped[0])
        self._share, self._embed = share, embed
        if share.gpus:
            self._backbone.move("cuda")

    def check(self, source: ImageSource | None, expected: NDArray[np.float32] | None) -> None:
        """Check that an image which the caller has embedded has the same embedding here.

        Raises
        ------
        EngineError
            If it cannot be read, or its embedding differs.
        """
        if source is None or expected is None:
            return
        batch = embed_batch([source], 0, self._backbone)
        where = f"a worker on {os.uname().nodename if hasattr(os, 'uname') else 'this system'}"
        if batch.failures:
            raise EngineError(
                f"{where} cannot read {describe(source)}, and this program can: "
                f"{batch.failures[0][1].reason}; put the images where every node finds them under "
                "the same name, such as a shared folder or s3://, and install the same packages"
            )
        cosine = float(batch.embeddings[0] @ expected)
        if cosine < MIN_COSINE:
            raise EngineError(
                f"{where} embeds {describe(source)} differently from this program (cosine "
                f"{cosine:.3f}): install the same versions of the same packages on every node"
            )

    def embed(self, sources: Sequence[ImageSource], start: int) -> Batch | PartBatch:
        """Embed a batch as it is done locally."""
        import torch

        torch.set_num_threads(max(1, int(self._share.cpus) // self._share.threads))
        return self._embed(sources, start, self._backbone)


def _worker_starter(
    backbone: Backbone, share: Share, embed: Embedder = embed_batch
) -> Callable[[], Any]:
    """Send the backbone to the cluster; return what starts a worker with it."""
    try:
        shipped = ray.put(backbone)
    except TypeError as error:
        reason = error.__cause__ or error  # Ray's own message is a page long
        raise EngineError(f"{backbone!r} cannot be sent to other processes: {reason}") from error
    actor = ray.remote(Worker).options(
        num_cpus=share.cpus,
        num_gpus=share.gpus,
        max_concurrency=share.threads,
        max_restarts=0,  # another one is started in its place
        scheduling_strategy="SPREAD",
    )
    return lambda: actor.remote([shipped], share, os.getcwd(), sys.path, embed)  # noqa: PTH109


def _resources(found: Mapping[str, float]) -> str:
    """Put processors and GPUs in words."""
    return f"{found.get('CPU', 0):g} CPUs and {found.get('GPU', 0):g} GPUs"


def find_reference(
    sources: Sequence[ImageSource], backbone: Backbone
) -> tuple[ImageSource, NDArray[np.float32]] | tuple[None, None]:
    """Embed the first source that can be embedded here, for every worker to be compared with."""
    for source in sources[:REFERENCE_SOURCES]:
        batch = embed_batch([source], 0, backbone)
        if batch.positions:
            return source, batch.embeddings[0]
    return None, None
