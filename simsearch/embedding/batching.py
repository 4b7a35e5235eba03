"""Sources in, embeddings out, a batch at a time: what every executor does, and the local one.

One worker takes a batch all the way from files to embeddings: a thread, so nothing is pickled. On a
processor each has its own core; on a GPU they take turns (and many files: see `decoding`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from simsearch.backbones.backbone import Backbone
from simsearch.backbones.precision import restore_torch_threads, usable_cores
from simsearch.errors import DatasetError, ImageError
from simsearch.files import iter_blocks
from simsearch.images.decode import ImageSource, load_image

if TYPE_CHECKING:
    from concurrent.futures import Future
    from typing import Any, TypeAlias

    from numpy.typing import NDArray
    from PIL import Image

    from simsearch.images.read_signature import Signed

OPTIMISED_SOURCES = 256  # from so many on, the time to find a quicker runtime is soon won back
MAX_WORKERS = 16  # threads; beyond that, they wait for the interpreter's lock


class Batch(NamedTuple):
    """What became of one batch of sources."""

    positions: list[int]  # of those that were embedded, in the order of the sources
    embeddings: NDArray[np.float32]  # (len(positions), D), unit norm
    failures: list[tuple[int, ImageError]]  # position and reason of the others
    signed: Mapping[int, Signed] = {}  # of some or all positions, where signatures were asked for


Signer: TypeAlias = Callable[[ImageSource, "Image.Image"], "Signed"]
Executor: TypeAlias = Callable[
    [Sequence[ImageSource], Backbone, "int | None", "int | None"], Generator[Batch]
]
"""Sources, backbone, batch size and workers in; batches out, in any order, each source in one."""


def embed_batches(
    sources: Sequence[ImageSource],
    backbone: Backbone,
    batch_size: int | None = None,
    workers: int | None = None,
    sign: Signer | None = None,
) -> Generator[Batch]:
    """Embed sources in order, a few batches in memory at a time; bad ones are reported."""
    import torch

    on_cpu = backbone.device.type == "cpu"
    workers = min(usable_cores(), MAX_WORKERS) if workers is None else workers
    batch_size = backbone.batch_size if batch_size is None else batch_size
    size = choose_batch_size(batch_size, workers, on_cpu=on_cpu)
    if len(sources) >= OPTIMISED_SOURCES:
        backbone.optimise()
        if not on_cpu:
            from simsearch.embedding.decoding import where_it_suits

            if batches := where_it_suits(sources, backbone, size, workers, sign):
                yield from batches
                return
    blocks = iter_blocks(len(sources), size)
    embed = partial(embed_batch, backbone=backbone, sign=sign)
    waiting: deque[Future[Batch]] = deque()
    share = partial(torch.set_num_threads, max(1, usable_cores() // workers)) if on_cpu else None
    with restore_torch_threads():
        pool = ThreadPoolExecutor(workers, "simsearch-embed", initializer=share)
        try:
            while True:
                for block in islice(blocks, 2 * workers - len(waiting)):
                    waiting.append(pool.submit(embed, sources[block], block.start))
                if not waiting:
                    return
                yield waiting.popleft().result()
        finally:  # on Ctrl-C, too: what is under way ends within a batch
            pool.shutdown(cancel_futures=True)


def choose_batch_size(batch_size: int | None, workers: int, *, on_cpu: bool) -> int:
    """Choose the size of a batch, where the caller does not; refuse numbers below 1."""
    size = (8 if on_cpu else 64) if batch_size is None else batch_size
    if size < 1 or workers < 1:
        raise DatasetError(f"batch_size={size} and workers={workers} must be at least 1")
    return size


def embed_batch(
    sources: Sequence[ImageSource], start: int, backbone: Backbone, sign: Signer | None = None
) -> Batch:
    """Take one batch from files to embeddings; `start` is the position of its first source."""
    signed: dict[int, Signed] = {}
    positions: list[int] = []
    inputs: list[NDArray[Any]] = []
    failures: list[tuple[int, ImageError]] = []
    for position, source in enumerate(sources, start):
        try:
            image = load_image(source, backbone.min_side)
            inputs.append(backbone.prepare(image))
            positions.append(position)
            if sign:
                signed[position] = sign(source, image)
        except ImageError as error:
            failures.append((position, error))
    rows = backbone.embed_all(inputs) if inputs else np.empty((0, backbone.dim), np.float32)
    return keep_finite(Batch(positions, rows, failures, signed), backbone)


def keep_finite(batch: Batch, backbone: Backbone) -> Batch:
    """Count sources without a finite row among the failures."""
    positions, lost = np.array(batch.positions, np.intp), np.isnan(batch.embeddings[:, 0])
    unfit = [(int(i), ImageError(backbone.non_finite_reason)) for i in positions[lost]]
    kept, failures = positions[~lost].tolist(), batch.failures + unfit
    return Batch(kept, batch.embeddings[~lost], failures, batch.signed)
