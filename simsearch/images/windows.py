"""Windows of a picture: an overlapping grid at several scales that leaves no pixel out."""

from __future__ import annotations

import math

import numpy as np

from simsearch.images.decode import LONG_RATIO

OVERLAP = 0.2  # of a window's side that its neighbours share, at least
WINDOW_RATIO = 1.4  # of the sides of a window of such a picture, about
MOST_ALONG = 64  # windows along one side


def grid_windows(size: tuple[int, int], levels: tuple[int, ...]) -> np.ndarray:
    """Cut a picture of (width, height) into windows.

    A level n has n×n windows of the picture's own shape; of a long picture (beyond 2:1) it has as
    many more along the longer side as keep them from being long themselves.

    Parameters
    ----------
    size
        Of the picture in pixels.
    levels
        Windows along the shorter side, for each level. Level 1 is the whole of a picture that is
        not long, and cuts a long one into pieces.

    Returns
    -------
    numpy.ndarray
        (n, 4) float64: left, top, right, bottom in pixels, level by level, in rows.

    Examples
    --------
    >>> grid_windows((200, 100), (2,)).tolist()[0]
    [0.0, 0.0, 120.0, 60.0]
    >>> len(grid_windows((1000, 100), (1,)))
    8
    """
    width, height = size
    ratio = max(size) / min(size)
    windows = []
    for level in levels:
        more = max(level, math.ceil(level * ratio / WINDOW_RATIO)) if ratio > LONG_RATIO else level
        more = min(more, MOST_ALONG)
        columns, rows = (more, level) if width >= height else (level, more)
        windows += [
            (left, top, right, bottom)
            for top, bottom in _spans(height, rows)
            for left, right in _spans(width, columns)
        ]
    return np.array(windows, np.float64).reshape(-1, 4)


def _spans(length: int, count: int) -> list[tuple[float, float]]:
    """Spread so many overlapping spans evenly over a side, from end to end."""
    if count == 1:
        return [(0.0, float(length))]
    span = length * (1 + OVERLAP) / count
    step = (length - span) / (count - 1)
    return [(i * step, min(length, i * step + span)) for i in range(count)]
