"""Rows of a large library, read from their file by number and checked by the digests of its blocks.

They are read, and not mapped: a mapped file that is cut in its place ends the process. Libraries of
up to `KEPT_BYTES` keep each block that was read, in memory of this process; larger ones read anew.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING
from weakref import finalize

import numpy as np
from blake3 import blake3
from tqdm.auto import tqdm

from simsearch.errors import DamagedLibraryError
from simsearch.library.block_digests import (
    BLOCK_BYTES,
    DIGEST_BYTES,
    read_checked,
    recorded_blocks,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path
    from typing import IO, Any, Literal

    from numpy.typing import NDArray

KEPT_BYTES = 2**30  # of a file, up to which its blocks stay in memory once they are read
PROGRESS_BYTES = 2**31  # of rows, from which on checking all takes long enough to show a bar


class RowFile:
    """An open `embeddings.npy`; indexed by rows as an array is, along its first axis.

    Attributes
    ----------
    mapped : numpy.memmap
        (N, D) float32, the same rows as the system maps them: not checked, and not safe from a file
        that is cut while it is read.
    fault : DamagedLibraryError or None
        What a check in the background has found; every look-up raises it from then on.
    """

    def __init__(self, file: Path, record: Mapping[str, Any]) -> None:
        self.file, self._record, self._digests = file, record, recorded_blocks(record)
        with file.open("rb") as stream:
            self.mapped = _map(stream)
            self._descriptor = os.dup(stream.fileno())
        finalize(self, os.close, self._descriptor)
        self.shape, self.nbytes = self.mapped.shape, self.mapped.nbytes
        self.dtype, self.begin = self.mapped.dtype, self.mapped.offset
        self._size = self.begin + self.nbytes
        self._opened = self._checked = self._state()  # at first, and when blocks were found good
        self._lock = threading.Lock()
        self.fault: DamagedLibraryError | None = None
        self._good = np.zeros(-(-self._size // BLOCK_BYTES), np.bool_)  # read, and found right
        # Takes no room before it is filled: the system gives pages when they are written.
        self._kept = np.empty(self._size if self._size <= KEPT_BYTES else 0, np.uint8)

    def __reduce__(self) -> tuple[type[RowFile], tuple[Path, Mapping[str, Any]]]:
        return RowFile, (self.file, self._record)

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, rows: Any) -> NDArray[np.float32]:  # noqa: ANN401 (as of an array)
        if isinstance(rows, slice):
            rows = np.arange(*rows.indices(len(self)))
        numbers = np.asarray(rows)
        numbers = np.flatnonzero(numbers) if numbers.dtype == np.bool_ else numbers.astype(np.intp)
        found = self.take(np.atleast_1d(numbers))
        return found if numbers.ndim else found[0]

    def take(
        self,
        rows: NDArray[np.intp],
        axis: int = 0,
        out: NDArray[np.float32] | None = None,
        mode: str = "raise",  # noqa: ARG002 (as of an array)
    ) -> NDArray[np.float32]:
        """Return rows by number, checked: (n, D) float32; as `numpy.ndarray.take` of an array.

        Raises
        ------
        DamagedLibraryError
            If a block that holds one of them is not what was written.
        """
        if axis or (len(rows) and not -len(self) <= rows.min() <= rows.max() < len(self)):
            raise IndexError(f"rows {rows} on axis {axis} of {self.shape}")
        rows = np.where(rows < 0, rows + len(self), rows)
        self._check(self._blocks_of(rows))
        if len(self._kept):
            return self._kept_rows().take(rows, axis=0, out=out, mode="clip")
        out = np.empty((len(rows), self.shape[1]), np.float32) if out is None else out
        for row, place in zip(rows.tolist(), out.view(np.uint8), strict=True):
            self._read_into(place, self.begin + row * len(place))
        if self._state() != self._checked:  # since they were checked, perhaps
            self._good[:], self._checked = False, self._state()
            return self.take(rows, out=out)
        return out

    def whole(self) -> NDArray[np.float32] | None:
        """Return all rows, (N, D), in memory of this process; None if that would be too much."""
        if not len(self._kept):
            return None
        self._check(np.arange(len(self._good)))
        return self._kept_rows()

    def _kept_rows(self) -> NDArray[np.float32]:
        rows = self._kept[self.begin :].view(np.float32).reshape(self.shape)
        rows.flags.writeable = False
        return rows

    def _blocks_of(self, rows: NDArray[np.intp]) -> NDArray[np.intp]:
        """Return the numbers of the blocks that hold rows and have not been read."""
        if self._good.all():
            return np.empty(0, np.intp)
        width = 4 * self.shape[1]
        first = (self.begin + rows * width) // BLOCK_BYTES
        last = (self.begin + (rows + 1) * width - 1) // BLOCK_BYTES
        spread = range(int((last - first).max(initial=0)) + 1)
        every = np.concatenate([np.minimum(first + i, last) for i in spread])
        return np.unique(every[~self._good[every]])

    def _check(self, blocks: NDArray[np.intp]) -> None:
        """Read blocks, and keep them if they are to be kept."""
        if self.fault:
            raise self.fault
        if not len(blocks):
            return
        room = np.empty(BLOCK_BYTES, np.uint8)
        with self._lock:
            for block in blocks.tolist():
                if not self._good[block]:
                    begin, end = self._range_of(block)
                    place = self._kept[begin:end] if len(self._kept) else room[: end - begin]
                    if not self._is_right(block, place):
                        raise self.damage([block])
                    self._good[block] = True

    def _range_of(self, block: int) -> tuple[int, int]:
        return block * BLOCK_BYTES, min((block + 1) * BLOCK_BYTES, self._size)

    def _is_right(self, block: int, place: NDArray[np.uint8]) -> bool:
        """Read a block, and tell whether it is what was recorded, as far as that is known."""
        if not self._read_into(place, block * BLOCK_BYTES):
            return False
        if self._digests is None:
            return self._state() == self._opened
        return bool(blake3(place.data).digest(DIGEST_BYTES) == self._digests[block].tobytes())

    def _read_into(self, place: NDArray[np.uint8], start: int) -> bool:
        """Fill an array with bytes of the file; tell whether there were as many."""
        done = 0
        while done < len(place):
            count = os.preadv(self._descriptor, [place[done:].data], start + done)
            if not count:
                return False
            done += count
        return True

    def _state(self) -> tuple[int, int]:
        status = os.fstat(self._descriptor)
        return status.st_size, status.st_mtime_ns

    @property
    def block_count(self) -> int:
        """How many blocks the file has."""
        return len(self._good)

    def keep_nothing(self) -> None:
        """Keep no block in memory from now on: for one that reads all rows once."""
        self._kept, self._good[:] = self._kept[:0], False

    def damaged_blocks(self, blocks: range | None = None, *, progress: bool = False) -> list[int]:
        """Read blocks anew, all by default, and return the numbers of those that are not right."""
        blocks = range(self.block_count) if blocks is None else blocks
        room, damaged = np.empty(BLOCK_BYTES, np.uint8), []
        hidden = not progress or self.nbytes < PROGRESS_BYTES
        for block in tqdm(blocks, "Checking the rows", unit="block", disable=hidden):
            begin, end = self._range_of(block)
            if not self._is_right(block, room[: end - begin]):
                damaged.append(block)
            elif not len(self._kept):
                self._good[block] = True
        return damaged

    def rows_of(self, blocks: Iterable[int]) -> NDArray[np.intp]:
        """Return the numbers of the rows that lie in blocks, even in part."""
        return rows_of_blocks(blocks, self.begin, self.shape)

    def damage(self, blocks: Sequence[int]) -> DamagedLibraryError:
        """Return the error for blocks that are not right."""
        rows = self.rows_of(blocks)
        where = f"rows {rows[0]:,} to {rows[-1]:,}" if len(rows) else "the header"
        name = os.fspath(self.file)
        if self._state() != self._opened:
            return DamagedLibraryError(
                f"{name!r} has been changed in its place since it was opened ({where} are not what "
                "was written): open the library again, and embed the dataset again if it is damaged"
            )
        return DamagedLibraryError(
            f"{where} of {name!r} are damaged on the disk: embed the dataset again, which makes "
            "these rows anew; `simsearch verify` lists all that is damaged"
        )


def open_checked(
    file: Path, record: Mapping[str, Any], *, large: bool, damaged: list[int] | None = None
) -> Any:  # noqa: ANN401 (an array, or what is indexed as one)
    """Read an array into memory, checked; large embeddings are opened as a `RowFile`.

    Raises
    ------
    DamagedLibraryError
        If blocks are not what was recorded, and there is no list for their numbers.
    """
    if large and os.name != "nt":  # where an open file could not be replaced
        return RowFile(file, record)
    data = read_checked(file, record, damaged)
    array: np.memmap[Any, Any] = np.load(file, mmap_mode="r", allow_pickle=False)  # its header
    order: Literal["C", "F"] = "C" if array.flags.c_contiguous else "F"
    return data[array.offset :].view(array.dtype).reshape(array.shape, order=order)


def rows_of_blocks(blocks: Iterable[int], begin: int, shape: tuple[int, ...]) -> NDArray[np.intp]:
    """Return the rows in some blocks; `shape` is (N, D), and the first row begins at `begin`."""
    count, width = shape[0], 4 * shape[1]
    found: set[int] = set()
    for block in blocks:
        first = (block * BLOCK_BYTES - begin) // width
        last = -(-((block + 1) * BLOCK_BYTES - begin) // width)
        found.update(range(max(0, first), min(count, last)))
    return np.array(sorted(found), np.intp)


def _map(stream: IO[bytes]) -> np.memmap[Any, np.dtype[np.float32]]:
    """Map the array in an open .npy file; a ValueError if it holds no rows of float32."""
    version = np.lib.format.read_magic(stream)
    read = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}
    shape, fortran, dtype = read[version[0]](stream)
    if fortran or dtype != np.float32 or len(shape) != 2:
        raise ValueError(f"{shape} {dtype} are no rows of float32")
    return np.memmap(stream, dtype, "r", stream.tell(), shape)
