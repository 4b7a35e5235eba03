"""Queries of every kind, resolved: one record of what is asked, with the vectors to rank by."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
from PIL import Image

from simsearch.errors import QueryError
from simsearch.images.decode import describe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from simsearch.images.decode import ImageSource, ImageSources
    from simsearch.library.types import Searchable
    from simsearch.retrieval.text_chance import TextChance
    from simsearch.retrieval.words import Words

Query: TypeAlias = "ImageSource | Words | int | NDArray[np.float32]"
"""Anything that `load_image` takes, `Words`, a row number, or an embedding of (D,) or (1, D)."""

Box: TypeAlias = "tuple[float, float, float, float]"
"""(left, top, right, bottom) in pixels, or in fractions of an image."""

_PLAIN = (str, os.PathLike, bytes, Image.Image, int, np.integer)  # not made of several numbers


class ResolvedQuery(NamedTuple):
    """One query, understood: a row's score is its highest cosine with any of the vectors."""

    name: str  # in words
    picture: ImageSources | None = None  # to look at and, without vectors, to embed
    vectors: NDArray[np.float32] | None = None  # (n, D), unit norm; None until it is embedded
    exclude: frozenset[int] = frozenset()  # rows that may not be found
    box: tuple[float, ...] | None = None
    chance: TextChance | None = None  # what words score by chance, unlike pictures


def as_queries(library: Searchable, given: Any) -> tuple[list[Any], bool]:  # noqa: ANN401
    """Return the queries in what was given, and whether that stands for several."""
    if isinstance(given, _PLAIN):
        return [given], False
    from simsearch.retrieval.arrays import split_queries

    return split_queries(given, library.dim)


def resolve(library: Searchable, query: Any, *, exclude_query: bool = True) -> ResolvedQuery:  # noqa: ANN401
    """Understand one query of any kind; what the library knows already is not embedded again."""
    if not isinstance(query, _PLAIN):
        from simsearch.retrieval.arrays import read_numbers

        query = read_numbers(query, library.dim)
        if hasattr(query, "text"):
            from simsearch.retrieval.words import Words, resolve_words

            if isinstance(query, Words):
                return resolve_words(library, query)
    if isinstance(query, (int, np.integer)) and not isinstance(query, bool):
        row = int(query)
        if not library.has_row(row):
            raise QueryError(f"row {query}: the library has rows 0 to {len(library) - 1}")
        path = str(library.paths[row])
        exclude = frozenset([row] if exclude_query else [])
        return ResolvedQuery(path, path, library.row_lookup[row][None], exclude)
    if isinstance(query, np.ndarray) and query.ndim == 1:
        return ResolvedQuery("embedding", vectors=query[None])
    name = describe(query)
    if isinstance(query, str) and ":" in query and library.find(query) is None:
        from simsearch.images.odd_address import open_address

        query = open_address(query)
        if isinstance(query, bytes):
            return ResolvedQuery(name, query)
    # An opened image knows its file, but may have been edited since: it is embedded as it is.
    opened = isinstance(query, Image.Image)
    file = getattr(query, "filename", None) if opened else query
    found = library.find(file) if isinstance(file, (str, os.PathLike)) else None
    if found is None and isinstance(query, (str, os.PathLike)):
        from simsearch.images.read import check_exists

        check_exists(query)
    known = not opened and found is not None and library.is_current(found)
    return ResolvedQuery(
        name,
        query,
        library.row_lookup[found][None] if known else None,
        frozenset([found] if exclude_query and found is not None else []),
    )


def embed(library: Searchable, queries: Sequence[ResolvedQuery]) -> list[ResolvedQuery]:
    """Embed the queries that have no vectors yet, all together."""
    new = [query.picture for query in queries if query.vectors is None]
    vectors = iter(library.encode(new) if new else ())
    if new:
        from simsearch.retrieval.notes import log_centres

        log_centres(library, new)
    return [
        query._replace(vectors=next(vectors)[None]) if query.vectors is None else query
        for query in queries
    ]
