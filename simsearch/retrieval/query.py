"""Queries of every kind, resolved: one record of what is asked, with the vectors to rank by."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
from PIL import Image

from simsearch.errors import ImageError, QueryError
from simsearch.images.address import is_url
from simsearch.images.decode import crop, describe, load_image

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from simsearch.images.decode import ImageSource, ImageSources
    from simsearch.library.types import Searchable

Query: TypeAlias = "ImageSource | int | NDArray[np.float32]"
"""Anything that `load_image` takes, a row number, or an embedding of shape (D,)."""

Box: TypeAlias = "tuple[float, float, float, float]"
"""(left, top, right, bottom) in pixels, or in fractions of an image."""

REGIONS: dict[str, Box] = {
    "whole": (0, 0, 1, 1),
    "top left": (0, 0, 0.6, 0.6),
    "top right": (0.4, 0, 1, 0.6),
    "bottom left": (0, 0.4, 0.6, 1),
    "bottom right": (0.4, 0.4, 1, 1),
    "centre": (0.2, 0.2, 0.8, 0.8),
}
CANCELLED_NORM = 1e-6  # of a weighted mean, relative to its weights, in which queries cancel out


class ResolvedQuery(NamedTuple):
    """One query, understood: a row's score is its highest cosine with any of the vectors."""

    name: str  # in words
    picture: ImageSources | None = None  # to look at and, without vectors, to embed
    vectors: NDArray[np.float32] | None = None  # (n, D), unit norm; None until it is embedded
    exclude: frozenset[int] = frozenset()  # rows that may not be found
    box: tuple[float, ...] | None = None


def resolve(library: Searchable, query: Any, *, exclude_query: bool = True) -> ResolvedQuery:  # noqa: ANN401
    """Understand one query of any kind; what the library knows already is not embedded again.

    Raises
    ------
    QueryError
        If a row number is out of range, or an embedding does not fit.
    ImageError
        If a file or an address cannot be read.
    """
    if isinstance(query, (int, np.integer)) and not isinstance(query, bool):
        row = int(query)
        if not library.has_row(row):
            raise QueryError(f"row {query}: the library has rows 0 to {len(library) - 1}")
        path = str(library.paths[row])
        exclude = frozenset([row] if exclude_query else [])
        return ResolvedQuery(path, path, library.embeddings[row][None], exclude)
    if isinstance(query, np.ndarray) and query.ndim == 1:
        return ResolvedQuery("embedding", vectors=_unit(query, library.dim)[None])
    if is_url(query):
        from simsearch.images.download import download

        return ResolvedQuery(query, download(query))
    # An opened image knows its file, but may have been edited since: it is embedded as it is.
    opened = isinstance(query, Image.Image)
    file = getattr(query, "filename", None) if opened else query
    found = library.find(file) if isinstance(file, (str, os.PathLike)) else None
    if found is None and isinstance(query, (str, os.PathLike)):
        _check_exists(query)
    known = not opened and found is not None and library.is_current(found)
    return ResolvedQuery(
        describe(query),
        query,
        library.embeddings[found][None] if known else None,
        frozenset([found] if exclude_query and found is not None else []),
    )


def _check_exists(path: str | os.PathLike[str]) -> None:
    """Fail on a mistyped path at once, not after a backbone has been loaded for it."""
    try:
        Path(path).expanduser().stat()
    except (OSError, ValueError) as error:
        reason = str(getattr(error, "strerror", None) or error).lower()
        raise ImageError(reason, describe(path)) from error


def _unit(vector: NDArray[Any], dim: int) -> NDArray[np.float32]:
    norm = np.linalg.norm(vector.astype(np.float64)) if vector.dtype.kind in "fiu" else np.nan
    if vector.shape != (dim,) or not np.isfinite(norm) or norm == 0:
        raise QueryError(
            f"an array of shape {vector.shape} and dtype {vector.dtype} is neither an image nor "
            f"an embedding of this library: ({dim},), finite and not zero"
        )
    return (vector / norm).astype(np.float32)


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
    image = load_image(query.picture)  # type: ignore[arg-type]
    parts = []
    for name, box in boxes.items():
        picture = crop(image, box)  # which checks the box
        where = name or "box " + " ".join(f"{edge:g}" for edge in box)
        words = f"{query.name}, {where}"
        parts.append(query._replace(name=words, picture=picture, vectors=None, box=tuple(box)))
    return parts


def embed(library: Searchable, queries: Sequence[ResolvedQuery]) -> list[ResolvedQuery]:
    """Embed the queries that have no vectors yet, all together."""
    new = [query.picture for query in queries if query.vectors is None]
    vectors = iter(library.encode(new) if new else ())
    return [
        query._replace(vectors=next(vectors)[None]) if query.vectors is None else query
        for query in queries
    ]


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
    return ResolvedQuery(f"{how} of {len(queries)} queries", pictures or None, vectors, exclude)  # type: ignore[arg-type]


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
    """Row numbers of images, without those that the library does not hold."""
    one = isinstance(images, (int, np.integer, str, os.PathLike))
    rows: set[int] = set()
    for image in [images] if one else images:
        if isinstance(image, (int, np.integer)):
            rows |= resolve(library, image).exclude
        elif (row := library.find(image)) is not None:
            rows.add(row)
    return frozenset(rows)
