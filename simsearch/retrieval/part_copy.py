"""The shortened copy of parts: 8 bits for each of a few directions bound every cosine from above.

Made once, stored beside the parts as `parts-N.short`, and mapped into memory; new parts join it.
"""

from __future__ import annotations

import json
import os
import threading
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
from filelock import FileLock
from tqdm.auto import tqdm

from simsearch.errors import LibraryError
from simsearch.files import atomic_write, check_plain, iter_blocks, write_text
from simsearch.library.block_digests import file_record
from simsearch.library.files import matches_record
from simsearch.library.ownership import is_signed
from simsearch.library.user_key import signed
from simsearch.retrieval.pruned_copy import leading_directions, project_rows, rounding_bounds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import Any, Literal

    from numpy.typing import NDArray

    from simsearch.retrieval.part_rows import PartLibrary

    Put = Callable[[int, NDArray[Any]], None]

FORMAT = 1
SHORT_FROM_PARTS = 20_000  # from which on a copy is worth its making
LEVELS, COLUMNS = 2, 256  # of each level
BLOCK_ROWS = 4096  # that are projected together
PROGRESS_NUMBERS = 2**29  # from which on the making takes long enough to show a bar
PREPARING = "Preparing the parts for search"
MAX_NEW_SHARE = 1 / 2  # of the parts that the directions were chosen for, from which they are old
MAX_CODE = 127
SPARE = 1.25  # of the largest number in the sample that sets the scale
LOCK = ".parts.short.lock"


class PartCopy(NamedTuple):
    """The copy of P parts in two levels, each a closer look than the one before."""

    basis: NDArray[np.float32]  # (D, L·w), nearly orthonormal columns
    scale: NDArray[np.float32]  # (L·w,): a code times this is about a row along a column
    errors: NDArray[np.float32]  # (L, 2, P) norms of what codes so far lose, inside and outside
    codes: NDArray[np.int8]  # (L, P, w)
    score_error: float  # bounds the rounding error of a cosine

    def project(self, vectors: NDArray[np.float32]) -> ProjectedQueries:
        """Project queries, to be multiplied with codes."""
        projections = project_rows(vectors, self.basis)
        levels = len(self.codes)
        lost = lost_norms(vectors, projections, projections, levels, self.score_error)
        squares = np.square(projections, dtype=np.float64).reshape(len(vectors), levels, -1)
        inside = np.sqrt(squares.sum(axis=2).cumsum(axis=1)).T + self.score_error
        scaled = (projections * self.scale).reshape(len(vectors), levels, -1).swapaxes(0, 1)
        return ProjectedQueries(np.ascontiguousarray(scaled), inside, lost[:, 1])


class ProjectedQueries(NamedTuple):
    """Queries as a copy compares them."""

    factors: NDArray[np.float32]  # (L, Q, w), to multiply codes with
    inside: NDArray[np.float64]  # (L, Q) norms along the columns so far
    outside: NDArray[np.float32]  # (L, Q) norms of all else


def lost_norms(
    rows: NDArray[np.float32],
    projections: NDArray[np.float32],
    kept: NDArray[np.float32],
    levels: int,
    error: float,
) -> NDArray[np.float32]:
    """Norms of what levels up to each lose of rows, inside and outside, rounded up: (L, 2, n)."""

    def so_far(columns: NDArray[np.float64]) -> NDArray[np.float64]:
        squares = np.square(columns).reshape(len(rows), levels, -1).sum(axis=2)
        return np.asarray(squares.cumsum(axis=1).T)

    wide = projections.astype(np.float64)
    total = np.einsum("ij,ij->i", rows, rows, dtype=np.float64)
    outside = np.maximum(total - so_far(wide), 0) + error
    norms = np.stack([np.sqrt(so_far(wide - kept)) + error, np.sqrt(outside)], axis=1)
    return np.nextafter(norms.astype(np.float32), np.float32(np.inf))


_lock = threading.Lock()
_known: WeakKeyDictionary[PartLibrary, PartCopy] = WeakKeyDictionary()


