"""Recommendation: matches from what somebody liked and what they did not, by relevance feedback."""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any, cast

from simsearch import registry
from simsearch.errors import QueryError
from simsearch.retrieval.compose import combine_queries, rows_of
from simsearch.retrieval.matches import Matches
from simsearch.retrieval.options import RankingOptions, accepts, make_options
from simsearch.retrieval.query import Query, as_queries, embed, resolve
from simsearch.retrieval.search import Ranking

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from simsearch.library.types import Browsable
    from simsearch.retrieval.option_keywords import RankingKeywords
    from simsearch.retrieval.options import Threshold


@accepts(RankingOptions)
def recommend(
    library: Browsable | Sequence[Browsable],
    liked: Query | Sequence[Any],
    disliked: Query | Sequence[Any] = (),
    k: int = RankingOptions.k,
    exclude: Collection[int | str | os.PathLike[str]] = (),
    *,
    dislike: float = 0.25,
    threshold: Threshold = RankingOptions.threshold,
    **options: Unpack[RankingKeywords],
) -> Matches:
    """Find what somebody may like, from what they liked and what they did not.

    Searches with the mean embedding of what was liked, less `dislike` times the mean of what was
    disliked, as relevance feedback does [1]_. What was liked or disliked is not recommended.

    Parameters
    ----------
    library
        From `embed_dataset` or `ImageLibrary.load`; or a list of several, searched as `Shards`.
    liked, disliked
        Each a list of what `search` takes (paths, row numbers, new images, embeddings), or one,
        or embeddings of shape (Q, D).
    k
        How many matches to return; fewer if there are fewer.
    exclude
        Rows or paths that must not be recommended, such as what was seen already. Paths that the
        library does not hold are passed over.
    dislike
        Weight of the disliked, from 0 up. Among photos of six kinds of scenes, 0.25 to 0.4 serve
        best, and from 0.75 on it leads astray (`benchmarks/recommend.py`).
    **options
        The fields of `RankingOptions`, as in `search`: threshold, where, diversity, unique, ...

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
    if isinstance(library, Sequence):
        library = cast("Browsable", registry.resolve("library", "several")(library))
    likes, dislikes = (as_queries(library, given)[0] for given in (liked, disliked))
    if not likes:
        raise QueryError("nothing is liked; give at least one image")
    ranking = Ranking(
        library, make_options(RankingOptions, {"k": k, "threshold": threshold, **options})
    )
    unwanted = rows_of(library, exclude)
    queries = embed(library, [resolve(library, one) for one in (*likes, *dislikes)])
    weights = [1 / len(likes)] * len(likes) + [-dislike / max(1, len(dislikes))] * len(dislikes)
    mean = combine_queries(queries, "mean", weights)
    name = f"{len(likes)} liked" + (f", {len(dislikes)} disliked" if dislikes else "")
    pictures = tuple(one.picture for one in queries[: len(likes)] if one.picture is not None)
    query = mean._replace(
        name=name,
        picture=pictures or None,  # type: ignore[arg-type]
        exclude=mean.exclude | unwanted,
    )
    return next(ranking.answer([query]))
