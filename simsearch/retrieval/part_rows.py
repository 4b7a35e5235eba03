"""The rows of parts as a library of their own, so that any index of rows serves them.

They stay in their file, in float16; what is read is turned into unit vectors a block at a time.
"""

from __future__ import annotations

import hashlib
import sys
import threading
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np

from simsearch.errors import LibraryError
from simsearch.files import iter_blocks
from simsearch.library.parts import INDEX_FOLDER, open_parts
from simsearch.retrieval.part_scan import PartRowIndex

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from numpy.typing import NDArray

    from simsearch.library.library import ImageLibrary
    from simsearch.library.parts import Parts

BLOCK_ROWS = 256  # that are widened together: they stay in the cache


def widen(rows: NDArray[np.float16]) -> NDArray[np.float32]:
    """Copy rows of float16 as float32; by PyTorch where it is loaded, in a seventh of the time."""
    torch = sys.modules.get("torch")
    if torch is None:
        return rows.astype(np.float32)
    wide = np.empty(rows.shape, np.float32)
    for block in iter_blocks(len(rows), BLOCK_ROWS):
        torch.from_numpy(wide[block]).copy_(torch.from_numpy(np.array(rows[block], order="C")))
    return wide


class PartRows:
    """Rows of parts as (P, D) float32 of unit norm; indexed along the first axis, as an array is.

    Parameters
    ----------
    rows
        (P, D) float16, memory-mapped.
    """

    def __init__(self, rows: NDArray[np.float16]) -> None:
        self._rows, self.dtype = rows, np.dtype(np.float32)
        self.shape = rows.shape

    @property
    def nbytes(self) -> int:
        """Bytes of all rows in float32, which they never take together."""
        return 4 * self._rows.size

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, rows: Any) -> NDArray[np.float32]:  # noqa: ANN401 (as of an array)
        if np.ndim(rows) == 0 and not isinstance(rows, slice):
            one: NDArray[np.float32] = self[np.array([rows])][0]
            return one
        wide = widen(self._rows[rows])
        norms = np.sqrt(np.einsum("ij,ij->i", wide, wide, dtype=np.float64))
        wide /= np.maximum(norms, np.finfo(np.float32).tiny)[:, None].astype(np.float32)
        return wide

    def take(
        self,
        rows: NDArray[np.intp],
        axis: int = 0,
        out: NDArray[np.float32] | None = None,
        mode: str = "raise",  # noqa: ARG002 (as of an array)
    ) -> NDArray[np.float32]:
        """Return rows by number: (n, D) float32."""
        if axis:
            raise IndexError(f"axis {axis} of {self.shape}")
        if out is None:
            return self[rows]
        out[:] = self[rows]
        return out


class _PartPaths:
    """The path of the picture of each part, to look up by number."""

    def __init__(self, parts: Parts, paths: NDArray[np.str_]) -> None:
        self._starts, self._paths = parts.starts, paths
        self._rows = np.full(len(parts.pictures), -1, np.intp)
        self._rows[parts.stored[parts.stored >= 0]] = np.flatnonzero(parts.stored >= 0)

    def __getitem__(self, numbers: NDArray[np.intp]) -> NDArray[np.str_]:
        pictures = np.searchsorted(self._starts, numbers, "right") - 1
        return np.asarray(self._paths[self._rows[pictures]])


class PartLibrary:
    """The parts of a library's pictures as rows to rank; a `Searchable` without pictures.

    Attributes
    ----------
    parts : Parts
    embeddings, row_lookup, row_file : PartRows
        (P, D) float32.
    paths
        Of the picture of each part.
    stored : (Path, str)
        The folder of an index of them, and what changes when they do.
    index : PartRowIndex
        The exact search.
    """

    def __init__(self, library: ImageLibrary, parts: Parts) -> None:
        self.parts, self.dim = parts, parts.record.dim
        self.embeddings = self.row_lookup = self.row_file = PartRows(parts.parts["row"])
        self.paths = _PartPaths(parts, np.asarray(library.paths))
        self.folder: Path = library.stored[0]  # type: ignore[index]
        self.digest = self.digest_of(len(parts.pictures))
        self.stored = self.folder / INDEX_FOLDER, self.digest
        self.index = PartRowIndex()
        self._order = np.argsort(parts.stored, kind="stable")
        self._stored = parts.stored[self._order]

    def digest_of(self, pictures: int) -> str:
        """Return what tells the parts of the first so many pictures, by their checksums."""
        record = self.parts.record
        way = repr((record.kind, record.version, record.space, record.dim))
        logged = np.ascontiguousarray(self.parts.pictures[:pictures]).tobytes()
        return hashlib.sha256(way.encode() + logged).hexdigest()

    def rows_of(self, pictures: NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Return the library's rows that show stored pictures, and which of these each shows."""
        begins, ends = (np.searchsorted(self._stored, pictures, side) for side in ("left", "right"))
        counts = ends - begins
        which = np.repeat(np.arange(len(pictures)), counts)
        within = np.arange(len(which)) - np.repeat(np.cumsum(counts) - counts, counts)
        return self._order[begins[which] + within], which

    def __len__(self) -> int:
        return len(self.embeddings)

    def __repr__(self) -> str:
        return f"the {len(self):,} parts of the pictures in {str(self.folder)!r}"


_lock = threading.Lock()
_known: WeakKeyDictionary[Any, tuple[Parts, PartLibrary]] = WeakKeyDictionary()


def part_library(library: ImageLibrary, parts: Parts) -> PartLibrary:
    """Return the parts of a library as one of their own, the same as long as they are."""
    with _lock:
        known = _known.get(library)
        if known is None or known[0].parts is not parts.parts:
            known = _known[library] = (parts, PartLibrary(library, parts))
    return known[1]


def rows_to_index(library: ImageLibrary) -> PartLibrary:
    """Return the parts of a library as rows to index.

    Raises
    ------
    LibraryError
        If it has none.
    """
    parts = open_parts(library)
    if parts is None or not len(parts.parts):
        raise LibraryError(
            f"{library!r} has no parts to index: make them with embed_dataset(dataset, outputs, "
            'parts="grid") (--parts grid)'
        )
    return part_library(library, parts)
