"""Ask a library: one image or several, a part of one, likes and dislikes, under conditions.

A query of any kind becomes a question, a ranking answers it, and picking from the ranking gives
the matches. Scores are cosines everywhere: larger is closer, 1 is the same direction.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Any,
    Literal,
    NamedTuple,
    Protocol,
    SupportsFloat,
    TypeAlias,
    TypedDict,
    overload,
)

import numpy as np
from PIL import Image

from simsearch.duplicates import NEAR_DUPLICATE
from simsearch.embedding import embed_images
from simsearch.errors import ImageError, QueryError
from simsearch.gallery import Gallery, Rows
from simsearch.images import (
    ImageSource,
    Pictured,
    crop,
    describe,
    download,
    is_url,
    load_image,
)
from simsearch.matches import Match, Matches
from simsearch.scan import Found, top

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from typing_extensions import Unpack

Query: TypeAlias = "ImageSource | int | NDArray[np.float32]"
"""Anything that `load_image` takes, a row number, or an embedding of shape (D,)."""

Box: TypeAlias = "tuple[float, float, float, float]"
"""(left, top, right, bottom) in pixels, or in fractions of an image."""

Threshold: TypeAlias = "SupportsFloat | Literal['auto'] | None"
"""A cosine, "auto" for `ImageLibrary.threshold`, or None for no threshold."""

REGIONS: dict[str, Box] = {
    "whole": (0, 0, 1, 1),
    "top left": (0, 0, 0.6, 0.6),
    "top right": (0.4, 0, 1, 0.6),
    "bottom left": (0, 0.4, 0.6, 1),
    "bottom right": (0.4, 0.4, 1, 1),
    "centre": (0.2, 0.2, 0.8, 0.8),
}
_POOL = 10  # candidates for each match, from which `diversity` picks
_DEEPER = 4  # how many times more rows are ranked where folding has left too few
_NOTHING = 1e-6  # length of a taste in which likes and dislikes cancel out


class Index(Protocol):
    """What stands in for the scan of all rows, such as a `FaissIndex`."""

    exact: bool

    def check(self, library: Any) -> None:  # noqa: ANN401
        """Raise an error if it was not made for this library."""

    def top(
        self,
        library: Any,  # noqa: ANN401
        vectors: NDArray[np.float32],
        k: int,
        among: Any = None,  # noqa: ANN401
    ) -> Iterator[Found]:
        """Find rows as `scan.top` does; `among` is what the library's own method gives."""


class _Options(TypedDict, total=False):
    where: Rows
    weights: Sequence[float] | None
    box: Box | None
    diversity: float
    unique: bool | float
    false_match_rate: float
    index: Index | None


