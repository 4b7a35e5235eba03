"""Scores in short sums, which round less, for queries that float32 leaves too much to tell."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from simsearch.files import iter_blocks
from simsearch.retrieval.blas import one_blas_thread
from simsearch.retrieval.exact import rounding_error

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from simsearch.library.row_file import RowFile

SHORT_SUM_COLUMNS, SHORT_SUM_ROWS = 64, 4096  # of one product


def short_sum_scores(
    rows: NDArray[np.float32] | RowFile, vectors: NDArray[np.float32]
) -> tuple[NDArray[np.float32], float]:
    """Products in short sums, which round less, and their error at most: (Q, N) float32."""
    scores = np.zeros((len(vectors), len(rows)), np.float32)
    columns = list(iter_blocks(rows.shape[1], SHORT_SUM_COLUMNS))
    with one_blas_thread():  # these products are so short that two threads would mostly wait
        for block in iter_blocks(len(rows), SHORT_SUM_ROWS):
            part = rows[block]
            for some in columns:
                scores[:, block] += vectors[:, some] @ part[:, some].T
    return scores, rounding_error(SHORT_SUM_COLUMNS + len(columns))
