"""The options of a search as keywords, for type checkers."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from simsearch.library.types import Rows
    from simsearch.retrieval.index import Index
    from simsearch.retrieval.query import Box


class RankingKeywords(TypedDict, total=False):
    """The keywords of `RankingOptions`, for type checkers, besides the positional ones."""

    where: Rows
    diversity: float
    unique: bool | float
    false_match_rate: float
    index: Index | None


class SearchKeywords(RankingKeywords, total=False):
    """The same of `SearchOptions`, besides those that decide what is returned."""

    weights: Sequence[float] | None
    box: Box | None
    parts: bool
