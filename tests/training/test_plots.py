"""Figures of a training."""

from types import SimpleNamespace

import numpy as np
import pytest
from figures import assert_not_clipped, clean  # noqa: F401 (a fixture)

import simsearch as ss
from simsearch.training.trainer import Epoch


class TestShowHistory:
    @pytest.mark.parametrize(
        "reached", [[1.0, 1.0, 1.0], [0.0, 0.0], [0.999, 1.0], [0.2, 0.9, 0.7], [np.nan] * 3]
    )
    def test_the_axis_holds_what_an_map_can_be(self, reached):
        history = [Epoch(i, 1 / i, value) for i, value in enumerate(reached, 1)]
        fig, ax = ss.show_history(SimpleNamespace(history=history, loss="triplet"))
        low, high = ax.get_ylim()
        assert 0 <= low < high <= 1
        if not np.isnan(reached).any():
            assert low <= min(reached) <= max(reached) <= high
        assert_not_clipped(fig)
