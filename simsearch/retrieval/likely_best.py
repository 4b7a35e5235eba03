"""Rows that are likely the best by their scores, found without sorting: by the maxima of groups."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

GROUP_ROWS = 64  # of which one maximum stands
GROUPS_PER_ROW = 4  # at least, for each of the rows that are looked for
CROWD = 4  # times as many rows as looked for are left in: more are cut


def kth_floor(scores: NDArray[Any], k: int) -> float:
    """Bound the k-th best score from below: k groups hold a score as high, each a different one.

    Neighbours in order, which are often alike, fall into different groups, so that the bound is
    near. Among few scores it is the k-th best itself.

    Parameters
    ----------
    scores
        (N,) floats without NaN; minus infinity for rows that may not be found.
    k
        From 1 to N.
    """
    groups = len(scores) // GROUP_ROWS
    if groups >= GROUPS_PER_ROW * k:
        rest = scores[groups * GROUP_ROWS :]
        maxima = scores[: groups * GROUP_ROWS].reshape(GROUP_ROWS, groups).max(axis=0)
        scores = np.concatenate([maxima, rest])
    return float(np.partition(scores, -k)[-k])


def likely_best(scores: NDArray[np.float32], count: int) -> NDArray[np.intp]:
    """Find rows of high scores, the best one among them: positions, at least `count`.

    They are no more than `CROWD` times as many, and nearly always the best.
    """
    if len(scores) < GROUPS_PER_ROW * GROUP_ROWS * count:
        return np.argpartition(scores, -count)[-count:]
    rows = np.flatnonzero(scores >= kth_floor(scores, count))
    if len(rows) <= CROWD * count:
        return rows
    return rows[np.argpartition(scores[rows], -count)[-count:]]


def kth_best(scores: NDArray[np.float32], k: int) -> NDArray[np.float32]:
    """Return the k-th best score in each row of (Q, N): (Q,)."""
    if scores.shape[1] < GROUPS_PER_ROW * GROUP_ROWS * k:
        return np.asarray(np.partition(scores, -k, axis=1)[:, -k])
    high = (some[some >= kth_floor(some, k)] for some in scores)
    return np.array([np.partition(some, -k)[-k] for some in high], np.float32)
