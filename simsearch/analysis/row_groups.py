"""Groups of rows at several grains: PCA, mean shift over a graph of neighbours, then HDBSCAN [1]_.

The number of groups is not given; a row may be in none. Nothing here knows of pictures.

.. [1] R. Campello, D. Moulavi, J. Sander: Density-based clustering based on hierarchical density
   estimates. PAKDD 2013.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from simsearch.files import iter_blocks
from simsearch.pca import principal_axes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

MIN_SIZE = 3  # rows of a group, at least
DIMS = 32  # kept by PCA: HDBSCAN finds few groups in more
NEIGHBOURS = 15  # a row moves towards so many
WEIGHT_EXPONENT = 3  # of the cosine in the weight of a neighbour, as in query expansion
SHIFTS = 8  # moves of each row; then groups are dense, and what lies between them is thin
CORE_NEIGHBOURS = 5  # from which HDBSCAN takes the density
MAX_ROWS = 20_000  # that are grouped; others join the group of the nearest of these
MAX_SPREAD = 0.9  # of a group, over that across groups: above it they are one, in pieces
OUTER_SHARE = 0.1  # of a group's rows: what lies no further out than the others joins it
MIN_VARIANCE = 1e-4  # of unit rows; below it they all show the same
BLOCK_ROWS = 4096
ALONE = -1  # group of a row that is in none


def group_rows(
    embeddings: NDArray[np.float32], order: NDArray[np.intp], sizes: Sequence[int], seed: int = 0
) -> list[NDArray[np.intp]]:
    """Group rows of unit norm, once for each least size of a group.

    Parameters
    ----------
    embeddings
        (N, D) float, rows of unit norm.
    order
        (N,) row numbers, in an order that does not depend on how the rows lie: the answer does
        not, either.
    sizes
        Least rows of a group, one per answer; each at least 2.
    seed
        Of the draw of `MAX_ROWS` rows, where there are more.

    Returns
    -------
    list of numpy.ndarray
        For each size the group of each row: (N,) from 0 on, the largest group first, or -1.
    """
    count = len(order)
    drawn = np.arange(count)
    if count > MAX_ROWS:
        drawn = np.sort(np.random.default_rng(seed).choice(count, MAX_ROWS, replace=False))
    sample = np.asarray(embeddings[order[drawn]], np.float32)
    mean = sample.mean(axis=0, dtype=np.float64)
    if count < MIN_SIZE:
        return [np.full(count, ALONE) for _ in sizes]
    if 1 - mean @ mean < MIN_VARIANCE:
        return [np.full(count, 0 if count >= size else ALONE) for size in sizes]
    axes = principal_axes(sample, min(DIMS, count - 1))[0]
    places = _unit((sample - mean) @ axes.T)
    found = _group_sample(places, [max(2, round(size * len(drawn) / count)) for size in sizes])
    if count > MAX_ROWS:
        nearest = _nearest_of(places, embeddings, order, mean, axes)
        nearest[drawn] = np.arange(len(drawn))
        found = [groups[nearest] for groups in found]
    return [
        _in_order(_rejoin(embeddings, order, _merge_alike(embeddings, order, groups)), order)
        for groups in found
    ]


def _group_sample(places: NDArray[np.float64], sizes: Sequence[int]) -> list[NDArray[np.intp]]:
    """Group points on a sphere: (n, d) to (n,) for each least size."""
    from sklearn.cluster import HDBSCAN
    from threadpoolctl import threadpool_limits

    answers = {}
    with threadpool_limits(1):  # waiting threads spin beside other work
        places = _shift(places)
        for size in dict.fromkeys(min(size, len(places)) for size in sizes):
            samples = min(CORE_NEIGHBOURS, size)
            cluster = HDBSCAN(min_cluster_size=size, min_samples=samples, copy=True)
            answers[size] = np.asarray(cluster.fit_predict(places), np.intp)
    return [answers[min(size, len(places))] for size in sizes]


def _shift(places: NDArray[np.float64]) -> NDArray[np.float64]:
    """Move points to where their neighbours are dense: (n, d), unit norm, to the same."""
    from scipy.sparse import csr_matrix
    from sklearn.neighbors import NearestNeighbors

    near = min(NEIGHBOURS, len(places))
    ends = np.arange(0, len(places) * near + 1, near)
    for _ in range(SHIFTS):
        search = NearestNeighbors(n_neighbors=near, algorithm="brute").fit(places)
        distances, rows = search.kneighbors(places)
        weights = np.maximum(1 - distances**2 / 2, 0) ** WEIGHT_EXPONENT  # (n, near)
        graph = csr_matrix((weights.ravel(), rows.ravel(), ends), shape=(len(places),) * 2)
        places = _unit(graph @ places)
    return places


def _nearest_of(
    places: NDArray[np.float64],
    embeddings: NDArray[np.float32],
    order: NDArray[np.intp],
    mean: NDArray[np.float64],
    axes: NDArray[np.float64],
) -> NDArray[np.intp]:
    """Return which of the grouped points is nearest to each row, (N,)."""
    nearest = np.empty(len(order), np.intp)
    targets = np.asarray(places.T, np.float32)
    for block in iter_blocks(len(order), BLOCK_ROWS):
        rows = np.asarray(embeddings[order[block]], np.float32)
        nearest[block] = (((rows - mean) @ axes.T).astype(np.float32) @ targets).argmax(axis=1)
    return nearest


def _merge_alike(
    embeddings: NDArray[np.float32], order: NDArray[np.intp], groups: NDArray[np.intp]
) -> NDArray[np.intp]:
    """Merge groups that lie no further apart than their own rows; dissolve what is left of noise.

    A spread is 1 less the mean cosine of two rows. Two groups are merged where the mean of their
    spreads is over `MAX_SPREAD` of the spread across, the most alike pair first; then a group goes
    whose spread is over that share of the spread of all rows.
    """
    count = int(groups.max()) + 1
    sums = np.zeros((count + 1, embeddings.shape[1]))  # the last is of rows in no group
    for block in iter_blocks(len(order), BLOCK_ROWS):
        np.add.at(sums, groups[block], np.asarray(embeddings[order[block]], np.float64))
    total = sums.sum(axis=0)
    everything = _spreads(np.array([[total @ total]]), np.array([len(order)]))[0]
    sizes = np.bincount(groups[groups >= 0], minlength=count).astype(np.float64)
    products = sums[:count] @ sums[:count].T
    name = np.arange(count + 1)  # of each group now; the last is of none
    name[count] = ALONE
    while True:
        ratios = _ratios(products, sizes)
        if not ratios.size or ratios.max() <= MAX_SPREAD:
            break
        one, two = sorted(np.unravel_index(ratios.argmax(), ratios.shape))
        products[one] += products[two]
        products[:, one] += products[:, two]
        products[two], products[:, two] = 0, 0
        sizes[one], sizes[two] = sizes[one] + sizes[two], 0
        name[name == two] = one
    loose = _spreads(products, sizes) > MAX_SPREAD * everything
    name[:count][loose[name[:count]]] = ALONE
    return name[groups]


def _rejoin(
    embeddings: NDArray[np.float32], order: NDArray[np.intp], groups: NDArray[np.intp]
) -> NDArray[np.intp]:
    """Let a row of no group join the nearest if it lies within most of its rows."""
    names = np.unique(groups[groups >= 0])
    if not len(names):
        return groups
    sums = np.zeros((len(names), embeddings.shape[1]))
    for block in iter_blocks(len(order), BLOCK_ROWS):
        kept = groups[block] >= 0
        members = np.asarray(embeddings[order[block][kept]], np.float64)
        np.add.at(sums, np.searchsorted(names, groups[block][kept]), members)
    centres = _unit(sums)
    nearest, cosines = np.empty(len(order), np.intp), np.empty(len(order))
    for block in iter_blocks(len(order), BLOCK_ROWS):
        scores = np.asarray(embeddings[order[block]], np.float64) @ centres.T  # (rows, groups)
        own = np.searchsorted(names, groups[block])
        nearest[block] = np.where(groups[block] >= 0, own, scores.argmax(axis=1))
        cosines[block] = scores[np.arange(len(scores)), nearest[block]]
    inner = [
        np.quantile(cosines[groups == name], OUTER_SHARE, method="lower") for name in names.tolist()
    ]
    joins = (groups < 0) & (cosines >= np.array(inner)[nearest])
    return np.where(joins, names[nearest], groups)


def _spreads(products: NDArray[np.float64], sizes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Spread of each group, from the products of sums of rows, (G, G): (G,)."""
    pairs = np.maximum(sizes * (sizes - 1), 1)
    return np.asarray(1 - (np.diag(products) - sizes) / pairs)


