"""Search and recommendation: queries in, matches out.

A query is resolved, an index ranks, and reranking picks the matches. Scores are cosines
everywhere: larger is closer, 1 is the same direction.
"""

from __future__ import annotations

import math
from itertools import islice
from typing import TYPE_CHECKING, overload

import numpy as np

from simsearch.errors import QueryError
from simsearch.retrieval.exact import top
from simsearch.retrieval.matches import Match, Matches
from simsearch.retrieval.options import make_wish
from simsearch.retrieval.query import (
    REGIONS,
    ask_one,
    combine_questions,
    excluded_rows,
    make_questions,
    open_image,
    part_of,
)
from simsearch.retrieval.rerank import fold_duplicates, spread_out
from simsearch.retrieval.topk import TopK

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Collection, Iterator, Sequence
    from typing import Any, Literal

    from typing_extensions import Unpack

    from simsearch.library.types import Rows, Searchable
    from simsearch.retrieval.options import Index, SearchOptionTypes, Threshold, Wish
    from simsearch.retrieval.query import Box, Query, Question
    from simsearch.retrieval.rerank import Pick

_DEEPER = 4  # how many times more rows are ranked where folding has left too few


@overload
def search(
    library: Searchable,
    query: Query,
    k: int = ...,
    threshold: Threshold = ...,
    exclude_query: bool = ...,
    *,
    regions: Literal[False] = ...,
    **options: Unpack[SearchOptionTypes],
) -> Matches: ...
@overload
def search(
    library: Searchable,
    query: Query,
    k: int = ...,
    threshold: Threshold = ...,
    exclude_query: bool = ...,
    *,
    regions: Literal[True],
    **options: Unpack[SearchOptionTypes],
) -> list[Matches]: ...
@overload
def search(
    library: Searchable,
    query: list[Any] | tuple[Any, ...],
    k: int = ...,
    threshold: Threshold = ...,
    exclude_query: bool = ...,
    *,
    combine: None = ...,
    **options: Unpack[SearchOptionTypes],
) -> list[Matches]: ...
@overload
def search(
    library: Searchable,
    query: list[Any] | tuple[Any, ...],
    k: int = ...,
    threshold: Threshold = ...,
    exclude_query: bool = ...,
    *,
    combine: Literal["mean", "max"],
    **options: Unpack[SearchOptionTypes],
) -> Matches: ...
def search(
    library: Searchable,
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
    wish = make_wish(
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
    asked = [ask_one(library, one) for one in (query if several else [query])]  # type: ignore[union-attr]
    if box is not None:
        asked = [part_of(one, open_image(one), box) for one in asked]
    if regions:
        image = open_image(asked[0])
        asked = [part_of(asked[0], image, part, name) for name, part in REGIONS.items()]
    questions = make_questions(library, asked, exclude_query=exclude_query)
    if combine is not None or weights is not None:
        questions = [combine_questions(questions, combine, weights)]
    answers = list(_answers(library, questions, wish))
    return answers if regions or (several and combine is None) else answers[0]


def recommend(
    library: Searchable,
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
    wish = make_wish(
        library,
        k=k,
        threshold=threshold,
        where=where,
        diversity=diversity,
        unique=unique,
        false_match_rate=false_match_rate,
        index=index,
        without=excluded_rows(library, exclude),
    )
    asked = [ask_one(library, one) for side in sides for one in side]
    weights = [1 / len(sides[0])] * len(sides[0])
    weights += [-dislike / max(1, len(sides[1]))] * len(sides[1])
    taste = combine_questions(make_questions(library, asked, exclude_query=True), "mean", weights)
    words = f"{len(sides[0])} liked"
    if sides[1]:
        words += f", {len(sides[1])} disliked"
    images = tuple(one.image for one in asked[: len(sides[0])] if one.image is not None)
    return next(_answers(library, [taste._replace(name=words, image=images or None)], wish))


def _answers(library: Searchable, questions: Sequence[Question], wish: Wish) -> Iterator[Matches]:
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
    library: Searchable, questions: Sequence[Question], wish: Wish, depth: int
) -> Iterator[TopK]:
    """Rank the best rows for each question, `depth` of them if there are."""
    if not questions:
        return
    find: Callable[..., Iterator[TopK]] = wish.engine.top if wish.engine else top
    vectors = np.concatenate([question.vectors for question in questions])
    spare = max(len(question.without) for question in questions)
    found = find(library, vectors, depth + spare, wish.among)
    for question in questions:
        merged = _merged(library, list(islice(found, len(question.vectors))))
        fit = (merged.scores >= wish.floor) & ~np.isin(merged.rows, list(question.without))
        yield TopK(merged.rows[fit][:depth], merged.scores[fit][:depth])


def _merged(library: Searchable, rankings: Sequence[TopK]) -> TopK:
    """Rank rows by the best of their scores; exact as deep as each ranking goes."""
    if len(rankings) == 1:
        return rankings[0]
    rows, which = np.unique(np.concatenate([each.rows for each in rankings]), return_inverse=True)
    scores = np.full(len(rows), -np.inf)
    np.maximum.at(scores, which, np.concatenate([each.scores for each in rankings]))
    order = np.lexsort((library.paths[rows], -scores))[: max(len(each.rows) for each in rankings)]
    return TopK(rows[order], scores[order])


def _picked(library: Searchable, question: Question, found: TopK, wish: Wish) -> list[Pick]:
    depth, picks = wish.depth, fold_duplicates(library, found, wish)
    while len(picks) < wish.depth and len(found.rows) == depth:  # there is more, further down
        depth *= _DEEPER
        (found,) = _rankings(library, [question], wish, depth)
        picks = fold_duplicates(library, found, wish)
    picks = picks[: wish.pool]
    return spread_out(library, picks, wish) if wish.diversity else picks


def _matches(library: Searchable, picks: Sequence[Pick]) -> tuple[Match, ...]:
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
