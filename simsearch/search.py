"""Exact cosine top-k: a query of any kind in, the most alike images of a library out.

Scores are cosines everywhere: larger is closer, 1 is the same direction.
"""

from __future__ import annotations

import base64
import html
import io
import json
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, overload

import numpy as np
from PIL import Image

from simsearch.embedding import embed_images
from simsearch.errors import ImageError, QueryError
from simsearch.images import ImageSource, describe, download, is_url, load_image
from simsearch.library import ImageLibrary

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

Query: TypeAlias = "ImageSource | int | NDArray[np.float32]"
"""Anything that `load_image` takes, a row number, or an embedding of shape (D,)."""

_BLOCK = 1024  # rows that are scored exactly together
_WAKE_BYTES = 2**28  # of rows, times queries, from which on all cores share a product
_SCORES_BYTES = 2**26  # of scores that are held at once, however many queries there are


@dataclass(frozen=True)
class Match:
    """One image of the library, found for a query.

    Attributes
    ----------
    rank : int
        1 is the most alike.
    path : str
        As in the library's `paths`.
    score : float
        Cosine of query and image, in [-1, 1].
    percentile : float
        Share of random pairs of this library that are less alike, in percent; NaN for a library
        of one image. A cosine alone tells little: in some libraries any two images reach 0.8.
    row : int
        Row number in the library.
    """

    rank: int
    path: str
    score: float
    percentile: float
    row: int


