"""Folders and journal of what a clean-up moved away: made and read without following links."""

from __future__ import annotations

import errno
import json
import os
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from simsearch.errors import QueryError
from simsearch.images.address import local_path

if TYPE_CHECKING:
    from collections.abc import Iterator

REMOVED, JOURNAL = ".simsearch-removed", "journal.jsonl"


def check_folder(root: str | os.PathLike[str]) -> Path:
    """Return the absolute path of a folder.

    Raises
    ------
    QueryError
        If it is no folder.
    """
    folder = absolute(os.fspath(root))
    if not folder.is_dir():
        raise QueryError(f"root={os.fspath(root)!r} is no folder; give the dataset's")
    return folder


def absolute(path: str) -> Path:
    """Return an absolute path without "..", links not followed; "~" is the home folder."""
    return Path(os.path.abspath(Path(local_path(path)).expanduser()))  # noqa: PTH100


@contextmanager
def only_clean_up(root: Path) -> Iterator[None]:
    """Keep other clean-ups of a folder out, where the system can: two may hold opposite plans.

    Raises
    ------
    QueryError
        If one is running.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    number = os.open(root, os.O_RDONLY)
    try:
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise QueryError(f"another clean-up of {root} is running; wait for its end") from None
        except OSError as error:  # a file system without locks
            if error.errno not in {errno.ENOLCK, errno.ENOTSUP, errno.EINVAL, errno.EBADF}:
                raise
        yield
    finally:
        os.close(number)


def make_folders(base: Path, name: Path) -> None:
    """Make the folders of a relative path below another one, which they do not leave.

    Raises
    ------
    OSError
        If one cannot be made, or is a link.
    """
    for count in range(1, len(name.parts) + 1):
        folder = base.joinpath(*name.parts[:count])
        with suppress(FileExistsError):
            folder.mkdir()
        if folder.is_symlink() or not folder.is_dir():
            raise NotADirectoryError(f"{folder} is a link, or no folder")


def rename_to_free_place(source: Path, target: Path) -> None:
    """Rename a file, and overwrite none, not even one that comes at this instant.

    Raises
    ------
    FileExistsError
        If something is there.
    """
    try:
        os.link(source, target, follow_symlinks=False)  # which, unlike rename, replaces nothing
    except FileExistsError:
        raise
    except (OSError, NotImplementedError):  # a file system without hard links
        if os.path.lexists(target):
            raise FileExistsError(f"{target} is there already") from None
        source.rename(target)
    else:
        source.unlink()


def sync_folder(folder: Path) -> None:
    """Put a folder's names on the disk, where the system can."""
    with suppress(OSError, AttributeError):  # as on Windows
        number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def read_journal(place: Path) -> Iterator[Path]:
    """List what was moved, or was about to be: paths relative to the root; the last one first.

    A line that was cut short is of no move: it is on the disk whole before one.

    Raises
    ------
    QueryError
        If a path leads out of the root.
    """
    lines = (place / JOURNAL).read_bytes().split(b"\n")
    for line in reversed(lines[:-1]):
        try:
            name = Path(json.loads(line)["path"])
        except (ValueError, KeyError, TypeError):
            continue
        if name.is_absolute() or os.pardir in name.parts or not name.parts:
            raise QueryError(f"the journal in {place} names {name}, which leads out of its root")
        yield name