def part_copy_of(library: PartLibrary) -> PartCopy:
    """Open the copy of a library's parts, or make it and store it."""
    with _lock:
        copy = _known.get(library)
        if copy is None:
            copy = _known[library] = _open(library) or _make(library)
    return copy


def _place(library: PartLibrary) -> Path:
    return library.folder / f"parts-{library.parts.record.generation}.short"


def _record_place(file: Path) -> Path:
    return file.with_suffix(".short.json")


def _sizes(count: int, dim: int, width: int) -> list[int]:
    """Bytes of the basis, the scale, the errors and the codes in their file."""
    columns = LEVELS * width
    return [4 * dim * columns, 4 * columns, 4 * LEVELS * 2 * count, count * columns]


def _read_record(file: Path) -> dict[str, Any]:
    """Read the record of a copy; a ValueError if it does not bear this user's mark."""
    place = _record_place(file)
    check_plain(place)
    record = json.loads(place.read_text("utf-8"))
    if not isinstance(record, dict) or not is_signed(record, place.name):
        raise ValueError(f"{place.name} does not bear this user's mark")
    if record["format"] != FORMAT:
        raise ValueError(f"{place.name} is of another format")
    return record


def _open(library: PartLibrary) -> PartCopy | None:
    """Open the stored copy, if there is one of these very parts, and nothing happened to it."""
    try:
        record = _read_record(_place(library))
        if record["of"] != library.digest or record["parts"] != len(library):
            return None
        return _open_file(_place(library), record, library.dim)
    except (OSError, ValueError, KeyError, TypeError, RecursionError, LibraryError):
        return None


def _open_file(file: Path, record: dict[str, Any], dim: int) -> PartCopy:
    check_plain(file)
    if not matches_record(file, record["file"]):
        raise ValueError(f"{file.name} is damaged")
    mode: Literal["r"] = "r"
    # Windows cannot replace a file that is mapped: there it is read.
    data: NDArray[np.uint8] = (
        np.fromfile(file, np.uint8) if os.name == "nt" else np.memmap(file, np.uint8, mode)
    )
    return _split(np.asarray(data), int(record["parts"]), dim, int(record["width"]))


def _split(data: NDArray[np.uint8], count: int, dim: int, width: int) -> PartCopy:
    """Find the arrays of a copy in its bytes; a ValueError if these are too few or too many."""
    sizes = _sizes(count, dim, width)
    if len(data) != sum(sizes):
        raise ValueError(f"{len(data)} bytes are no copy of {count} parts")
    basis, scale, errors, codes = np.split(data, np.cumsum(sizes)[:-1])
    columns: NDArray[np.float32] = np.array(basis.view("<f4").reshape(dim, LEVELS * width))
    return PartCopy(
        columns,
        np.array(scale.view("<f4")),
        errors.view("<f4").reshape(LEVELS, 2, count),
        codes.view(np.int8).reshape(LEVELS, count, width),
        _score_error(columns),
    )


def _score_error(basis: NDArray[np.float32]) -> float:
    return max(rounding_bounds(basis))


def _make(library: PartLibrary) -> PartCopy:
    """Make a copy, of an older one of fewer parts where there is one, and store it."""
    older = _open_older(library)
    if older is None:
        plan, facts = _plan(library), {"planned_for": len(library)}
    else:
        plan, facts = older[0][:2], {"planned_for": older[1]["planned_for"]}
    fill = partial(_fill, library, plan, older[0] if older else None)
    facts["width"] = len(plan[1]) // LEVELS
    with suppress(OSError):  # read-only, full, or another process is just storing its own
        _store(library, fill, facts)
    return _open(library) or _in_memory(library, plan, fill)


def _in_memory(library: PartLibrary, plan: Any, fill: Any) -> PartCopy:  # noqa: ANN401
    width = len(plan[1]) // LEVELS
    data = np.empty(sum(_sizes(len(library), library.dim, width)), np.uint8)

    def put(start: int, values: NDArray[Any]) -> None:
        data[start : start + values.nbytes] = np.ascontiguousarray(values).view(np.uint8).ravel()

    fill(put)
    return _split(data, len(library), library.dim, width)


