"""Search: queries in, matches out.

A query is resolved, an index ranks the rows, and reranking picks the matches. Scores are cosines
everywhere: larger is closer, 1 is the same direction.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, cast, overload

import numpy as np

from simsearch import registry
from simsearch.errors import QueryError
from simsearch.retrieval.exact import TopK, exact_index
from simsearch.retrieval.matches import Candidate, Match, Matches
from simsearch.retrieval.options import RankingOptions, SearchOptions, accepts, make_options
from simsearch.retrieval.query import Query, ResolvedQuery, as_queries, embed, resolve

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from simsearch.library.types import Browsable
    from simsearch.retrieval.index import Index
    from simsearch.retrieval.option_keywords import SearchKeywords
    from simsearch.retrieval.options import Threshold

FILTERED_ROWS = 64  # from so many excluded rows on, the filter leaves them out, not a deeper search


@overload
def search(
    library: Browsable | Sequence[Browsable],
    query: Query | None = ...,
    k: int = ...,
    threshold: Threshold = ...,
    exclude_query: bool = ...,
    *,
    regions: Literal[False] = ...,
    text: str | None = ...,
    **options: Unpack[SearchKeywords],
) -> Matches: ...
@overload
def search(
    library: Browsable | Sequence[Browsable],
    query: Query | None = ...,
    k: int = ...,
    threshold: Threshold = ...,
    exclude_query: bool = ...,
    *,
    regions: Literal[True],
    **options: Unpack[SearchKeywords],
) -> list[Matches]: ...
@overload
def search(
    library: Browsable | Sequence[Browsable],
    query: list[Any] | tuple[Any, ...],
    k: int = ...,
    threshold: Threshold = ...,
    exclude_query: bool = ...,
    *,
    combine: None = ...,
    **options: Unpack[SearchKeywords],
) -> list[Matches]: ...
@overload
def search(
    library: Browsable | Sequence[Browsable],
    query: list[Any] | tuple[Any, ...],
    k: int = ...,
    threshold: Threshold = ...,
    exclude_query: bool = ...,
    *,
    combine: Literal["mean", "max"],
    **options: Unpack[SearchKeywords],
) -> Matches: ...
@accepts(SearchOptions)
def search(
    library: Browsable | Sequence[Browsable],
    query: Query | list[Any] | tuple[Any, ...] | None = None,
    k: int = SearchOptions.k,
    threshold: Threshold = SearchOptions.threshold,
    exclude_query: bool = SearchOptions.exclude_query,
    *,
    text: str | None = None,
    **options: Any,
) -> Matches | list[Matches]:
    """Find the images of a library that are most similar to a query.

    Exact: the scores are those of a full scan in float64. Equal scores are ordered by path.

    Parameters
    ----------
    library
        From `embed_dataset` or `ImageLibrary.load`; or a list of several, searched as `Shards`.
    query
        A path (in the library or not), an http(s) URL, bytes, a PIL image, an image array, `Words`,
        a row number, or an embedding of shape (D,) or (1, D), also as a tensor, series or list of
        floats; or several: a list of these, or embeddings (Q, D). A list of whole numbers is rows.
    text
        Words, in place of a query: ``"a street at night"``.
    **options
        The fields of `SearchOptions`: where, combine, weights, box, regions, parts, diversity,
        unique, false_match_rate, index, rerank.

    Returns
    -------
    Matches, or list of Matches for several queries or for regions

    Raises
    ------
    QueryError
        If an option or a row number is out of range, an embedding does not fit, or an array may
        be a picture as well as embeddings: `Image.fromarray(a)` or `a[0]` says what is meant.
    ImageError
        If the query cannot be read.
    BackboneError
        If a new image has to be embedded and the library's backbone cannot be loaded.

    Examples
    --------
    >>> from simsearch import ImageLibrary
    >>> library = ImageLibrary([[1, 0], [0.8, 0.6], [0, 1]], ["a.jpg", "b.jpg", "c.jpg"])
    >>> [(match.path, round(match.score, 3)) for match in search(library, 0, k=2)]
    [('b.jpg', 0.8), ('c.jpg', 0.0)]
    """
    options |= {"k": k, "threshold": threshold, "exclude_query": exclude_query}
    asked = make_options(SearchOptions, options)
    ranking = _ranking(library, asked)
    if text is not None:
        from simsearch.retrieval.words import as_query

        query = as_query(query, text)
    given, several = as_queries(ranking.library, query)
    answers = list(ranking.answer(_resolve_all(ranking.library, given, asked, several=several)))
    return answers if asked.regions or (several and asked.combine is None) else answers[0]


def _ranking(library: Browsable | Sequence[Browsable], options: SearchOptions) -> Ranking:
    if isinstance(library, Sequence):
        library = cast("Browsable", registry.resolve("library", "several")(library))
    if not (options.parts or options.regions):
        return Ranking(library, options)
    from simsearch.retrieval.parts import part_ranking

    return part_ranking(library, options)


def _resolve_all(
    library: Browsable, queries: Sequence[Any], options: SearchOptions, *, several: bool
) -> list[ResolvedQuery]:
    """Resolve queries, take parts of them, embed and combine them, as the options say."""
    resolved = [resolve(library, one, exclude_query=options.exclude_query) for one in queries]
    if options.regions or options.box is not None or options.combine is not None:
        from simsearch.retrieval.compose import compose

        return compose(library, resolved, options, several=several)
    return embed(library, resolved)


class Ranking:
    """How the rows of a library are ranked for all queries of one call."""

    def __init__(self, library: Browsable, options: RankingOptions) -> None:
        self.library, self.options = library, options
        options.min_score(library)  # which is checked before anything is embedded
        if options.index is not None and library.index is not None:
            raise QueryError(f"index= goes with a library of files; {library!r} has its own")
        chosen = library.index if options.index is None else options.index
        self.index: Index = chosen or exact_index(library)  # type: ignore[arg-type]
        self.index.check(library)
        self.mask = library.row_filter(options.where)
        rerank = options.rerank and registry.resolve("rerank", "k-reciprocal")(options)
        self.candidates = rerank.bind(self) if rerank else self.rank

    def answer(self, queries: Sequence[ResolvedQuery]) -> Iterator[Matches]:
        """Yield the matches of each query."""
        rankings = self.candidates(queries, self.options.depth)
        for query, ranking in zip(queries, rankings, strict=True):
            name, picture, vectors, _, box, _ = query
            found = self._to_matches(query, self._pick(query, ranking))
            one = vectors[0] if vectors is not None and len(vectors) == 1 else None
            yield Matches(name, found, picture, self.index.exact, box, self.library, one)

    def rank(self, queries: Sequence[ResolvedQuery], depth: int) -> Iterator[TopK]:
        """Rank the best rows for each query, `depth` of them if there are."""
        if not queries:
            return
        exclude = frozenset[int].intersection(*(query.exclude for query in queries))
        mask, spare = self.mask, max(len(query.exclude) for query in queries)
        if len(exclude) >= FILTERED_ROWS:
            mask = self.library.row_filter(self.options.where, exclude)
            spare = max(len(query.exclude - exclude) for query in queries)
        vectors = np.concatenate([query.vectors for query in queries])
        found = self.index.top_k(self.library, vectors, depth + spare, mask)
        for query in queries:
            merged = self._best(list(islice(found, len(query.vectors))))  # type: ignore[arg-type]
            fits = merged.scores >= self.options.min_score(query.chance or self.library)
            fits &= ~np.isin(merged.rows, list(query.exclude))
            yield TopK(merged.rows[fits][:depth], merged.scores[fits][:depth])

    def _best(self, rankings: Sequence[TopK]) -> TopK:
        """Return the one ranking of a query, or merge those of its several vectors."""
        if len(rankings) == 1:
            return rankings[0]
        from simsearch.retrieval.compose import merge_rankings

        return merge_rankings(self.library, rankings)

    def _pick(self, query: ResolvedQuery, ranking: TopK) -> list[Candidate]:
        """Pick the rows that become matches."""
        ranked = zip(ranking.rows.tolist(), ranking.scores.tolist(), strict=True)
        candidates = [Candidate(row, score, []) for row, score in ranked]
        if self.options.duplicate_cosine is None and not self.options.diversity:
            return candidates[: self.options.pool]
        from simsearch.retrieval.rerank import pick

        return pick(self, query, ranking, candidates)

    def _to_matches(self, query: ResolvedQuery, picked: list[Candidate]) -> tuple[Match, ...]:
        """Describe rows as matches."""
        library, chance = self.library, (query.chance or self.library).random_pair_scores
        below = np.searchsorted(chance, np.array([one.score for one in picked], "f4"))
        shares = 100 * below / len(chance) if len(chance) else below * np.nan
        return tuple(
            Match(
                rank,
                str(library.paths[one.row]),
                one.score,
                float(share),
                one.row,
                library.caption(one.row),
                library.facts(one.row),
                tuple(library.paths[one.duplicates].tolist()) if one.duplicates else (),
            )
            for rank, (one, share) in enumerate(zip(picked, shares, strict=True), 1)
        )
