"""Balanced sampler: classes per batch, repeated images, seeds."""

from itertools import islice

import numpy as np
import pytest
from pytorch_metric_learning.utils import common_functions

from simsearch.training.config import TrainConfig
from simsearch.training.losses import BalancedSampler

NAMES = np.repeat(list("abcdef"), [30, 30, 20, 10, 3, 2])
ROWS = np.arange(1, len(NAMES))  # not the first


def sampler(seed=0, batch_size=16):
    return BalancedSampler(NAMES, ROWS, TrainConfig(seed=seed, batch_size=batch_size), 3)


def epochs_of_head(made):
    return [batch for epoch in islice(made.epochs(), 3) for batch in epoch]


def epochs_of_fine_tuning(made):
    return [batch for number in (1, 2, 3) for batch in made.epoch(number)]


@pytest.mark.parametrize("draw", [epochs_of_head, epochs_of_fine_tuning])
class TestBatches:
    def test_batches_hold_as_many_images_of_each_class(self, draw):
        batches = draw(sampler())
        assert len(batches) == 3 * sampler().batches == 18
        for rows, codes in batches:
            assert set(rows) <= set(ROWS)
            assert [list("abcdef")[code] for code in codes] == NAMES[rows].tolist()
            assert np.unique(codes, return_counts=True)[1].tolist() == [4] * 4
        assert {name for rows, _ in batches for name in NAMES[rows]} == set("abcdef")

    def test_images_repeat_only_where_there_are_too_few(self, draw):
        for rows, codes in draw(sampler()):
            for code in set(codes):
                own = rows[codes == code]
                assert (len(set(own)) == 4) == (np.count_nonzero(NAMES[ROWS] == NAMES[own[0]]) >= 4)

    def test_same_seed_gives_the_same_batches(self, draw):
        np.random.seed(1)  # noqa: NPY002 (the caller's generator)
        one, other = draw(sampler(2**40)), draw(sampler(1))
        np.random.seed(2)  # noqa: NPY002
        again = draw(sampler(2**40))
        assert all(map(np.array_equal, one, again))
        assert not all(map(np.array_equal, one, other))

    def test_small_batches_hold_two_classes(self, draw):
        assert all(len(set(codes)) == 2 for _, codes in draw(sampler(batch_size=4)))


def test_generator_of_the_package_is_restored():
    before = common_functions.NUMPY_RANDOM
    next(sampler().epochs())
    assert common_functions.NUMPY_RANDOM is before


def test_an_epoch_of_fine_tuning_follows_from_its_number():
    made = sampler()
    first = [*made.epoch(5)]
    assert not all(map(np.array_equal, first, made.epoch(6)))
    assert all(map(np.array_equal, first, made.epoch(5)))