def _open_older(library: PartLibrary) -> tuple[PartCopy, dict[str, Any]] | None:
    """Open a stored copy of the first of these parts; None where most are new since."""
    try:
        record = _read_record(_place(library))
        count, pictures = int(record["parts"]), int(record["pictures"])
        few = len(library) - record["planned_for"] <= MAX_NEW_SHARE * record["planned_for"]
        if not few or record["of"] != library.digest_of(pictures) or count > len(library):
            return None
        return _open_file(_place(library), record, library.dim), record
    except (OSError, ValueError, KeyError, TypeError, RecursionError, LibraryError):
        return None


def _plan(library: PartLibrary) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Choose directions and their scale by a sample: (D, w) and (w,)."""
    rng = np.random.default_rng(0)
    width = min(COLUMNS, max(1, library.dim // LEVELS))
    basis = leading_directions(library.embeddings, LEVELS * width, rng)
    chosen = np.sort(rng.choice(len(library), min(BLOCK_ROWS, len(library)), replace=False))
    largest = np.abs(project_rows(library.embeddings[chosen], basis)).max(axis=0)
    scale = SPARE * largest / MAX_CODE + np.finfo(np.float32).tiny
    return np.ascontiguousarray(basis), scale.astype(np.float32)


def _fill(library: PartLibrary, plan: tuple[Any, Any], older: PartCopy | None, put: Put) -> None:
    """Put the arrays of a copy where they belong in its file, a block of parts at a time."""
    basis, scale = plan
    count, width = len(library), len(scale) // LEVELS
    starts = np.cumsum([0, *_sizes(count, library.dim, width)]).tolist()
    put(0, basis)
    put(starts[1], scale)
    for first, errors, codes in _encoded(library, basis, scale, older):
        for level in range(LEVELS):
            put(starts[3] + (level * count + first) * width, codes[level])
            for place in range(2):
                begin = (2 * level + place) * count + first
                put(starts[2] + 4 * begin, errors[level, place])


def _encoded(
    library: PartLibrary,
    basis: NDArray[np.float32],
    scale: NDArray[np.float32],
    older: PartCopy | None,
) -> Iterator[tuple[int, NDArray[np.float32], NDArray[np.int8]]]:
    """Yield errors and codes of blocks of parts, with the number of the first of each."""
    known, bound = 0, _score_error(basis)
    if older is not None:
        known = older.codes.shape[1]
        for block in iter_blocks(known, BLOCK_ROWS):
            yield block.start, older.errors[:, :, block], older.codes[:, block]
    hidden = (len(library) - known) * library.dim < PROGRESS_NUMBERS
    blocks = list(iter_blocks(len(library) - known, BLOCK_ROWS))
    for block in tqdm(blocks, PREPARING, unit="block", disable=hidden):
        first = known + block.start
        rows = library.embeddings[first : known + block.stop]
        projections = project_rows(rows, basis)
        codes = np.clip(np.rint(projections / scale), -MAX_CODE, MAX_CODE)
        errors = lost_norms(rows, projections, codes * scale, LEVELS, bound)
        levels = codes.astype(np.int8).reshape(len(rows), LEVELS, -1).swapaxes(0, 1)
        yield first, errors, levels


def _store(library: PartLibrary, fill: Callable[[Put], None], facts: dict[str, int]) -> None:
    """Write a copy beside its parts; the record comes last, and tells whether it is whole."""
    file = _place(library)
    with FileLock(library.folder / LOCK, timeout=0):
        with atomic_write(file) as stream:

            def put(start: int, values: NDArray[Any]) -> None:
                stream.seek(start)
                stream.write(np.ascontiguousarray(values).data)

            fill(put)
        record = {
            "format": FORMAT,
            "of": library.digest,
            "pictures": len(library.parts.pictures),
            "parts": len(library),
            "file": file_record(file),
            **facts,
        }
        place = _record_place(file)
        write_text(place, json.dumps(signed(record, place.name), indent=2))
