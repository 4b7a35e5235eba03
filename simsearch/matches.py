"""What a search gives back: matches that print, list, and show themselves.

Nothing here searches.
"""

from __future__ import annotations

import base64
import html
import io
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from simsearch.errors import ImageError
from simsearch.images import ImageSource, load_image

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray


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
