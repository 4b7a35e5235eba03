"""The random rotation in factors: a rotation, the same as FAISS's matrix, known again."""

import numpy as np
import pytest
from faiss_cases import D, library_of
from numpy.testing import assert_allclose

from simsearch.retrieval.faiss_rotation import Rotation, known_rotation

faiss = pytest.importorskip("faiss")


@pytest.mark.parametrize("dim", [1, 2, 7, 64, 65, 96, 210, 1280])
def test_it_turns_and_equals_the_matrix(dim):
    rotation = Rotation.of(dim)
    vectors = np.random.default_rng(dim).standard_normal((9, dim)).astype(np.float32)
    turned = rotation.apply(vectors)
    assert_allclose(turned @ turned.T, vectors @ vectors.T, atol=1e-4 * dim)
    transform = rotation.to_faiss()
    assert_allclose(transform.apply(vectors), turned, atol=1e-4)
    again = known_rotation(transform, dim)
    assert_allclose(again.apply(vectors), turned)


def test_one_number_spreads_over_all():
    """As a random rotation does: the codes are of 1 bit a number."""
    turned = Rotation.of(1280).apply(np.eye(1280, dtype=np.float32)[:50]) * np.sqrt(1280)
    assert np.abs(turned).max() < 8
    assert 0.9 < np.median(np.abs(turned)) / 0.6745 < 1.1


def test_a_rotation_of_earlier_versions_is_used_as_it_is(indexes, library, queries):
    from simsearch.retrieval.faiss_build import add_rows, empty_index
    from simsearch.retrieval.faiss_candidates import CandidateIndex, SearchEffort

    transform = faiss.RandomRotationMatrix(D, D)
    transform.init(1)
    assert known_rotation(transform, D) is None
    raw = empty_index(library_of(library.embeddings[:500]), "sq")
    old = faiss.IndexPreTransform(transform, faiss.downcast_index(raw.index))
    add_rows(old, library, np.arange(500), progress=False)
    found = CandidateIndex(old, "sq").find(queries[:5], SearchEffort(10, 1))
    expected = old.search(queries[:5], 10)[1]
    assert (found.rows == expected).all()
