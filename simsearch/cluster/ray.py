"""Embedding on a Ray cluster: batches go out to its workers, embeddings come back.

A worker is a Ray actor that holds the network and embeds batches by the local engine's own code.
Nothing is kept here or there: the log, the library and what is skipped stay with the caller, so
that a run which dies goes on as one of the local engine does, and a worker that dies costs no
more than the batches it had in hand.

Actors, and not `ray.data`: batches may come back in any order, each at once, with its bad files,
and a file that kills its worker can be told from its neighbours.
"""

from __future__ import annotations

import importlib.util
import logging
import math
import os
import socket
import sys
from collections import deque
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from simsearch.embedding.batching import MAX_WORKERS, Batch, choose_batch_size, embed_batch
from simsearch.errors import EngineError, ImageError, MissingExtraError
from simsearch.images.decode import describe

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
    from typing import Any

    from numpy.typing import NDArray

    from simsearch.backbones.backbone import Backbone
    from simsearch.images.decode import ImageSource


logger = logging.getLogger("simsearch")

_SAME = 0.99  # cosine of one image's embeddings here and there; half precision keeps 0.999
_LOOKED_AT = 32  # sources among which one is looked for that can be embedded here
_DEATHS = 3  # of workers with a batch in hand, until its images are tried one by one
_DEATHS_ALONE = 2  # with one image in hand, until that is taken for the cause
_TOO_MANY = 10  # deaths without a batch done in between, and 4 more for each worker
_PATIENCE = 30.0  # seconds without any worker until that is said


@dataclass(frozen=True)
class RayEngine:
    """Embed on the Ray cluster that this program is connected to, or on one started here.

    `ray.init(address=...)`, or the variable RAY_ADDRESS, chooses a cluster; without either, Ray is
    started on this machine for the run. Every node needs this package, and must be able to open
    the files: from a folder that all of them mount, or from an address such as `s3://bucket`.
    Workers compute on a GPU where Ray gives them one, in the precision of the caller's backbone: a
    caller without a GPU says `precision="float16"` to have theirs at full speed.

    Parameters
    ----------
    cpus, gpus
        What one worker takes. By default one GPU, where the cluster has any, and its share of the
        processors; otherwise one processor. A fraction of a GPU lets several workers share it.
    threads
        Batches that a worker has under way at once, by default one a processor. More of them hide
        the time that files take to arrive over a network.

    Raises
    ------
    MissingExtraError
        If Ray is not installed.
    EngineError
        If a number is out of range.

    Examples
    --------
    >>> RayEngine(gpus=0.5, threads=8)
    RayEngine(cpus=None, gpus=0.5, threads=8)
    """

    cpus: float | None = None
    gpus: float | None = None
    threads: int | None = None

    def __post_init__(self) -> None:
        if importlib.util.find_spec("ray") is None:
            raise MissingExtraError('engine="ray" needs: pip install "simsearch[cluster]"')
        for name, value, fits in (
            ("cpus", self.cpus, self.cpus is None or self.cpus > 0),
            ("gpus", self.gpus, self.gpus is None or self.gpus >= 0),
            ("threads", self.threads, self.threads is None or self.threads >= 1),
        ):
            if not fits:
                raise EngineError(f"{name}={value}: a worker needs more")

    def __call__(
        self,
        sources: Sequence[ImageSource],
        backbone: Backbone,
        batch_size: int | None = None,
        workers: int | None = None,
    ) -> Generator[Batch]:
        """Embed sources on the cluster; batches come as they are done, bad images in them.

        Parameters
        ----------
        sources
            What every worker can open.
        backbone
            Sent to each node once, as it is here.
        batch_size
            By default as on one machine: 8 on processors, 64 on GPUs.
        workers
            How many; by default as many as the cluster's nodes have room for.

        Raises
        ------
        EngineError
            If no cluster answers or it has no room, a worker opens or embeds images otherwise than
            this machine does, or workers die one after the other.
        """
        if not sources:
            return
        with _connected():
            share = self.share(_nodes(), workers)
            size = choose_batch_size(batch_size, share.workers, on_cpu=not share.gpus)
            run = _Run(sources, size, share, backbone)
            try:
                yield from run.batches()
            finally:
                run.stop()

    def share(self, nodes: Sequence[Mapping[str, float]], workers: int | None = None) -> Share:
        """Divide the nodes' resources among workers.

        Parameters
        ----------
        nodes
            What each has, as Ray lists it: `{"CPU": 16.0, "GPU": 2.0}`.
        workers
            Their number, if it is given.

        Raises
        ------
        EngineError
            If no node has room for a worker, and none is asked for.

        Examples
        --------
        >>> RayEngine().share([{"CPU": 16.0, "GPU": 2.0}, {"CPU": 8.0, "GPU": 2.0}])
        Share(workers=4, cpus=4.0, gpus=1.0, threads=4)
        """
        on_gpus = any(node.get("GPU") for node in nodes)
        gpus = float(on_gpus) if self.gpus is None else self.gpus
        hosts = [node for node in nodes if node.get("CPU") and node.get("GPU", 0) >= gpus]
        cpus = self.cpus or _processors(hosts, gpus)
        room = sum(
            int(min(node["CPU"] / cpus, node["GPU"] / gpus if gpus else math.inf)) for node in hosts
        )
        if workers is None and not room:
            raise EngineError(
                f"no node has room for a worker of {cpus:g} CPUs and {gpus:g} GPUs: change them, "
                "as RayEngine(cpus=..., gpus=...), or give workers= if the cluster grows on demand"
            )
        workers = room if workers is None else workers
        return Share(workers, cpus, gpus, self.threads or max(1, int(cpus)))


