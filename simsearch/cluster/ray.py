"""Executor that embeds on a Ray cluster: batches go out to workers, embeddings come back.

Workers embed batches by the code of the local executor. The resume log, the library and the
skipped files stay with the caller, so that an interrupted run resumes as a local one does.
"""

from __future__ import annotations

import importlib.util
import logging
import math
import os
import re
import socket
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from simsearch.embedding.batching import MAX_WORKERS, Batch, choose_batch_size, embed_batch
from simsearch.errors import EngineError, MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from simsearch.backbones.backbone import Backbone
    from simsearch.cluster.ray_workers import Embedder
    from simsearch.embedding.batching import Signer
    from simsearch.embedding.part_batches import PartBatch
    from simsearch.images.decode import ImageSource


CONNECT_SECONDS = 30.0
PICTURES_IN_A_JOB = 4  # of which the parts are embedded


class Share(NamedTuple):
    """Number of workers, and the resources of each."""

    workers: int
    cpus: float
    gpus: float
    threads: int


@dataclass(frozen=True)
class RayEngine:
    """Executor on the Ray cluster that this program is connected to, or on one started here.

    `ray.init(address=...)`, or the variable RAY_ADDRESS, chooses a cluster; without either, Ray is
    started on this machine for the run. Every node needs this package, and must be able to open
    the files: from a folder that all of them mount, or from an address such as `s3://bucket`.
    Workers compute on a GPU where Ray gives them one, in the precision of the caller's backbone: a
    caller without a GPU passes `precision="float16"` for full speed on theirs.

    Parameters
    ----------
    cpus, gpus
        Resources of one worker. By default one GPU, where the cluster has any, and its share of
        the processors; otherwise one processor. With a fraction, several workers share a GPU.
    threads
        Batches that a worker embeds at once, by default one per processor. More of them hide the
        time that files take to arrive over a network.
    wait_seconds
        How long the run may be without any worker, such as while nodes start, until it ends with
        an error. What was embedded is kept: the next call goes on from there.

    Raises
    ------
    MissingExtraError
        If Ray is not installed.
    EngineError
        If a number is out of range.

    Examples
    --------
    >>> RayEngine(gpus=0.5, threads=8)
    RayEngine(cpus=None, gpus=0.5, threads=8, wait_seconds=600.0)
    """

    cpus: float | None = None
    gpus: float | None = None
    threads: int | None = None
    wait_seconds: float = 600.0

    def __post_init__(self) -> None:
        if importlib.util.find_spec("ray") is None:
            raise MissingExtraError('engine="ray" needs: pip install "simsearch[cluster]"')
        for name, value, fits, limit in (
            ("cpus", self.cpus, self.cpus is None or self.cpus > 0, "more than 0"),
            ("gpus", self.gpus, self.gpus is None or self.gpus >= 0, "0 or more"),
            ("threads", self.threads, self.threads is None or self.threads >= 1, "1 or more"),
            ("wait_seconds", self.wait_seconds, self.wait_seconds > 0, "some time to start"),
        ):
            if not fits:
                raise EngineError(f"{name}={value}: a worker needs {limit}")

    def __call__(
        self,
        sources: Sequence[ImageSource],
        backbone: Backbone,
        batch_size: int | None = None,
        workers: int | None = None,
        sign: Signer | None = None,
    ) -> Generator[Batch]:
        """Embed sources on the cluster; batches come as they are done, with their bad images.

        Parameters
        ----------
        sources
            Files or addresses that every worker can open.
        backbone
            Sent to each node once, as it is here.
        batch_size
            By default as on one machine: 8 on processors, 64 on GPUs.
        workers
            Their number; by default as many as the cluster's nodes have room for.
        sign
            Makes the signature of each picture, where it is decoded.

        Raises
        ------
        EngineError
            If no cluster answers or it has no room, a worker opens or embeds images differently
            from this machine, int8 would run on GPUs, workers die one after the other, or none
            runs for `wait_seconds`.
        """
        embed = partial(embed_batch, sign=sign)
        return self._embed(sources, backbone, embed, batch_size, workers)

    def embed_parts(
        self,
        sources: Sequence[ImageSource],
        backbone: Backbone,
        embed: Embedder,
        workers: int | None = None,
    ) -> Generator[PartBatch]:
        """Embed parts of pictures on the cluster; batches come as they are done.

        Parameters
        ----------
        sources, backbone, workers
            As in a call.
        embed
            Embeds the parts of some of the sources.

        Raises
        ------
        EngineError
            As in a call.
        """
        return self._embed(sources, backbone, embed, PICTURES_IN_A_JOB, workers)

    def _embed(
        self,
        sources: Sequence[ImageSource],
        backbone: Backbone,
        embed: Embedder,
        batch_size: int | None,
        workers: int | None,
    ) -> Generator[Any]:
        if not sources:
            return
        from simsearch.cluster.ray_workers import RayRun, ray

        with ExitStack() as opened:
            if not ray.is_initialized():  # by the caller
                _connect(ray)
                opened.callback(ray.shutdown)
            nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
            share = self.share(nodes, workers)
            if share.gpus and backbone.precision == "int8":
                raise EngineError('precision="int8" runs on processors: pass RayEngine(gpus=0)')
            size = choose_batch_size(batch_size, share.workers, on_cpu=not share.gpus)
            run = RayRun(sources, size, share, backbone, embed, wait_seconds=self.wait_seconds)
            opened.enter_context(closing(run))
            yield from run.batches()

    def share(self, nodes: Sequence[Mapping[str, float]], workers: int | None = None) -> Share:
        """Divide the nodes' resources among workers.

        Parameters
        ----------
        nodes
            Resources of each, as Ray lists them: `{"CPU": 16.0, "GPU": 2.0}`.
        workers
            Their number, if it is given.

        Raises
        ------
        EngineError
            If no node has room for a worker, and no number is given.

        Examples
        --------
        >>> RayEngine().share([{"CPU": 16.0, "GPU": 2.0}, {"CPU": 8.0, "GPU": 2.0}])
        Share(workers=4, cpus=4.0, gpus=1.0, threads=4)
        """
        on_gpus = any(node.get("GPU") for node in nodes)
        gpus = float(on_gpus) if self.gpus is None else self.gpus
        hosts = [node for node in nodes if node.get("CPU") and node.get("GPU", 0) >= gpus]
        cpus = self.cpus or _cpus_per_worker(hosts, gpus)
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


