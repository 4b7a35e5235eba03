"""Pictures ranked by what an index finds of their parts: more are asked for until k are sure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from simsearch.retrieval.exact import TopK, exact_index

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from simsearch.library.library import ImageLibrary
    from simsearch.retrieval.part_index import PartIndex

FIRST_PARTS, SPARE_PARTS = 8, 64  # asked for at first: for each picture wanted, and beyond
DEEPER_FACTOR = 8  # of the parts asked for, where those were of too few pictures
TOLERANCE = 2e-6  # by which a score from float32 rows may differ from the exact one


def rank_pictures(
    index: PartIndex,
    library: ImageLibrary,
    vectors: NDArray[np.float32],
    k: int,
    mask: NDArray[np.bool_] | None,
) -> Iterator[TopK]:
    """Rank pictures by the best of their whole and their parts, for each of several queries.

    One of the k best is among the k best by its whole, or its best part scores no less than that
    of k pictures. So once the last part found scores less than the k-th picture, none is missing.
    """
    k = min(k, len(library) if mask is None else int(np.count_nonzero(mask)))
    if not k:
        yield from (TopK(np.empty(0, np.intp), np.empty(0)) for _ in vectors)
        return
    wholes = list(exact_index(library).top_k(library, vectors, k, mask))
    allowed, count = _allowed_parts(index, mask)
    answers: dict[int, TopK] = {}
    waiting, depth = list(range(len(vectors))), min(FIRST_PARTS * k + SPARE_PARTS, count)
    while waiting:
        found = index.top_parts(vectors[waiting], depth, allowed)
        for i, some in zip(waiting, found, strict=True):
            last = float(some.scores[-1]) if len(some.rows) < count and len(some.rows) else -np.inf
            top = _merge(index, library, vectors[i], wholes[i], some, k, mask, last)
            if depth == count or last < top.scores[-1] - TOLERANCE:
                answers[i] = top
        waiting, depth = [i for i in waiting if i not in answers], min(DEEPER_FACTOR * depth, count)
    yield from (answers[i] for i in range(len(vectors)))


def _allowed_parts(
    index: PartIndex, mask: NDArray[np.bool_] | None
) -> tuple[NDArray[np.bool_] | None, int]:
    """Return which parts are of pictures that may be found, None for all; and their number."""
    stored, parts = index.parts.stored, index.parts
    fits = stored >= 0 if mask is None else (stored >= 0) & mask
    pictures = np.zeros(len(parts.pictures), np.bool_)
    pictures[stored[fits]] = True
    if pictures.all():
        return None, len(parts.parts)
    allowed = np.repeat(pictures, parts.pictures["count"])
    count = int(np.count_nonzero(allowed))
    return allowed, count


def _merge(  # noqa: PLR0917 (one query, and what was found for it)
    index: PartIndex,
    library: ImageLibrary,
    vector: NDArray[np.float32],
    whole: TopK,
    found: TopK,
    k: int,
    mask: NDArray[np.bool_] | None,
    last: float,
) -> TopK:
    """Rank the pictures found as a whole or by a part, with their exact scores."""
    rows, best = index.rows_of_parts(found)
    known = np.full(len(library), -np.inf)
    known[rows] = best
    known[whole.rows] = np.maximum(known[whole.rows], whole.scores)
    candidates = np.union1d(rows, whole.rows)
    if mask is not None:
        candidates = candidates[mask[candidates]]
    # What is not known of one: its whole scores at most as the last whole, its parts as the last.
    least = float(whole.scores[-1]) if len(whole.rows) == k else -np.inf
    bound = np.partition(known[candidates], -k)[-k] - 2 * TOLERANCE
    candidates = candidates[np.maximum(known[candidates], max(least, last)) >= bound]
    scores = np.array([index.best(library, row, vector)[0] for row in candidates.tolist()])
    order = np.lexsort((library.paths[candidates], -scores))[:k]
    return TopK(candidates[order], scores[order])
