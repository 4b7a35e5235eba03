"""Bounds and rows found by the maxima of groups, held against a whole sort."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simsearch.retrieval import likely_best


@settings(max_examples=200, deadline=None)
@given(data=st.data(), seed=st.integers(0, 2**32))
def test_the_floor_is_never_above_the_kth_best(data, seed):
    rng = np.random.default_rng(seed)
    count = data.draw(st.integers(1, 400))
    levels = data.draw(st.sampled_from([1, 3, 10**6]))  # all equal, many ties, hardly any
    scores = (rng.integers(0, levels, count) / levels).astype(np.float32)
    scores[rng.random(count) < data.draw(st.sampled_from([0, 0.5, 0.99]))] = -np.inf
    k = data.draw(st.integers(1, min(count, 20)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(likely_best, "GROUP_ROWS", data.draw(st.sampled_from([2, 5, 64])))
        patch.setattr(likely_best, "GROUPS_PER_ROW", data.draw(st.sampled_from([1, 8])))
        floor = likely_best.kth_floor(scores, k)
        rows = likely_best.likely_best(scores, k)
        exact = likely_best.kth_best(np.stack([scores, scores[::-1]]), k)
    best = np.sort(scores)[::-1]
    assert floor <= best[k - 1]
    assert exact.tolist() == [best[k - 1]] * 2
    assert k <= len(rows) == len(set(rows.tolist())) <= max(likely_best.CROWD * k, k)
    assert scores[rows].max() == best[0]


def test_of_many_scores_nearly_the_best_are_found_and_the_bound_is_near():
    scores = np.random.default_rng(0).random(100_000).astype(np.float32)
    scores[500:520] = 1 + np.arange(20, dtype=np.float32)  # neighbours in order, as copies are
    assert sorted(likely_best.likely_best(scores, 20)) == list(range(500, 520))
    assert likely_best.kth_floor(scores, 20) == 1


def test_equal_scores_are_cut_to_as_many_as_asked_for():
    assert len(likely_best.likely_best(np.ones(10_000, np.float32), 3)) == 3
