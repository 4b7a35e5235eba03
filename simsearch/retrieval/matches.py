"""Matches, the result of a search: they print, list, export and show themselves.

Nothing here searches.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple, overload

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    import pandas as pd
    from numpy.typing import NDArray

    from simsearch.images.decode import ImageSources
    from simsearch.library.types import Browsable


class Candidate(NamedTuple):
    """A row that may become a match, and the near-duplicates that it stands for."""

    row: int
    score: float
    duplicates: list[int]


@dataclass(frozen=True)
class Match:
    """One image of the library, found for a query.

    Attributes
    ----------
    rank : int
        1 is the most similar.
    path : str
        As in the library's `paths`.
    score : float
        Cosine of query and image, in [-1, 1].
    percentile : float
        Share of random pairs of this library that are less alike, in percent; NaN for a library
        of one image. A cosine alone tells little: in some libraries any two images reach 0.8.
    row : int
        Row number in the library.
    caption : str
        From the library's metadata; "" without any.
    metadata : dict
        All that the library's table says of the image.
    duplicates : tuple of str
        Paths of the near-duplicates that were folded into this match.
    box : tuple of int, or None
        With ``parts=True``, what of the image matched: left, top, right, bottom in pixels of the
        upright image; all of it, where it was found as a whole.
    size : tuple of int, or None
        (width, height) of the image that `box` lies in.
    label : str
        Of the box, if it is one of your own.
    """

    rank: int
    path: str
    score: float
    percentile: float
    row: int
    caption: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)
    duplicates: tuple[str, ...] = ()
    box: tuple[int, int, int, int] | None = None
    size: tuple[int, int] | None = None
    label: str = ""


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
    image : ImageSource, tuple of such, or None
        The query to look at, or the several of them; None if it was an embedding.
    exact : bool
        Whether no row was overlooked; an approximate index may.
    box : tuple of float, or None
        The part of the image that was searched with: left, top, right, bottom, as asked.
    library : Gallery or None
        What was searched.
    embedding : numpy.ndarray or None
        (D,) float32, unit norm, what it was searched with; None for the maximum over several.
    """

    query: str
    rows: tuple[Match, ...]
    image: ImageSources | None = field(default=None, repr=False, compare=False)
    exact: bool = True
    box: tuple[float, ...] | None = None
    library: Browsable | None = field(default=None, repr=False, compare=False)
    embedding: NDArray[np.float32] | None = field(default=None, repr=False, compare=False)

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

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """What to know of how the query was read: that only its centre was seen, for one."""
        from simsearch.retrieval.notes import notes_of

        return notes_of(self)

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python values, ready for JSON (a number that is not finite is None)."""
        from simsearch.retrieval.export import to_dict

        return to_dict(self)

    def to_json(self, indent: int | None = None) -> str:
        """Return the matches as a JSON object: what `to_dict` returns, with dates as text."""
        from simsearch.plain_json import dumps

        return dumps(self.to_dict(), indent)

    def to_frame(self) -> pd.DataFrame:
        """Return a pandas frame with one row per match and its metadata, indexed by rank."""
        from simsearch.retrieval.export import to_frame

        return to_frame(self)

    def __str__(self) -> str:
        from simsearch.retrieval.export import to_text

        return to_text(self)

    def _repr_html_(self) -> str:
        from simsearch.retrieval.html import to_html

        return to_html(self)


def percentile(value: float) -> str:
    """Put a percentile in words: "top 0.4%" where it is high, since that is where matches lie."""
    if math.isnan(value):
        return "–"
    return f"top {max(100 - value, 0.01):.2g}%" if value > 50 else f"low {value:.0f}%"


def also(match: Match) -> str:
    """Say how many near-duplicates were folded into a match: "+2 alike"; "" for none."""
    return f"+{len(match.duplicates)} alike" if match.duplicates else ""
