"""Embeddings made elsewhere, checked and scaled to unit norm."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from simsearch.errors import LibraryError
from simsearch.files import iter_blocks

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

BLOCK_ROWS = 4096  # read together
UNIT_NORM_ERROR = 1e-5  # by which the norm of a float32 unit row may be off


def unit_rows(embeddings: ArrayLike) -> NDArray[np.float32]:
    """Check foreign embeddings, and normalise them if they are not."""
    rows = np.asanyarray(embeddings)
    if rows.ndim != 2 or not rows.size or rows.dtype.kind not in "fiu":
        raise LibraryError(
            f"embeddings of shape {rows.shape} and dtype {rows.dtype} are not (N, D) numbers"
        )
    norms = np.empty(len(rows))
    for block in iter_blocks(len(rows), BLOCK_ROWS):
        norms[block] = np.linalg.norm(rows[block].astype(np.float64), axis=1)
    if (bad := np.flatnonzero(~(np.isfinite(norms) & (norms > 0)))).size:
        raise LibraryError(f"row {bad[0]} of the embeddings is zero or not finite; leave it out")
    if np.abs(norms - 1).max() <= UNIT_NORM_ERROR:
        return np.require(rows, np.float32, "C")
    units = np.empty(rows.shape, np.float32)
    for block in iter_blocks(len(rows), BLOCK_ROWS):
        units[block] = rows[block] / norms[block, None]
    return units
