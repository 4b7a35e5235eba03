"""Parts of several pictures, embedded: by threads of this machine, or by workers of a cluster."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from simsearch.backbones.precision import restore_torch_threads, usable_cores
from simsearch.embedding.batching import MAX_WORKERS
from simsearch.embedding.part_kinds import EmbeddedParts
from simsearch.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Sequence
    from typing import TypeAlias

    from simsearch.backbones.backbone import Backbone
    from simsearch.embedding.batching import Executor
    from simsearch.embedding.part_kinds import PartKind

    PartsOrError: TypeAlias = EmbeddedParts | ImageError


class PartBatch(NamedTuple):
    """What became of one batch of pictures."""

    found: list[tuple[int, EmbeddedParts]]  # with the position of each picture
    failures: list[tuple[int, ImageError]]


def embed_part_batch(
    sources: Sequence[str], start: int, backbone: Backbone, *, kind: PartKind, rows: Sequence[int]
) -> PartBatch:
    """Embed the parts of pictures; `start` is the position of the first, `rows` are of all."""
    found: list[tuple[int, EmbeddedParts]] = []
    failures: list[tuple[int, ImageError]] = []
    for position, source in enumerate(sources, start):
        try:
            found.append((position, kind.embed(rows[position], source, backbone)))
        except ImageError as error:
            failures.append((position, error))
    return PartBatch(found, failures)


def in_threads(
    work: Callable[[int], PartsOrError], rows: Sequence[int], workers: int | None
) -> Generator[tuple[int, PartsOrError]]:
    """Yield each row and what became of it, in order, a few at a time in memory."""
    import torch

    workers = workers or min(usable_cores(), MAX_WORKERS)
    share = partial(torch.set_num_threads, max(1, usable_cores() // workers))
    left: Iterable[int] = iter(rows)
    waiting: deque[tuple[int, Future[PartsOrError]]] = deque()
    with restore_torch_threads():
        pool = ThreadPoolExecutor(workers, "simsearch-parts", initializer=share)
        try:
            while True:
                for row in islice(left, 2 * workers - len(waiting)):
                    waiting.append((row, pool.submit(work, row)))
                if not waiting:
                    return
                row, future = waiting.popleft()
                yield row, future.result()
        finally:  # on Ctrl-C, too
            pool.shutdown(cancel_futures=True)


def on_workers(
    executor: Executor,
    pictures: Sequence[tuple[int, str]],
    backbone: Backbone,
    kind: PartKind,
    workers: int | None,
) -> Generator[tuple[int, PartsOrError]]:
    """Yield the row of each picture (row, path), and what became of it on a cluster."""
    rows, paths = [row for row, _ in pictures], [path for _, path in pictures]
    embed = partial(embed_part_batch, kind=kind, rows=rows)
    for batch in executor.embed_parts(paths, backbone, embed, workers):  # type: ignore[attr-defined]
        for position, error in batch.failures:
            yield rows[position], error
        if isinstance(batch, PartBatch):  # not what a worker has died of
            for position, parts in batch.found:
                yield rows[position], parts
