"""Queries of every kind, resolved into vectors: paths, URLs, bytes, pictures, arrays, rows."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

from simsearch.embedding.dataset import embed_images
from simsearch.errors import ImageError, QueryError
from simsearch.images.decode import crop, describe, load_image
from simsearch.images.download import download, is_url

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, TypeAlias

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
_NOTHING = 1e-6  # length of a taste in which likes and dislikes cancel out


class _Asked(NamedTuple):
    """One query, understood."""

    name: str
    image: ImageSource | None = None
    row: int | None = None  # of the library, if the query is in it
    embedding: NDArray[np.float32] | None = None  # (D,) unit norm, if it is known already
    box: tuple[float, ...] | None = None


def ask_one(library: Searchable, query: Any) -> _Asked:  # noqa: ANN401
    """Resolve one query of any kind."""
    if isinstance(query, (int, np.integer)) and not isinstance(query, bool):
        if not library.has_row(int(query)):
            raise QueryError(f"row {query}: the library has rows 0 to {len(library) - 1}")
        path = str(library.paths[query])
        return _Asked(path, path, int(query), library.embeddings[query])
    if isinstance(query, np.ndarray) and query.ndim == 1:
        return _Asked("embedding", embedding=_unit(query, library.dim))
    if is_url(query):
        return _Asked(query, download(query))
    # An opened image knows its file, but may have been edited since: it is embedded as it is.
    opened = isinstance(query, Image.Image)
    file = getattr(query, "filename", None) if opened else query
    row = library.find(file) if isinstance(file, (str, os.PathLike)) else None
    if row is None and isinstance(query, (str, os.PathLike)):
        _look_for(query)
    known = not opened and row is not None and library.is_current(row)
    return _Asked(describe(query), query, row, library.embeddings[row] if known else None)


def _look_for(path: str | os.PathLike[str]) -> None:
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


def open_image(asked: _Asked) -> Image.Image:
    """Load the image of a query, to cut parts out of it."""
    if asked.image is None:
        raise QueryError("an embedding has no parts: box= and regions= need an image")
    return load_image(asked.image)


def part_of(asked: _Asked, image: Image.Image, box: Box, name: str | None = None) -> _Asked:
    """Ask with a part of an image instead of the whole."""
    part = crop(image, box)
    words = f"{asked.name}, {name or 'box ' + ' '.join(f'{edge:g}' for edge in box)}"
    return _Asked(words, part, asked.row, None, tuple(box))


def _embeddings(library: Searchable, asked: Sequence[_Asked]) -> NDArray[np.float32]:
    """Embed those queries that are not in the library yet: (Q, D) float32."""
    vectors = np.empty((len(asked), library.dim), np.float32)
    new = [i for i, one in enumerate(asked) if one.embedding is None]
    for i, one in enumerate(asked):
        if one.embedding is not None:
            vectors[i] = one.embedding
    if new:
        images: list[Any] = [asked[i].image for i in new]
        vectors[new] = library.through_head(embed_images(images, library.backbone))
    return vectors


class Question(NamedTuple):
    """What is to be ranked: a row's score is its highest cosine with any of the vectors."""

    name: str
    image: ImageSources | None
    vectors: NDArray[np.float32]  # (n, D), unit norm
    without: frozenset[int]  # rows that may not be found
    box: tuple[float, ...] | None = None


def make_questions(
    library: Searchable, asked: Sequence[_Asked], *, exclude_query: bool
) -> list[Question]:
    """Embed resolved queries."""
    vectors = _embeddings(library, asked)
    return [
        Question(
            one.name,
            one.image,
            vectors[i : i + 1],
            frozenset({one.row} if exclude_query and one.row is not None else ()),
            one.box,
        )
        for i, one in enumerate(asked)
    ]


def combine_questions(
    questions: Sequence[Question], combine: str | None, weights: Sequence[float] | None
) -> Question:
    """Make one question of several."""
    if not questions:
        raise QueryError("there is no query to combine; give at least one")
    if combine not in {"mean", "max"} or (combine == "max" and weights is not None):
        raise QueryError(
            f'combine={combine!r}: choose mean or max; weights go with combine="mean" alone'
        )
    vectors = np.concatenate([question.vectors for question in questions])
    if combine == "mean":
        vectors = _taste(vectors, weights)
    name = f"{combine} of {len(questions)} queries"
    images = tuple(question.image for question in questions if question.image is not None)
    without = frozenset[int]().union(*(question.without for question in questions))
    return Question(name, images or None, vectors, without)  # type: ignore[arg-type]


def _taste(vectors: NDArray[np.float32], weights: Sequence[float] | None) -> NDArray[np.float32]:
    """Mean of (Q, D) embeddings, weighted: (1, D) unit norm."""
    shares = np.ones(len(vectors)) if weights is None else np.asarray(weights)
    fit = shares.shape == (len(vectors),) and shares.dtype.kind in "fiu"
    if not fit or not np.isfinite(shares).all():
        raise QueryError(f"weights={weights}: give {len(vectors)} finite numbers, one a query")
    taste = shares @ vectors.astype(np.float64)
    norm = np.linalg.norm(taste)
    if norm <= _NOTHING * np.abs(shares).sum():
        raise QueryError(
            "these queries cancel each other out; change the weights, or leave one out"
        )
    return (taste / norm).astype(np.float32)[None]


def excluded_rows(library: Searchable, images: Any) -> list[int]:  # noqa: ANN401
    """Row numbers of images, without those that the library does not hold."""
    one = isinstance(images, (int, np.integer, str, os.PathLike))
    found = [
        ask_one(library, each).row if isinstance(each, (int, np.integer)) else library.find(each)
        for each in ([images] if one else images)
    ]
    return [row for row in found if row is not None]
