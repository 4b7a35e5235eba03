"""Reranking: near-duplicates folded, the rest spread by maximal marginal relevance."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from numpy.typing import NDArray

    from simsearch.library.types import Searchable
    from simsearch.retrieval.options import Wish
    from simsearch.retrieval.topk import TopK


class Pick(NamedTuple):
    """A row that becomes a match, and the near-duplicates that it stands for."""

    row: int
    score: float
    folded: list[int]


def fold_duplicates(library: Searchable, found: TopK, wish: Wish) -> list[Pick]:
    """Go down a ranking, folding each near-duplicate into the best match that it is like."""
    ranking = zip(found.rows.tolist(), found.scores.tolist(), strict=True)
    if wish.unique is None:
        return [Pick(row, score, []) for row, score in ranking]
    picks: list[Pick] = []
    kept = np.empty((wish.depth, library.dim))
    for row, score in ranking:
        alike = _cosines(kept[: len(picks)], library.embeddings[row]) >= wish.unique
        if alike.any():
            picks[int(alike.argmax())].folded.append(row)
            continue
        kept[len(picks)] = library.embeddings[row]
        picks.append(Pick(row, score, []))
        if len(picks) == len(kept):
            break
    return picks


def spread_out(library: Searchable, picks: Sequence[Pick], wish: Wish) -> list[Pick]:
    """Choose k of the pool by maximal marginal relevance, one after another."""
    rows = library.embeddings[[pick.row for pick in picks]].astype(np.float64)
    scores = (1 - wish.diversity) * np.array([pick.score for pick in picks])
    nearest = np.full(len(picks), -np.inf)  # cosine with the most alike that was chosen
    chosen: list[int] = []
    for _ in range(min(wish.k, len(picks))):
        gain = scores - (wish.diversity * nearest if chosen else 0)
        gain[chosen] = -np.inf
        chosen.append(int(gain.argmax()))
        nearest = np.maximum(nearest, _cosines(rows, rows[chosen[-1]]))
    return [picks[i] for i in chosen]


def _cosines(rows: NDArray[np.float64], row: NDArray[Any]) -> NDArray[np.float64]:
    """Cosine of each of (n, D) unit rows with one: a sum a row, so that equal rows stay equal."""
    cosines: NDArray[np.float64] = (rows * row).sum(axis=1)
    return cosines
