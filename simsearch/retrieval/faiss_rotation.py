"""The random rotation of FAISS indexes, in factors: a query is turned in a hundredth of the time.

Two Kronecker products of small random rotations, with a permutation between. A dense matrix of
1,280 columns is 6.5 MB, which a query would read from memory beside the codes.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from simsearch.retrieval.faiss_compat import import_faiss

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

SEED = 1
TOLERANCE = 1e-4  # of a turned unit vector


class Rotation(NamedTuple):
    """Factors of a random rotation of `a * b` dimensions."""

    first: tuple[NDArray[np.float32], NDArray[np.float32]]  # (a, a) and (b, b)
    order: NDArray[np.intp]  # (a * b,)
    second: tuple[NDArray[np.float32], NDArray[np.float32]]

    @classmethod
    def of(cls, dim: int) -> Rotation:
        """Return the rotation that indexes of this many dimensions have."""
        rng = np.random.default_rng(SEED)
        small = max(some for some in range(1, math.isqrt(dim) + 1) if not dim % some)
        sizes = (small, dim // small)
        first = (_orthogonal(sizes[0], rng), _orthogonal(sizes[1], rng))
        order = rng.permutation(dim)
        return cls(first, order, (_orthogonal(sizes[0], rng), _orthogonal(sizes[1], rng)))

    def apply(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Turn (Q, D) vectors."""
        turned = _turn(vectors, self.first)[:, self.order]
        return np.ascontiguousarray(_turn(turned, self.second))

    def to_faiss(self) -> Any:  # noqa: ANN401 (FAISS has no types)
        """Return the same as a transform of FAISS, which keeps the whole matrix."""
        faiss, dim = import_faiss(), len(self.order)
        matrix = self.apply(np.eye(dim, dtype=np.float32)).T  # (D, D), turns columns
        transform = faiss.RandomRotationMatrix(dim, dim)
        faiss.copy_array_to_vector(np.ascontiguousarray(matrix).ravel(), transform.A)
        transform.is_trained = True
        transform.set_is_orthonormal()
        return transform


def known_rotation(transform: Any, dim: int) -> Rotation | None:  # noqa: ANN401
    """Return the factors of a transform of FAISS; None if an earlier version made another one."""
    rotation = Rotation.of(dim)
    probe = np.random.default_rng(SEED + 1).standard_normal((2, dim)).astype(np.float32)
    probe /= np.linalg.norm(probe, axis=1, keepdims=True)
    turned = np.asarray(transform.apply(probe))
    equal = turned.shape == probe.shape and np.abs(turned - rotation.apply(probe)).max() < TOLERANCE
    return rotation if equal else None


def _orthogonal(size: int, rng: np.random.Generator) -> NDArray[np.float32]:
    matrix, triangle = np.linalg.qr(rng.standard_normal((size, size)))
    return np.asarray(matrix * np.sign(np.diag(triangle)), np.float32)


def _turn(
    vectors: NDArray[np.float32], factors: tuple[NDArray[np.float32], NDArray[np.float32]]
) -> NDArray[np.float32]:
    left, right = factors
    blocks = vectors.reshape(len(vectors), len(left), len(right))
    return np.asarray(left @ blocks @ right, np.float32).reshape(vectors.shape)
