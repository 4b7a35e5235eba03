"""The pipeline: find what is missing, have an engine embed it, store; incremental and resumable.

Whatever the engine, everything that a run has to keep is kept here, on the machine that called:
the log of rows that no library holds yet, the list of skipped files, and the library in the end.
"""

from __future__ import annotations

import logging
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from tqdm.auto import tqdm

from simsearch import registry
from simsearch.backbones.backbone import load_backbone
from simsearch.backbones.spec import OWN_WEIGHTS
from simsearch.embedding.batching import embed_batch, embed_batches
from simsearch.embedding.resume import ResumeLog
from simsearch.errors import BackboneError, DatasetError, EngineError, LibraryError
from simsearch.images.find import ImageFile, Skipped, find_images
from simsearch.images.remote import is_uri, local_path
from simsearch.library.files import MANIFEST, SKIPPED, replace_library, write_skipped, writing
from simsearch.library.library import ImageLibrary
from simsearch.library.paths import as_root, in_folder
from simsearch.library.source import Source

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence
    from typing import Any

    import torch
    from numpy.typing import NDArray

    from simsearch.backbones.backbone import Backbone
    from simsearch.backbones.heads import Head
    from simsearch.backbones.precision import Precision
    from simsearch.embedding.batching import Engine
    from simsearch.images.decode import ImageSource


logger = logging.getLogger("simsearch")

_BLOCK = 1024  # rows that are copied together


def embed_images(
    images: ImageSource | Sequence[ImageSource],
    backbone: str | Backbone | torch.nn.Module = "auto",
    batch_size: int | None = None,
    workers: int | None = None,
) -> NDArray[np.float32]:
    """Embed images that are at hand, without a library.

    Parameters
    ----------
    images
        One source or several: paths, http(s) URLs, bytes, PIL images or arrays.
    backbone
        A loaded backbone, or what `load_backbone` takes.
    batch_size, workers
        Chosen for the device if not given.

    Returns
    -------
    numpy.ndarray
        (N, D) float32, C order, rows of unit L2 norm.

    Raises
    ------
    ImageError
        If an image cannot be read.

    Examples
    --------
    >>> from PIL import Image
    >>> embed_images([Image.new("RGB", (300, 200), "red")], "efficientnet_lite0").shape
    (1, 1280)
    """
    backbone = load_backbone(backbone)
    sources: list[Any] = list(images) if isinstance(images, (list, tuple)) else [images]
    embeddings = np.empty((len(sources), backbone.dim), np.float32)
    if len(sources) == 1:  # one query: all cores on one image, and no pool to start
        batches = iter([embed_batch(sources, 0, backbone)])
    else:
        batches = embed_batches(sources, backbone, batch_size, workers)
    for batch in batches:
        if batch.failures:
            raise batch.failures[0][1]
        embeddings[batch.positions] = batch.embeddings
    return embeddings


