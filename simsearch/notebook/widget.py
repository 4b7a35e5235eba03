"""The widget that `browse` returns: draws a `Session` in a notebook, and takes its clicks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import traitlets

from simsearch.notebook.pictured import PicturedWidget
from simsearch.notebook.session import Session, draw_pictures

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from simsearch.library.types import Browsable
    from simsearch.retrieval.matches import Matches

STATIC = Path(__file__).parent / "static"
ACTIONS: dict[str, tuple[str, ...]] = {  # with the values that each brings along
    "query": ("row",),
    "text": ("text",),
    "box": ("box",),
    "like": ("row",),
    "dislike": ("row",),
    "clear": (),
    "more": (),
}
MAX_LETTERS = 1000


def is_valid(name: str, value: Any) -> bool:  # noqa: ANN401
    """Tell whether a value that a browser sends is of its kind."""
    if name == "row":
        return isinstance(value, int) and not isinstance(value, bool)
    if name == "text":
        return isinstance(value, str) and len(value) <= MAX_LETTERS
    if value is None:
        return True
    numbers = isinstance(value, list) and len(value) == 4
    return numbers and all(isinstance(edge, (int, float)) and 0 <= edge <= 1 for edge in value)


class LibraryBrowser(PicturedWidget):
    """A library to look through and to search by clicking; what is chosen is readable.

    Attributes
    ----------
    query : str or None
        Path or words that are searched with; None while the library is browsed.
    matches : Matches or None
        What was found.
    liked, disliked : list of str
        Paths of the pictures that were liked and disliked.
    box : tuple of float, or None
        The part of the query: left, top, right, bottom in fractions of it.
    """

    _esm = STATIC / "browse.bundle.js"
    _css = STATIC / "browse.css"
    state = traitlets.Dict().tag(sync=True)

    def __init__(self, library: Browsable, k: int = 24, **options: Any) -> None:  # noqa: ANN401
        super().__init__()
        self._session = Session(library, k, **options)
        self.on_msg(self._on_message)
        self.state = self._session.state()

    def draw(self) -> Figure:
        """Draw the first pictures, or the matches of the query."""
        return draw_pictures(self._session.library, self.matches)

    @property
    def query(self) -> str | None:
        """Path or words that are searched with."""
        return self._session.query

    @property
    def matches(self) -> Matches | None:
        """What was found."""
        return self._session.matches

    @property
    def liked(self) -> list[str]:
        """Paths of the pictures that were liked."""
        return self._paths(self._session.liked)

    @property
    def disliked(self) -> list[str]:
        """Paths of the pictures that were disliked."""
        return self._paths(self._session.disliked)

    @property
    def box(self) -> tuple[float, ...] | None:
        """The part of the query that is searched with."""
        return self._session.box

    def _paths(self, rows: list[int]) -> list[str]:
        return [str(self._session.library.paths[row]) for row in rows]

    def _on_message(self, _: object, message: Any, __: object) -> None:  # noqa: ANN401
        """Take what the browser sends; anything else than a known action is ignored."""
        action = message.get("action") if isinstance(message, dict) else None
        if action in ACTIONS:
            values = {name: message.get(name) for name in ACTIONS[action]}
            if all(is_valid(name, value) for name, value in values.items()):
                self._session.act(action, **values)
                self.state = self._session.state()
