"""Parts of a library's pictures, embedded: windows of a grid, pooled regions, or boxes given.

Only what is missing is embedded; a stopped run is resumed.
"""

from __future__ import annotations

import logging
import os
import time
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from tqdm.auto import tqdm

from simsearch import registry
from simsearch.embedding.batching import OPTIMISED_SOURCES
from simsearch.embedding.part_batches import in_threads, on_workers
from simsearch.embedding.part_kinds import BoxParts, EmbeddedParts, PartKind, make_kind
from simsearch.errors import DatasetError, ImageError, LibraryError
from simsearch.images.selection import ListingOptions
from simsearch.library.part_writer import PartWriter
from simsearch.library.parts import PartRecord, find_keys, part_dtype, picture_keys, read_record

if TYPE_CHECKING:
    from collections.abc import Generator

    from numpy.typing import NDArray

    from simsearch.embedding.batching import Executor
    from simsearch.embedding.part_batches import PartsOrError
    from simsearch.library.boxes import BoxTable
    from simsearch.library.library import ImageLibrary

    PartsGiven: TypeAlias = str | BoxTable | None

logger = logging.getLogger("simsearch")
CHANGED = "the file has changed since it was embedded: embed the dataset again"


class EmbedOptions(ListingOptions, total=False):
    """The keywords of `embed_dataset` besides those that its signature names."""

    parts: PartsGiven
    long: str | None


def embed_parts(
    library: ImageLibrary,
    parts: PartsGiven = None,
    workers: int | None = None,
    executor: Executor | None = None,
    *,
    progress: bool = True,
) -> None:
    """Embed parts of a library's pictures, for `search(parts=True)`; only what is missing.

    Parameters
    ----------
    library
        In its folder, where the parts are stored, too.
    parts
        "grid", "regions", or boxes of your own, as `embed_dataset` takes them; None for the kind
        that is there already.
    workers
        Threads; chosen for this machine if not given.
    executor
        What embeds pictures; one with a method `embed_parts`, as that of Ray, embeds parts, too.
    progress
        Show a progress bar and the summary.

    Raises
    ------
    QueryError
        If the kind is unknown, or the table of boxes cannot be read.
    LibraryError
        If the library lies in no folder, or has a head that works on all of its rows together.
    LibraryBusyError
        If another process makes parts of it.
    BackboneError
        If the backbone cannot be loaded; for "regions", if it pools no feature map.
    """
    if library.stored is None:
        raise LibraryError("parts lie beside a library: save it, and load it from its folder")
    folder = library.stored[0]
    stored = read_record(folder)
    given = parts if parts is not None else _followed_kind(stored)
    if given is None:
        return
    kind = make_kind(given, library)
    _check_workers(workers)
    if library.head and library.head.whole:
        raise LibraryError(f"pictures have no parts through {library.head!r}, which needs all rows")
    backbone = library.backbone
    kind.check(backbone)
    wanted = PartRecord(kind.name, kind.version, library.fingerprint, library.dim)
    start = time.perf_counter()
    try:
        with PartWriter(folder, wanted) as writer:
            run = _Run(library, kind, writer)
            run.embed(workers, executor, progress=progress)
            record = run.commit()
    except OSError as error:
        raise LibraryError(
            f"cannot write parts to {os.fspath(folder)!r}: {error.strerror or error}; what was "
            "made so far is kept: make room and run again"
        ) from error
    registry.resolve("index", "prepare_parts")(library)
    if progress:
        tqdm.write(
            f"Parts ({kind.name}): {run.made:,} pictures embedded, {run.reused:,} reused, "
            f"{record.parts:,} rows in all, in {time.perf_counter() - start:.1f} s"
        )


def _followed_kind(stored: PartRecord | None) -> str | None:
    """Return the kind that is there and can be continued; boxes have to be given again."""
    return stored.kind if stored and stored.kind != BoxParts.name else None


def _check_workers(workers: int | None) -> None:
    if workers is not None and workers < 1:
        raise DatasetError(f"workers={workers} must be at least 1")


