"""Principal component analysis of rows, by scikit-learn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray


def principal_axes(
    rows: NDArray[np.floating[Any]], count: int | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the directions in which rows vary most, around their mean.

    Parameters
    ----------
    rows
        (n, D) float.
    count
        How many axes to return, at most D; None for D.

    Returns
    -------
    axes : numpy.ndarray
        (count, D) float64, orthonormal rows, by falling variance.
    variances : numpy.ndarray
        (count,) float64, the variance of the rows along each axis.

    Examples
    --------
    >>> axes, variances = principal_axes(np.array([[0.0, 0], [3, 4], [6, 8]]), 1)
    >>> axes.round(3), variances
    (array([[0.6, 0.8]]), array([25.]))
    """
    from sklearn.decomposition import PCA

    width = rows.shape[1]
    count = width if count is None else min(count, width)
    # PCA gives no more axes than there are rows; repeated rows have the same axes.
    rows = np.tile(np.asarray(rows, np.float64), (-(-count // len(rows)), 1))
    with np.errstate(invalid="ignore", divide="ignore"):  # shares of a variance of 0
        pca = PCA(count, svd_solver="covariance_eigh").fit(rows)
    return pca.components_, pca.explained_variance_
