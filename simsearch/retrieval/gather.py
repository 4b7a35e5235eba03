"""Products of some rows of a library, which are copied together first."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from simsearch.files import iter_blocks
from simsearch.retrieval.blas import one_blas_thread
from simsearch.retrieval.exact import rescore

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from simsearch.library.library import ImageLibrary
    from simsearch.library.row_file import RowFile
    from simsearch.retrieval.exact import ExactScan, TopK

GATHERED_NUMBERS = 2**18  # that are copied together: they stay in the cache


def rank_rows(
    scan: ExactScan, vectors: NDArray[np.float32], rows: NDArray[np.intp]
) -> Iterator[TopK]:
    """Rank some rows, given by number, for each of several queries (Q, D)."""
    with one_blas_thread():
        scores = gathered_scores(scan.rows, rows, vectors.T)
    for vector, some in zip(vectors, scores.T, strict=True):
        yield rescore(scan.library, vector, some, scan.k, rows=rows)


def matrix_of(library: ImageLibrary) -> NDArray[np.float32] | RowFile:
    """Return the embeddings of a library as `gathered_scores` and slices read them."""
    opened = library.row_file if library.stored else None
    return np.asarray(library.embeddings) if opened is None else opened


def gathered_scores(
    matrix: NDArray[np.float32] | RowFile, rows: NDArray[np.intp], vectors: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Products of some rows of a matrix with a vector or with (D, Q) vectors: (n,) or (n, Q)."""
    size = max(1, GATHERED_NUMBERS // matrix.shape[1])
    buffer = np.empty((min(size, len(rows)), matrix.shape[1]), np.float32)
    products = np.empty((len(rows), *vectors.shape[1:]), np.float32)
    for block in iter_blocks(len(rows), size):
        some = rows[block]
        # "clip" as the numbers are known to be right: "raise" would go through a buffer
        part = matrix.take(some, axis=0, out=buffer[: len(some)], mode="clip")
        np.matmul(part, vectors, out=products[block])
    return products
