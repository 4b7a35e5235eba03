"""Rows of many kinds, and brute force as the oracle of a search."""

import numpy as np

from simsearch.library.library import ImageLibrary
from simsearch.retrieval import exact


def make_rows(kind, count, dim, rng):
    """Rows that are hard to rank, each kind in its own way."""
    rows = rng.standard_normal((count, dim))
    if kind == "duplicates":
        return rows[rng.integers(0, 1 + count // 4, count)]
    if kind == "clusters":
        return rows[rng.integers(0, 3, count) % count] + 0.05 * rows
    if kind == "near ties":  # too close for float32 to tell apart
        return rows[:1] + 1e-8 * rows
    if kind == "few directions":
        return rng.integers(-1, 2, (count, dim)) + np.eye(1, dim) * 3
    return rows


KINDS = ("spread", "duplicates", "clusters", "near ties", "few directions")


def cosines(library, vector):
    """A full scan in float64."""
    return (library.embeddings.astype(np.float64) * vector.astype(np.float64)).sum(axis=1)


def expected(library, vector, k, mask=None):
    """Rows and scores of the k best in float64: score every row, sort them all."""
    scores = np.clip(cosines(library, vector), -1, 1)
    rows = range(len(library)) if mask is None else np.flatnonzero(mask).tolist()
    paths = library.paths.tolist()
    best = sorted(rows, key=lambda row: (-scores[row], paths[row], row))[:k]
    return best, scores[best].tolist()


def answers(library, vectors, k, mask=None):
    found = exact.exact_index(library).top_k(library, np.float32(vectors), k, mask)
    return [(one.rows.tolist(), one.scores.tolist()) for one in found]


def unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def make_library(rows):
    return ImageLibrary(rows, [f"{i:06}.jpg" for i in range(len(rows))])


def clustered(count=1500, dim=48, groups=30, seed=0):
    """Rows that a few directions tell apart."""
    rng = np.random.default_rng(seed)
    fade = np.arange(1, dim + 1) ** -1.0
    return (rng.standard_normal((groups, dim)) * fade)[rng.integers(0, groups, count)] + (
        0.1 * fade * rng.standard_normal((count, dim))
    )
