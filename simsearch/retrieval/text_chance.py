"""What chance scores for words: cosines of ordinary texts with random pictures of a library.

Words and pictures are less near to each other than pictures are, so that the scores of words are
compared with those of other words, and not with those of random pairs of pictures.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np

from simsearch.library.thresholds import threshold_of
from simsearch.retrieval.ordinary_texts import bank_texts
from simsearch.retrieval.words import CLIP, bank_vectors, sample_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from simsearch.library.source import Source
    from simsearch.library.types import Searchable
    from simsearch.retrieval.query import ResolvedQuery


class TextChance:
    """What queries like one, of words, score by chance.

    Parameters
    ----------
    vectors
        (B, n, D): queries of the bank; the score of a row is its highest cosine with any of the n.
    sample
        (S, D) rows of the library, in random order.
    """

    def __init__(self, vectors: NDArray[np.floating[Any]], sample: NDArray[np.float64]) -> None:
        self.vectors, self.sample = vectors, sample

    @cached_property
    def random_pair_scores(self) -> NDArray[np.float32]:
        """Cosines of the bank with random rows, sorted."""
        scored = self.sample[: _half(self.sample)].T
        best = np.max([part @ scored for part in np.moveaxis(self.vectors, 1, 0)], axis=0)
        return np.sort(best, axis=None).astype(np.float32)

    def threshold(self, false_match_rate: float = 1e-3) -> float:
        """Cosine that no more than this share of them reach."""
        return threshold_of(self.random_pair_scores, false_match_rate)


def _half(sample: NDArray[np.float64]) -> int:
    """Half of the rows are scored; the others stand for pictures in a query."""
    return max(1, len(sample) // 2)


_known: WeakKeyDictionary[Any, tuple[Any, TextChance]] = WeakKeyDictionary()


def chance_of_texts(library: Searchable, source: Source) -> TextChance:
    """Return what words score by chance in a library, computed once for it."""
    known = _known.get(library)
    if known is None or known[0] is not library.embeddings:
        sample = sample_of(library)
        vectors = bank_vectors(library, source, bank_texts())
        if not source.backbone.startswith(CLIP):
            vectors = _follow_in_sample(vectors, sample)
        made = TextChance(vectors[:, None], sample)
        known = _known[library] = (library.embeddings, made)
    return known[1]


def _follow_in_sample(
    vectors: NDArray[np.float32], sample: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Move each text towards what it finds in the sample, as a query is in the library."""
    from simsearch.retrieval.concepts import follow_best

    def find(
        direction: NDArray[np.float32], count: int
    ) -> tuple[NDArray[Any], NDArray[np.float64]]:
        scores = sample @ direction
        best = np.argsort(-scores, kind="stable")[:count]
        return sample[best], scores[best]

    mean = sample.mean(axis=0)
    return np.stack([follow_best(vector, mean, len(sample), find) for vector in vectors])


def mixed_chance(
    queries: Sequence[ResolvedQuery], how: str, weights: Sequence[float] | None
) -> TextChance:
    """Return what a mixture of words and pictures scores by chance: by random ones in their place.

    Parameters
    ----------
    queries
        At least one of them has a `chance`.
    how, weights
        As `combine_queries` takes them.
    """
    first = next(query.chance for query in queries if query.chance is not None)
    rng, others = np.random.default_rng(0), first.sample[-_half(first.sample) :]
    drawn = []
    for query in queries:
        bank = others if query.chance is None else query.chance.vectors[:, 0]
        drawn.append(bank[rng.choice(len(bank), len(first.vectors))])
    made = np.stack(drawn, axis=1)  # (B, Q, D)
    if how == "mean":
        shares = np.ones(len(queries)) if weights is None else np.asarray(weights, np.float64)
        mean = np.einsum("q,bqd->bd", shares, made)
        norms = np.linalg.norm(mean, axis=1, keepdims=True)
        made = np.divide(mean, norms, out=np.zeros_like(mean), where=norms > 0)[:, None]
    return TextChance(made, first.sample)