def embed_dataset(  # noqa: PLR0917 (a public signature, in the order people know)
    root: str | os.PathLike[str] = "dataset",
    outputs: str | os.PathLike[str] = "outputs",
    backbone: str | Backbone | torch.nn.Module = "auto",
    batch_size: int | None = None,
    workers: int | None = None,
    device: str | None = None,
    precision: Precision = "auto",
    strict: bool = False,
    weights: str | os.PathLike[str] | None = None,
    progress: bool = True,
    engine: str | Engine = "local",
) -> ImageLibrary:
    """Embed the images below a folder, once; afterwards only what is new or has changed.

    May be stopped at any time and run again: what was embedded is kept. A file that cannot be
    read is left out and listed in `skipped.csv`; it is tried again at every run. One summary line
    ends the run. Where the library in `outputs` has a head, new images pass through it as well.

    Parameters
    ----------
    root
        The dataset's folder, with any folders in it; or an address that fsspec opens, such as
        `s3://bucket/photos`.
    outputs
        Where the library lies; see `ImageLibrary` for its files.
    backbone
        What `load_backbone` takes. "auto" stays with the backbone that made the library, if there
        is one; naming another embeds everything again.
    batch_size, workers, device, precision
        Chosen for this machine if not given; `workers` are threads, or the processes of a cluster.
    weights
        A local state dict for the backbone, instead of the published one.
    strict
        Raise at the first image that cannot be read.
    progress
        Show a progress bar and the summary.
    engine
        "local" for this machine, "ray" for a Ray cluster, or a `RayEngine` with settings of its
        own. Everything else stays as it is: what a run keeps, skips and reports, and its rows.

    Returns
    -------
    ImageLibrary
        The library in `outputs`, opened.

    Raises
    ------
    DatasetError
        If the folder is missing, or holds no image that can be read.
    BackboneError
        If the backbone cannot be had, or is not the one that the head of the library needs.
    LibraryBusyError
        If another process is writing there.
    LibraryError
        If the disk is full or refuses, or the library has a head that works on all of its rows
        together (`refine`). The last complete library stays readable.
    ImageError
        With `strict`, for an image that cannot be read.
    EngineError
        If the engine is unknown, or its cluster cannot do the work.
    MissingExtraError
        If the engine, or the address of the dataset, needs a package that is not installed.
    """
    batches = _engine(engine)
    dataset, folder = as_root(root), Path(outputs).expanduser()
    files, skipped = find_images(dataset, exclude=folder)
    if not files:
        raise DatasetError(f"no images below {dataset!r}; put some there")
    with writing(folder):
        old = _last_library(folder)
        network = load_backbone(
            *_choose(backbone, weights, old), device=device, precision=precision
        )
        store = _Store(dataset, old, network, ResumeLog(folder, network))
        with store.log:
            skipped = [Skipped(in_folder(store.root, name), why) for name, why in skipped]
            missing = [file for file in files if file not in store]
            start = time.perf_counter()
            skipped += store.embed(
                missing, batches, batch_size, workers, strict=strict, progress=progress
            )
            seconds = time.perf_counter() - start
            write_skipped(folder, sorted(skipped))
            kept = [file for file in files if file in store]
            if not kept:
                raise DatasetError(
                    f"none of the {len(files):,} images below {store.root!r} can be read; "
                    f"{(folder / SKIPPED).as_posix()} says why"
                )
            if old is None or old.root != store.root or kept != list(store.rows):
                store.replace_library(folder, kept)
            store.log.discard()
        library = ImageLibrary.load(folder, backbone=network)
    if progress:
        embedded = len(set(missing).intersection(kept))
        pace = f" ({embedded / seconds:.1f} images/s)" if embedded else ""
        gone = len(set(old.names if old else ()).difference(file.name for file in kept))
        tqdm.write(
            f"{library!r} in {folder.as_posix()!r}: {embedded:,} embedded{pace}, "
            f"{len(kept) - embedded:,} reused, {gone:,} removed, {len(skipped):,} skipped"
            + (f", see {(folder / SKIPPED).as_posix()}" if skipped else "")
        )
    return library


def _engine(engine: str | Engine) -> Engine:
    """Return what embeds batches."""
    if callable(engine):
        return engine
    if engine not in registry.names("executor"):
        choices = " or ".join(registry.names("executor"))
        raise EngineError(f"engine={engine!r}: choose {choices}, or a RayEngine")
    executor: Any = registry.resolve("executor", engine)
    return cast("Engine", executor() if isinstance(executor, type) else executor)


def reembed(
    library: ImageLibrary,
    outputs: str | os.PathLike[str],
    backbone: Backbone,
    head: Head | None = None,
    *,
    progress: bool = True,
) -> ImageLibrary:
    """Embed the images of a library anew, by another backbone and then a head.

    May be stopped and run again, as `embed_dataset`. What was in `outputs` is replaced in the end;
    images that cannot be read any more are left out, and listed in `skipped.csv`.

    Parameters
    ----------
    library
        Whose images are meant.
    outputs
        Folder of the new library.
    backbone, head
        What makes the embeddings.
    progress
        Show a progress bar.

    Returns
    -------
    ImageLibrary
        The library in `outputs`, opened.

    Raises
    ------
    DatasetError
        If no image can be read.
    LibraryBusyError, LibraryError
        As `embed_dataset`.
    """
    root = library.root or ""
    files = [_look_at(library, row) for row in range(len(library))]
    with writing(outputs) as folder:
        store = _Store(root, None, backbone, ResumeLog(folder, backbone))
        store.head = head
        with store.log:
            missing = [file for file in files if file not in store]
            skipped = store.embed(missing, embed_batches, strict=False, progress=progress)
            write_skipped(folder, sorted(skipped))
            kept = [file for file in files if file in store]
            if not kept:
                raise DatasetError(
                    f"none of the {len(files):,} images can be read: {skipped[0].name}: "
                    f"{skipped[0].reason}; "
                    'ImageLibrary.load(outputs, root="new/place") opens a library that has moved'
                )
            store.replace_library(folder, kept)
            store.log.discard()
        return ImageLibrary.load(folder, backbone=backbone)


def _look_at(library: ImageLibrary, row: int) -> ImageFile:
    name, path = library.names[row], local_path(str(library.paths[row]))
    try:
        status = Path(path).stat()
    except OSError:  # an address, or gone: reading it will tell
        known = None if library.stats is None or not is_uri(path) else library.stats[row].tolist()
        return ImageFile(name, *(known or (-1, -1)))
    return ImageFile(name, status.st_size, status.st_mtime_ns)


