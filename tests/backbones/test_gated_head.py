"""A head with a gate: its learned part fades for images that it was not taught."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from simsearch.backbones.gated_head import GatedHead
from simsearch.backbones.heads import HeadChain, ProjectionHead, load_head, save_head
from simsearch.backbones.refine_head import RefineHead


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def layer(rng, width, dim):
    return rng.standard_normal((width, dim)), rng.standard_normal(width)


def make_head(seed=0, dim=6, keep=0.3, steepness=1.0):
    rng = np.random.default_rng(seed)
    plain = ProjectionHead(
        [layer(rng, 5, dim), layer(rng, 4, 5)], "origin", layer(rng, 3, dim), keep
    )
    weight, bias = layer(rng, 1, dim)
    return GatedHead.gated(plain, (steepness * weight, steepness * bias)), plain


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    dim=st.integers(1, 9),
    keep=st.floats(0.01, 0.99),
    steepness=st.sampled_from([0.0, 1.0, 30.0, 1e6]),
)
def test_cosines_are_those_of_the_parts_weighted_by_the_gates(seed, dim, keep, steepness):
    head, plain = make_head(seed, dim, keep, steepness)
    rows = unit(np.random.default_rng(seed).standard_normal((7, dim)))
    (kept_weight, kept_bias), gates = plain.kept, head.openness(rows).astype(np.float64)
    kept = unit(rows @ kept_weight.T + kept_bias).astype(np.float64)
    learned = (plain(rows)[:, 3:] / (1 - plain.keep) ** 0.5).astype(np.float64)
    norms = np.sqrt(keep + (1 - keep) * gates**2)
    expected = keep * kept @ kept.T + (1 - keep) * np.outer(gates, gates) * (learned @ learned.T)
    mapped = head(rows)
    assert mapped.dtype == np.float32
    assert_allclose(mapped @ mapped.T, expected / np.outer(norms, norms), atol=1e-5)


def test_an_open_gate_changes_nothing_and_a_closed_one_leaves_the_kept_part():
    _, plain = make_head()
    rows = unit(np.random.default_rng(1).standard_normal((9, 6)))
    none = np.zeros((1, 6))
    opened, closed = (GatedHead.gated(plain, (none, np.array([b]))) for b in (50.0, -50.0))
    assert_allclose(opened(rows), plain(rows), atol=1e-6)
    assert_allclose(closed(rows)[:, :3], plain(rows)[:, :3] / plain.keep**0.5, atol=1e-6)
    assert_allclose(closed(rows)[:, 3:], 0, atol=1e-6)


def test_saved_and_loaded(tmp_path):
    head, plain = make_head()
    save_head(head, tmp_path / "head.safetensors")
    again = load_head(tmp_path / "head.safetensors")
    rows = unit(np.random.default_rng(2).standard_normal((4, 6)))
    assert isinstance(again, GatedHead)
    assert again.fingerprint == head.fingerprint != plain.fingerprint
    assert_array_equal(again(rows), head(rows))
    before_refine = HeadChain([head, RefineHead(np.zeros(7, np.float32), 3, 3.0)])
    save_head(before_refine, tmp_path / "chain.safetensors")
    assert load_head(tmp_path / "chain.safetensors").fingerprint == before_refine.fingerprint


def test_keeping_keeps_the_gate():
    head, plain = make_head()
    assert_array_equal(head.keeping(0.6).gate[0], head.gate[0])
    assert head.keeping(0.6).keep == plain.keeping(0.6).keep == 0.6


@pytest.mark.parametrize("shapes", [((1, 5), (1,)), ((2, 6), (2,)), ((1, 6), (2,))], ids=str)
def test_a_gate_that_does_not_fit_is_refused(shapes):
    _, plain = make_head()
    with pytest.raises(ValueError, match="does not fit"):
        GatedHead.gated(plain, tuple(np.zeros(shape) for shape in shapes))


def test_a_head_without_a_kept_part_is_refused():
    layers = [(np.eye(3), np.zeros(3))]
    with pytest.raises(ValueError, match="needs a kept part"):
        GatedHead.gated(ProjectionHead(layers), (np.zeros((1, 3)), np.zeros(1)))
