"""Saving of a library: with the backbone that made it, and never over a newer one unasked."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from simsearch.backbones.backbone import Backbone
from simsearch.errors import BackboneError, LibraryError
from simsearch.files import iter_blocks
from simsearch.library.files import committed_version, replace_library, writing
from simsearch.library.source import Source

if TYPE_CHECKING:
    from simsearch.library.library import ImageLibrary

BLOCK_ROWS = 4096  # written together


def source_to_record(library: ImageLibrary) -> Source | None:
    """Return what made the embeddings; a backbone that is known by name is loaded for that.

    Raises
    ------
    BackboneError
        If it cannot be loaded, or is not what made the library.
    """
    if library.source is None and library.given_backbone is not None:
        try:
            return Source.of(library.backbone)
        except BackboneError as error:
            given = library.given_backbone
            name = repr(given.name if isinstance(given, Backbone) else given)
            raise BackboneError(
                f"the library's backbone {name} cannot be recorded with it: {error}; give the "
                "backbone that made the embeddings, or leave backbone= out to save without one"
            ) from error
    return library.source


def save_library(
    library: ImageLibrary, outputs: str | os.PathLike[str], *, overwrite: bool
) -> None:
    """Write a library's files into a folder; see `ImageLibrary.save`."""
    source = source_to_record(library)
    with writing(outputs) as folder:
        check_not_stale(library, folder, overwrite=overwrite)
        blocks = (library.embeddings[rows] for rows in iter_blocks(len(library), BLOCK_ROWS))
        replace_library(
            folder,
            blocks,
            library.paths,
            stats=library.stats,
            root=library.root,
            source=source,
            head=library.head,
        )
        library.versions = {**library.versions, _key(folder): committed_version(folder)}


def check_not_stale(library: ImageLibrary, folder: Path, *, overwrite: bool = False) -> None:
    """Refuse to replace a library that is newer than the one that was opened there.

    Call it inside `writing`.

    Raises
    ------
    LibraryError
        If the folder holds another library than the one that `library` was read from, or was last
        saved as.
    """
    known, now = library.versions.get(_key(folder)), committed_version(folder)
    if known is None or now in (None, known) or overwrite:
        return
    raise LibraryError(
        f"the library in {os.fspath(folder)!r} has changed since this one was opened, and its "
        "newer rows would be lost: load it again with ImageLibrary.load, save into another "
        "folder, or replace it with overwrite=True"
    )


def _key(folder: Path) -> str:
    return os.path.realpath(folder)
