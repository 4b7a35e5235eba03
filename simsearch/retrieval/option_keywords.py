"""The options of a search as keywords, for type checkers; the errors of what is no option."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Literal, TypedDict

from simsearch.errors import QueryError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from simsearch.library.types import Rows
    from simsearch.retrieval.index import Index
    from simsearch.retrieval.k_reciprocal import KReciprocal
    from simsearch.retrieval.options import SearchOptions
    from simsearch.retrieval.query import Box


class RankingKeywords(TypedDict, total=False):
    """The keywords of `RankingOptions`, for type checkers, besides the positional ones."""

    where: Rows
    diversity: float
    unique: bool | float
    false_match_rate: float
    index: Index | None
    rerank: Literal["k-reciprocal", "background"] | KReciprocal | None


class SearchKeywords(RankingKeywords, total=False):
    """The same of `SearchOptions`, besides those that decide what is returned."""

    weights: Sequence[float] | None
    box: Box | None
    parts: bool


def unknown_option(name: str, known: Sequence[str]) -> TypeError:
    """Return the error for a keyword that is no option; it names the one of closest spelling."""
    alike = get_close_matches(name, known, 1)
    hint = f"did you mean {alike[0]!r}?" if alike else f"there are {', '.join(known)}"
    return TypeError(f"there is no option {name!r}; {hint}")


def check_combination(options: SearchOptions) -> None:
    """Check how queries are combined, where they are.

    Raises
    ------
    QueryError
        If there is no such way, or weights go with another than the mean.
    """
    weighted = options.weights is not None
    if options.combine not in {"mean", "max"} or (options.combine == "max" and weighted):
        raise QueryError(
            f'combine={options.combine!r}: choose mean or max; weights go with combine="mean" alone'
        )
