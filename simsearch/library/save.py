"""Saving of a library: with the backbone that made it, and never over a newer one unasked."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from simsearch.errors import LibraryError
from simsearch.files import iter_blocks
from simsearch.images.address import is_uri
from simsearch.library.files import SKIPPED, read_manifest, replace_library, version_of, writing
from simsearch.library.recorded import source_to_record

if TYPE_CHECKING:
    from simsearch.library.library import ImageLibrary

BLOCK_ROWS = 4096  # written together


def save_library(
    library: ImageLibrary, outputs: str | os.PathLike[str], *, overwrite: bool
) -> None:
    """Write a library's files into a folder; see `ImageLibrary.save`."""
    if is_uri(outputs):
        from simsearch.library.object_store import save_to_address

        save_to_address(library, str(outputs), overwrite=overwrite)
        return
    source = source_to_record(library)
    if not library.own:
        from simsearch.library.foreign import without_weights

        source = without_weights(source)
    with writing(outputs) as folder:
        check_not_stale(library, folder, overwrite=overwrite)
        blocks = (library.row_lookup[rows] for rows in iter_blocks(len(library), BLOCK_ROWS))
        replace_library(
            folder,
            blocks,
            library.paths,
            stats=library.stats,
            digests=library.digests,
            root=library.root,
            source=source,
            head=library.head,
        )
        if (key := _key(folder)) in library.versions:  # it stays the one that is opened there
            library.versions = {**library.versions, key: _version(folder)}
        else:
            (folder / SKIPPED).unlink(missing_ok=True)  # of the library that was there before


def check_not_stale(library: ImageLibrary, folder: Path, *, overwrite: bool = False) -> None:
    """Refuse to replace a library that is newer than the one that was opened there.

    Call it inside `writing`.

    Raises
    ------
    LibraryError
        If `library` was opened in this folder, which holds another one now.
    """
    known = library.versions.get(_key(folder))
    if known is None or overwrite or _version(folder) in (None, known):
        return
    raise LibraryError(
        f"the library in {os.fspath(folder)!r} has changed since this one was opened, and its "
        "newer rows would be lost: load it again with ImageLibrary.load, save into another "
        "folder, or replace it with overwrite=True"
    )


def _version(folder: Path) -> str | None:
    """Return the version of the library that is committed in a folder; None for none to lose."""
    try:
        return version_of(read_manifest(folder))
    except (LibraryError, KeyError, TypeError, AttributeError):  # none, or damaged
        return None


def _key(folder: Path) -> str:
    return os.path.realpath(folder)
