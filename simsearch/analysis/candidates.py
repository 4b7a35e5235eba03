"""Candidates of copies: rows near in hash, or in embedding and alike somewhere on thumbnails.

Nothing is read but embeddings and signatures.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from simsearch.analysis.near_rows import near_pairs
from simsearch.images.coarse_search import find_positions
from simsearch.images.signature import MAX_DISTANCE, candidates
from simsearch.retrieval.exact import rounding_error

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from simsearch.images.alignment import Alignment
    from simsearch.library.library import ImageLibrary

    Positions = dict[tuple[int, int], list[Alignment] | None]


CANDIDATE_COSINE, NEIGHBOURS = 0.6, 20  # of embeddings
CLOSE_COSINE = 0.85  # of most copies; of few other pairs


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
    pairs, close = near[:0], np.empty(0, bool)
    if not identical:
        asked, gallery = (rows, rows) if known is None else (rows[~known[rows]], rows[known[rows]])
        least = threshold - rounding_error(library.dim)
        found = near_pairs(library.embeddings, asked, gallery, least, NEIGHBOURS)
        codes, first = np.unique(np.sort(found.pairs, axis=1) @ [count, 1], return_index=True)
        new = ~np.isin(codes, near @ [count, 1])
        pairs = np.stack(np.divmod(codes[new], count), axis=1)
        close = found.cosines[first[new]] >= CLOSE_COSINE
    if known is not None:
        near = near[known[near[:, 0]] != known[near[:, 1]]]
    positions: Positions = dict(find_positions(signatures, pairs, close))
    positions.update(((i, j), None) for i, j in near.tolist())
    return positions
