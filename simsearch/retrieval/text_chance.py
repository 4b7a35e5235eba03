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
from simsearch.retrieval.row_sample import draw_sample, once_for, sample_of, whole_of
from simsearch.retrieval.words import CLIP, bank_vectors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

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
    pictures
        Yields the rows, (p, D) each, of random pictures that are found by their best part; by
        default, half of the sample is scored.
    """

    def __init__(
        self,
        vectors: NDArray[np.floating[Any]],
        sample: NDArray[np.float64],
        pictures: Callable[[], Iterable[NDArray[Any]]] | None = None,
    ) -> None:
        self.vectors, self.sample, self.pictures = vectors, sample, pictures

    @cached_property
    def random_pair_scores(self) -> NDArray[np.float32]:
        """Cosines of the bank with random rows, sorted."""
        whole = self.sample[: _half(self.sample)]
        best = (
            np.stack([self._best(rows).max(axis=1) for rows in self.pictures()])
            if self.pictures
            else self._best(whole)
        )
        return np.sort(best, axis=None).astype(np.float32)

    def _best(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Score rows by the best of the vectors of each query: (B, n)."""
        scores: NDArray[Any] = np.max(
            [some @ rows.T for some in np.moveaxis(self.vectors, 1, 0)], axis=0
        )
        return scores

    def threshold(self, false_match_rate: float = 1e-3) -> float:
        """Cosine that no more than this share of them reach."""
        return threshold_of(self.random_pair_scores, false_match_rate)


def _half(sample: NDArray[np.float64]) -> int:
    """Half of the rows are scored; the others stand for pictures in a query."""
    return max(1, len(sample) // 2)


_of_parts: WeakKeyDictionary[Any, tuple[Any, TextChance]] = WeakKeyDictionary()


def chance_of_texts(library: Searchable, source: Source) -> TextChance:
    """Return what words score by chance in a library, or in its parts; computed once for it."""
    whole: Any = whole_of(library)
    chance = once_for(whole, "chance of texts", lambda: _chance(whole, source))
    return chance if whole is library else _chance_in_parts(library, chance)


def _chance(library: Searchable, source: Source) -> TextChance:
    sample = sample_of(library)
    vectors = bank_vectors(library, source, bank_texts())
    if not source.backbone.startswith(CLIP):
        vectors = _follow_in_sample(vectors, sample)
    return TextChance(vectors[:, None], sample)


def _chance_in_parts(view: Any, chance: TextChance) -> TextChance:  # noqa: ANN401
    """Return the same for pictures that are found by their best part, of which each has many."""
    known = _of_parts.get(view.whole_library)
    state = chance, view.parts.parts
    if known is None or not all(a is b for a, b in zip(known[0], state, strict=True)):
        numbers = draw_sample(view).numbers[: _half(chance.sample)].tolist()

        def pictures() -> Iterator[NDArray[Any]]:
            for number, row in zip(numbers, chance.sample, strict=False):
                parts = view.parts.parts[view.parts.of(number)]["row"].astype(np.float64)
                norms = np.linalg.norm(parts, axis=1, keepdims=True)
                yield np.concatenate([row[None], parts / norms])

        made = TextChance(chance.vectors, chance.sample, pictures)
        known = _of_parts[view.whole_library] = (state, made)
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
    return TextChance(made, first.sample, first.pictures)
