"""Queries made of others: parts of a picture, weighted means of several, rows to leave out."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from simsearch.errors import QueryError
from simsearch.images.crop import load_parts
from simsearch.images.decode import describe
from simsearch.retrieval.exact import TopK
from simsearch.retrieval.query import Box, ResolvedQuery, embed, resolve

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from simsearch.library.types import Searchable
    from simsearch.retrieval.options import SearchOptions

REGIONS: dict[str, Box] = {
    "whole": (0, 0, 1, 1),
    "top left": (0, 0, 0.6, 0.6),
    "top right": (0.4, 0, 1, 0.6),
    "bottom left": (0, 0.4, 0.6, 1),
    "bottom right": (0.4, 0.4, 1, 1),
    "centre": (0.2, 0.2, 0.8, 0.8),
}
CANCELLED_NORM = 1e-6  # of a weighted mean, relative to its weights, in which queries cancel out


def compose(
    library: Searchable, resolved: list[ResolvedQuery], options: SearchOptions, *, several: bool
) -> list[ResolvedQuery]:
    """Take parts of queries, embed and combine them, as the options say.

    Raises
    ------
    QueryError
        If the options do not fit the queries.
    """
    if options.regions and (several or options.box is not None):
        raise QueryError("regions=True takes one query, whole: it chooses the boxes itself")
    if options.regions or options.box is not None:
        boxes = REGIONS if options.box is None else {"": options.box}
        resolved = [part for one in resolved for part in cut_boxes(one, boxes)]
    resolved = embed(library, resolved)
    if options.combine is None:
        return resolved
    return [combine_queries(resolved, options.combine, options.weights)]


def cut_boxes(query: ResolvedQuery, boxes: dict[str, Box]) -> list[ResolvedQuery]:
    """Return one query for each part of the picture of a query.

    Parameters
    ----------
    query
        A query with a picture.
    boxes
        The parts by name; one without a name ("") is named by its edges.

    Raises
    ------
    QueryError
        If the query is an embedding, which has no parts, or a box is out of range.
    """
    if query.picture is None:
        raise QueryError("an embedding has no parts: box= and regions= need an image")
    pictures = load_parts(query.picture, boxes.values())  # type: ignore[arg-type]
    parts = []
    for (name, box), picture in zip(boxes.items(), pictures, strict=True):
        where = f"{query.name}, {name or 'box ' + ' '.join(map('{:g}'.format, box))}"
        parts.append(query._replace(name=where, picture=picture, vectors=None, box=tuple(box)))
    return parts


def combine_queries(
    queries: Sequence[ResolvedQuery], how: str, weights: Sequence[float] | None = None
) -> ResolvedQuery:
    """Make one query of several embedded ones, by the mean of their vectors or by all of them.

    Raises
    ------
    QueryError
        If there is no query, the weights do not fit, or the queries cancel each other out.
    """
    if not queries:
        raise QueryError("there is no query to combine; give at least one")
    vectors = np.concatenate([query.vectors for query in queries])
    if how == "mean":
        vectors = weighted_mean(vectors, weights)[None]
    pictures = tuple(query.picture for query in queries if query.picture is not None)
    exclude = frozenset[int]().union(*(query.exclude for query in queries))
    chance = None
    if any(query.chance is not None for query in queries):
        from simsearch.retrieval.text_chance import mixed_chance

        chance = mixed_chance(queries, how, weights)
    name = f"{how} of {len(queries)} queries"
    return ResolvedQuery(name, pictures or None, vectors, exclude, chance=chance)  # type: ignore[arg-type]


def weighted_mean(
    vectors: NDArray[np.float32], weights: Sequence[float] | None = None
) -> NDArray[np.float32]:
    """Mean of (Q, D) embeddings, weighted and scaled to unit norm: (D,) float32."""
    shares = np.ones(len(vectors)) if weights is None else np.asarray(weights)
    fit = shares.shape == (len(vectors),) and shares.dtype.kind in "fiu"
    if not fit or not np.isfinite(shares).all():
        raise QueryError(f"weights={weights}: give {len(vectors)} finite numbers, one per query")
    mean = shares @ vectors.astype(np.float64)
    norm = np.linalg.norm(mean)
    if norm <= CANCELLED_NORM * np.abs(shares).sum():
        raise QueryError(
            "these queries cancel each other out; change the weights, or leave one out"
        )
    return (mean / norm).astype(np.float32)


def rows_of(library: Searchable, images: Any) -> frozenset[int]:  # noqa: ANN401
    """Row numbers of images, without those that the library does not hold.

    Raises
    ------
    QueryError
        If something is neither a row number nor a path.
    """
    one = isinstance(images, (int, np.integer, str, os.PathLike))
    if not one and not isinstance(images, Iterable):
        raise _no_rows(images)
    rows: set[int] = set()
    for image in [images] if one else images:
        if isinstance(image, (bool, np.bool_)):
            raise _no_rows(image)
        if isinstance(image, (int, np.integer)):
            rows |= resolve(library, image).exclude
        elif not isinstance(image, (str, os.PathLike)):
            raise _no_rows(image)
        elif (row := library.find(image)) is not None:
            rows.add(row)
    return frozenset(rows)


def _no_rows(image: object) -> QueryError:
    return QueryError(
        f"{describe(image)} cannot be left out: give row numbers or paths, such as those of a "
        "mask, np.flatnonzero(mask)"
    )


def merge_rankings(library: Searchable, rankings: Sequence[TopK]) -> TopK:
    """Rank rows by the best of their scores; exact as deep as each ranking goes."""
    found = np.concatenate([each.rows for each in rankings])
    rows, which = np.unique(found, return_inverse=True)
    scores = np.full(len(rows), -np.inf)
    np.maximum.at(scores, which, np.concatenate([each.scores for each in rankings]))
    depth = max(len(each.rows) for each in rankings)
    order = np.lexsort((library.paths[rows], -scores))[:depth]
    return TopK(rows[order], scores[order])
