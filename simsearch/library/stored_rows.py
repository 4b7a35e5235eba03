"""What is derived of a library's pictures, one row each: made once, and kept beside the library.

The files may be deleted at any time: each row is tied to a picture by its content, or where no
digest is known by name, size and time, and all of them to the way that they are made.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from filelock import FileLock

from simsearch.errors import LibraryError
from simsearch.files import atomic_write, check_plain, open_plain, write_text
from simsearch.library.block_digests import file_record
from simsearch.library.files import matches_record
from simsearch.library.ownership import is_signed
from simsearch.library.row_file import open_checked
from simsearch.library.user_key import keyed_digest, signed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Any, Self

    from numpy.typing import NDArray

    from simsearch.library.library import ImageLibrary

FORMAT = 1
KEY_BYTES = 16
LOG_HEADER_BYTES = 64
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
            check_plain(folder / f"{self.name}.json")
            check_plain(file)
            record = json.loads((folder / f"{self.name}.json").read_text("utf-8"))
            known = is_signed(record, self.name)  # what others have made is made anew
            if not known or (record["format"], record[self.name]) != (FORMAT, self.version):
                return None
            if not matches_record(file, record["file"]):
                return None
            rows: NDArray[np.void] = open_checked(file, record["file"], large=False)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None
        except LibraryError:
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
        with self.lock(folder):
            with atomic_write(file) as stream:
                np.save(stream, rows, allow_pickle=False)
            record = {"format": FORMAT, self.name: self.version, "file": file_record(file)}
            text = json.dumps(signed(record, self.name), indent=2)
            write_text(folder / f"{self.name}.json", text)
            RowLog(self, folder).file.unlink(missing_ok=True)

    def lock(self, folder: Path) -> FileLock:
        """Return the lock that writers hold; a second one is refused at once."""
        return FileLock(folder / f".{self.name}.lock", timeout=0)

    def rows_of(
        self, library: ImageLibrary, sizes: NDArray[np.int64], times: NDArray[np.int64]
    ) -> NDArray[np.void]:
        """Return a row for each of the library, (N,): as stored, or with its key and zeros.

        `sizes` and `times` (ns), (N,) each, are those of the files as they are now.
        """
        rows = np.zeros(len(library), self.dtype)
        keys = list(map(picture_key, library.names, sizes.tolist(), times.tolist()))
        if library.digests is not None and library.stats is not None:
            unchanged = (library.stats == np.stack([sizes, times], axis=1)).all(axis=1)
            for row in np.flatnonzero(unchanged & library.digests.any(axis=1)).tolist():
                keys[row] = library.digests[row].tobytes()
        rows["key"] = np.frombuffer(b"".join(keys), np.uint8).reshape(-1, KEY_BYTES)
        for stored in self._all_stored(library.stored[0]) if library.stored else ():
            place = {key.tobytes(): i for i, key in enumerate(stored["key"])}
            known = [row for row, key in enumerate(keys) if key in place]
            rows[known] = stored[[place[keys[row]] for row in known]]
        return rows

    def _all_stored(self, folder: Path) -> Iterator[NDArray[np.void]]:
        stored = self.open(folder)
        if stored is not None:
            yield stored
        with suppress(OSError):
            yield RowLog(self, folder).read()


class RowLog:
    """Rows that were made on the way and are not stored yet, in the file NAME.log of a library.

    Each has a checksum, by this user's key: what a dying machine leaves is good up to the first row
    that does not fit its own. `RowStore.store` takes them in.

    Parameters
    ----------
    store
        What the rows are.
    folder
        The library's.
    """

    def __init__(self, store: RowStore, folder: Path) -> None:
        self.store, self.folder, self.file = store, folder, folder / f"{store.name}.log"
        self._dtype = np.dtype([("row", store.dtype), ("checksum", np.uint32)])
        made_by = f"{store.name} {FORMAT} {store.version} {self._dtype.itemsize}\n"
        self._header = made_by.encode().rjust(LOG_HEADER_BYTES)

    def read(self) -> NDArray[np.void]:
        """Return the rows that are whole, of the way of today: (M,)."""
        check_plain(self.file)
        data = self.file.read_bytes()
        if not (data.startswith(self._header) and keyed_digest(b"")):
            return np.empty(0, self.store.dtype)
        count = (len(data) - LOG_HEADER_BYTES) // self._dtype.itemsize
        rows = np.frombuffer(data, self._dtype, count, LOG_HEADER_BYTES)
        good = np.append(_checksums(rows["row"]) == rows["checksum"], False)
        return rows["row"][: good.argmin()]

    def __enter__(self) -> Self:
        """Open the log for adding to it.

        Raises
        ------
        OSError, filelock.Timeout
            If it cannot be written, or another process stores rows.
        """
        self._lock = self.store.lock(self.folder)
        self._lock.acquire()
        try:
            self._stream = open_plain(self.file)
        except OSError:
            self._lock.release()
            raise
        good = len(self.read())
        if not good:
            self._stream.write(self._header)
        self._stream.seek(LOG_HEADER_BYTES + good * self._dtype.itemsize)
        self._stream.truncate()
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()
        self._lock.release()

    def append(self, rows: NDArray[np.void]) -> None:
        """Add rows: (M,) of the store's dtype; once this returns, a killed process keeps them."""
        logged = np.empty(len(rows), self._dtype)
        logged["row"] = rows
        logged["checksum"] = _checksums(rows)
        self._stream.write(logged.tobytes())
        self._stream.flush()


def _checksums(rows: NDArray[np.void]) -> NDArray[np.uint32]:
    """Return a checksum of each row that fits only what this user has written."""
    sums = [keyed_digest(row.tobytes())[:4] for row in rows]
    return np.frombuffer(b"".join(sums), np.uint32) if all(sums) else np.zeros(len(rows), np.uint32)


def picture_key(name: str, size: int, time: int) -> bytes:
    """Return the key of a picture whose content has no known digest; otherwise that is the key."""
    text = f"{size} {time} ".encode() + name.encode("utf-8", "surrogatepass")
    return hashlib.blake2b(text, digest_size=KEY_BYTES).digest()
