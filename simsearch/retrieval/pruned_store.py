"""Where pruned copies are kept: in memory for each open library, and in files beside it.

Made once and stored beside the library; a copy that is stale or damaged is made anew.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np
from filelock import FileLock

from simsearch.files import atomic_write, write_text
from simsearch.library.files import file_record, matches_record
from simsearch.retrieval.pruned_copy import (
    Plan,
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
    from typing import Any, Literal

    from numpy.typing import NDArray

    from simsearch.library.library import ImageLibrary

FORMAT = 1
ARRAY, RECORD, LOCK = "sketch.npy", "sketch.json", ".sketch.lock"  # as format 1 has them

_lock = threading.Lock()
# With the rows that each belongs to: a library may come to hold others.
_known: WeakKeyDictionary[ImageLibrary, tuple[NDArray[np.float32], PrunedCopy]] = (
    WeakKeyDictionary()
)


def pruned_copy_of(library: ImageLibrary) -> PrunedCopy:
    """Open the copy of a library's rows, or make it."""
    rows = library.embeddings
    with _lock:
        known = _known.get(library)
        if known is None or known[0] is not rows:
            known = _known[library] = (rows, open_copy(library) or make_copy(library))
    return known[1]


def make_copy(library: ImageLibrary) -> PrunedCopy:
    """Make a copy and store it; where it cannot be stored it is kept in memory."""
    rows = np.asarray(library.embeddings)
    plan = make_plan(rows)
    if library.stored:
        try:
            _store(*library.stored, rows, plan)
        except OSError:  # read-only, full, or another process is just storing its own
            pass
        else:
            return open_copy(library) or in_memory(rows, plan)
    return in_memory(rows, plan)


def _store(folder: Path, digest: str, rows: NDArray[np.float32], plan: Plan) -> None:
    """Write a copy beside its library; the record comes last, and tells whether it is whole."""
    shares = plan.survivor_shares
    record: dict[str, Any] = {"format": FORMAT, "of": digest, "shares": shares, "file": None}
    with FileLock(folder / LOCK, timeout=0):
        if shares:
            _write_copy(folder / ARRAY, rows, plan)
            record["file"] = file_record(folder / ARRAY)
        record["sha256"] = _record_digest(record)
        write_text(folder / RECORD, json.dumps(record, indent=2, allow_nan=False))


def _write_copy(file: Path, rows: NDArray[np.float32], plan: Plan) -> None:
    with atomic_write(file) as stream:
        header = {"descr": "<f4", "fortran_order": False, "shape": (copy_size(rows, plan),)}
        np.lib.format.write_array_header_1_0(stream, header)
        begin = stream.tell()

        def put(start: int, values: NDArray[np.float32]) -> None:
            stream.seek(begin + 4 * start)
            stream.write(np.ascontiguousarray(values, "<f4").data)

        fill_copy(rows, plan, put)


def _record_digest(record: dict[str, Any]) -> str:
    text = json.dumps({**record, "sha256": None}, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def open_copy(library: ImageLibrary) -> PrunedCopy | None:
    """Open the stored copy, if there is one of these very rows, and nothing happened to it."""
    if library.stored is None:
        return None
    folder, digest = library.stored
    # Windows cannot replace a file that is mapped, so there the copy is read instead.
    mode: Literal["r"] | None = "r" if os.name != "nt" else None
    try:
        record = json.loads((folder / RECORD).read_text("utf-8"))
        made_for = record["format"], record["of"], record["sha256"]
        if made_for != (FORMAT, digest, _record_digest(record)):
            return None
        if not record["shares"]:
            return empty_copy(*library.embeddings.shape)
        if not matches_record(folder / ARRAY, record["file"]):
            return None
        flat = np.load(folder / ARRAY, mmap_mode=mode, allow_pickle=False)
        return split_copy(np.asarray(flat), library.embeddings.shape, tuple(record["shares"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
