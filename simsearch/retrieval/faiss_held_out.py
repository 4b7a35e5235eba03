"""Queries with known answers for FAISS indexes, and rows that are held out for them.

A row of the library finds its own near-copies easily, and says little of what a new picture finds.
So some rows are kept from the index together with their near-copies until it has been measured.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from simsearch.backbones.heads import unit
from simsearch.retrieval.exact import TopK, exact_index

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    from numpy.typing import NDArray

    from simsearch.library.library import ImageLibrary

TUNED_K = 10  # for which the effort is set, and recall is stated
NEW_QUERIES = 300  # rows that are held out, at most; half of each kind tunes, and half measures
LIKE_QUERIES, UNLIKE_QUERIES = 300, 200
NEAR_ROWS = 100  # of a row: its near-copies score more than halfway from these to the nearest
HELD_OUT_SHARE = 0.2  # of the rows, at most
PARTS = 3  # rows that a picture unlike any is composed of
FLOOR_GROUPS = 5
SCORE_TOLERANCE = 1e-12  # by which sums in another order may differ
EMPTY_TOP_K = TopK(np.empty(0, np.intp), np.empty(0))


class Questions(NamedTuple):
    """Queries of one kind, and their ten nearest rows among those that were not held out."""

    kind: str  # "like", "new", "unlike" or "asked"
    vectors: NDArray[np.float32]  # (Q, D)
    own: NDArray[np.intp]  # (Q,) the row that is the query itself; -1 if there is none
    truth: list[TopK]

    def part(self, which: slice) -> Questions:
        """Return some of the queries."""
        return Questions(self.kind, self.vectors[which], self.own[which], self.truth[which])


def draw_rows(library: ImageLibrary, count: int, seed: int = 0) -> NDArray[np.intp]:
    """Draw `count` different row numbers, or all there are; sorted, for reads in file order."""
    rng = np.random.default_rng(seed)
    return np.sort(rng.choice(len(library), min(count, len(library)), replace=False))


def hold_out(library: ImageLibrary) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Choose rows to ask for, and rows to keep from the index: those, with their near-copies.

    A near-copy scores more than halfway from a row's hundredth neighbour to its nearest.
    """
    asked: list[int] = []
    held: set[int] = set()
    drawn = np.random.default_rng(3).permutation(draw_rows(library, NEW_QUERIES, seed=3))
    near = min(NEAR_ROWS, len(library) // 10)
    if not near:
        return np.empty(0, np.intp), np.empty(0, np.intp)
    vectors = np.asarray(library.embeddings[drawn])
    for row, found in zip(
        drawn.tolist(), exact_index(library).top_k(library, vectors, near + 1), strict=True
    ):
        (rows, scores), others = found, found.rows != row
        limit = (scores[others][0] + scores[-1]) / 2
        copies = {row, *rows[others & (scores > limit)].tolist()}
        if len(held | copies) <= HELD_OUT_SHARE * len(library):
            held |= copies
            asked.append(row)
    return np.array(asked, np.intp), np.array(sorted(held), np.intp)


def ask_questions(
    library: ImageLibrary,
    new: NDArray[np.intp],
    held: NDArray[np.intp],
    asked: NDArray[np.float32] | None = None,
) -> tuple[list[Questions], list[Questions]]:
    """Return queries of each kind in a random order, with their answers by the exact search.

    One half of each kind is to set an index up, and the other to measure it.
    """
    kept = np.ones(len(library), np.bool_)
    kept[held] = False
    rng = np.random.default_rng(4)
    own = np.flatnonzero(kept)
    own = rng.choice(own, min(LIKE_QUERIES, len(own)), replace=False)
    kinds = {
        "like": (np.asarray(library.embeddings[own]), own),
        "new": (np.asarray(library.embeddings[new]), None),
        "unlike": (compose_strangers(library, min(UNLIKE_QUERIES, len(own))), None),
        "asked": (np.empty((0, library.dim), np.float32) if asked is None else asked, None),
    }
    questions = []
    for kind, (vectors, rows) in kinds.items():
        if len(vectors):
            none = np.full(len(vectors), -1)
            own_rows = none if rows is None else rows
            truth = exact_neighbours(library, vectors, own_rows, kept)
            questions.append(Questions(kind, vectors, own_rows, truth))
    first, second = ([some.part(slice(half, None, 2)) for some in questions] for half in (0, 1))
    return first, second


def compose_strangers(library: ImageLibrary, count: int) -> NDArray[np.float32]:
    """Compose pictures unlike any: each number of an embedding is that of one of three rows."""
    rng = np.random.default_rng(5)
    drawn = rng.integers(0, len(library), (PARTS, count))
    parts = np.stack([np.asarray(library.embeddings[rows]) for rows in drawn])  # (3, count, D)
    which = rng.integers(0, PARTS, (1, count, library.dim))
    strangers = np.take_along_axis(parts, which, axis=0)[0]
    return unit(strangers[np.linalg.norm(strangers, axis=1) > 0])


def exact_neighbours(
    library: ImageLibrary,
    vectors: NDArray[np.float32],
    own: NDArray[np.intp],
    mask: NDArray[np.bool_] | None = None,
) -> list[TopK]:
    """Return the ten best rows for each query, without its own."""
    if mask is not None and mask.all():
        mask = None
    return without_own(exact_index(library).top_k(library, vectors, TUNED_K + 1, mask), own)


def without_own(found: Iterable[TopK], own: NDArray[np.intp]) -> list[TopK]:
    """Leave out of each answer the query's own row."""
    pairs = zip(found, own, strict=True)
    return [TopK(*(part[one.rows != row][:TUNED_K] for part in one)) for one, row in pairs]


def hits_of(found: Sequence[TopK], truth: Sequence[TopK]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Count for each query the best rows that were found, and those there are; ties count."""
    pairs = list(zip(found, truth, strict=True))
    hits = [
        np.count_nonzero(some.scores >= best.scores[-1] - SCORE_TOLERANCE) if len(best.rows) else 0
        for some, best in pairs
    ]
    return np.array(hits, float), np.array([len(best.rows) for _, best in pairs], float)


def recall_of(found: Sequence[TopK], truth: Sequence[TopK]) -> float:
    """Return the share of the best rows that were found; equal scores count as well."""
    hits, total = hits_of(found, truth)
    return float(hits.sum() / total.sum()) if total.sum() else 1.0


def lowest_group(found: Sequence[TopK], truth: Sequence[TopK]) -> float:
    """Return the lowest recall of five groups of queries, from near to far from the library."""
    hits, total = hits_of(found, truth)
    order = np.argsort([best.scores[0] if len(best.rows) else -1 for best in truth], kind="stable")
    groups = [group for group in np.array_split(order, FLOOR_GROUPS) if total[group].sum()]
    return min((float(hits[some].sum() / total[some].sum()) for some in groups), default=1.0)
