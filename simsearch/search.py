"""Exact cosine top-k: a query of any kind in, the most alike images of a library out.

Scores are cosines everywhere: larger is closer, 1 is the same direction.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, overload

import numpy as np
from PIL import Image

from simsearch.embedding import embed_images
from simsearch.errors import ImageError, QueryError
from simsearch.images import ImageSource, describe, download, is_url
from simsearch.library import ImageLibrary
from simsearch.matches import Match, Matches
from simsearch.scan import Found, top

if TYPE_CHECKING:
    from numpy.typing import NDArray

Query: TypeAlias = "ImageSource | int | NDArray[np.float32]"
"""Anything that `load_image` takes, a row number, or an embedding of shape (D,)."""


@overload
def search(
    library: ImageLibrary,
    query: Query,
    k: int = ...,
    threshold: float | None = ...,
    exclude_query: bool = ...,
) -> Matches: ...
@overload
def search(
    library: ImageLibrary,
    query: list[Any] | tuple[Any, ...],
    k: int = ...,
    threshold: float | None = ...,
    exclude_query: bool = ...,
) -> list[Matches]: ...
def search(
    library: ImageLibrary,
    query: Query | list[Any] | tuple[Any, ...],
    k: int = 5,
    threshold: float | None = None,
    exclude_query: bool = True,
) -> Matches | list[Matches]:
    """Find the images of a library that are most alike to a query.

    Exact: the scores are those of a full scan in float64. Equal scores are ordered by path.

    Parameters
    ----------
    library
        From `embed_dataset` or `ImageLibrary.load`.
    query
        A path (in the library or not), an http(s) URL, bytes, a PIL image, an image array, a row
        number, or an embedding of shape (D,); or a list of these, which are answered together.
    k
        How many matches to return; fewer if the library holds fewer.
    threshold
        Leave out matches whose cosine is lower.
    exclude_query
        Leave out the row that the query itself is.

    Returns
    -------
    Matches, or list of Matches for a list of queries

    Raises
    ------
    QueryError
        If `k`, `threshold` or a row number is out of range, or an embedding does not fit.
    ImageError
        If the query cannot be read.
    BackboneError
        If a new image has to be embedded and the library's backbone cannot be loaded.

    Examples
    --------
    >>> library = ImageLibrary([[1, 0], [0.8, 0.6], [0, 1]], ["a.jpg", "b.jpg", "c.jpg"])
    >>> [(match.path, round(match.score, 3)) for match in search(library, 0, k=2)]
    [('b.jpg', 0.8), ('c.jpg', 0.0)]
    """
    if not isinstance(k, (int, np.integer)) or isinstance(k, bool) or k < 1:
        raise QueryError(f"k={k!r}: ask for a whole number of matches, at least one")
    if threshold is not None and not -1 <= threshold <= 1:
        raise QueryError(f"threshold={threshold}: a cosine lies between -1 and 1")
    queries: Sequence[Any] = query if isinstance(query, (list, tuple)) else [query]
    asked = [_ask(library, one) for one in queries]
    vectors = _embeddings(library, asked)
    answers = []
    for one, found in zip(asked, top(library, vectors, int(k) + exclude_query), strict=True):
        others = found.rows != one.row if exclude_query else slice(None)
        best = Found(found.rows[others][:k], found.scores[others][:k])
        answers.append(Matches(one.name, _matches(library, best, threshold), one.image))
    return answers if queries is query else answers[0]


class _Asked(NamedTuple):
    """One query, understood."""

    name: str
    image: ImageSource | None = None
    row: int | None = None  # of the library, if the query is in it
    embedding: NDArray[np.float32] | None = None  # (D,) unit norm, if it is known already


def _ask(library: ImageLibrary, query: Any) -> _Asked:  # noqa: ANN401
    if isinstance(query, (int, np.integer)) and not isinstance(query, bool):
        if not 0 <= query < len(library):
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


def _embeddings(library: ImageLibrary, asked: Sequence[_Asked]) -> NDArray[np.float32]:
    """Embed those queries that are not in the library yet: (Q, D) float32."""
    vectors = np.empty((len(asked), library.dim), np.float32)
    new: dict[int, Any] = {}
    for i, (_, image, _, embedding) in enumerate(asked):
        if embedding is None:
            new[i] = image
        else:
            vectors[i] = embedding
    if new:
        embedded = embed_images(list(new.values()), library.backbone)
        if library.head:
            embedded = library.head.query(embedded, library.embeddings)
        vectors[list(new)] = embedded
    return vectors


def _matches(library: ImageLibrary, found: Found, threshold: float | None) -> tuple[Match, ...]:
    below = np.searchsorted(library.background, found.scores.astype(np.float32))
    shares = 100 * below / len(library.background) if len(library.background) else below * np.nan
    return tuple(
        Match(rank, str(library.paths[row]), float(score), float(share), int(row))
        for rank, (row, score, share) in enumerate(zip(*found, shares, strict=True), 1)
        if threshold is None or score >= threshold
    )
