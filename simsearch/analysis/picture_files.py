"""Files of a library's rows: which lead to one file, which hold the same bytes, which are there."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np

from simsearch.analysis.progress import follow
from simsearch.files import digest_unchanged, modified_ns
from simsearch.images.address import is_uri, local_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from simsearch.library.library import ImageLibrary

_T = TypeVar("_T")


class PictureFiles(NamedTuple):
    """What the file system says of each row.

    Attributes
    ----------
    sizes, times : (N,) int64
        Bytes, -1 where there is no file; time of change in ns. Of an address as the library
        recorded it, 0 if it did not.
    same : (N,) intp
        The row that stands for the file: another one where several paths lead to it.
    links : (N,) int64
        How many parts of the path are links.
    """

    sizes: NDArray[np.int64]
    times: NDArray[np.int64]
    same: NDArray[np.intp]
    links: NDArray[np.int64]

    @property
    def there(self) -> NDArray[np.bool_]:
        """Which rows have a file, or an address: (N,)."""
        return self.sizes >= 0


def look_at_files(library: ImageLibrary) -> PictureFiles:
    """Look at the file of every row; nothing is opened."""
    count = len(library)
    sizes, times = np.full(count, -1, np.int64), np.zeros(count, np.int64)
    links = np.zeros(count, np.int64)
    paths_of: dict[tuple[int, int], list[int]] = {}
    folders: dict[str, int] = {}
    for row, path in enumerate(library.paths.tolist()):
        plain = local_path(path)
        if is_uri(plain):
            known = library.stats is not None
            sizes[row], times[row] = library.stats[row] if known else (0, 0)  # type: ignore[index]
            continue
        try:
            status = os.stat(plain)  # noqa: PTH116 (a name such as "~1.jpg")
        except (OSError, ValueError):
            continue
        sizes[row], times[row] = status.st_size, modified_ns(status)
        links[row] = _count_links(os.path.abspath(plain), folders)  # noqa: PTH100
        if status.st_ino:  # 0 where the file system has no such number
            paths_of.setdefault((status.st_dev, status.st_ino), []).append(row)
    same = np.arange(count)
    for rows in paths_of.values():
        same[rows] = min(rows, key=lambda row: (links[row], library.paths[row]))
    return PictureFiles(sizes, times, same, links)


def _count_links(path: str, folders: dict[str, int]) -> int:
    """Count the parts of an absolute path that are links; the folders are looked at once."""
    folder = os.path.dirname(path)  # noqa: PTH120
    if folder not in folders:
        folders[folder] = 0 if folder == path else _count_links(folder, folders)
    return folders[folder] + os.path.islink(path)  # noqa: PTH114


def label_equal_bytes(library: ImageLibrary, files: PictureFiles) -> NDArray[np.intp]:
    """Give files of the same bytes the same number: (N,), the first row that has them.

    Only files of one size are read, and only those whose digest the library does not know.
    """
    labels = np.arange(len(library))
    of_size: dict[int, list[int]] = {}
    for row in np.flatnonzero(files.there & (files.sizes > 0)).tolist():
        of_size.setdefault(int(files.sizes[row]), []).append(row)
    for rows in of_size.values():
        if len(set(files.same[rows].tolist())) > 1:
            first: dict[bytes, int] = {}
            for row in rows:
                digest = _digest(library, files, row)
                if digest:
                    labels[row] = first.setdefault(digest, row)
    return labels


def _digest(library: ImageLibrary, files: PictureFiles, row: int) -> bytes:
    """Digest of a file as it is now; b"" if it cannot be read."""
    size, time = int(files.sizes[row]), int(files.times[row])
    if library.digests is not None and library.stats is not None:
        known = library.digests[row]
        if known.any() and library.stats[row].tolist() == [size, time]:
            return bytes(known)
    plain = local_path(str(library.paths[row]))
    return b"" if is_uri(plain) else digest_unchanged(plain, size, time)


def read_pictures(
    read: Callable[[str], _T],
    paths: Sequence[str],
    title: str,
    *,
    workers: int | None = None,
    progress: bool,
) -> Iterator[_T]:
    """Read pictures in threads (decoders release Python's lock), in order, under a bar.

    The threads take over the caller's context, such as what decodes in place of this process.
    """
    pool, context = ThreadPoolExecutor(workers or min(8, os.cpu_count() or 1)), copy_context()
    try:
        found = pool.map(lambda path: context.copy().run(read, path), paths)
        yield from follow(found, len(paths), title, progress=progress)
    finally:  # what was not begun is not read any more, if the work ends early
        pool.shutdown(cancel_futures=True)