def _last_library(folder: Path) -> ImageLibrary | None:
    """Open the library that is to be brought up to date; a damaged one is made anew."""
    if not (folder / MANIFEST).exists():
        return None
    try:
        return ImageLibrary.load(folder)
    except LibraryError as error:
        logger.warning("Embedding every image again: %s", error)
        return None


def _choose(
    backbone: str | Backbone | torch.nn.Module,
    weights: str | os.PathLike[str] | None,
    old: ImageLibrary | None,
) -> tuple[str | Backbone | torch.nn.Module, str | os.PathLike[str] | None]:
    """Name and weights to load: "auto" stays with what made the library."""
    if (
        backbone == "auto"
        and not weights
        and old
        and old.source
        and old.source.weights != OWN_WEIGHTS
    ):
        return old.source.backbone, old.source.weights_file
    return backbone, weights


def _kept_head(old: ImageLibrary | None, network: Backbone) -> Head | None:
    """Return the head that new images have to pass through, or say why they cannot."""
    head = old.head if old else None
    if old is None or head is None:
        return None
    if head.whole:
        raise LibraryError(
            f"new images cannot join a library with {head!r}, which works on all rows together: "
            "bring the library that it was made from up to date, and derive it again"
        )
    if old.source is None or old.source.fingerprint != network.fingerprint:
        raise BackboneError(
            f"{head!r} of this library was made for the embeddings of {old.source}, not of "
            f"{network!r}: choose another outputs folder"
        )
    return head


class _Store:
    """Every embedding that is at hand: rows of the last library, and of the log."""

    def __init__(
        self, root: str, old: ImageLibrary | None, network: Backbone, log: ResumeLog
    ) -> None:
        self.root, self.network, self.log = root, network, log
        self.rows: dict[ImageFile, int] = {}
        self.head = _kept_head(old, network)
        if old and old.source and old.source.fingerprint != network.fingerprint:
            logger.warning(
                "Embedding every image again: the library was made by %s (%s), not by %s (%s).",
                *(old.source.backbone, old.source.fingerprint, network.name, network.fingerprint),
            )
        elif old and old.source and old.stats is not None:
            files = zip(old.names, *old.stats.T.tolist(), strict=True)
            self.rows = {ImageFile(*file): row for row, file in enumerate(files)}
            self.embeddings = old.embeddings

    def __contains__(self, file: ImageFile) -> bool:
        return file in self.rows or file in self.log.rows

    def embed(
        self,
        files: Sequence[ImageFile],
        engine: Engine,
        batch_size: int | None = None,
        workers: int | None = None,
        *,
        strict: bool,
        progress: bool,
    ) -> list[Skipped]:
        """Embed files into the log; return those that cannot be."""
        sources = [in_folder(self.root, file.name) for file in files]
        skipped: list[Skipped] = []
        with (
            tqdm(
                desc="Embedding", total=len(files), unit="image", disable=not (progress and files)
            ) as bar,
            closing(engine(sources, self.network, batch_size, workers)) as batches,
        ):
            for batch in batches:
                self.log.append([files[i] for i in batch.positions], batch.embeddings)
                if strict and batch.failures:
                    raise batch.failures[0][1]
                skipped += [Skipped(sources[i], error.reason) for i, error in batch.failures]
                bar.update(len(batch.positions) + len(batch.failures))
        return skipped

    def replace_library(self, folder: Path, files: Sequence[ImageFile]) -> None:
        """Write these files' embeddings as the library, a block at a time."""
        replace_library(
            folder,
            (self._read(files[i : i + _BLOCK]) for i in range(0, len(files), _BLOCK)),
            np.array([in_folder(self.root, file.name) for file in files], "U"),
            stats=np.array([file[1:] for file in files], np.int64),
            root=self.root,
            source=Source.of(self.network),
            head=self.head,
        )

    def _read(self, files: Sequence[ImageFile]) -> NDArray[np.float32]:
        """Return the rows of files: those of the library as they are, new ones by the head."""
        block = np.empty((len(files), self.dim), np.float32)
        new = [i for i, file in enumerate(files) if file not in self.rows]
        for i, file in enumerate(files):
            if file in self.rows:
                block[i] = self.embeddings[self.rows[file]]
        if new:
            embedded = np.stack([self.log.read(files[i]) for i in new])
            block[new] = self.head(embedded) if self.head else embedded
        return block

    @property
    def dim(self) -> int:
        """Width of a row."""
        return self.head.dim if self.head else self.network.dim
