"""Projections of embeddings to a square: PCA, which keeps distances, or t-SNE, neighbours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_ROWS = {"pca": 10_000, "tsne": 2_000}  # so that a map takes seconds
PCA_DIMS = 50  # that t-SNE starts from


def project(
    rows: NDArray[np.float32], method: str, seed: int
) -> tuple[NDArray[np.floating[Any]], float]:
    """Project rows to the unit square.

    Parameters
    ----------
    rows
        (n, D) embeddings.
    method
        A key of `MAX_ROWS`.
    seed
        Seed of all random numbers.

    Returns
    -------
    points : numpy.ndarray
        (n, 2), in [0, 1].
    kept : float
        The share of variance of the first two principal axes.
    """
    from sklearn.decomposition import PCA

    if np.ptp(rows, axis=0).max() < 1e-6:
        return np.full((len(rows), 2), 0.5), 1.0  # one image, or copies of it, spans no axis
    pca = PCA(min(PCA_DIMS, *rows.shape), random_state=seed)
    reduced = np.pad(pca.fit_transform(rows), ((0, 0), (0, 1)))  # one column may be all there is
    points = reduced[:, :2]
    if method == "tsne":
        points = _tsne(reduced, seed)
    span = np.ptp(points, axis=0)
    unit = (points - points.min(axis=0)) / np.where(span > 0, span, 1) + (span == 0) / 2
    return unit, float(pca.explained_variance_ratio_[:2].sum())


def _tsne(rows: NDArray[np.floating[Any]], seed: int) -> NDArray[np.floating[Any]]:
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    tsne = TSNE(perplexity=min(30, (len(rows) - 1) / 3), init="pca", random_state=seed)
    with threadpool_limits(1):  # waiting threads spin: beside other work, three times slower
        return np.asarray(tsne.fit_transform(rows))