class Share(NamedTuple):
    """How many workers there are, and what each of them takes."""

    workers: int
    cpus: float
    gpus: float
    threads: int


def _processors(hosts: Sequence[Mapping[str, float]], gpus: float) -> float:
    """Processors for a worker that takes so many GPUs, such that none of them stays idle."""
    if not gpus or not hosts:
        return 1.0
    least = min(host["CPU"] * gpus / host["GPU"] for host in hosts)
    return float(min(MAX_WORKERS, math.floor(least))) or least


@contextmanager
def _connected() -> Iterator[None]:
    """Use the caller's connection to a cluster, or make one for the time being."""
    ray = _ray()

    if ray.is_initialized():
        yield
        return
    _check_address(os.environ.get("RAY_ADDRESS", ""))
    try:
        ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError) as error:
        raise EngineError(f"cannot start Ray, or connect to it: {error}") from error
    try:
        yield
    finally:
        ray.shutdown()


def _check_address(address: str) -> None:
    """See that somebody listens there: Ray itself would go on asking for many minutes."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not host or not port.isdecimal():  # none, or a word such as "auto"
        return
    try:
        socket.create_connection((host, int(port)), _PATIENCE).close()
    except OSError as error:
        raise EngineError(
            f"no Ray cluster answers at RAY_ADDRESS={address!r} ({error}): correct it, or unset it "
            "to have Ray started on this machine"
        ) from error


def _ray() -> Any:  # noqa: ANN401 (half of its functions have no types)
    import ray

    return ray


def _nodes() -> list[dict[str, float]]:
    ray = _ray()

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


class _Job(NamedTuple):
    """Sources that are embedded together, and how many workers have died with them in hand."""

    positions: range
    deaths: int = 0
    alone: bool = False


class _Run:
    """The workers of one run, what each has in hand, and what is still to be done.

    Each worker has two batches a thread: one under way, one that waits for it. No more is handed
    out until a batch has come back and its reader has asked for the next, so that memory holds as
    little as with the local engine.
    """

    def __init__(
        self, sources: Sequence[ImageSource], size: int, share: Share, backbone: Backbone
    ) -> None:
        self._sources, self._share, self._dim = sources, share, backbone.dim
        self._jobs = (
            _Job(range(start, min(start + size, len(sources))))
            for start in range(0, len(sources), size)
        )
        self._again: deque[_Job] = deque()
        self._suspects: deque[_Job] = deque()
        self._waiting: dict[Any, tuple[Any, _Job | None]] = {}  # by Ray's reference
        self._idle: list[Any] = []
        self._alive: set[Any] = set()
        self._deaths = 0  # since a batch has last come back
        self._witness = _witness(sources, backbone)
        self._start = _starter(backbone, share)
        for _ in range(share.workers):
            self._add_worker()

    def batches(self) -> Generator[Batch]:
        """Hand out jobs until all are done; yield what comes back."""
        self._await_a_worker()
        while self._waiting:
            worker, job, answer = self._next_answer()
            if worker in self._alive:
                self._idle.append(worker)
            self._hand_out()
            if job and answer:
                yield answer._replace(failures=self._named(answer.failures))

    def stop(self) -> None:
        """End the workers; what they have in hand is dropped."""
        ray = _ray()

        for worker in self._alive:
            ray.kill(worker)

    def _add_worker(self) -> None:
        worker = self._start()
        self._alive.add(worker)
        for _ in range(2 * self._share.threads):
            self._waiting[worker.check.remote(*self._witness)] = worker, None

    def _await_a_worker(self) -> None:
        ray = _ray()

        if not ray.wait(list(self._waiting), timeout=_PATIENCE)[0]:
            logger.warning(
                "Waiting for the cluster: no worker has started yet. It has %s, of which %s is "
                "free; a worker needs %s CPUs and %s GPUs.",
                *(ray.cluster_resources(), ray.available_resources()),
                *(self._share.cpus, self._share.gpus),
            )

    def _next_answer(self) -> tuple[Any, _Job | None, Batch | None]:
        """Wait until anything comes back, be it the news that a worker has died."""
        ray = _ray()

        done = ray.wait(list(self._waiting))[0][0]
        worker, job = self._waiting.pop(done)
        try:
            answer: Batch | None = ray.get(done)
        except ray.exceptions.RayTaskError as error:  # raised by the worker's code, not by its end
            raise error.cause from None
        except ray.exceptions.RayError as error:
            self._bury(worker, error)
            return worker, job, self._put_back(job) if job else None
        if job:
            self._deaths = 0
        return worker, job, answer

    def _bury(self, worker: Any, error: Exception) -> None:  # noqa: ANN401
        """Put another worker in the place of one that is dead."""
        ray = _ray()

        if worker not in self._alive:  # the first of its batches has told already
            return
        with suppress(ray.exceptions.RayError):
            ray.kill(worker)  # it may be out of reach only
        self._alive.remove(worker)
        self._idle = [other for other in self._idle if other != worker]
        self._deaths += 1
        if (
            getattr(error, "actor_init_failed", False)
            or self._deaths > _TOO_MANY + 4 * self._share.workers
        ):
            raise EngineError(
                f"workers die before they have done anything: {_last_line(error)}; every node "
                "needs the packages and modules of this program, and memory for the network"
            ) from error
        logger.warning("A worker has died; another one takes its place.")
        self._add_worker()

    def _put_back(self, job: _Job) -> Batch | None:
        """Have a job done again; of an image that kills whoever takes it up, say so."""
        deaths = job.deaths + 1
        if job.alone and deaths == _DEATHS_ALONE:
            reason = "the process that reads it dies"
            self._deaths = 0
            return Batch(
                [], np.empty((0, self._dim), np.float32), [(job.positions[0], ImageError(reason))]
            )
        if job.alone:
            self._suspects.append(job._replace(deaths=deaths))
        elif deaths == _DEATHS:
            self._suspects += [_Job(range(i, i + 1), alone=True) for i in job.positions]
        else:
            self._again.append(job._replace(deaths=deaths))
        return None

    def _hand_out(self) -> None:
        while self._idle and (job := self._next_job()):
            worker = self._idle.pop(0)
            sources = self._sources[job.positions.start : job.positions.stop]
            self._waiting[worker.embed.remote(sources, job.positions.start)] = worker, job

    def _next_job(self) -> _Job | None:
        """Return what comes next; suspects come last and one by one, so that none shares blame."""
        if self._again:
            return self._again.popleft()
        if job := next(self._jobs, None):
            return job
        if self._suspects and not any(job for _, job in self._waiting.values()):
            return self._suspects.popleft()
        return None

    def _named(self, failures: list[tuple[int, ImageError]]) -> list[tuple[int, ImageError]]:
        return [(i, ImageError(error.reason, describe(self._sources[i]))) for i, error in failures]


class _Worker:
    """What runs on the cluster: a network in a process of its own."""

    def __init__(self, shipped: list[Any], share: Share, folder: str, modules: list[str]) -> None:
        # Paths and modules mean here what they mean to the caller, as far as this node has them.
        with suppress(OSError):
            os.chdir(folder)
        sys.path += [place for place in modules if place not in sys.path]
        self._backbone: Backbone = _ray().get(shipped[0])
        self._share = share
        if share.gpus:
            self._backbone.move("cuda")

    def check(self, source: ImageSource | None, expected: NDArray[np.float32] | None) -> None:
        """See that an image which the caller has embedded comes out alike here."""
        if source is None or expected is None:
            return
        batch = self.embed([source], 0)
        where = f"a worker on {os.uname().nodename if hasattr(os, 'uname') else 'this system'}"
        if batch.failures:
            raise EngineError(
                f"{where} cannot read {describe(source)}, and this program can: "
                f"{batch.failures[0][1].reason}; put the images where every node finds them under "
                "the same name, such as a shared folder or s3://, and install the same packages"
            )
        cosine = float(batch.embeddings[0] @ expected)
        if cosine < _SAME:
            raise EngineError(
                f"{where} embeds {describe(source)} otherwise than this program does (cosine "
                f"{cosine:.3f}): install the same versions of the same packages on every node"
            )

    def embed(self, sources: Sequence[ImageSource], start: int) -> Batch:
        """Embed a batch as the local engine does."""
        import torch

        torch.set_num_threads(max(1, int(self._share.cpus) // self._share.threads))
        return embed_batch(sources, start, self._backbone)


def _starter(backbone: Backbone, share: Share) -> Callable[[], Any]:
    """Send the backbone to the cluster; return what starts a worker with it."""
    ray = _ray()

    try:
        shipped = ray.put(backbone)
    except TypeError as error:
        reason = error.__cause__ or error  # Ray's own words are a page
        raise EngineError(f"{backbone!r} cannot be sent to other processes: {reason}") from error
    actor = ray.remote(_Worker).options(
        num_cpus=share.cpus,
        num_gpus=share.gpus,
        max_concurrency=share.threads,
        max_restarts=0,  # another one is started in its place: see `_bury`
        scheduling_strategy="SPREAD",
    )
    # In a list, the backbone is not unpacked before the worker can find its modules.
    return lambda: actor.remote([shipped], share, os.getcwd(), sys.path)  # noqa: PTH109


def _witness(
    sources: Sequence[ImageSource], backbone: Backbone
) -> tuple[ImageSource, NDArray[np.float32]] | tuple[None, None]:
    """Embed the first source that can be embedded here, for every worker to be held against."""
    for source in sources[:_LOOKED_AT]:
        batch = embed_batch([source], 0, backbone)
        if batch.positions:
            return source, batch.embeddings[0]
    return None, None


def _last_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1].strip()
