"""The options of a search, checked when they are made."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypedDict

import numpy as np

from simsearch.errors import QueryError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from typing import Any, Literal, SupportsFloat, TypeAlias

    from numpy.typing import NDArray

    from simsearch.library.types import Rows, Searchable
    from simsearch.retrieval.query import Box
    from simsearch.retrieval.topk import TopK


NEAR_DUPLICATE = 0.95
"""Cosine from which on two images pass for one; see `duplicates` for what it was measured on."""

Threshold: TypeAlias = "SupportsFloat | Literal['auto'] | None"
"""A cosine, "auto" for `ImageLibrary.threshold`, or None for no threshold."""
_POOL = 10  # candidates for each match, from which `diversity` picks


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
    ) -> Iterator[TopK]:
        """Find rows as `scan.top` does; `among` is what the library's own method gives."""


class SearchOptionTypes(TypedDict, total=False):
    """Types of the options that every search takes."""

    where: Rows
    weights: Sequence[float] | None
    box: Box | None
    diversity: float
    unique: bool | float
    false_match_rate: float
    index: Index | None


class Wish(NamedTuple):
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


def make_wish(
    library: Searchable,
    *,
    k: int,
    threshold: Threshold,
    where: Rows,
    diversity: float,
    unique: bool | float,
    false_match_rate: float,
    index: Index | None,
    without: Collection[int] = (),
) -> Wish:
    """Check the options of a search for a library."""
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
    return Wish(
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
