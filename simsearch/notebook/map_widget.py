"""The widget of a map: points to zoom into, and pictures chosen by a line drawn around them."""

from __future__ import annotations

from functools import lru_cache
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

import traitlets

from simsearch.errors import QueryError
from simsearch.notebook.pictured import PicturedWidget
from simsearch.notebook.session import thumbnail_url
from simsearch.printable import valid_unicode

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.figure import Figure

    from simsearch.library.types import Browsable

STATIC = Path(__file__).parent / "static"
THUMBNAIL_PIXELS = 128
MOST_ASKED = 200  # thumbnails at once


class LibraryMap(PicturedWidget):
    """A map of a library, to zoom into; what is chosen on it is readable.

    Attributes
    ----------
    rows : list of int
        Rows of the library that are chosen: by a line around them, by a click, or by setting them.
    paths : list of str
        The paths of these pictures.

    Raises
    ------
    QueryError
        If `rows` is set to what are no rows of the library.
    """

    _esm = STATIC / "map.bundle.js"
    _css = STATIC / "map.css"
    places = traitlets.Dict().tag(sync=True)
    title = traitlets.Unicode().tag(sync=True)
    rows: traitlets.List[int] = traitlets.List().tag(sync=True)

    def __init__(
        self, library: Browsable, places: dict[str, Any], title: str, draw: Callable[[], Figure]
    ) -> None:
        groups = [valid_unicode(name) for name in places["groups"]]
        self._library, self._draw = library, draw
        self._thumbnail = lru_cache(maxsize=2048)(thumbnail_url)
        super().__init__(places=places | {"groups": groups}, title=title)
        self.on_msg(self._on_message)

    def draw(self) -> Figure:
        """Draw the map as a figure."""
        return self._draw()

    @property
    def paths(self) -> list[str]:
        """The paths of the chosen pictures."""
        return [str(self._library.paths[row]) for row in self.rows]

    @traitlets.validate("rows")
    def _check_rows(self, proposal: dict[str, Any]) -> list[int]:
        for row in proposal["value"]:
            if not self._is_row(row):
                raise QueryError(f"rows: {row!r} is none of 0 to {len(self._library) - 1}")
        return [int(row) for row in proposal["value"]]

    def _on_message(self, _: object, message: Any, __: object) -> None:  # noqa: ANN401
        """Send the thumbnails that the browser asks for; anything else is ignored."""
        asked = message.get("thumbnails") if isinstance(message, dict) else None
        if isinstance(asked, list):
            known = [row for row in asked[:MOST_ASKED] if self._is_row(row)]
            self.send({"thumbnails": [self._picture(row) for row in known]})

    def _is_row(self, row: Any) -> bool:  # noqa: ANN401
        whole = isinstance(row, Integral) and not isinstance(row, bool)
        return whole and self._library.has_row(row)

    def _picture(self, row: int) -> dict[str, Any]:
        path = str(self._library.paths[row])
        return {
            "row": row,
            "name": valid_unicode(path),
            "caption": valid_unicode(self._library.caption(row)),
            "url": self._thumbnail(path, THUMBNAIL_PIXELS),
        }
