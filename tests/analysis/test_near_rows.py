"""Pairs of near rows: exact for few, and nearly all of many."""

import numpy as np
import pytest

from simsearch.analysis import near_rows
from simsearch.analysis.near_rows import near_pairs


def clustered_rows(count, dim=96, groups=60, noise=0.25, seed=0):
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((groups, dim))
    rows = centres[rng.integers(groups, size=count)] + noise * rng.standard_normal((count, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def brute_force(rows, asked, gallery, least, count):
    scores = rows[asked] @ rows[gallery].T
    scores[asked[:, None] == gallery] = -2
    best = np.argsort(-scores, axis=1)[:, :count]
    return {
        (int(asked[i]), int(gallery[j]))
        for i, some in enumerate(best)
        for j in some
        if scores[i, j] >= least
    }


def as_set(found):
    return {tuple(pair) for pair in found.pairs.tolist()}


def test_few_rows_are_compared_with_all():
    rows = clustered_rows(400)
    every = np.arange(400)
    found = near_pairs(rows, every, every, 0.6, 7)
    assert brute_force(rows, every, every, 0.6, 7) <= as_set(found)
    assert (found.pairs[:, 0] != found.pairs[:, 1]).all()
    i, j = found.pairs.T
    np.testing.assert_allclose(found.cosines, (rows[i] * rows[j]).sum(axis=1), atol=1e-5)
    assert found.cosines.min() >= 0.6


def test_of_many_rows_nearly_all_near_pairs_are_found(monkeypatch):
    monkeypatch.setattr(near_rows, "EXACT_ROWS", 1000)
    monkeypatch.setattr(near_rows, "CELL_ROWS", 32)
    rows, every = clustered_rows(3000), np.arange(3000)
    found = near_pairs(rows, every, every, 0.6, 10)
    expected = brute_force(rows, every, every, 0.6, 10)
    assert len(expected & as_set(found)) >= 0.95 * len(expected)
    assert np.unique(found.pairs[:, 0], return_counts=True)[1].max() <= 10


def test_copies_are_found_in_cells_too(monkeypatch):
    monkeypatch.setattr(near_rows, "EXACT_ROWS", 1000)
    rng = np.random.default_rng(1)
    rows = clustered_rows(3000, noise=0.6)
    copies = rows[:200] + 0.04 * rng.standard_normal((200, 96))
    rows = np.concatenate([rows, copies / np.linalg.norm(copies, axis=1, keepdims=True)])
    rows = rows.astype(np.float32)
    every = np.arange(len(rows))
    found = {frozenset(pair) for pair in as_set(near_pairs(rows, every, every, 0.6, 20))}
    assert sum(frozenset((i, 3000 + i)) in found for i in range(200)) >= 199


@pytest.mark.parametrize("exact", [10, 10_000])
def test_only_rows_of_the_gallery_are_found(monkeypatch, exact):
    monkeypatch.setattr(near_rows, "EXACT_ROWS", exact)
    rows = clustered_rows(900)
    asked, gallery = np.arange(0, 300), np.arange(300, 900)
    found = near_pairs(rows, asked, gallery, 0.5, 5)
    assert len(found.pairs)
    assert found.pairs[:, 0].max() < 300 <= found.pairs[:, 1].min()


def test_nothing_is_near_where_there_is_nothing():
    rows, nothing = clustered_rows(5), np.empty(0, np.intp)
    assert near_pairs(rows, nothing, np.arange(5), 0.1, 3).pairs.shape == (0, 2)
    assert near_pairs(rows, np.arange(5), nothing, 0.1, 3).pairs.shape == (0, 2)


def test_equal_rows_in_their_thousands_stay_few_pairs(monkeypatch):
    monkeypatch.setattr(near_rows, "EXACT_ROWS", 500)
    rows = np.repeat(clustered_rows(1), 2000, axis=0)
    found = near_pairs(rows, np.arange(2000), np.arange(2000), 0.6, 5)
    assert len(found.pairs) <= 2000 * 5


def test_cells_that_are_equally_near_are_found_once_each():
    away = np.random.default_rng(2).integers(0, 6, (200, 12)).astype(np.float32)
    for count in (1, 4, 12):
        found = near_rows._smallest(away, count)
        expected = np.sort(away, axis=1)[:, :count]
        chosen = np.take_along_axis(away, found, axis=1)
        np.testing.assert_array_equal(np.sort(chosen, axis=1), expected)
        np.testing.assert_array_equal(chosen[:, 0], expected[:, 0])
        assert all(len(set(row)) == count for row in found.tolist())


def test_cells_at_different_distances_are_found_the_nearest_first():
    away = np.random.default_rng(3).permuted(np.tile(np.arange(12.0, dtype="f4"), (50, 1)), axis=1)
    found = near_rows._smallest(away, 5)
    order = np.argsort(away, axis=1)
    np.testing.assert_array_equal(found[:, 0], order[:, 0])
    np.testing.assert_array_equal(np.sort(found, axis=1), np.sort(order[:, :5], axis=1))
