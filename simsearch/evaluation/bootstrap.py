"""Means over queries, with percentile bootstrap intervals.

An interval says what other queries of the same kind might have given, against the same gallery
[1]_, chapter 13.

.. [1] B. Efron, R. J. Tibshirani. An Introduction to the Bootstrap. Chapman & Hall, 1993.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from simsearch.files import iter_blocks

if TYPE_CHECKING:
    from numpy.typing import NDArray

DRAW_BLOCK = 2**20  # draws that are held at once
PERCENTILES = (2.5, 97.5)


class Estimate(NamedTuple):
    """A mean over queries, with its 95% bootstrap interval; NaNs where there is no interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        interval = "" if math.isnan(self.low) else f"  ({self.low:.3f} to {self.high:.3f})"
        return f"{self.value:.3f}{interval}"


def bootstrap_interval(
    values: NDArray[np.float64], resamples: int, seed: int
) -> NDArray[np.float64]:
    """Return the ends of the interval of each column's mean: (Q, M) to (2, M) float64."""
    count, width = values.shape
    if count < 2 or not resamples:
        return np.full((2, width), np.nan)  # one query says nothing of how queries differ
    rng = np.random.default_rng(seed)
    columns = np.ascontiguousarray(values.T)
    means = np.empty((width, resamples))
    for block in iter_blocks(resamples, max(1, DRAW_BLOCK // count)):
        draws = block.stop - block.start
        cells = rng.integers(count, size=(draws, count)) + count * np.arange(draws)[:, None]
        weights = np.bincount(cells.ravel(), minlength=draws * count).reshape(draws, count) / count
        # Column by column, so that the interval of a metric does not depend on what else is asked.
        for mean, column in zip(means, columns, strict=True):
            mean[block] = weights @ column
    ends: NDArray[np.float64] = np.percentile(means, PERCENTILES, axis=1)
    return ends
