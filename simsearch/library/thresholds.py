"""The cosine that a share of random pairs of a library reaches."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from simsearch.errors import QueryError

if TYPE_CHECKING:
    from numpy.typing import NDArray


def threshold_of(scores: NDArray[np.float32], false_match_rate: float) -> float:
    """Return the cosine that no more than a share of sorted scores reach.

    Raises
    ------
    QueryError
        If the share is not between 0 and 1, or there are no scores.
    """
    if not 0 < false_match_rate < 1:
        raise QueryError(f"false_match_rate={false_match_rate}: give a share between 0 and 1")
    if not len(scores):
        raise QueryError("a library of one image has no random pairs; give a cosine")
    place = len(scores) - 1 - int(false_match_rate * len(scores))
    return float(np.nextafter(scores[place], np.float32(2)))
