"""Import of a library from one Parquet file, a dataset of FiftyOne, or arrays of others."""

from __future__ import annotations

import logging
import os
import posixpath
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from simsearch.backbones.backbone import Backbone, load_backbone
from simsearch.errors import BackboneError, LibraryError
from simsearch.images.address import is_uri
from simsearch.library.fiftyone_import import read_dataset
from simsearch.library.files import MANIFEST, SKIPPED, replace_library, writing
from simsearch.library.foreign import confined, without_weights
from simsearch.library.incoming_rows import (
    IncomingRows,
    PathTable,
    check_file,
    open_npy,
    open_parquet,
    parquet_rows,
    parquet_table,
    read_paths,
)
from simsearch.library.library import ImageLibrary
from simsearch.library.parquet import Facts, attach_stored, read_facts
from simsearch.library.paths import as_posix, as_root, in_folder
from simsearch.library.source import Source

if TYPE_CHECKING:
    from collections.abc import Iterator

logger = logging.getLogger("simsearch")


class _Incoming(NamedTuple):
    """What is to become a library."""

    rows: IncomingRows
    table: PathTable
    facts: Facts
    name: str  # of the file, for messages


def import_library(
    file: str | os.PathLike[str],
    outputs: str | os.PathLike[str] = "outputs",
    *,
    paths: str | os.PathLike[str] | None = None,
    root: str | os.PathLike[str] | None = None,
    backbone: Backbone | str | None = None,
    overwrite: bool = False,
) -> ImageLibrary:
    """Make a library of what `export_library` writes, or of a table, dataset or array of others.

    Rows are read and checked block by block. Those of another norm than 1 are scaled to it, and the
    log says how many. What made the embeddings is taken from a file of `export_library`: queries
    are refused unless the backbone that is loaded for them has the same fingerprint. Names of
    pictures that lead out of the dataset are refused, unless you exported the file yourself.

    Parameters
    ----------
    file
        Parquet with a column of paths (`path`, `image_path` or `file_name`) and one of embeddings,
        lists of D numbers (`embedding`, `embeddings` or `image_embedding`); or an .npy file of
        (N, D) numbers; or a folder that FiftyOne has exported (`fiftyone.types.FiftyOneDataset`),
        with a field of embeddings. Other columns become the metadata.
    outputs
        The folder for the library.
    paths
        Of an .npy file: a CSV or Parquet file with a line per row, in the same order, and a column
        of paths.
    root
        The dataset's folder, below which all pictures are; by default as the file says, or the
        current folder for paths that are relative.
    backbone
        What embeds new queries: what made the embeddings, for a file that does not say it.
    overwrite
        Whether a library that is there may be replaced.

    Returns
    -------
    ImageLibrary
        As opened from `outputs`, with the metadata attached, which is not stored there.

    Raises
    ------
    LibraryError
        If a file is missing or damaged, has other columns, or its counts differ; a row is zero or
        not finite, or of another length; a path leads elsewhere; or a library is there.
    QueryError
        If a CSV file cannot be read.
    BackboneError
        If the backbone cannot be loaded, or did not make the embeddings.
    MissingExtraError
        If pyarrow is needed, and not installed.
    """
    place = Path(file).expanduser()
    with _opened(place if place.is_dir() else check_file(file), paths) as incoming:
        source = _source(incoming, backbone)
        top = as_root(root) if root is not None else _recorded_root(incoming)
        names = _names(incoming, top)
        listed = [in_folder(top, name) for name in names] if top is not None else names
        with writing(outputs) as folder:
            _check_vacant(folder, outputs, overwrite=overwrite)
            replace_library(
                folder,
                incoming.rows,
                np.array(listed, "U"),
                stats=None,
                root=top,
                source=source,
                head=incoming.facts.head,
            )
            (folder / SKIPPED).unlink(missing_ok=True)
    _say_scaled(incoming)
    library = ImageLibrary.load(outputs, backbone=backbone)
    attach_stored(library, incoming.table.frame, incoming.facts)
    return library


