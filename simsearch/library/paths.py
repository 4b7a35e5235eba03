"""Paths of a library: POSIX, relative to the dataset's root or whole, of files or of addresses."""

from __future__ import annotations

import os
import posixpath
from bisect import bisect_left
from contextlib import suppress
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from simsearch.files import modified_ns
from simsearch.images.address import is_uri, local_path

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from simsearch.library.library import ImageLibrary

_T = TypeVar("_T")


class Placed(Generic[_T]):
    """Attribute of a library with paths, which become absolute when the current folder changes."""

    def __init__(self, default: _T | None = None) -> None:
        self.default: Any = default

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, library: ImageLibrary, owner: type) -> _T:
        if library.opened_in not in {"", _current_folder() or library.opened_in}:
            from simsearch.library.location import make_absolute

            make_absolute(library)
        value: _T = library.__dict__.get(self.name, self.default)
        return value

    def __set__(self, library: ImageLibrary, value: _T) -> None:
        library.__dict__[self.name], library.opened_in = value, _current_folder()


def _current_folder() -> str:
    try:
        return os.getcwd()  # noqa: PTH109
    except OSError:  # it is gone
        return ""


def as_root(folder: str | os.PathLike[str]) -> str:
    """Write a dataset's folder as a library records it; an address stays as it is."""
    if is_uri(folder) and "%" in str(folder):  # names are not quoted, so neither may a folder be
        folder = local_path(folder)
    return str(folder) if is_uri(folder) else Path(folder).expanduser().as_posix()


def absolute_root(root: str | None) -> str | None:
    """Return a dataset's folder as seen from anywhere; None for an address, or without a root."""
    return None if root is None or is_uri(root) else Path(root).absolute().as_posix()


def root_of(paths: NDArray[Any]) -> str | None:
    """Return the root of paths that are all relative, the current folder; None of others."""
    whole = any(is_uri(path) or os.path.isabs(path) for path in paths.tolist())  # noqa: PTH117
    return None if whole else "."


def in_folder(folder: str, name: str) -> str:
    """Join POSIX paths, with nothing before the name where the folder is the current one.

    Of a chained address, such as `zip://photos::s3://bucket/all.zip`, the first part is extended.
    """
    if folder in ("", "."):
        return name
    inner, chain, outer = folder.partition("::") if is_uri(folder) else (folder, "", "")
    return posixpath.join(inner, name) + chain + outer


def as_posix(path: str | os.PathLike[str]) -> str:
    """Write a path with POSIX separators; an address keeps its two slashes."""
    text = os.fspath(path)
    return text if "://" in text else PurePath(text).as_posix()


def spellings(path: str | os.PathLike[str], root: str | None) -> Iterator[str]:
    """Yield the ways in which a library with this root may list a path, the cheapest first."""
    yield as_posix(path)
    folder = root or "."
    local = local_path(folder)
    for resolve in (Path.absolute, os.path.realpath):  # a link may be listed, or its target
        file, base = Path(resolve(Path(path))), Path(resolve(Path(local)))
        if file.is_relative_to(base):
            yield in_folder(folder, file.relative_to(base).as_posix())
        yield file.as_posix()


def is_unchanged(path: str, stat: Sequence[int] | None) -> bool:
    """Tell whether a file still has this size and time; True where it is gone or unknown."""
    if stat is not None and is_uri(local_path(path)):
        from simsearch.images.remote import file_state

        return file_state(path) in {None, tuple(stat)}
    with suppress(OSError):
        status = Path(local_path(path)).stat()
        return stat is None or (status.st_size, modified_ns(status)) == tuple(stat)
    return True


def find_row(
    path: str | os.PathLike[str], root: str | None, paths: NDArray[np.str_], order: NDArray[np.intp]
) -> int | None:
    """Find the row of a path in any form, given the order of the sorted paths; None without one."""
    with suppress(ValueError):  # a null character, which is in no path
        for form in spellings(os.path.expanduser(path), root):  # noqa: PTH111 ("//" stays)
            row = bisect_left(order, form, key=paths.__getitem__)
            if row < len(paths) and paths[order[row]] == form:
                return int(order[row])
    return None
