"""Background normalisation: what a row has in common with every image counts for no query.

The best rows of a query are ordered by their cosine less their mean cosine with a bank of random
rows of the library: one number for each row. It favours no image that is near to everything.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from simsearch.retrieval.exact import TopK
from simsearch.retrieval.row_sample import draw_sample, once_for, whole_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from simsearch.library.types import Searchable
    from simsearch.retrieval.query import ResolvedQuery
    from simsearch.retrieval.search import Ranking

NAME = "background"
BANK_ROWS = 512  # of the library, drawn with a fixed seed: those that tell what a score means
CANDIDATES = 1000  # of the best rows are reordered; those below stay as they are


class Background:
    """Reorders the best rows of a query by their cosine less what they have with any image."""

    def bind(self, ranked: Ranking) -> Callable[[Sequence[ResolvedQuery], int], Iterator[TopK]]:
        """Return what ranks queries as deep as asked, with the best rows reordered."""
        return partial(_rank, ranked)


def _rank(ranked: Ranking, queries: Sequence[ResolvedQuery], depth: int) -> Iterator[TopK]:
    """Rank for each query, and reorder the best rows; their scores stay cosines."""
    mean = bank_mean(ranked.library)
    for found in ranked.rank(queries, max(depth, CANDIDATES)):
        order = np.arange(len(found.rows))
        best = found.rows[:CANDIDATES]
        if len(best):
            usual = np.asarray(ranked.library.row_lookup[best], np.float64) @ mean
            order[: len(best)] = np.argsort(usual - found.scores[: len(best)], kind="stable")
        yield TopK(found.rows[order][:depth], found.scores[order][:depth])


def bank_mean(library: Searchable) -> NDArray[np.float64]:
    """Return the mean of the bank of a library, (D,): its product with a row is the mean cosine."""
    return once_for(
        whole_of(library),
        ("mean", BANK_ROWS),
        lambda: draw_sample(library, BANK_ROWS).rows.mean(axis=0),
    )
