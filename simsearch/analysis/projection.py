"""Projections of embeddings to a square: PCA keeps distances, t-SNE and UMAP keep neighbours."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from simsearch.errors import MissingExtraError

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_ROWS = {"pca": 10_000, "tsne": 2_000, "umap": 4_000}  # so that a map takes seconds
PCA_DIMS = 50  # that t-SNE and UMAP start from
UMAP_NEIGHBOURS = 15  # of each point, that UMAP keeps near
MIN_UMAP_ROWS = 4  # fewer have no neighbourhoods: PCA places them
GRAIN = 10_000  # units of a map on a screen along each side
MAX_GROUPS = 10  # with a colour of their own on a screen; the rest is "other"


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

    Raises
    ------
    MissingExtraError
        If the method is "umap" and umap-learn is not installed.
    """
    from sklearn.decomposition import PCA

    if np.ptp(rows, axis=0).max() < 1e-6:
        return np.full((len(rows), 2), 0.5), 1.0  # one image, or copies of it, spans no axis
    pca = PCA(min(PCA_DIMS, *rows.shape), random_state=seed)
    reduced = np.pad(pca.fit_transform(rows), ((0, 0), (0, 1)))  # one column may be all there is
    points = reduced[:, :2]
    if method == "tsne":
        points = _tsne(reduced, seed)
    elif method == "umap":
        points = _umap(reduced, seed)
    span = np.ptp(points, axis=0)
    unit = (points - points.min(axis=0)) / np.where(span > 0, span, 1) + (span == 0) / 2
    return unit, float(pca.explained_variance_ratio_[:2].sum())


def _tsne(rows: NDArray[np.floating[Any]], seed: int) -> NDArray[np.floating[Any]]:
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    tsne = TSNE(perplexity=min(30, (len(rows) - 1) / 3), init="pca", random_state=seed)
    with threadpool_limits(1):  # waiting threads spin: beside other work, three times slower
        return np.asarray(tsne.fit_transform(rows))


def _umap(rows: NDArray[np.floating[Any]], seed: int) -> NDArray[np.floating[Any]]:
    try:
        with warnings.catch_warnings(action="ignore", category=ImportWarning):  # for TensorFlow
            from umap import UMAP
    except ImportError as error:
        words = 'a map by UMAP needs: pip install "simsearch[umap]"'
        raise MissingExtraError(words) from error
    if len(rows) < MIN_UMAP_ROWS:
        return rows[:, :2]
    neighbours = min(UMAP_NEIGHBOURS, len(rows) - 1)
    umap = UMAP(n_neighbors=neighbours, init="pca", random_state=seed, n_jobs=1)
    return np.asarray(umap.fit_transform(rows))


def screen_places(
    rows: NDArray[np.intp], points: NDArray[np.floating[Any]], labels: NDArray[np.str_]
) -> dict[str, Any]:
    """Return a map as plain values, for a canvas.

    Parameters
    ----------
    rows
        (n,) rows of the library.
    points
        (n, 2), in [0, 1], upwards.
    labels
        (n,), "" for none. The most frequent ones have a colour each.

    Returns
    -------
    places : dict
        `rows`; their `x` and `y` in units of which `size` make a side, `y` downwards; the names of
        `groups`; and for each row the `group`, -1 for none of them.
    """
    places = np.round(points * GRAIN).astype(int)
    every, counts = np.unique(labels[labels != ""], return_counts=True)
    names = sorted(str(each) for each in every[np.argsort(-counts, kind="stable")[:MAX_GROUPS]])
    numbers = {name: i for i, name in enumerate(names)}
    return {
        "size": GRAIN,
        "rows": rows.tolist(),
        "x": places[:, 0].tolist(),
        "y": (GRAIN - places[:, 1]).tolist(),
        "groups": names,
        "group": [numbers.get(str(each), -1) for each in labels],
    }
