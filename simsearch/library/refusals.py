"""The errors for folders that hold no library, or one that cannot be used or written."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from filelock import Timeout

from simsearch.errors import LibraryBusyError, LibraryError

if TYPE_CHECKING:
    from pathlib import Path


def unusable(folder: Path, reason: str, kind: type[LibraryError] = LibraryError) -> LibraryError:
    """Return the error for files that make no library."""
    return kind(
        f"the library in {os.fspath(folder)!r} cannot be used: {reason}; put the files back as "
        "they were, or run embed_dataset again to make them anew"
    )


def no_library(folder: Path, *, arrays: bool) -> LibraryError:
    """Return the error for a folder without a manifest, which may hold arrays all the same."""
    if arrays:
        return unusable(
            folder,
            "it has no manifest.json (to search arrays made elsewhere, call "
            "ImageLibrary(np.load(...), np.load(...)))",
        )
    return LibraryError(
        f"no library in {os.fspath(folder)!r}; make one with "
        f"simsearch.embed_dataset(dataset, {os.fspath(folder)!r})"
    )


def not_written(outputs: str | os.PathLike[str], error: OSError) -> LibraryError:
    """Return the error for a folder that another process holds, or that refuses a write."""
    if isinstance(error, Timeout):
        return LibraryBusyError(
            f"another process is writing {os.fspath(outputs)!r}; wait for it, or choose "
            "another outputs folder"
        )
    return LibraryError(
        f"cannot write {os.fspath(outputs)!r}: {error.strerror or error}; the last complete "
        "library is untouched and the work so far is kept: make room and run again"
    )
