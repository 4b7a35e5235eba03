"""The way back: what a clean-up moved away returns to its place."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from simsearch.cleanup.journal import (
    JOURNAL,
    REMOVED,
    check_folder,
    make_folders,
    only_clean_up,
    read_journal,
    rename_to_free_place,
    sync_folder,
)
from simsearch.errors import QueryError
from simsearch.printable import one_line, valid_unicode

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class UndoResult:
    """What came back, and what could not.

    Attributes
    ----------
    restored : tuple of str
        Paths of the files that are in their places again.
    left : mapping of str to str
        Reason by path of each that is still below `.simsearch-removed`.
    """

    restored: tuple[str, ...]
    left: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        count = len(self.restored)
        lines = [f"{count:,} file{'s' * (count != 1)} brought back"]
        lines += [f"  left: {one_line(path)}: {reason}" for path, reason in self.left.items()]
        return valid_unicode("\n".join(lines))


def undo_cleanup(root: str | os.PathLike[str]) -> UndoResult:
    """Bring back all that clean-ups of a folder moved away, the last one first.

    Nothing is overwritten: where another file stands in the place meanwhile, the copy stays below
    `.simsearch-removed`, and is named.

    Parameters
    ----------
    root
        The folder that was given to `apply_cleanup`.

    Returns
    -------
    UndoResult

    Raises
    ------
    QueryError
        If the root is no folder, or what lies in `.simsearch-removed` was not put there by a
        clean-up.
    """
    folder = check_folder(root)
    restored: list[str] = []
    left: dict[str, str] = {}
    if (folder / REMOVED).is_symlink():
        raise QueryError(f"{folder / REMOVED} is a link: nothing is brought back through it")
    with only_clean_up(folder):
        for place in _places(folder / REMOVED):
            faults = _undo_one(folder, place, restored)
            left |= faults
            if not faults:
                (place / JOURNAL).unlink()
                _drop_empty(place)
        with suppress(OSError):
            (folder / REMOVED).rmdir()
    return UndoResult(tuple(restored), left)


def _places(removed: Path) -> list[Path]:
    """List the folders of clean-ups that were not undone, the last one first."""
    places = sorted(removed.iterdir(), reverse=True) if removed.is_dir() else []
    return [each for each in places if not each.is_symlink() and (each / JOURNAL).is_file()]


def _undo_one(root: Path, place: Path, restored: list[str]) -> dict[str, str]:
    """Bring back one clean-up; return what could not come back, with the reason."""
    left = {}
    for name in read_journal(place):
        if os.path.lexists(place / name):  # otherwise it was not moved, or is back
            fault = _bring_back(place, root, name)
            if fault:
                left[str(root / name)] = fault
            else:
                restored.append(str(root / name))
    return left


def _bring_back(place: Path, root: Path, name: Path) -> str:
    """Move one file back; return the reason if it cannot be."""
    if any((place / each).is_symlink() for each in name.parents):
        return "it lies behind a link"
    source, target = place / name, root / name
    try:
        make_folders(root, name.parent)
        if os.path.lexists(target) and os.path.samestat(source.lstat(), target.lstat()):
            source.unlink()  # killed between the two steps of a move; a link to it is another file
        else:
            rename_to_free_place(source, target)
    except FileExistsError:
        return "another file is in its place"
    except OSError as error:
        return error.strerror or str(error)
    sync_folder(target.parent)
    return ""


def _drop_empty(folder: Path) -> None:
    """Remove folders that hold nothing, from the innermost on."""
    for place, _, _ in os.walk(folder, topdown=False):
        with suppress(OSError):
            Path(place).rmdir()
