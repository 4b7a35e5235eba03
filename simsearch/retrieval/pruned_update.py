"""The pruned copy of a library that has changed: rows that it had are kept, others projected.

Its bounds hold for any rows along any directions; only how much they rule out may suffer, so that
the directions are chosen anew once many rows have come since.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from simsearch.errors import LibraryError
from simsearch.files import check_plain, iter_blocks
from simsearch.library.files import matches_record
from simsearch.library.row_digests import digests_of, match_rows
from simsearch.library.row_file import open_checked
from simsearch.retrieval import pruned_copy
from simsearch.retrieval.gather import matrix_of
from simsearch.retrieval.pruned_copy import Plan, project_rows, residual_norms, rounding_bounds
from simsearch.retrieval.pruned_store import ROWS, keep_copy, open_array, read_record

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    from simsearch.library.library import ImageLibrary
    from simsearch.retrieval.pruned_copy import PrunedCopy, Put

MAX_NEW_SHARE = 1 / 4  # of the rows that the directions were chosen for, from which on they are old


def update_copy(library: ImageLibrary) -> PrunedCopy | None:
    """Make a copy out of the stored one of earlier rows, and store it.

    Returns
    -------
    PrunedCopy or None
        None if there is no such copy, it is damaged, or too many rows are new.
    """
    if library.stored is None:
        return None
    folder = library.stored[0]
    try:
        record = read_record(folder)
        check_plain(folder / ROWS)
        if record["dim"] != library.dim or not matches_record(folder / ROWS, record["rows"]):
            return None
        known = open_checked(folder / ROWS, record["rows"], large=False)
        old = open_array(folder, record, (len(known), library.dim))
        kept = match_rows(known, digests_of(library))  # (N,) row of the old copy
        facts = _facts_of(record, kept)
    except (OSError, ValueError, KeyError, TypeError, RecursionError, LibraryError):
        return None
    if facts is None:
        return None
    plan = Plan(old.basis, old.levels.shape[2], old.survivor_shares)
    rows: Any = matrix_of(library)
    return keep_copy(library, plan, partial(_fill, rows, old, kept), facts)


def _facts_of(record: dict[str, Any], kept: NDArray[np.intp]) -> dict[str, int] | None:
    """Count what is new since the directions were chosen; None if that is too much."""
    planned_for, added = int(record["planned_for"]), int(record.get("added", 0))
    added += int(np.count_nonzero(kept < 0))
    few = min(planned_for, len(kept)) * MAX_NEW_SHARE
    return {"planned_for": planned_for, "added": added} if added <= few else None


def _fill(rows: NDArray[np.float32], old: PrunedCopy, kept: NDArray[np.intp], put: Put) -> None:
    """Put each row's part: that of the old copy, or what is projected now."""
    total, (count, _, width) = len(rows), old.levels.shape
    square_error, _ = rounding_bounds(old.basis)
    put(0, old.basis)
    of_norms = old.basis.size + total * count * width
    for block in iter_blocks(total, pruned_copy.BLOCK_ROWS):
        source, new = kept[block], np.flatnonzero(kept[block] < 0)
        levels, norms = old.levels[:, source], old.residual_norms[:, source]  # copies
        if len(new):
            part = np.asarray(rows[block.start + new])
            projections = project_rows(part, old.basis)
            norms[:, new] = residual_norms(part, projections, count, square_error)
            levels[:, new] = projections.reshape(len(part), count, width).swapaxes(0, 1)
        for level in range(count):
            put(old.basis.size + (level * total + block.start) * width, levels[level])
            put(of_norms + level * total + block.start, norms[level])