@overload
def search(
    library: Gallery,
    query: Query,
    k: int = ...,
    threshold: Threshold = ...,
    exclude_query: bool = ...,
    *,
    regions: Literal[False] = ...,
    **options: Unpack[_Options],
) -> Matches: ...
@overload
def search(
    library: Gallery,
    query: Query,
    k: int = ...,
    threshold: Threshold = ...,
    exclude_query: bool = ...,
    *,
    regions: Literal[True],
    **options: Unpack[_Options],
) -> list[Matches]: ...
@overload
def search(
    library: Gallery,
    query: list[Any] | tuple[Any, ...],
    k: int = ...,
    threshold: Threshold = ...,
    exclude_query: bool = ...,
    *,
    combine: None = ...,
    **options: Unpack[_Options],
) -> list[Matches]: ...
@overload
def search(
    library: Gallery,
    query: list[Any] | tuple[Any, ...],
    k: int = ...,
    threshold: Threshold = ...,
    exclude_query: bool = ...,
    *,
    combine: Literal["mean", "max"],
    **options: Unpack[_Options],
) -> Matches: ...
def search(
    library: Gallery,
    query: Query | list[Any] | tuple[Any, ...],
    k: int = 5,
    threshold: Threshold = None,
    exclude_query: bool = True,
    *,
    where: Rows = None,
    combine: Literal["mean", "max"] | None = None,
    weights: Sequence[float] | None = None,
    box: Box | None = None,
    regions: bool = False,
    diversity: float = 0.0,
    unique: bool | float = False,
    false_match_rate: float = 1e-3,
    index: Index | None = None,
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
        How many matches to return; fewer if there are fewer.
    threshold
        Leave out matches whose cosine is lower. "auto" takes `ImageLibrary.threshold`.
    exclude_query
        Leave out the rows that the query itself is.
    where
        Search among these alone: what `ImageLibrary.where` takes, such as ``"shoes/*"`` or
        ``{"price": (None, 50)}``.
    combine
        Take a list of queries for one taste: "mean" searches with the mean of their embeddings,
        "max" scores an image by the query that it is most alike to.
    weights
        With "mean", how much each query counts; a negative one leads away.
    box
        Search with a part of the query: (left, top, right, bottom) in pixels, or in fractions.
    regions
        Search with several parts of the query, `REGIONS`, and return the matches of each.
    diversity
        From 0 to 1: how much it counts against a match that it is like the matches before it
        (maximal marginal relevance [1]_). Picks among the best 10 × `k`; at 0, by score alone.
    unique
        Fold near-duplicates of a match into it; True stands for a cosine from 0.95 up.
    false_match_rate
        With ``threshold="auto"``, the share of random pairs that may reach the threshold.
    index
        From `build_index`: finds approximately what the scan of all rows finds exactly.

    Returns
    -------
    Matches, or list of Matches for a list of queries or for regions

    Raises
    ------
    QueryError
        If an option or a row number is out of range, or an embedding does not fit.
    ImageError
        If the query cannot be read.
    BackboneError
        If a new image has to be embedded and the library's backbone cannot be loaded.

    References
    ----------
    .. [1] J. Carbonell, J. Goldstein: The use of MMR, diversity-based reranking for reordering
       documents and producing summaries. SIGIR 1998.

    Examples
    --------
    >>> from simsearch import ImageLibrary
    >>> library = ImageLibrary([[1, 0], [0.8, 0.6], [0, 1]], ["a.jpg", "b.jpg", "c.jpg"])
    >>> [(match.path, round(match.score, 3)) for match in search(library, 0, k=2)]
    [('b.jpg', 0.8), ('c.jpg', 0.0)]
    """
    wish = _wish(
        library,
        k=k,
        threshold=threshold,
        where=where,
        diversity=diversity,
        unique=unique,
        false_match_rate=false_match_rate,
        index=index,
    )
    several = isinstance(query, (list, tuple))
    if regions and (several or box is not None):
        raise QueryError("regions=True takes one query, whole: it chooses the boxes itself")
    asked = [_ask(library, one) for one in (query if several else [query])]  # type: ignore[union-attr]
    if box is not None:
        asked = [_part(one, _opened(one), box) for one in asked]
    if regions:
        image = _opened(asked[0])
        asked = [_part(asked[0], image, part, name) for name, part in REGIONS.items()]
    questions = _questions(library, asked, exclude_query=exclude_query)
    if combine is not None or weights is not None:
        questions = [_combined(questions, combine, weights)]
    answers = list(_answers(library, questions, wish))
    return answers if regions or (several and combine is None) else answers[0]


def recommend(
    library: Gallery,
    liked: Query | Sequence[Any],
    disliked: Query | Sequence[Any] = (),
    k: int = 5,
    exclude: Collection[int | str | os.PathLike[str]] = (),
    *,
    dislike: float = 0.25,
    threshold: Threshold = None,
    where: Rows = None,
    diversity: float = 0.0,
    unique: bool | float = False,
    false_match_rate: float = 1e-3,
    index: Index | None = None,
) -> Matches:
    """Find what somebody may like, from what they liked and what they did not.

    Searches with the mean embedding of what was liked, less `dislike` times the mean of what was
    disliked, as relevance feedback does [1]_. What was liked or disliked is not recommended.

    Parameters
    ----------
    library
        From `embed_dataset` or `ImageLibrary.load`.
    liked, disliked
        Each a list of what `search` takes (paths, row numbers, new images, embeddings), or one.
    k
        How many matches to return; fewer if there are fewer.
    exclude
        Rows or paths that must not be recommended, such as what was seen already. Paths that the
        library does not hold are passed over.
    dislike
        Weight of the disliked, from 0 up. Among photos of six kinds of scenes, 0.25 to 0.4 serve
        best, and from 0.75 on it leads astray (`benchmarks/recommend.py`).
    threshold, where, diversity, unique, false_match_rate, index
        As in `search`.

    Returns
    -------
    Matches
        Scores are cosines with the taste that the two lists make.

    Raises
    ------
    QueryError
        If nothing is liked, likes and dislikes cancel out, or an option is out of range.
    ImageError
        If an image cannot be read.

    References
    ----------
    .. [1] J. Rocchio: Relevance feedback in information retrieval. In: The SMART retrieval system,
       1971.

    Examples
    --------
    >>> from simsearch import ImageLibrary
    >>> rows = [[1, 0, 0], [0.8, 0.6, 0], [0.8, 0, 0.6], [0, 1, 0]]
    >>> library = ImageLibrary(rows, ["a.jpg", "b.jpg", "c.jpg", "d.jpg"])
    >>> recommend(library, liked=["a.jpg"], disliked=["d.jpg"]).paths
    ['c.jpg', 'b.jpg']
    """
    if not 0 <= dislike < math.inf:
        raise QueryError(f"dislike={dislike}: give a weight from 0 up")
    sides = [list(x) if isinstance(x, (list, tuple)) else [x] for x in (liked, disliked)]
    if not sides[0]:
        raise QueryError("nothing is liked; give at least one image")
    wish = _wish(
        library,
        k=k,
        threshold=threshold,
        where=where,
        diversity=diversity,
        unique=unique,
        false_match_rate=false_match_rate,
        index=index,
        without=_rows_of(library, exclude),
    )
    asked = [_ask(library, one) for side in sides for one in side]
    weights = [1 / len(sides[0])] * len(sides[0])
    weights += [-dislike / max(1, len(sides[1]))] * len(sides[1])
    taste = _combined(_questions(library, asked, exclude_query=True), "mean", weights)
    words = f"{len(sides[0])} liked"
    if sides[1]:
        words += f", {len(sides[1])} disliked"
    images = tuple(one.image for one in asked[: len(sides[0])] if one.image is not None)
    return next(_answers(library, [taste._replace(name=words, image=images or None)], wish))


# What is asked


class _Asked(NamedTuple):
    """One query, understood."""

    name: str
    image: ImageSource | None = None
    row: int | None = None  # of the library, if the query is in it
    embedding: NDArray[np.float32] | None = None  # (D,) unit norm, if it is known already
    box: tuple[float, ...] | None = None


def _ask(library: Gallery, query: Any) -> _Asked:  # noqa: ANN401
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


def _opened(asked: _Asked) -> Image.Image:
    """Load the image of a query, to cut parts out of it."""
    if asked.image is None:
        raise QueryError("an embedding has no parts: box= and regions= need an image")
    return load_image(asked.image)


def _part(asked: _Asked, image: Image.Image, box: Box, name: str | None = None) -> _Asked:
    """Ask with a part of an image instead of the whole."""
    part = crop(image, box)
    words = f"{asked.name}, {name or 'box ' + ' '.join(f'{edge:g}' for edge in box)}"
    return _Asked(words, part, asked.row, None, tuple(box))


def _embeddings(library: Gallery, asked: Sequence[_Asked]) -> NDArray[np.float32]:
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


class _Question(NamedTuple):
    """What is to be ranked: a row's score is its highest cosine with any of the vectors."""

    name: str
    image: Pictured | None
    vectors: NDArray[np.float32]  # (n, D), unit norm
    without: frozenset[int]  # rows that may not be found
    box: tuple[float, ...] | None = None


def _questions(
    library: Gallery, asked: Sequence[_Asked], *, exclude_query: bool
) -> list[_Question]:
    vectors = _embeddings(library, asked)
    return [
        _Question(
            one.name,
            one.image,
            vectors[i : i + 1],
            frozenset({one.row} if exclude_query and one.row is not None else ()),
            one.box,
        )
        for i, one in enumerate(asked)
    ]


def _combined(
    questions: Sequence[_Question], combine: str | None, weights: Sequence[float] | None
) -> _Question:
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
    return _Question(name, images or None, vectors, without)  # type: ignore[arg-type]


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


def _rows_of(library: Gallery, images: Any) -> list[int]:  # noqa: ANN401
    """Row numbers of images, without those that the library does not hold."""
    one = isinstance(images, (int, np.integer, str, os.PathLike))
    found = [
        _ask(library, each).row if isinstance(each, (int, np.integer)) else library.find(each)
        for each in ([images] if one else images)
    ]
    return [row for row in found if row is not None]


# What is wished of the answer


class _Wish(NamedTuple):
    """The options of a search, checked."""

    k: int
    floor: float  # cosine
    among: Any  # what the library's engine takes for a condition; None for all rows
    diversity: float
    unique: float | None  # cosine
    engine: Index | None

    @property
    def pool(self) -> int:
        """How many candidates to pick from."""
        return self.k * _POOL if self.diversity else self.k

    @property
    def depth(self) -> int:
        """How many rows to rank: where repeats are folded, until the first that is not needed."""
        return self.pool if self.unique is None else self.pool + 1


def _wish(
    library: Gallery,
    *,
    k: int,
    threshold: Threshold,
    where: Rows,
    diversity: float,
    unique: bool | float,
    false_match_rate: float,
    index: Index | None,
    without: Collection[int] = (),
) -> _Wish:
    if not isinstance(k, (int, np.integer)) or isinstance(k, bool) or k < 1:
        raise QueryError(f"k={k!r}: ask for a whole number of matches, at least one")
    if isinstance(threshold, str) and threshold != "auto":
        raise QueryError(f'threshold={threshold!r}: give a cosine, or "auto"')
    if threshold == "auto":
        floor = library.threshold(false_match_rate)
    else:
        floor = -math.inf if threshold is None else _cosine("threshold", threshold)
    if not 0 <= diversity <= 1:
        raise QueryError(f"diversity={diversity}: give a number from 0 to 1")
    fold = None if unique is False else NEAR_DUPLICATE if unique is True else unique
    if index is not None and library.engine is not None:
        raise QueryError(f"index= goes with a library of files; {library!r} has its own")
    engine = library.engine if index is None else index
    if engine is not None:
        engine.check(library)
    return _Wish(
        int(k),
        floor,
        library.among(where, without),
        diversity,
        None if fold is None else _cosine("unique", fold),
        engine,
    )


def _cosine(name: str, value: SupportsFloat) -> float:
    if not -1 <= float(value) <= 1:
        raise QueryError(f"{name}={value}: a cosine lies between -1 and 1")
    return float(value)


# The answer


def _answers(library: Gallery, questions: Sequence[_Question], wish: _Wish) -> Iterator[Matches]:
    for question, found in zip(
        questions, _rankings(library, questions, wish, wish.depth), strict=True
    ):
        picks = _picked(library, question, found, wish)
        yield Matches(
            question.name,
            _matches(library, picks),
            question.image,
            wish.engine is None or wish.engine.exact,
            question.box,
            library,
            question.vectors[0] if len(question.vectors) == 1 else None,
        )


def _rankings(
    library: Gallery, questions: Sequence[_Question], wish: _Wish, depth: int
) -> Iterator[Found]:
    """Rank the best rows for each question, `depth` of them if there are."""
    if not questions:
        return
    find: Callable[..., Iterator[Found]] = wish.engine.top if wish.engine else top
    vectors = np.concatenate([question.vectors for question in questions])
    spare = max(len(question.without) for question in questions)
    found = find(library, vectors, depth + spare, wish.among)
    for question in questions:
        merged = _merged(library, list(islice(found, len(question.vectors))))
        fit = (merged.scores >= wish.floor) & ~np.isin(merged.rows, list(question.without))
        yield Found(merged.rows[fit][:depth], merged.scores[fit][:depth])


def _merged(library: Gallery, rankings: Sequence[Found]) -> Found:
    """Rank rows by the best of their scores; exact as deep as each ranking goes."""
    if len(rankings) == 1:
        return rankings[0]
    rows, which = np.unique(np.concatenate([each.rows for each in rankings]), return_inverse=True)
    scores = np.full(len(rows), -np.inf)
    np.maximum.at(scores, which, np.concatenate([each.scores for each in rankings]))
    order = np.lexsort((library.paths[rows], -scores))[: max(len(each.rows) for each in rankings)]
    return Found(rows[order], scores[order])


class _Pick(NamedTuple):
    """A row that becomes a match, and the near-duplicates that it stands for."""

    row: int
    score: float
    folded: list[int]


def _picked(library: Gallery, question: _Question, found: Found, wish: _Wish) -> list[_Pick]:
    depth, picks = wish.depth, _folded(library, found, wish)
    while len(picks) < wish.depth and len(found.rows) == depth:  # there is more, further down
        depth *= _DEEPER
        (found,) = _rankings(library, [question], wish, depth)
        picks = _folded(library, found, wish)
    picks = picks[: wish.pool]
    return _diverse(library, picks, wish) if wish.diversity else picks


def _folded(library: Gallery, found: Found, wish: _Wish) -> list[_Pick]:
    """Go down a ranking, folding each near-duplicate into the best match that it is like."""
    ranking = zip(found.rows.tolist(), found.scores.tolist(), strict=True)
    if wish.unique is None:
        return [_Pick(row, score, []) for row, score in ranking]
    picks: list[_Pick] = []
    kept = np.empty((wish.depth, library.dim))
    for row, score in ranking:
        alike = _cosines(kept[: len(picks)], library.embeddings[row]) >= wish.unique
        if alike.any():
            picks[int(alike.argmax())].folded.append(row)
            continue
        kept[len(picks)] = library.embeddings[row]
        picks.append(_Pick(row, score, []))
        if len(picks) == len(kept):
            break
    return picks


def _diverse(library: Gallery, picks: Sequence[_Pick], wish: _Wish) -> list[_Pick]:
    """Choose k of the pool by maximal marginal relevance, one after another."""
    rows = library.embeddings[[pick.row for pick in picks]].astype(np.float64)
    scores = (1 - wish.diversity) * np.array([pick.score for pick in picks])
    nearest = np.full(len(picks), -np.inf)  # cosine with the most alike that was chosen
    chosen: list[int] = []
    for _ in range(min(wish.k, len(picks))):
        gain = scores - (wish.diversity * nearest if chosen else 0)
        gain[chosen] = -np.inf
        chosen.append(int(gain.argmax()))
        nearest = np.maximum(nearest, _cosines(rows, rows[chosen[-1]]))
    return [picks[i] for i in chosen]


def _cosines(rows: NDArray[np.float64], row: NDArray[Any]) -> NDArray[np.float64]:
    """Cosine of each of (n, D) unit rows with one: a sum a row, so that equal rows stay equal."""
    cosines: NDArray[np.float64] = (rows * row).sum(axis=1)
    return cosines


def _matches(library: Gallery, picks: Sequence[_Pick]) -> tuple[Match, ...]:
    background = library.background
    below = np.searchsorted(background, np.array([pick.score for pick in picks], np.float32))
    shares = 100 * below / len(background) if len(background) else below * np.nan
    return tuple(
        Match(
            rank,
            str(library.paths[pick.row]),
            pick.score,
            float(share),
            pick.row,
            library.caption(pick.row),
            library.facts(pick.row),
            tuple(library.paths[pick.folded].tolist()) if pick.folded else (),
        )
        for rank, (pick, share) in enumerate(zip(picks, shares, strict=True), 1)
    )
