"""Candidates of copies: rows near in hash, or in embedding and alike somewhere on thumbnails.

Nothing is read but embeddings and signatures.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from simsearch.files import iter_blocks
from simsearch.images.coarse_search import find_positions
from simsearch.images.signature import MAX_DISTANCE, candidates
from simsearch.retrieval.exact import rounding_error

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from simsearch.images.alignment import Alignment
    from simsearch.library.library import ImageLibrary

    Positions = dict[tuple[int, int], list[Alignment] | None]


CANDIDATE_COSINE, NEIGHBOURS = 0.6, 20  # of embeddings
BLOCK_ROWS = 1024


def candidate_pairs(
    library: ImageLibrary,
    signatures: NDArray[np.void],
    rows: NDArray[np.intp],
    threshold: float = CANDIDATE_COSINE,
    *,
    known: NDArray[np.bool_] | None = None,
    identical: bool = False,
) -> Positions:
    """Find the pairs that may be copies.

    Parameters
    ----------
    library
        Of N rows.
    signatures : (N,) array of dtype `SIGNATURE`
    rows
        That are compared.
    threshold
        Least cosine of two embeddings.
    known : (N,) bool
        Rows that are compared with the others only, not among each other; nor are the others.
    identical
        Whether only equal pictures are looked for.

    Returns
    -------
    dict
        By pair, the smaller row first, the positions in which the second picture may show the
        first, the likeliest first; None for pairs near in hash, where they are yet to be found.
    """
    count = len(library)
    near = rows[candidates(signatures[rows], 0 if identical else MAX_DISTANCE)].reshape(-1, 2)
    pairs = near[:0]
    if not identical:
        asked, gallery = (rows, rows) if known is None else (rows[~known[rows]], rows[known[rows]])
        found = np.concatenate([pairs, *_neighbours(library, asked, gallery, threshold)])
        codes = np.unique(np.sort(found, axis=1) @ [count, 1])
        codes = np.setdiff1d(codes, near @ [count, 1], assume_unique=True)
        pairs = np.stack(np.divmod(codes, count), axis=1)
    if known is not None:
        near = near[known[near[:, 0]] != known[near[:, 1]]]
    positions: Positions = dict(find_positions(signatures, pairs))
    positions.update(((i, j), None) for i, j in near.tolist())
    return positions


def _neighbours(
    library: ImageLibrary, rows: NDArray[np.intp], gallery_rows: NDArray[np.intp], threshold: float
) -> Iterator[NDArray[np.intp]]:
    """Pairs of rows with their nearest others in embedding, from a cosine up: (P, 2) each."""
    gallery = np.asarray(library.embeddings[gallery_rows])
    least = threshold - rounding_error(library.dim)
    count = min(NEIGHBOURS + 1, len(gallery_rows))  # a row may find itself
    for block in iter_blocks(len(rows), BLOCK_ROWS) if count else ():
        scores = np.asarray(library.embeddings[rows[block]]) @ gallery.T
        nearest = np.argpartition(-scores, count - 1, axis=1)[:, :count]
        i, place = np.nonzero(np.take_along_axis(scores, nearest, axis=1) >= least)
        pairs = np.stack([rows[block][i], gallery_rows[nearest[i, place]]], axis=1)
        yield pairs[pairs[:, 0] != pairs[:, 1]]
