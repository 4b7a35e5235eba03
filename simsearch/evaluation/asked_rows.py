"""Which rows of a library ask, and which are searched; a sample of those that could ask."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from simsearch.errors import QueryError

if TYPE_CHECKING:
    from typing import Literal

    from numpy.typing import NDArray

SAMPLE = 10_000  # queries that are asked of many: half a minute for 100,000 images


def draw_queries(
    rows: NDArray[np.intp], codes: NDArray[np.intp], sample: int | Literal["all"], seed: int
) -> NDArray[np.intp]:
    """Draw a systematic sample: every so many-th of the rows, sorted by class, at random within.

    The mean over the sample estimates that over all rows without bias, and never strays more than
    that of a simple random sample would on average, as classes differ.

    Parameters
    ----------
    rows
        (A,) int, rising, the rows that can ask.
    codes
        (N,) int, class number of each row of the library.
    sample
        How many to draw at most; "all" for every one.
    seed
        The same one draws the same rows.

    Returns
    -------
    numpy.ndarray
        (Q,) int, rising. A class of `s` rows has `s` times Q / A of them, rounded up or down.

    Raises
    ------
    QueryError
        If the sample is no whole number from 1 on.
    """
    if sample == "all":
        return rows
    if isinstance(sample, (bool, str)) or not isinstance(sample, (int, np.integer)) or sample < 1:
        raise QueryError(f"sample={sample!r}: give a number of queries, from 1 on, or 'all'")
    if len(rows) <= sample:
        return rows
    rng = np.random.default_rng((seed, len(rows)))
    shuffled = rng.permutation(rows)
    by_class = shuffled[np.argsort(codes[shuffled], kind="stable")]
    places = ((np.arange(sample) + rng.random()) * (len(rows) / sample)).astype(np.intp)
    return np.sort(by_class[np.minimum(places, len(rows) - 1)])


def choose_rows(
    names: NDArray[np.str_],
    codes: NDArray[np.intp],
    is_query: NDArray[np.bool_],
    in_gallery: NDArray[np.bool_],
) -> tuple[NDArray[np.intp], NDArray[np.intp], int]:
    """Return the rows of queries and gallery, and how many queries have no relevant image."""
    is_query, in_gallery = is_query & (names != ""), in_gallery & (names != "")
    if not is_query.any() or not in_gallery.any():
        which = "gallery" if is_query.any() else "queries"
        raise QueryError(f"no image of {which}= has a label; choose others, or give labels=")
    sizes = np.bincount(codes[in_gallery], minlength=codes.max() + 1)
    if np.count_nonzero(sizes) == 1:
        raise QueryError(
            f"every image of the gallery is labelled {str(names[in_gallery][0])!r}, so that no "
            "match could be wrong; choose a gallery of several classes, or give other labels="
        )
    answered = is_query & (sizes[codes] > in_gallery)
    if not answered.any():
        raise QueryError(
            "no query has another image of its class in the gallery (the first is labelled "
            f"{str(names[is_query][0])!r}); choose other queries= or gallery=, or give labels="
        )
    return np.flatnonzero(answered), np.flatnonzero(in_gallery), int((is_query & ~answered).sum())
