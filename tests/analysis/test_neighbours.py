"""Nearest neighbours of every row, held against a whole sort."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simsearch.analysis.neighbours import nearest_neighbours
from simsearch.library.library import ImageLibrary
from simsearch.retrieval import likely_best


@settings(max_examples=50, deadline=None)
@given(data=st.data(), seed=st.integers(0, 2**32))
def test_neighbours_are_those_of_a_whole_sort_and_of_equals_the_first_by_path(data, seed):
    rng = np.random.default_rng(seed)
    count, k = data.draw(st.integers(3, 120)), data.draw(st.integers(1, 12))
    corners = np.array([[1, 0], [0, 1], [-1, 0], [0, -1]], np.float32)  # cosines of -1, 0 and 1
    rows = corners[rng.integers(0, 4, count)]
    paths = [f"{number:04d}.jpg" for number in rng.permutation(count)]
    library = ImageLibrary(rows, paths)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(likely_best, "GROUP_ROWS", data.draw(st.sampled_from([2, 5, 64])))
        patch.setattr(likely_best, "GROUPS_PER_ROW", data.draw(st.sampled_from([1, 8])))
        found = nearest_neighbours(library, k, progress=False)
    k = min(k, count - 1)
    assert found.rows.shape == found.cosines.shape == (count, k)
    for row in range(count):
        cosines = library.embeddings @ library.embeddings[row]
        others = [i for i in range(count) if i != row]
        best = sorted(others, key=lambda i: (-cosines[i], str(library.paths[i])))[:k]
        assert found.rows[row].tolist() == best
        assert found.cosines[row].tolist() == cosines[best].tolist()