class _Run:
    """What one run finds, embeds and commits."""

    def __init__(self, library: ImageLibrary, kind: PartKind, writer: PartWriter) -> None:
        self.library, self.kind, self.writer = library, kind, writer
        self.keys = picture_keys(library, kind.name)
        stored = self._stored()
        checks = np.array([kind.checksum(row) for row in range(len(library))], np.uint32)
        known = np.array([each["boxes"] for each in writer.pictures], np.uint32)
        there = stored >= 0
        there[there] = known[stored[there]] == checks[there]
        _, first = np.unique(self.keys, axis=0, return_index=True)
        missing = np.flatnonzero(~there)
        self.missing = missing[np.isin(missing, first)].tolist()  # a copy shares its parts
        self.labels = dict.fromkeys(writer.record.labels)
        self.made, self.reused = 0, int(there.sum())

    def _stored(self) -> NDArray[np.intp]:
        keys = [picture["key"] for picture in self.writer.pictures]
        return find_keys(np.array(keys, np.uint8).reshape(-1, self.keys.shape[1]), self.keys)

    def embed(
        self, workers: int | None, executor: Executor | None = None, *, progress: bool
    ) -> None:
        """Embed the parts of the pictures that have none."""
        backbone, failures = self.library.backbone, []
        if len(self.missing) * self.kind.passes >= OPTIMISED_SOURCES:
            backbone.optimise()
        hidden = not (progress and self.missing)
        with tqdm(desc="Parts", total=len(self.missing), unit="image", disable=hidden) as bar:
            for row, found in self._embedded(workers, executor):
                if isinstance(found, ImageError):
                    failures.append((str(self.library.paths[row]), found.reason))
                else:
                    self._store(row, found)
                bar.update()
        if failures:
            logger.warning(
                "%s of %s pictures have no parts, and are searched as a whole: %s",
                *(len(failures), len(self.library), ": ".join(failures[0])),
            )

    def _embedded(
        self, workers: int | None, executor: Executor | None
    ) -> Generator[tuple[int, PartsOrError]]:
        """Yield each row that has no parts yet, and what became of it."""
        if executor is None or not hasattr(executor, "embed_parts"):
            yield from in_threads(self._embed_one, self.missing, workers)
            return
        library, current = self.library, set(filter(self.library.is_current, self.missing))
        yield from ((row, ImageError(CHANGED)) for row in self.missing if row not in current)
        pictures = [(row, str(library.paths[row])) for row in sorted(current)]
        for row, found in on_workers(executor, pictures, library.backbone, self.kind, workers):
            yield row, found if isinstance(found, ImageError) else self._finish(found)

    def _embed_one(self, row: int) -> PartsOrError:
        if not self.library.is_current(row):
            return ImageError(CHANGED)
        path = str(self.library.paths[row])
        try:
            return self._finish(self.kind.embed(row, path, self.library.backbone))
        except ImageError as error:
            return error

    def _finish(self, found: EmbeddedParts) -> EmbeddedParts:
        """Pass rows through the head, and leave out those without a direction."""
        rows = self.library.head(found.rows) if self.library.head else found.rows
        good = np.all(np.isfinite(rows), axis=1)
        labels = [label for label, fits in zip(found.labels, good.tolist(), strict=True) if fits]
        return EmbeddedParts(found.size, found.boxes[good], rows[good], labels)

    def _store(self, row: int, found: EmbeddedParts) -> None:
        parts = np.zeros(len(found.rows), part_dtype(self.library.dim))
        parts["box"], parts["row"] = found.boxes.round(), found.rows
        for label in found.labels:
            self.labels.setdefault(label)
        place = {label: number for number, label in enumerate(self.labels)}
        parts["label"] = [place[label] if label else -1 for label in found.labels]
        self.writer.append(self.keys[row], found.size, parts, self.kind.checksum(row))
        self.made += 1

    def commit(self) -> PartRecord:
        """Make what is there count."""
        live = self._stored()
        return self.writer.commit(np.unique(live[live >= 0]), list(self.labels))
