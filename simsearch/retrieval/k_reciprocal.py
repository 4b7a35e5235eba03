"""k-reciprocal reranking: the best rows of a query, in the order that their own neighbours support.

After Zhong, Zheng, Cao and Li, "Re-ranking person re-identification with k-reciprocal encoding",
CVPR 2017 (arXiv:1701.08398), over the best few hundred rows of each query.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from simsearch.errors import QueryError
from simsearch.retrieval import background
from simsearch.retrieval.background import Background
from simsearch.retrieval.blas import one_blas_thread
from simsearch.retrieval.exact import TopK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

    from numpy.typing import NDArray

    from simsearch.library.types import Searchable
    from simsearch.retrieval.options import RankingOptions
    from simsearch.retrieval.query import ResolvedQuery
    from simsearch.retrieval.search import Ranking

NAME = "k-reciprocal"
MAX_CANDIDATES = 8192  # their products with each other take 256 MiB


@dataclass(frozen=True, kw_only=True)
class KReciprocal:
    """Settings of k-reciprocal reranking.

    Two images are k-reciprocal neighbours if each is among the `k1` nearest of the other. Rows
    that share such neighbours with the query move up.

    Attributes
    ----------
    k1 : int
        Neighbours that are compared: about as many as there are images of a kind.
    k2 : int
        Nearest neighbours over which the sets are averaged; 1 for none.
    weight : float
        Of the cosine distance beside that of the neighbours, in [0, 1]: λ in the paper. At 1 the
        order is that of the cosines.
    candidates : int
        How many of the best rows are reranked; those below stay as they are. The time of a query
        grows with the cube of it.

    Raises
    ------
    QueryError
        If a setting is out of range.
    """

    k1: int = 20
    k2: int = 6
    weight: float = 0.3
    candidates: int = 300

    def __post_init__(self) -> None:
        for name, most in (("k1", MAX_CANDIDATES), ("k2", self.k1), ("candidates", MAX_CANDIDATES)):
            value = getattr(self, name)
            whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
            if not whole or not 1 <= value <= most:
                raise QueryError(f"{name}={value!r}: give a whole number from 1 to {most}")
        if not 0 <= self.weight <= 1:
            raise QueryError(f"weight={self.weight!r}: give a number from 0 to 1")

    def bind(self, ranked: Ranking) -> Callable[[Sequence[ResolvedQuery], int], Iterator[TopK]]:
        """Return what ranks queries as deep as asked, with the best rows reordered."""
        return partial(self._rank, ranked)

    def _rank(
        self, ranked: Ranking, queries: Sequence[ResolvedQuery], depth: int
    ) -> Iterator[TopK]:
        """Rank for each query, and reorder the best rows; their scores stay cosines."""
        for found in ranked.rank(queries, max(depth, self.candidates)):
            order = self._order(ranked.library, found)[:depth]
            yield TopK(found.rows[order], found.scores[order])

    def _order(self, library: Searchable, found: TopK) -> NDArray[np.intp]:
        best, rest = found.rows[: self.candidates], found.rows[self.candidates :]
        if not len(best):
            return np.empty(0, np.intp)
        rows = np.asarray(library.row_lookup[best], np.float32)
        distances = k_reciprocal_distances(found.scores[: len(best)], rows, self)
        below = np.arange(len(best), len(best) + len(rest))
        return np.concatenate([np.argsort(distances, kind="stable"), below])


def read_rerank(options: RankingOptions) -> KReciprocal | Background:
    """Return the settings of the reranking that options ask for.

    Raises
    ------
    QueryError
        If there is no such reranking, or another option contradicts it.
    """
    given = options.rerank
    if options.diversity:
        raise QueryError(
            f"rerank={given!r} and diversity={options.diversity} both reorder the matches: give "
            "one of the two"
        )
    if isinstance(given, KReciprocal):
        return given
    if isinstance(given, str) and given == NAME:
        return KReciprocal()
    if isinstance(given, str) and given == background.NAME:
        return Background()
    names = {NAME: NAME, "k_reciprocal": NAME, background.NAME: background.NAME}
    near = get_close_matches(given.lower(), names, 1) if isinstance(given, str) else []
    known = f"give {NAME!r}, {background.NAME!r}, a KReciprocal(...) or None"
    hint = f"did you mean {names[near[0]]!r}?" if near else known
    raise QueryError(f"rerank={given!r}: there is no such reranking; {hint}")


def k_reciprocal_distances(
    scores: NDArray[Any], rows: NDArray[np.float32], settings: KReciprocal
) -> NDArray[np.float32]:
    """Return the distance of a query to each of some rows.

    Parameters
    ----------
    scores
        (n,) cosines of the query with the rows.
    rows
        (n, D) float32, of unit L2 norm.
    settings
        Those of the reranking.

    Returns
    -------
    numpy.ndarray
        (n,) float32 from 0 to 1: the Jaccard distance of the sets of neighbours, and the squared
        Euclidean distance as a share of the query's largest.
    """
    with one_blas_thread():
        cosines = _all_cosines(scores, rows)
        distances = 1 - cosines
        distances /= np.maximum(distances.max(axis=1, keepdims=True), np.finfo(np.float32).tiny)
        members = _expanded_sets(cosines, settings.k1) * np.exp(-distances)
        members /= members.sum(axis=1, keepdims=True)
        if settings.k2 > 1:
            nearest = _nearest(cosines, settings.k2)
            members = nearest @ members / nearest.sum(axis=1, keepdims=True)
    shared = np.minimum(members[0], members[1:]).sum(axis=1)
    jaccard = 1 - shared / (2 - shared)  # both sets have the weight 1
    mixed: NDArray[np.float32] = (1 - settings.weight) * jaccard + settings.weight * distances[
        0, 1:
    ]
    return mixed


def _all_cosines(scores: NDArray[Any], rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Cosines of the query, which comes first, and the rows with each other: (n + 1, n + 1)."""
    cosines = np.empty((len(rows) + 1, len(rows) + 1), np.float32)
    cosines[0, 1:] = cosines[1:, 0] = scores
    np.matmul(rows, rows.T, out=cosines[1:, 1:])
    np.fill_diagonal(cosines, 1)
    return np.minimum(cosines, 1, out=cosines)


def _nearest(cosines: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """Mark the `count` nearest of each, itself and all ties included: (n, n) of 0 and 1."""
    count = min(count, len(cosines))
    bound = np.partition(cosines, -count, axis=1)[:, -count]
    return (cosines >= bound[:, None]).astype(np.float32)


def _reciprocal(cosines: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """Mark those that are among the `count` nearest of each other, besides themselves: (n, n)."""
    nearest = _nearest(cosines, count + 1)
    return nearest * nearest.T


def _expanded_sets(cosines: NDArray[np.float32], k1: int) -> NDArray[np.float32]:
    """Mark the k1-reciprocal neighbours of each, and the neighbours of those that fit in: (n, n).

    A neighbour's own set, of half the size, is added if more than two thirds of it are in the set.
    """
    own, half = _reciprocal(cosines, k1), _reciprocal(cosines, round(k1 / 2))
    fits = own * (3 * (own @ half.T) > 2 * half.sum(axis=1))
    return np.asarray(np.maximum(own, fits @ half > 0), np.float32)
