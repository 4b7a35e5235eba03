"""Pairs of near rows: exact for few rows; of many, only those in near cells are compared.

Cells are those of k-means on the principal axes (an inverted file, IVF).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from simsearch.files import iter_blocks
from simsearch.retrieval.likely_best import kth_best

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray


EXACT_ROWS = 10_000  # with which all rows are compared
CELL_ROWS, PROBED_CELLS = 128, 10  # rows of a cell on average; cells in which a row is looked for
DIMS, SAMPLE_ROWS, ITERATIONS = 64, 20_000, 8  # of k-means
AXES_STEP, AXES_ITERATIONS = 5, 4  # of the sample every fifth row gives the axes
BLOCK_ROWS = 1024
SHORT_NUMBERS = 2**16  # that 16 bits hold


class NearPairs(NamedTuple):
    """Pairs of rows and their cosines.

    Attributes
    ----------
    pairs : (P, 2) intp
        The row that was asked for, and one of its nearest.
    cosines : (P,) float32
    """

    pairs: NDArray[np.intp]
    cosines: NDArray[np.float32]


def near_pairs(
    embeddings: NDArray[np.float32],
    asked: NDArray[np.intp],
    gallery: NDArray[np.intp],
    least: float,
    count: int,
) -> NearPairs:
    """Find the nearest rows of each, from a cosine up.

    Parameters
    ----------
    embeddings : (N, D) float32, unit norm
    asked, gallery
        Rows that are compared: each of the first with all of the second.
    least
        Cosine of a pair, at least.
    count
        Pairs of each row that is asked for, at most: its nearest ones.

    Returns
    -------
    NearPairs
        Without a row's pair with itself. All that there are for a gallery of `EXACT_ROWS`; of a
        larger one some are missed, the more the less near (see `benchmarks/duplicates.py`).
    """
    is_small = len(gallery) <= EXACT_ROWS
    floors = np.full(len(asked), least, np.float32)  # of a pair that may still be of the nearest
    cells = (
        [(np.arange(len(asked)), gallery)] if is_small else _in_cells(embeddings, asked, gallery)
    )
    found = [(np.empty((0, 2), np.intp), np.empty(0, np.float32), np.empty(0, np.intp))]
    buffer = np.empty((min(BLOCK_ROWS, len(asked)), embeddings.shape[1]), np.float32)
    for places, others in cells:
        in_cell = embeddings[others].T
        for block in iter_blocks(len(places), BLOCK_ROWS):
            some = places[block]
            # "clip" as the numbers are known to be right: "raise" would go through a buffer
            rows = embeddings.take(asked[some], axis=0, out=buffer[: len(some)], mode="clip")
            scores = rows @ in_cell
            high = np.flatnonzero(_nearest(scores, floors, some, count))
            i, j = np.divmod(high, len(others))
            pairs = np.stack([asked[some[i]], others[j]], axis=1)
            kept = pairs[:, 0] != pairs[:, 1]
            found.append((pairs[kept], scores.ravel()[high[kept]], some[i[kept]]))
    every, cosines, of = (np.concatenate(parts) for parts in zip(*found, strict=True))
    if is_small:
        return NearPairs(every, cosines)
    last = cosines >= floors[of]  # which rose after the first of them were found
    return _nearest_of_each(NearPairs(every[last], cosines[last]), count)


def _nearest_of_each(found: NearPairs, count: int) -> NearPairs:
    """Keep so many pairs of each row that was asked for."""
    order = np.argsort(4.0 * found.pairs[:, 0] - found.cosines)
    _, first, sizes = np.unique(found.pairs[order, 0], return_index=True, return_counts=True)
    order = order[np.arange(len(order)) - np.repeat(first, sizes) < count]
    return NearPairs(found.pairs[order], found.cosines[order])


def _nearest(
    scores: NDArray[np.float32], floors: NDArray[np.float32], places: NDArray[np.intp], count: int
) -> NDArray[np.bool_]:
    """Tell which scores may be of the nearest; raise the floors of rows that have enough."""
    hits: NDArray[np.bool_] = scores >= floors[places, None]
    busy = np.flatnonzero(np.count_nonzero(hits, axis=1) > count + 1)  # a row may find itself
    if len(busy):
        floors[places[busy]] = kth_best(scores[busy], count + 1)
        hits[busy] = scores[busy] >= floors[places[busy], None]
    return hits


def _in_cells(
    embeddings: NDArray[np.float32], asked: NDArray[np.intp], gallery: NDArray[np.intp]
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Yield each cell's rows of the gallery, with the places of those asked for in it or near it.

    First all rows with their own cells, which hold most of their nearest.
    """
    cells = _Cells(embeddings, gallery, len(gallery) // CELL_ROWS)
    probed = cells.nearest(embeddings, asked, PROBED_CELLS)
    same = np.array_equal(asked, gallery)
    home = (probed if same else cells.nearest(embeddings, gallery, 1))[:, 0]
    order, ends = _sorted(home, len(cells.centres))
    for columns in (slice(0, 1), slice(1, None)):
        some = probed[:, columns]
        order_asked, ends_asked = _sorted(some.ravel(), len(cells.centres))
        for cell in range(len(cells.centres)):
            places = order_asked[ends_asked[cell] : ends_asked[cell + 1]] // some.shape[1]
            yield places, gallery[order[ends[cell] : ends[cell + 1]]]


def _sorted(cells: NDArray[np.intp], count: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Sort places by their cell; the second array says where each cell starts and ends."""
    short = cells.astype(np.uint16) if count <= SHORT_NUMBERS else cells
    order = np.argsort(short, kind="stable")  # of 16 bits, by radix: a tenth of the time
    return order, np.searchsorted(cells[order], np.arange(count + 1))


class _Cells:
    """Centres of k-means on the principal axes of some rows."""

    def __init__(self, embeddings: NDArray[np.float32], rows: NDArray[np.intp], count: int) -> None:
        rng = np.random.default_rng(0)
        drawn = np.sort(rng.permutation(rows)[:SAMPLE_ROWS])
        sample = np.asarray(embeddings[drawn], np.float32)
        self._axes = _principal_axes(sample[::AXES_STEP])
        places = sample @ self._axes.T
        self.centres = places[rng.permutation(len(places))[:count]]
        for _ in range(ITERATIONS):
            cells = self._nearest_of(lambda block: places[block], len(places), 1)[:, 0]
            order, ends = _sorted(cells, len(self.centres))
            full = np.flatnonzero(np.diff(ends))
            sums = np.add.reduceat(places[order], ends[full], axis=0)
            self.centres[full] = sums / np.diff(ends)[full, None]

    def nearest(
        self, embeddings: NDArray[np.float32], rows: NDArray[np.intp], count: int
    ) -> NDArray[np.intp]:
        """Find the nearest cells of rows, the nearest one first: (R, count)."""
        return self._nearest_of(
            lambda block: embeddings[rows[block]] @ self._axes.T, len(rows), count
        )

    def _nearest_of(
        self, places: Callable[[slice], NDArray[np.float32]], total: int, count: int
    ) -> NDArray[np.intp]:
        """Find the nearest cells of so many places, which come in blocks: (total, count)."""
        found = np.empty((total, min(count, len(self.centres))), np.intp)
        # squared distances less what is the same for all cells, by one product without a copy
        factors = np.vstack([-2 * self.centres.T, (self.centres**2).sum(axis=1)])
        padded = np.ones((BLOCK_ROWS, len(factors)), np.float32)
        buffer = np.empty((BLOCK_ROWS, len(self.centres)), np.float32)
        for block in iter_blocks(total, BLOCK_ROWS):
            size = block.stop - block.start
            padded[:size, :-1] = places(block)
            away = np.matmul(padded[:size], factors, out=buffer[:size])
            found[block] = _smallest(away, found.shape[1])
        return found


def _smallest(away: NDArray[np.float32], count: int) -> NDArray[np.intp]:
    """Find the columns of the smallest numbers of each row, that of the smallest first.

    Partitions of numbers use the processor's wide registers, where those of positions do not.
    """
    first = away.argmin(axis=1)[:, None]
    if count == 1:
        return np.asarray(first)
    limit = np.partition(away, count - 1, axis=1)[:, count - 1 : count]
    columns = np.nonzero(away <= limit)[1]
    if len(columns) != count * len(away):  # some are equal
        return np.argpartition(away, (0, count - 1), axis=1)[:, :count]
    found = columns.reshape(len(away), count)
    found[found == first] = found[:, 0]
    found[:, :1] = first
    return np.asarray(found)


def _principal_axes(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return directions that span those of greatest variance, (DIMS, D), near enough for cells.

    By subspace iteration (Halko, Martinsson, Tropp 2011): most of all eigenvectors are not needed.
    """
    centred = rows - rows.mean(axis=0)
    start = np.random.default_rng(0).standard_normal((rows.shape[1], DIMS))
    axes = start.astype(np.float32)
    for _ in range(AXES_ITERATIONS):
        axes = np.linalg.qr(centred.T @ (centred @ axes))[0]
    return np.ascontiguousarray(axes.T)
