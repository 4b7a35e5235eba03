"""Reranking: near-duplicates folded, the rest diversified by maximal marginal relevance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from simsearch.library.types import Searchable
    from simsearch.retrieval.index import TopK


class Candidate(NamedTuple):
    """A row that may become a match, and the near-duplicates that it stands for."""

    row: int
    score: float
    duplicates: list[int]


def fold_duplicates(
    library: Searchable, ranking: TopK, cosine: float | None, limit: int
) -> list[Candidate]:
    """Go down a ranking, folding each near-duplicate into the best match that it is like.

    Parameters
    ----------
    library
        What was ranked.
    ranking
        Rows and scores, best first.
    cosine
        From which on two rows are near-duplicates; None to fold none.
    limit
        How many candidates to return at most.
    """
    ranked = zip(ranking.rows.tolist(), ranking.scores.tolist(), strict=True)
    if cosine is None:
        return [Candidate(row, score, []) for row, score in ranked]
    candidates: list[Candidate] = []
    kept = np.empty((limit, library.dim))
    for row, score in ranked:
        alike = _cosines(kept[: len(candidates)], library.embeddings[row]) >= cosine
        if alike.any():
            candidates[int(alike.argmax())].duplicates.append(row)
            continue
        kept[len(candidates)] = library.embeddings[row]
        candidates.append(Candidate(row, score, []))
        if len(candidates) == limit:
            break
    return candidates


def diversify(
    library: Searchable, candidates: Sequence[Candidate], diversity: float, k: int
) -> list[Candidate]:
    """Choose k candidates by maximal marginal relevance, one after another."""
    rows = library.embeddings[[one.row for one in candidates]].astype(np.float64)
    scores = (1 - diversity) * np.array([one.score for one in candidates])
    nearest = np.full(len(candidates), -np.inf)  # cosine with the most alike that was chosen
    chosen: list[int] = []
    for _ in range(min(k, len(candidates))):
        gain = scores - (diversity * nearest if chosen else 0)
        gain[chosen] = -np.inf
        chosen.append(int(gain.argmax()))
        nearest = np.maximum(nearest, _cosines(rows, rows[chosen[-1]]))
    return [candidates[i] for i in chosen]


def _cosines(rows: NDArray[np.float64], row: NDArray[Any]) -> NDArray[np.float64]:
    """Cosine of each of (n, D) unit rows with one: equal rows stay equal, as sums row by row."""
    cosines: NDArray[np.float64] = (rows * row).sum(axis=1)
    return cosines
