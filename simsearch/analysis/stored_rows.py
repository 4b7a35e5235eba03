"""What is derived of a library's pictures, one row each: made once, and kept beside the library.

The files may be deleted at any time: each row is tied to a picture by name, size and time, and all
of them to the way that they are made.
"""

from __future__ import annotations

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np
from filelock import FileLock
from tqdm.auto import tqdm

from simsearch.files import atomic_write, write_text
from simsearch.library.files import file_record, matches_record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path
    from typing import Any

    from numpy.typing import NDArray

    from simsearch.analysis.picture_files import PictureFiles
    from simsearch.library.library import ImageLibrary

_T = TypeVar("_T")

FORMAT = 1
KEY_BYTES = 16
KEY = ("key", np.uint8, (KEY_BYTES,))  # the first field of each row


class RowStore(NamedTuple):
    """The files NAME.npy and NAME.json of a library.

    Attributes
    ----------
    name : str
    version : int
        Of the way that rows are made: others are not read.
    dtype : numpy.dtype
        Of a row; its first field is `KEY`.
    """

    name: str
    version: int
    dtype: np.dtype[Any]

    def open(self, folder: Path) -> NDArray[np.void] | None:
        """Open what is stored, if nothing happened to it and it was made in the way of today."""
        file = folder / f"{self.name}.npy"
        try:
            record = json.loads((folder / f"{self.name}.json").read_text("utf-8"))
            if (record["format"], record[self.name]) != (FORMAT, self.version):
                return None
            if not matches_record(file, record["file"]):
                return None
            rows: NDArray[np.void] = np.load(file, allow_pickle=False)
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return rows if rows.dtype == self.dtype and rows.ndim == 1 else None

    def store(self, folder: Path, rows: NDArray[np.void]) -> None:
        """Write the rows; the record comes last, and tells whether the file is whole.

        Raises
        ------
        OSError, filelock.Timeout
            If they cannot be written, or another process is storing its own.
        """
        file = folder / f"{self.name}.npy"
        with FileLock(folder / f".{self.name}.lock", timeout=0):
            with atomic_write(file) as stream:
                np.save(stream, rows, allow_pickle=False)
            record = {"format": FORMAT, self.name: self.version, "file": file_record(file)}
            write_text(folder / f"{self.name}.json", json.dumps(record, indent=2))

    def rows_of(self, library: ImageLibrary, files: PictureFiles) -> NDArray[np.void]:
        """Return a row for each of the library, (N,): as stored, or with its key and zeros."""
        rows = np.zeros(len(library), self.dtype)
        keys = [_key(*each) for each in zip(library.names, files.sizes, files.times, strict=True)]
        rows["key"] = np.frombuffer(b"".join(keys), np.uint8).reshape(-1, KEY_BYTES)
        stored = self.open(library.stored[0]) if library.stored else None
        if stored is not None:
            place = {key.tobytes(): i for i, key in enumerate(stored["key"])}
            known = [row for row, key in enumerate(keys) if key in place]
            rows[known] = stored[[place[keys[row]] for row in known]]
        return rows


def _key(name: str, size: int, time: int) -> bytes:
    text = f"{size} {time} ".encode() + name.encode("utf-8", "surrogatepass")
    return hashlib.blake2b(text, digest_size=KEY_BYTES).digest()


def read_pictures(
    read: Callable[[str], _T],
    paths: Sequence[str],
    title: str,
    *,
    workers: int | None = None,
    progress: bool,
) -> Iterator[_T]:
    """Read pictures in threads (decoders release Python's lock), in order, under a bar."""
    with (
        ThreadPoolExecutor(workers or min(8, os.cpu_count() or 1)) as pool,
        tqdm(desc=title, total=len(paths), unit="image", delay=1, disable=not progress) as bar,
    ):
        for found in pool.map(read, paths):
            yield found
            bar.update()