@dataclass(frozen=True)
class Matches(Sequence[Match]):
    """The answer to one query: its matches in order, and the query itself.

    Prints as a table, shows thumbnails as a notebook's bare last value, and is a sequence of
    `Match`.

    Attributes
    ----------
    query : str
        The query in words: its path, or what kind of image it is.
    rows : tuple of Match
        Best first.
    image : ImageSource or None
        The query to look at; None if it was an embedding.
    """

    query: str
    rows: tuple[Match, ...]
    image: ImageSource | None = field(default=None, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> Match: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Match, ...]: ...
    def __getitem__(self, index: int | slice) -> Match | tuple[Match, ...]:
        return self.rows[index]

    @property
    def paths(self) -> list[str]:
        """Path of each match."""
        return [match.path for match in self.rows]

    @property
    def scores(self) -> NDArray[np.float32]:
        """Cosine of each match: (k,) float32."""
        return np.array([match.score for match in self.rows], np.float32)

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python values, ready for JSON (a NaN becomes None)."""
        rows = [asdict(match) for match in self.rows]
        for row in rows:
            row["percentile"] = None if math.isnan(row["percentile"]) else row["percentile"]
        return {"query": self.query, "matches": rows}

    def to_json(self, indent: int | None = None) -> str:
        """Return the matches as a JSON object with `query` and `matches`."""
        return json.dumps(self.to_dict(), indent=indent)

    def to_frame(self) -> pd.DataFrame:
        """Return a pandas frame with a row a match, indexed by rank."""
        import pandas as pd

        columns = ["rank", "path", "score", "percentile", "row"]
        return pd.DataFrame([asdict(match) for match in self.rows], columns=columns).set_index(
            "rank"
        )

    def __str__(self) -> str:
        lines = [f"{len(self)} matches for {self.query}"]
        lines += [
            f"{m.rank:>4}  {m.score:6.3f}  {percentile(m.percentile):>9}  {m.path}"
            for m in self.rows
        ]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        cards = [_card(self.image, "query", self.query)] if self.image is not None else []
        cards += [
            _card(m.path, f"{m.rank}. {m.score:.3f} ({percentile(m.percentile)})", m.path)
            for m in self.rows
        ]
        return f'<div style="display:flex;flex-wrap:wrap;gap:12px">{"".join(cards)}</div>'


def percentile(value: float) -> str:
    """Put a percentile in words: "top 0.4%" where it is high, since that is where matches lie."""
    if math.isnan(value):
        return "–"
    return f"top {max(100 - value, 0.01):.2g}%" if value > 50 else f"low {value:.0f}%"


def _card(source: ImageSource, title: str, caption: str) -> str:
    picture = '<div style="height:112px">(unreadable)</div>'
    try:
        thumbnail = load_image(source, min_side=224)
        thumbnail.thumbnail((224, 224))
        data = io.BytesIO()
        thumbnail.save(data, "JPEG", quality=85)
        code = base64.b64encode(data.getvalue()).decode()
        picture = f'<img style="height:112px" src="data:image/jpeg;base64,{code}">'
    except ImageError:
        pass  # the file has gone since; its path and score still stand
    name = html.escape(caption)
    return (
        f'<figure style="margin:0;width:min-content" title="{name}">{picture}<figcaption>'
        f"<b>{html.escape(title)}</b><br><small>{name}</small></figcaption></figure>"
    )


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
    for one, vector, scores in zip(asked, vectors, _scores(library, vectors), strict=True):
        if exclude_query and one.row is not None:
            scores[one.row] = -np.inf
        rows = _matches(library, _top(library, vector, scores, k), threshold)
        answers.append(Matches(one.name, rows, one.image))
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


def _scores(library: ImageLibrary, vectors: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    """Cosine of every row with each query in turn: (N,) float32."""
    at_once = max(1, _SCORES_BYTES // (4 * len(library)))
    rows = np.asarray(library.embeddings)
    for i in range(0, len(vectors), at_once):
        block = vectors[i : i + at_once]
        with _one_blas_thread() if rows.nbytes * len(block) < _WAKE_BYTES else nullcontext():
            scores = block @ rows.T
        yield from np.clip(scores, -1, 1, out=scores)  # rounding can pass 1 by 1e-7


def _one_blas_thread() -> AbstractContextManager[object]:
    """Keep numpy's BLAS from waking its threads: they spin on for some 30 ms after a product.

    That is longer than a small product takes, and slows the forward pass of the next query.
    """
    limit: AbstractContextManager[object] = _thread_pools().limit(limits=1, user_api="blas")
    return limit


@lru_cache(maxsize=1)
def _thread_pools() -> Any:  # noqa: ANN401 (threadpoolctl has no types)
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def _top(
    library: ImageLibrary, vector: NDArray[np.float32], scores: NDArray[np.float32], k: int
) -> list[tuple[int, float]]:
    """Return row and exact score of the k best, given their float32 scores."""
    k = min(int(k), int(np.isfinite(scores).sum()))
    if not k:
        return []
    # Rounding moves a float32 product of unit vectors by less than this (Higham, 2002, ch. 3; the
    # 1 and the 1% are for the norms and for the bar), so the true winners are within twice of it.
    error = 1.01 * (library.dim + 1) * 2.0**-24
    bar = np.partition(scores, -k)[-k] - 2 * error
    rows = np.flatnonzero(scores >= bar)
    exact = np.concatenate(
        [
            # A sum a row, not a matrix product: equal rows get equal scores, wherever they stand.
            (library.embeddings[rows[i : i + _BLOCK]].astype(np.float64) * vector).sum(axis=1)
            for i in range(0, len(rows), _BLOCK)
        ]
    )
    exact = np.clip(exact, -1, 1)
    best = np.lexsort((library.paths[rows], -exact))[:k]
    return [(int(rows[i]), float(exact[i])) for i in best]


def _matches(
    library: ImageLibrary, top: Sequence[tuple[int, float]], threshold: float | None
) -> tuple[Match, ...]:
    scores = np.array([score for _, score in top], np.float32)
    below = np.searchsorted(library.background, scores)
    shares = 100 * below / len(library.background) if len(library.background) else below * np.nan
    return tuple(
        Match(rank, str(library.paths[row]), score, float(share), row)
        for rank, ((row, score), share) in enumerate(zip(top, shares, strict=True), 1)
        if threshold is None or score >= threshold
    )
