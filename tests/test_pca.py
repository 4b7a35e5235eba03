"""Principal axes against an eigendecomposition of the covariance."""

import numpy as np
import pytest

from simsearch.pca import principal_axes


@pytest.mark.parametrize(("rows", "width", "count"), [(200, 12, 12), (200, 12, 4), (5, 12, 8)])
def test_axes_are_eigenvectors_of_the_covariance(rows, width, count):
    data = np.random.default_rng(0).normal(size=(rows, width)) * np.arange(1, width + 1) + 3
    axes, variances = principal_axes(data.astype(np.float32), count)
    assert axes.shape == (count, width)
    np.testing.assert_allclose(axes @ axes.T, np.eye(count), atol=1e-9)
    values, vectors = np.linalg.eigh(np.cov(data.T, bias=True))
    kept = min(count, rows - 1)  # with fewer rows than axes, the other variances are 0
    for axis, vector in zip(axes[:kept], vectors.T[::-1], strict=False):
        assert abs(axis @ vector) == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(
        variances[:kept] / variances[0], values[::-1][:kept] / values[-1], 1e-5
    )
    assert np.all(variances[kept:] < 1e-6)


def test_all_axes_by_default_and_no_more_than_there_are():
    data = np.random.default_rng(0).normal(size=(30, 4))
    assert len(principal_axes(data)[0]) == len(principal_axes(data, 100)[0]) == 4


def test_equal_rows_have_axes_of_no_variance():
    axes, variances = principal_axes(np.ones((8, 3), np.float32))
    np.testing.assert_allclose(axes @ axes.T, np.eye(3), atol=1e-9)
    np.testing.assert_allclose(variances, 0, atol=1e-12)