@contextmanager
def _opened(file: Path, paths: str | os.PathLike[str] | None) -> Iterator[_Incoming]:
    if file.suffix.lower() == ".npy":
        if paths is None:
            raise LibraryError(
                f"{file.name} has no paths: give paths= (--paths), a CSV or Parquet file with a "
                "line per row"
            )
        yield _checked(_Incoming(open_npy(file), read_paths(check_file(paths)), Facts(), file.name))
        return
    if paths is not None:
        raise LibraryError(f"paths= (--paths) belongs to an .npy file, and not to {file.name}")
    if file.is_dir():
        dataset = read_dataset(file)
        yield _checked(_Incoming(*dataset, file.name))
        return
    with closing(open_parquet(file)) as opened:
        table = parquet_table(opened, file.name)
        rows = parquet_rows(opened, file.name)
        incoming = _checked(_Incoming(rows, table, Facts(), file.name))
        text = table.facts
        yield (
            incoming._replace(facts=read_facts(text, table.paths, file.name)) if text else incoming
        )


def _checked(incoming: _Incoming) -> _Incoming:
    """Check that each row has a path."""
    paths, count = incoming.table.paths, incoming.rows.count
    if len(paths) != count:
        raise LibraryError(
            f"{incoming.name} has {count:,} rows, and there are {len(paths):,} paths; give one "
            "path per row"
        )
    for row, path in enumerate(paths):
        if not isinstance(path, str) or not path:
            raise LibraryError(f"row {row} (from 0) has the path {path!r:.80}; give each row one")
    if len(set(paths)) < count:
        logger.warning("%d rows have the path of another one", count - len(set(paths)))
    return incoming


def _check_vacant(folder: Path, outputs: str | os.PathLike[str], *, overwrite: bool) -> None:
    if (folder / MANIFEST).exists() and not overwrite:
        raise LibraryError(
            f"{os.fspath(outputs)!r} holds a library already: give another folder, or replace it "
            "with overwrite=True (--overwrite)"
        )


# What made the embeddings


def _source(incoming: _Incoming, backbone: Backbone | str | None) -> Source | None:
    """Return what the file says, or else describe the backbone that is given."""
    if incoming.facts.source or incoming.facts.head or backbone is None:
        return without_weights(incoming.facts.source)
    made_by = backbone if isinstance(backbone, Backbone) else load_backbone(backbone)
    if made_by.dim != incoming.rows.dim:
        raise BackboneError(
            f"{made_by!r} makes embeddings of {made_by.dim} numbers, and {incoming.name} has "
            f"{incoming.rows.dim}; give the backbone that made them, or none"
        )
    return Source.of(made_by)


# Where the pictures are


def _recorded_root(incoming: _Incoming) -> str | None:
    """Return the folder that the file names, if it may be trusted."""
    root = incoming.facts.root
    if root is None or incoming.facts.own or _leads_below(root, "."):
        return root
    raise LibraryError(
        f"{incoming.name} was not written by you, and says that its pictures are in {root!r}: give "
        "root= (--root), the folder that holds them"
    )


def _names(incoming: _Incoming, place: str | None) -> list[str]:
    """Return the names of the rows below a place, checked."""
    if incoming.facts.own:
        return list(incoming.table.paths)
    tops = [] if place is None else [place, *([] if is_uri(place) else [os.path.abspath(place)])]  # noqa: PTH100
    names = [_below(as_posix(path), tops) for path in incoming.table.paths]
    for row, name in enumerate(names):
        if not _leads_below(name, place or "."):
            raise LibraryError(
                f"row {row} (from 0) of {incoming.name} has the path "
                f"{incoming.table.paths[row]!r:.200}, which is not below {place or '.'!r}: give "
                "root= (--root), the folder that holds all pictures"
            )
    return confined(names, place or ".")


def _below(path: str, tops: list[str]) -> str:
    for top in tops:
        if path.startswith(f"{top.rstrip('/')}/"):
            return path[len(top.rstrip("/")) + 1 :]
    return path


def _leads_below(name: str, place: str) -> bool:
    """Tell whether a name is relative, and stays below the folder that it is relative to."""
    return not is_uri(name) and confined([name], place) == [posixpath.normpath(name)]


# After the files are written


def _say_scaled(incoming: _Incoming) -> None:
    if incoming.rows.scaled:
        logger.warning(
            "%s of %s rows of %s had another norm than 1, and were scaled to it",
            *(f"{incoming.rows.scaled:,}", f"{incoming.rows.count:,}", incoming.name),
        )