def _ratios(products: NDArray[np.float64], sizes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean spread of two groups over the spread across them, (G, G); -1 for none."""
    weighted = sizes * _spreads(products, sizes)
    within = np.add.outer(weighted, weighted) / np.maximum(np.add.outer(sizes, sizes), 1)
    across = 1 - products / np.maximum(np.outer(sizes, sizes), 1)
    ratios = within / np.maximum(across, MIN_VARIANCE)
    ratios[~(np.outer(sizes, sizes) > 0) | np.eye(len(sizes), dtype=bool)] = -1
    return np.asarray(ratios)


def _in_order(groups: NDArray[np.intp], order: NDArray[np.intp]) -> NDArray[np.intp]:
    """Count groups by falling size, then by their first row in order; return them by row."""
    names, first, counts = np.unique(groups, return_index=True, return_counts=True)
    ranked = [i for i in np.lexsort((first, -counts)).tolist() if names[i] != ALONE]
    number = {int(names[i]): place for place, i in enumerate(ranked)}
    by_row = np.empty(len(order), np.intp)
    by_row[order] = [number.get(group, ALONE) for group in groups.tolist()]
    return by_row


def _unit(rows: NDArray[Any]) -> NDArray[np.float64]:
    """Scale rows to unit norm; a row of zeros stays."""
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(norms > 0, norms, 1), np.float64)
