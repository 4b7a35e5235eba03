"""Embeddings made elsewhere and their paths, checked; rows scaled to unit norm."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from simsearch.errors import LibraryError
from simsearch.files import iter_blocks
from simsearch.library.paths import as_posix

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import ArrayLike, NDArray

BLOCK_ROWS = 4096  # read together
UNIT_NORM_ERROR = 1e-5  # by which the norm of a float32 unit row may be off


def unit_rows(embeddings: ArrayLike) -> NDArray[np.float32]:
    """Check foreign embeddings, and normalise them if they are not."""
    rows = _to_array(embeddings)
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


def _to_array(embeddings: Any) -> NDArray[Any]:  # noqa: ANN401
    """Return an array, a tensor on any device, a frame or lists as a plain array."""
    if isinstance(embeddings, np.ma.MaskedArray) and np.ma.is_masked(embeddings):
        raise LibraryError("the embeddings have masked values: fill them, or leave out their rows")
    if hasattr(embeddings, "detach") and hasattr(embeddings, "cpu"):
        embeddings = embeddings.detach().cpu()
        embeddings = embeddings.float() if str(embeddings.dtype) == "torch.bfloat16" else embeddings
    try:
        rows: NDArray[Any] = np.asarray(embeddings)
        rows = embeddings if isinstance(embeddings, np.memmap) else rows
    except (TypeError, ValueError, RuntimeError) as error:
        raise LibraryError(f"the embeddings are not (N, D) numbers: {error}") from error
    return rows


def listed_paths(paths: Iterable[Any], count: int) -> NDArray[np.str_]:
    """Check the foreign paths of `count` rows, and write them with POSIX separators: unicode."""
    if isinstance(paths, (str, bytes)):
        raise LibraryError(f"paths={paths!r:.80}: give a list of them, one per row")
    listed = list(paths)
    for row, path in enumerate(listed):
        if not isinstance(path, (str, os.PathLike)) or not str(path):
            raise LibraryError(f"row {row} has the path {path!r:.80}; give text or a Path")
    if len(listed) != count:
        raise LibraryError(
            f"{count} embeddings and {len(listed)} paths do not belong together; give one path "
            "per row"
        )
    return np.array([as_posix(path) for path in listed], "U")
