"""Words of the errors about a library's folder."""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING

from filelock import Timeout

from simsearch.errors import LibraryBusyError, LibraryError
from simsearch.library.files import LOG

if TYPE_CHECKING:
    from pathlib import Path


def cannot_write(outputs: str | os.PathLike[str], error: OSError) -> LibraryError:
    """Return the error of a folder that another process writes, or that cannot be written."""
    if isinstance(error, Timeout):
        return LibraryBusyError(
            f"another process is writing {os.fspath(outputs)!r}; wait for it, or choose "
            "another outputs folder"
        )
    return LibraryError(
        f"cannot write {os.fspath(outputs)!r}: {error.strerror or error}; the last complete "
        "library is untouched and the work so far is kept: make room and run again"
    )


def if_yours(outputs: str | os.PathLike[str]) -> str:
    """Say why a library bears no mark of this user, and what to type if it is one's own."""
    return (
        "an earlier version, another machine or somebody else made it. If it is yours, type once: "
        f"simsearch trust {shlex.quote(os.fspath(outputs))}"
    )


def no_library(folder: Path, *, has_rows: bool) -> LibraryError:
    """Return the error of a folder without a manifest."""
    if has_rows:
        arrays = "(to search arrays made elsewhere: ImageLibrary(np.load(...), np.load(...)))"
        return unusable(folder, f"it has no manifest.json {arrays}")
    embed = f"simsearch.embed_dataset(dataset, {os.fspath(folder)!r})"
    if (folder / LOG).is_file():
        return LibraryError(
            f"no library in {os.fspath(folder)!r} yet: its first run was stopped; "
            f"go on with {embed}"
        )
    return LibraryError(f"no library in {os.fspath(folder)!r}; make one with {embed}")


def unusable(folder: Path, reason: str, kind: type[LibraryError] = LibraryError) -> LibraryError:
    """Return the error for files that make no library."""
    return kind(
        f"the library in {os.fspath(folder)!r} cannot be used: {reason}; put the files back as "
        "they were, or run embed_dataset again to make them anew"
    )
