"""Exact search in a table of LanceDB: its scan in float32 selects, float64 scores rank."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from simsearch.library.parquet import EMBEDDING
from simsearch.retrieval.exact import TopK, rescore, rounding_error

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from simsearch.cluster.lance import LanceLibrary

ROW = "simsearch_row"  # the column of row numbers
GATHERED_ROWS = 4096  # that are allowed: so few are read, and the table is not searched
SPARE_ROWS = 32  # that a search finds beyond k, as float32 scores may be in another order
WIDER = 4  # times as many rows, where those were too few


class LanceIndex:
    """Ranks the rows of a table: LanceDB's scan in float32 selects, float64 scores rank."""

    exact = True

    def __init__(self, table: Any) -> None:  # noqa: ANN401
        self._table = table

    def check(self, library: Any) -> None:  # noqa: ANN401
        """Accept the library that it belongs to."""

    def top_k(
        self,
        library: LanceLibrary,
        vectors: NDArray[np.float32],
        k: int,
        mask: NDArray[np.bool_] | None = None,
    ) -> Iterator[TopK]:
        """Rank the best rows for each of several embeddings, as `Index.top_k` says."""
        count = len(library) if mask is None else int(np.count_nonzero(mask))
        k = min(int(k), count)
        for vector in vectors:
            if not k:
                yield TopK(np.empty(0, np.intp), np.empty(0))
            elif mask is not None and count <= GATHERED_ROWS:
                rows = np.flatnonzero(mask)
                yield rescore(library, vector, library.row_lookup[rows] @ vector, k, rows=rows)
            else:
                yield self._rank(library, vector, k, mask, count)

    def _rank(
        self,
        library: LanceLibrary,
        vector: NDArray[np.float32],
        k: int,
        mask: NDArray[np.bool_] | None,
        count: int,
    ) -> TopK:
        """Rank the best k of `count` rows that are allowed, for one embedding."""
        error = rounding_error(library.dim + 2)  # of the sum, and of 1 - score, which comes back
        limit = int((k + SPARE_ROWS) * len(library) / count) + 1
        while True:
            rows, scores = find_in_table(self._table, vector, min(limit, len(library)))
            lowest = scores.min()
            if mask is not None:
                rows, scores = rows[mask[rows]], scores[mask[rows]]
            complete = len(scores) >= k and lowest < np.partition(scores, -k)[-k] - 2 * error
            if complete or limit >= len(library):
                return rescore(library, vector, scores, k, rows=rows, error=error)
            limit *= WIDER


def find_in_table(
    table: Any,  # noqa: ANN401
    vector: NDArray[np.float32],
    limit: int,
    *,
    probes: int | None = None,
    refine: int = 1,
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Return row numbers and float32 scores of the nearest rows, by a scan or by the index.

    Parameters
    ----------
    table
        Of LanceDB.
    vector
        (D,) float32, unit norm.
    limit
        How many rows are wanted.
    probes
        Lists of the index to read; by default the table is scanned.
    refine
        Times as many rows are taken from the lists and scored in full.
    """
    query = table.search(vector, vector_column_name=EMBEDDING).distance_type("dot")
    if probes is None:  # somebody may have made an index, and that is approximate
        query = query.bypass_vector_index()
    else:
        query = query.nprobes(probes).refine_factor(refine)
    found = query.select([ROW, "_distance"]).limit(limit).to_arrow()
    distances = found["_distance"].to_numpy()
    return found[ROW].to_numpy().astype(np.intp), (1 - distances).astype(np.float32)
