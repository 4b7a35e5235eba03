"""The pipeline: find what is missing, have an executor embed it, store; incremental and resumable.

Whatever the executor, all that a run has to keep is kept here, on the machine that called: the log
of rows that no library holds yet, the list of skipped files, and the library in the end.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from simsearch import registry
from simsearch.backbones.backbone import Backbone, load_backbone, with_windows
from simsearch.embedding.batching import embed_batches
from simsearch.embedding.resume import ResumeLog
from simsearch.embedding.rows import EmbeddedRows
from simsearch.errors import DatasetError
from simsearch.images.address import is_uri
from simsearch.images.find import Skipped, list_dataset
from simsearch.library.files import LOG, MANIFEST, PARTS, SKIPPED, write_skipped, writing
from simsearch.library.library import ImageLibrary
from simsearch.library.paths import as_root, in_folder

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch
    from typing_extensions import Unpack

    from simsearch.backbones.precision import Precision
    from simsearch.embedding.batching import Executor
    from simsearch.embedding.parts import EmbedOptions
    from simsearch.images.find import ImageFile
    from simsearch.images.selection import ListingOptions

MAX_PATH_LENGTH = 1024  # characters


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
    engine: str | Executor = "local",
    allow_shrink: bool = False,
    **options: Unpack[EmbedOptions],
) -> ImageLibrary:
    """Embed the images below a folder, once; afterwards only what is new or has changed.

    May be stopped at any time and run again: what was embedded is kept. A file that cannot be
    read is left out and listed in `skipped.csv`; it is tried again at every run. A file that was
    renamed, moved or touched is known by its content. Rows are kept while their folder cannot be
    read, or its disk is not there. A summary ends the run; `report` of the library has the
    same. Where the library in `outputs` has a head, new images pass through it as well.

    Parameters
    ----------
    root
        The dataset's folder, with any folders in it; or an address, such as `s3://bucket/photos`.
    outputs
        Where the library lies; see `ImageLibrary` for its files. Or an address to upload it to.
    backbone
        What `load_backbone` takes. "auto" stays with the backbone that made the library, if there
        is one; naming another embeds everything again.
    batch_size, workers
        Images per forward pass; threads, or processes of a cluster. Chosen here if not given.
    device, precision, weights
        What `load_backbone` takes; or the precision "int8", calibrated on these pictures: about
        twice as quick on a processor, and other neighbours now and then (the extra "int8").
    strict, progress
        Raise at the first image that cannot be read; show a progress bar and the summary.
    engine
        "local" for this machine, "ray" for a Ray cluster, or a `RayEngine` with settings of its
        own. Everything else stays as it is: what a run keeps, skips and reports, and its rows.
    allow_shrink
        Drop the rows of files that are gone, even where a folder has become empty or more than
        half of the rows go, as when a disk is not mounted.
    **options
        `parts`: "grid", "regions" or a table of boxes, for `search(parts=True)`; `long`: of
        pictures beyond 2:1, "windows" along them (as in new libraries) or the "centre". Both stay
        with the library. `exclude`: globs of files and folders to leave out, such as `"drafts"` or
        `["*.gif", "2019/*"]`; `include`: of the files to embed. Paths are relative to the root; `*`
        crosses `/`; a glob without `/` is compared with the last name alone. Folders such as
        `@eaDir`, `#recycle` and `$RECYCLE.BIN`, and hidden ones, are left out unless `include`
        names them. `follow`: folders elsewhere that links may lead to. They hold for this run.

    Returns
    -------
    ImageLibrary
        The library in `outputs`, opened.

    Raises
    ------
    DatasetError
        If the folder is missing, or holds no image that can be read.
    BackboneError
        If the backbone cannot be loaded, or is not the one that the head of the library needs.
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
    if is_uri(outputs):
        return cast("ImageLibrary", registry.resolve("library", "embed")(embed_dataset, **locals()))
    executor = embed_batches if engine == "local" else registry.resolve("engine", "")(engine)
    dataset, folder = as_root(root), Path(outputs).expanduser()
    parts, made = options.pop("parts", None), (backbone, weights, options.pop("long", None))
    files, unfit, left_out = _list_files(dataset, folder, cast("ListingOptions", options))
    with writing(folder):
        old = None
        if (folder / MANIFEST).exists():
            from simsearch.embedding.reuse import open_last, reuse_rows

            old = open_last(folder)
        if old or made[2] or precision == "int8" or (folder / LOG).exists():
            from simsearch.embedding.reuse import load_network

            network = load_network(made, device, precision, old, (dataset, files, folder, progress))
        else:
            network = with_windows(load_backbone(*made[:2], device=device, precision=precision))
        rows = EmbeddedRows(dataset, network, ResumeLog(folder, network))
        if old:
            reuse_rows(rows, old)
        with rows.log:
            skipped = [Skipped(in_folder(dataset, name), reason) for name, reason in unfit]
            changes: dict[str, Any] = {}
            if old:
                from simsearch.embedding.changes import follow_changes

                files, changes = follow_changes(rows, old, files, unfit, allow_shrink=allow_shrink)
            missing, start = [file for file in files if file not in rows], time.perf_counter()
            skipped += rows.embed(
                missing, executor, batch_size, workers, strict=strict, progress=progress
            )
            seconds = time.perf_counter() - start
            write_skipped(folder, sorted(skipped))
            kept = [file for file in files if file in rows]
            if not kept:
                raise DatasetError(
                    f"none of the {len(files):,} images below {dataset!r} can be read; "
                    f"{(folder / SKIPPED).as_posix()} says why"
                )
            if old is None or old.root != dataset or kept != list(rows.reused):
                rows.replace_library(folder, kept)
            else:
                from simsearch.embedding.changes import amend

                amend(rows, old, folder)
            rows.log.discard()
        library = ImageLibrary.as_stored(folder, backbone=network)
    _prepare_large(library, progress=progress)
    if parts is not None or (folder / PARTS).exists():
        registry.resolve("parts", "embed")(library, parts, workers, executor, progress=progress)
    embedded = len(set(missing).intersection(kept))
    left = len(set(old.names if old else ()).difference(file.name for file in kept))
    gone = left - changes.pop("renamed", 0)
    counts = {"embedded": embedded, "reused": len(kept) - embedded, "removed": gone}
    library.run = {**changes, **counts, "seconds": seconds, "other_files": dict(left_out)}
    if progress:
        from simsearch.library.report import print_report

        print_report(library, folder)
    return library


def _list_files(
    dataset: str, outputs: Path, options: ListingOptions
) -> tuple[list[ImageFile], list[Skipped], Mapping[str, int]]:
    """List the images to embed, what cannot be embedded, and the number of other files by kind."""
    files, folders, pictures, left_out = list_dataset(dataset, outputs, **options)
    unfit = folders + pictures
    longest = max((len(in_folder(dataset, file.name)) for file in files), default=0)
    if not 0 < longest <= MAX_PATH_LENGTH:
        from simsearch.embedding.changes import leave_out_long

        files, unfit = leave_out_long(files, unfit, dataset, left_out, MAX_PATH_LENGTH)
    return files, unfit, left_out


def _prepare_large(library: ImageLibrary, *, progress: bool) -> None:
    if library.embeddings.nbytes >= registry.LARGE_BYTES:
        registry.resolve("index", "prepare")(library, progress=progress)
