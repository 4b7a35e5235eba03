"""Names of a plan relative to a root: given out and read so that none leads out of the root."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

from simsearch.cleanup.journal import absolute


def relative_name(path: str, root: str | os.PathLike[str]) -> str:
    """Name a file from a root, with "/" on every system.

    Raises
    ------
    ValueError
        If it does not lie below the root, or lies behind a link or is one.
    """
    folder, file = absolute(os.fspath(root)), absolute(path)
    if not file.is_relative_to(folder) or file == folder:
        raise ValueError(f"{path!r} does not lie below {os.fspath(root)!r}")
    name = file.relative_to(folder)
    _check_no_link(folder, name)
    return name.as_posix()


def resolved_name(name: str, root: str | os.PathLike[str]) -> str:
    """Return the absolute path that a name of a plan means below a root.

    Raises
    ------
    ValueError
        If it is empty, leads out of the root, or leads to or through a link.
    """
    posix, own = PurePosixPath(name), Path(name)
    if not posix.parts or own.anchor or os.pardir in {*posix.parts, *own.parts} or "\0" in name:
        raise ValueError(f"{name!r} is no name of a file below the root")
    folder = absolute(os.fspath(root))
    _check_no_link(folder, own)
    return str(folder / own)


def _check_no_link(folder: Path, name: Path) -> None:
    for count in range(1, len(name.parts) + 1):
        part = Path(*name.parts[:count])
        if (folder / part).is_symlink():
            raise ValueError(f"{name.as_posix()!r} leads through a link, {part.as_posix()!r}")
