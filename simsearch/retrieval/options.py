"""The options of a search: written here once, checked when made.

The signatures of `search` and `recommend`, the flags of the command line and the fields of the API
are derived from these classes, or tested against them.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal, SupportsFloat, TypeAlias, TypeVar

import numpy as np

from simsearch import registry
from simsearch.errors import QueryError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from simsearch.library.types import Rows, Searchable
    from simsearch.retrieval.index import Index
    from simsearch.retrieval.k_reciprocal import KReciprocal
    from simsearch.retrieval.query import Box
    from simsearch.retrieval.text_chance import TextChance

NEAR_DUPLICATE = 0.95
"""Cosine from which on two images pass for one; see `similar_rows` for what it was measured on."""

Threshold: TypeAlias = "SupportsFloat | Literal['auto'] | None"
"""A cosine, "auto" for `ImageLibrary.threshold`, or None for no threshold."""

POOL_FACTOR = 10  # candidates per match, from which `diversity` picks

_Function = TypeVar("_Function", bound=Callable[..., Any])
_Options = TypeVar("_Options")


@dataclass(frozen=True, kw_only=True)
class RankingOptions:
    """Which rows are ranked, and which of them become matches.

    Attributes
    ----------
    k : int
        How many matches to return; fewer if there are fewer.
    threshold : float, "auto" or None
        Leave out matches whose cosine is lower. "auto" takes `ImageLibrary.threshold`.
    where : str, mapping, mask, row numbers or None
        Search among these alone: what `ImageLibrary.where` takes, such as ``"shoes/*"`` or
        ``{"price": (None, 50)}``.
    diversity : float
        From 0 to 1: how much it counts against a match that it is like the matches before it
        (maximal marginal relevance). Picks among the best 10 × `k`; at 0, by score alone.
    unique : bool or float
        Fold copies of a match into it, by their pixels; True stands for a cosine from 0.95 up.
    false_match_rate : float
        With ``threshold="auto"``, the share of random pairs that may reach the threshold.
    index : Index or None
        From `build_index`: finds approximately what the scan of all rows finds exactly.
    rerank : "k-reciprocal", "background", KReciprocal or None
        Reorder the best few hundred rows by the neighbours that they share with the query, or less
        what they have in common with any image. Scores stay cosines, and may rise in between.
    """

    k: int = 5
    threshold: Threshold = None
    where: Rows = None
    diversity: float = 0.0
    unique: bool | float = False
    false_match_rate: float = 1e-3
    index: Index | None = None
    rerank: Literal["k-reciprocal", "background"] | KReciprocal | None = None

    def __post_init__(self) -> None:
        whole = isinstance(self.k, (int, np.integer)) and not isinstance(self.k, bool)
        if not whole or self.k < 1:
            raise QueryError(f"k={self.k!r}: ask for a whole number of matches, at least one")
        if isinstance(self.threshold, str) and self.threshold != "auto":
            raise QueryError(f'threshold={self.threshold!r}: give a cosine, or "auto"')
        if not 0 <= self.diversity <= 1:
            raise QueryError(f"diversity={self.diversity}: give a number from 0 to 1")
        for name, cosine in (("threshold", self.threshold), ("unique", self.duplicate_cosine)):
            if not (cosine is None or isinstance(cosine, str) or -1 <= float(cosine) <= 1):
                raise QueryError(f"{name}={cosine}: a cosine lies between -1 and 1")
        if self.rerank is not None:
            registry.resolve("rerank", "k-reciprocal")(self)

    @property
    def duplicate_cosine(self) -> float | None:
        """Cosine from which on matches are folded; None to fold none."""
        if self.unique is False:
            return None
        return NEAR_DUPLICATE if self.unique is True else float(self.unique)

    def min_score(self, library: Searchable | TextChance) -> float:
        """Return the lowest cosine of a match."""
        if isinstance(self.threshold, str):
            return library.threshold(self.false_match_rate)
        return -math.inf if self.threshold is None else float(self.threshold)

    @property
    def pool(self) -> int:
        """How many candidates the matches are picked from."""
        return int(self.k) * (POOL_FACTOR if self.diversity else 1)

    @property
    def depth(self) -> int:
        """How many rows to rank: where repeats are folded, until the first that is not needed."""
        return self.pool if self.duplicate_cosine is None else self.pool + 1


@dataclass(frozen=True, kw_only=True)
class SearchOptions(RankingOptions):
    """How queries are read and combined, and how their rows are ranked.

    Attributes
    ----------
    exclude_query : bool
        Leave out the rows that the query itself is.
    combine : "mean", "max" or None
        Take a list of queries as one: "mean" searches with the mean of their embeddings, "max"
        scores an image by the query that it is most similar to.
    weights : sequence of float or None
        With ``combine="mean"``, how much each query counts; a negative one leads away.
    box : (left, top, right, bottom) or None
        Search with a part of the query, in pixels or in fractions.
    regions : bool
        Search with six parts of the query (the whole, four corners, the centre), and return the
        matches of each; of a library with parts, its pictures are then found by theirs.
    parts : bool
        Compare with the parts of the pictures, too (``embed_dataset(parts="grid")``): each is
        found once, with the `box` of its best part.
    """

    exclude_query: bool = True
    combine: Literal["mean", "max"] | None = None
    weights: Sequence[float] | None = None
    box: Box | None = None
    regions: bool = False
    parts: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.combine is not None or self.weights is not None:
            from simsearch.retrieval.option_keywords import check_combination

            check_combination(self)


def option_docs(options: type[Any]) -> dict[str, tuple[str, str]]:
    """Return type and description of each option, as the class documents them."""
    docs: dict[str, tuple[str, str]] = {}
    for base in reversed(options.__mro__[:-1]):
        text = inspect.cleandoc(base.__doc__ or "").partition("----------\n")[2]
        entries = re.findall(r"^(\w+) : (.*)\n((?:    .*\n?)+)", text, re.MULTILINE)
        docs |= {name: (kind, " ".join(body.split())) for name, kind, body in entries}
    return docs


def accepts(options: type[Any]) -> Callable[[_Function], _Function]:
    """Give a function that takes `**options` the signature and documentation of each option."""

    def document(function: _Function) -> _Function:
        signature = inspect.signature(function)
        known = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        names = {parameter.name for parameter in known}
        known += [
            inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=f.default)
            for f in fields(options)
            if f.name not in names
        ]
        function.__signature__ = signature.replace(parameters=known)  # type: ignore[attr-defined]
        lines = [
            f"    {name} : {kind}\n        {text}"
            for name, (kind, text) in option_docs(options).items()
            if f"    {name}\n" not in (function.__doc__ or "")
        ]
        function.__doc__ = re.sub(
            r"    \*\*options\n(?:        .*\n)+", "\n".join(lines) + "\n", function.__doc__ or ""
        )
        return function

    return document


def make_options(
    kind: type[_Options], given: Mapping[str, Any], base: _Options | None = None
) -> _Options:
    """Make options of keywords, perhaps in place of fields of others.

    Raises
    ------
    TypeError
        If there is no such option; the message names the one with the closest spelling.
    """
    known = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    for name in given:
        if name not in known:
            from simsearch.retrieval.option_keywords import unknown_option

            raise unknown_option(name, known)
    made: _Options = replace(base, **given) if base else kind(**given)  # type: ignore[type-var]
    return made
