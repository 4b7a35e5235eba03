"""The pruned copy beside its library: made once, stored, opened, and tied to the rows it is of.

A stored one that is damaged, or another user's, is made anew; of one of earlier rows, what is
still there is kept.
"""

from __future__ import annotations

import hashlib
import json
import threading
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np
from filelock import FileLock

from simsearch.errors import LibraryError
from simsearch.files import atomic_write, check_plain, write_text
from simsearch.library.block_digests import file_record
from simsearch.library.files import matches_record
from simsearch.library.ownership import is_signed
from simsearch.library.row_digests import digests_of
from simsearch.library.row_file import open_checked
from simsearch.library.user_key import MAC, signed
from simsearch.retrieval.gather import matrix_of
from simsearch.retrieval.pruned_copy import (
    PrunedCopy,
    copy_size,
    empty_copy,
    fill_copy,
    in_memory,
    make_plan,
    split_copy,
)

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from numpy.typing import NDArray

    from simsearch.library.library import ImageLibrary
    from simsearch.retrieval.pruned_copy import Fill, Plan

FORMAT = 1
ARRAY, RECORD, LOCK = "sketch.npy", "sketch.json", ".sketch.lock"  # as format 1 has them
ROWS = "sketch_rows.npy"  # digests of the rows that it was made of

_lock = threading.Lock()
# With the rows that each belongs to: a library may come to hold others.
_known: WeakKeyDictionary[ImageLibrary, tuple[NDArray[np.float32], PrunedCopy]] = (
    WeakKeyDictionary()
)


def pruned_copy_of(library: ImageLibrary, *, progress: bool = True) -> PrunedCopy:
    """Open the copy of a library's rows, or make it, for large ones with a progress bar."""
    rows = library.embeddings
    with _lock:
        known = _known.get(library)
        if known is None or known[0] is not rows:
            known = _known[library] = (
                rows,
                open_copy(library) or renew_copy(library, progress=progress),
            )
    return known[1]


def known_copy(library: ImageLibrary, made: PrunedCopy | None = None) -> PrunedCopy | None:
    """Return the copy in use, after keeping one that was just made; None if there is none yet."""
    rows = library.embeddings
    with _lock:
        known = _known.get(library)
        if known is None or known[0] is not rows:
            copy = made or open_copy(library)
            if copy is None:
                return None
            known = _known[library] = (rows, copy)
    return known[1]


def renew_copy(library: ImageLibrary, *, progress: bool) -> PrunedCopy:
    """Bring a copy of earlier rows up to date, or make one."""
    from simsearch.retrieval.pruned_update import update_copy

    return update_copy(library) or make_copy(library, progress=progress)


def make_copy(library: ImageLibrary, *, progress: bool = True) -> PrunedCopy:
    """Make a copy and store it; where it cannot be stored it is kept in memory."""
    rows = _rows_of(library)
    plan = make_plan(rows)
    fill = partial(fill_copy, rows, plan, progress=progress)
    return keep_copy(library, plan, fill, {"planned_for": len(rows)})


def _rows_of(library: ImageLibrary) -> Any:  # noqa: ANN401 (an array, or what is indexed as one)
    return matrix_of(library)


def keep_copy(library: ImageLibrary, plan: Plan, fill: Fill, facts: dict[str, int]) -> PrunedCopy:
    """Store a copy, or keep it in memory: `fill` puts its parts, and `facts` join the record."""
    if library.stored:
        with suppress(OSError):  # read-only, full, or another process is just storing its own
            _store(library, library.stored, plan, fill, facts)
    return open_copy(library) or in_memory(_rows_of(library), plan, fill)


def _store(
    library: ImageLibrary, stored: tuple[Path, str], plan: Plan, fill: Fill, facts: dict[str, int]
) -> None:
    """Write a copy beside its library; the record comes last, and tells whether it is whole."""
    folder, digest = stored
    rows, shares = _rows_of(library), plan.survivor_shares
    record: dict[str, Any] = {"format": FORMAT, "of": digest, "shares": shares, "file": None}
    with FileLock(folder / LOCK, timeout=0):
        try:
            with atomic_write(folder / ROWS) as stream:
                np.save(stream, digests_of(library), allow_pickle=False)
            if shares:
                _write_copy(folder / ARRAY, rows, plan, fill)
                record["file"] = file_record(folder / ARRAY)
        except BaseException:
            with suppress(OSError):
                (folder / ROWS).unlink(missing_ok=True)
            raise
        record |= {"rows": file_record(folder / ROWS), "dim": library.dim, **facts}
        record["sha256"] = _record_digest(record)
        write_text(folder / RECORD, json.dumps(signed(record, RECORD), indent=2, allow_nan=False))


def _write_copy(file: Path, rows: NDArray[np.float32], plan: Plan, fill: Fill) -> None:
    with atomic_write(file) as stream:
        header = {"descr": "<f4", "fortran_order": False, "shape": (copy_size(rows, plan),)}
        np.lib.format.write_array_header_1_0(stream, header)
        begin = stream.tell()

        def put(start: int, values: NDArray[np.float32]) -> None:
            stream.seek(begin + 4 * start)
            stream.write(np.ascontiguousarray(values, "<f4").data)

        fill(put)


def _record_digest(record: dict[str, Any]) -> str:
    text = json.dumps({**record, "sha256": None}, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def open_copy(library: ImageLibrary) -> PrunedCopy | None:
    """Open the stored copy, if there is one of these very rows, and nothing happened to it."""
    if library.stored is None:
        return None
    folder, digest = library.stored
    try:
        record = read_record(folder)
        if record["of"] != digest:
            return None
        return open_array(folder, record, library.embeddings.shape)
    except (OSError, ValueError, KeyError, TypeError, RecursionError, LibraryError):
        return None


def read_record(folder: Path) -> dict[str, Any]:
    """Read the record of the stored copy, whichever rows it is of.

    Raises
    ------
    OSError, ValueError, KeyError, TypeError
        If there is none, it is damaged, or another user has made it.
    """
    check_plain(folder / RECORD)
    found = json.loads((folder / RECORD).read_text("utf-8"))
    if not isinstance(found, dict) or not is_signed(found, RECORD):
        raise ValueError(f"{RECORD} does not bear this user's mark")
    record = {key: value for key, value in found.items() if key != MAC}
    if (record["format"], record["sha256"]) != (FORMAT, _record_digest(record)):
        raise ValueError(f"{RECORD} is damaged")
    return record


def open_array(folder: Path, record: dict[str, Any], shape: tuple[int, ...]) -> PrunedCopy:
    """Open the copy that a record describes, of rows of this shape.

    Raises
    ------
    OSError, ValueError, KeyError, TypeError, LibraryError
        If its file is missing, or is not the one that was recorded.
    """
    if not record["shares"]:
        return empty_copy(*shape)
    check_plain(folder / ARRAY)
    if not matches_record(folder / ARRAY, record["file"]):
        raise ValueError(f"{ARRAY} is damaged")
    # Read, and not mapped: it is in use as a whole, and a file that is cut would end the process.
    flat = open_checked(folder / ARRAY, record["file"], large=False)
    return split_copy(np.asarray(flat), shape, tuple(record["shares"]))
