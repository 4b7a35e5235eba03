"""Near-duplicates among matches folded, the rest diversified by maximal marginal relevance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from simsearch.retrieval.confirmed import is_copy
from simsearch.retrieval.matches import Candidate

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from simsearch.library.types import Browsable, Searchable
    from simsearch.retrieval.exact import TopK
    from simsearch.retrieval.query import ResolvedQuery
    from simsearch.retrieval.search import Ranking


DEEPER_FACTOR = 4  # how many times more rows are ranked where folding has left too few


def fold_duplicates(
    library: Browsable, ranking: TopK, cosine: float, limit: int
) -> list[Candidate]:
    """Go down a ranking, folding each near-duplicate into the best match that it is a copy of.

    Near in embedding is not enough: the pixels of the files decide, where these are here.

    Parameters
    ----------
    library
        What was ranked.
    ranking
        Rows and scores, best first.
    cosine
        From which on two rows are near-duplicates.
    limit
        How many candidates to return at most.
    """
    ranked = zip(ranking.rows.tolist(), ranking.scores.tolist(), strict=True)
    paths = library.paths
    candidates: list[Candidate] = []
    kept = np.empty((limit, library.dim))
    for row, score in ranked:
        alike = _cosines(kept[: len(candidates)], library.row_lookup[row]) >= cosine
        near = (candidates[i] for i in np.flatnonzero(alike))
        original = next(
            (one for one in near if is_copy(str(paths[one.row]), str(paths[row]))), None
        )
        if original:
            original.duplicates.append(row)
            continue
        kept[len(candidates)] = library.row_lookup[row]
        candidates.append(Candidate(row, score, []))
        if len(candidates) == limit:
            break
    return candidates


def pick(
    ranked: Ranking, query: ResolvedQuery, ranking: TopK, candidates: list[Candidate]
) -> list[Candidate]:
    """Pick the rows that become matches, folded and diversified as the options say."""
    options, library = ranked.options, ranked.library
    if options.duplicate_cosine is not None:

        def rank(depth: int) -> TopK:
            return next(ranked.candidates([query], depth))

        candidates = fold_deeper(library, ranking, options.duplicate_cosine, options.depth, rank)
    if options.diversity:
        return diversify(library, candidates[: options.pool], options.diversity, options.k)
    return candidates[: options.pool]


def fold_deeper(
    library: Browsable,
    ranking: TopK,
    cosine: float,
    wanted: int,
    rank: Callable[[int], TopK],
) -> list[Candidate]:
    """Fold near-duplicates, ranking more rows where too few candidates are left."""
    depth = wanted
    candidates = fold_duplicates(library, ranking, cosine, wanted)
    while len(candidates) < wanted and len(ranking.rows) == depth:
        depth *= DEEPER_FACTOR
        ranking = rank(depth)
        candidates = fold_duplicates(library, ranking, cosine, wanted)
    return candidates


def diversify(
    library: Searchable, candidates: Sequence[Candidate], diversity: float, k: int
) -> list[Candidate]:
    """Choose k candidates by maximal marginal relevance [1]_, one after another.

    References
    ----------
    .. [1] J. Carbonell, J. Goldstein: The use of MMR, diversity-based reranking for reordering
       documents and producing summaries. SIGIR 1998.
    """
    rows = library.row_lookup[[one.row for one in candidates]].astype(np.float64)
    scores = (1 - diversity) * np.array([one.score for one in candidates])
    nearest = np.full(len(candidates), -np.inf)  # cosine with the most similar one chosen
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
