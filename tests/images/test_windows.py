"""Windows of a grid: inside the picture, and none of its pixels outside of all."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from simsearch.images.windows import MOST_ALONG, grid_windows

SIZES = st.tuples(st.integers(1, 3000), st.integers(1, 3000))


@given(SIZES, st.sampled_from([(1,), (2,), (3,), (2, 3), (1, 2, 3)]))
def test_every_level_covers_the_picture(size, levels):
    windows = grid_windows(size, levels)
    assert (windows[:, :2] >= 0).all()
    assert (windows[:, 2:] <= np.array(size) + 1e-6).all()
    assert (windows[:, 2:] > windows[:, :2]).all()
    for level in levels:
        alone = grid_windows(size, (level,))
        for axis in (0, 1):
            spans = np.unique(alone[:, [axis, axis + 2]], axis=0)
            assert spans[0, 0] == 0
            assert abs(spans[-1, 1] - size[axis]) < 1e-6
            assert (spans[1:, 0] < spans[:-1, 1] + 1e-9).all()


@given(SIZES)
def test_windows_of_a_long_picture_are_not_long(size):
    ratio = max(size) / min(size)
    widths = np.diff(grid_windows(size, (1, 2, 3))[:, [0, 2]])
    heights = np.diff(grid_windows(size, (1, 2, 3))[:, [1, 3]])
    if 2 < ratio < MOST_ALONG / 3:
        assert (np.maximum(widths / heights, heights / widths) < 2).all()


def test_a_plain_photo_has_the_windows_of_its_own_shape():
    assert grid_windows((300, 200), (1,)).tolist() == [[0, 0, 300, 200]]
    assert len(grid_windows((300, 200), (2, 3))) == 13