def _cpus_per_worker(hosts: Sequence[Mapping[str, float]], gpus: float) -> float:
    """Return the processors of a worker with this many GPUs, so that every GPU has its worker."""
    if not gpus or not hosts:
        return 1.0
    least = min(host["CPU"] * gpus / host["GPU"] for host in hosts)
    return float(min(MAX_WORKERS, math.floor(least))) or least


def _connect(ray: Any) -> None:  # noqa: ANN401 (half of its functions have no types)
    """Connect to the cluster of RAY_ADDRESS, or start one on this machine."""
    address = os.environ.get("RAY_ADDRESS", "")
    check_address(address)
    try:
        ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        what = f"connect to the Ray cluster at RAY_ADDRESS={address!r}" if address else "start Ray"
        raise EngineError(f"cannot {what}: {first_cause(error)}") from error


def first_cause(error: BaseException) -> str:
    """Return the last line of an error's first cause: Ray puts its reason below tracebacks."""
    while error.__cause__:
        error = error.__cause__
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return re.sub(r"^[\w.]+(Error|Exception): ", "", lines[-1].strip())


def check_address(address: str) -> None:
    """Check that a server listens at an address: Ray itself would retry for many minutes."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not host or not port.isdecimal():  # none, or a word such as "auto"
        return
    try:
        socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
    except OSError as error:
        raise EngineError(
            f"no Ray cluster answers at RAY_ADDRESS={address!r} ({error}): correct it, or unset it "
            "to have Ray started on this machine"
        ) from error
