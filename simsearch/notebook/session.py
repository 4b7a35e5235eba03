"""What is asked of a library by clicks, and what was found: the widget without its screen."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from simsearch.errors import ImageError, QueryError, SimsearchError
from simsearch.images.data_url import data_url
from simsearch.plain_json import plain
from simsearch.printable import valid_unicode
from simsearch.retrieval.recommend import recommend
from simsearch.retrieval.search import search

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from simsearch.library.types import Browsable
    from simsearch.retrieval.matches import Match, Matches

THUMBNAIL_PIXELS, QUERY_PIXELS = 160, 480
DRAWN_PICTURES = 24
PAGE = 48  # pictures of the library that are shown at first, and more each time


class Session:
    """A query that is built up by clicks: a picture or words, a part of it, likes and dislikes.

    Parameters
    ----------
    library
        What is browsed.
    k
        How many matches are shown.
    **options
        The fields of `RankingOptions`, for each search.
    """

    def __init__(self, library: Browsable, k: int, **options: Any) -> None:  # noqa: ANN401
        self.library, self.k, self.options = library, k, options
        self.row: int | None = None
        self.text = ""
        self.box: tuple[float, ...] | None = None
        self.liked: list[int] = []
        self.disliked: list[int] = []
        self.shown = PAGE
        self.matches: Matches | None = None
        self.error = ""
        self._thumbnail = lru_cache(maxsize=2048)(thumbnail_url)

    @property
    def query(self) -> str | None:
        """The path or the words that are searched with; None where the library is browsed."""
        if self.row is not None:
            return str(self.library.paths[self.row])
        return self.text or None

    @property
    def asked(self) -> bool:
        """Whether anything is asked for."""
        return self.row is not None or bool(self.text or self.liked)

    def act(self, action: str, **values: Any) -> None:  # noqa: ANN401
        """Do what a click asks for, and search again; an error is kept, to be shown."""
        before = self.__dict__.copy()
        self.error = ""
        try:
            getattr(self, f"_do_{action}")(**values)
            self._find()
        except SimsearchError as error:
            self.__dict__.update(before)
            self.error = str(error)

    def _do_query(self, row: int) -> None:
        self._check(row)
        self._do_clear()
        self.row = row

    def _do_text(self, text: str) -> None:
        self.row, self.text, self.box = None, str(text).strip(), None

    def _do_box(self, box: list[float] | None) -> None:
        self.box = tuple(map(float, box)) if box and self.row is not None else None

    def _do_like(self, row: int) -> None:
        self.liked, self.disliked = self._toggled(row, self.liked, self.disliked)

    def _do_dislike(self, row: int) -> None:
        self.disliked, self.liked = self._toggled(row, self.disliked, self.liked)

    def _do_clear(self) -> None:
        self.row, self.text, self.box, self.liked, self.disliked = None, "", None, [], []

    def _do_more(self) -> None:
        if self.asked:
            self.k *= 2
        else:
            self.shown += PAGE

    def _check(self, row: int) -> None:
        if not self.library.has_row(row):
            raise QueryError(f"row {row}: the library has rows 0 to {len(self.library) - 1}")

    def _toggled(self, row: int, to: list[int], other: list[int]) -> tuple[list[int], list[int]]:
        """Put a row on a list or take it off; it is never on both."""
        self._check(row)
        rest = [each for each in to if each != row]
        return (rest if row in to else [*to, row]), [each for each in other if each != row]

    def _find(self) -> None:
        """Search, or recommend, as is asked for."""
        if not self.asked:
            self.matches = None
        elif self.liked or self.disliked:
            queries = [] if self.row is None else [self.row]
            liked = list(dict.fromkeys([*queries, *self.liked]))
            self.matches = recommend(self.library, liked, self.disliked, self.k, **self.options)
        else:
            asked: dict[str, Any] = {"text": self.text} if self.row is None else {"box": self.box}
            found = search(self.library, self.row, self.k, **self.options, **asked)
            self.matches = found

    def state(self) -> dict[str, Any]:
        """Return all that is to be drawn, as plain values."""
        rows = range(min(self.shown, len(self.library)))
        cards = [self._card(row) for row in rows] if self.matches is None else self._found()
        left = len(self.library) - len(cards)
        return {
            "cards": cards,
            "query": self._query(),
            "text": self.text,
            "liked": [self._card(row) for row in self.liked],
            "disliked": [self._card(row) for row in self.disliked],
            "asked": self.asked or bool(self.disliked),
            "more": left > 0,
            "status": self._status(len(cards)),
            "error": valid_unicode(self.error),
        }

    def _found(self) -> list[dict[str, Any]]:
        return [self._match(match) for match in self.matches or ()]

    def _match(self, match: Match) -> dict[str, Any]:
        score = {"score": round(float(match.score), 4), "percentile": plain(match.percentile)}
        return self._card(match.row) | score

    def _card(self, row: int) -> dict[str, Any]:
        path = str(self.library.paths[row])
        return {
            "row": row,
            "path": valid_unicode(path),
            "caption": valid_unicode(self.library.caption(row)),
            "thumbnail": self._thumbnail(path, THUMBNAIL_PIXELS),
        }

    def _query(self) -> dict[str, Any] | None:
        if self.query is None:
            return None
        picture = "" if self.row is None else self._thumbnail(self.query, QUERY_PIXELS)
        return {"name": valid_unicode(self.query), "picture": picture, "box": self.box}

    def _status(self, count: int) -> str:
        if self.matches is None:
            return f"{count:,} of {len(self.library):,} pictures"
        notes = "".join(f" {note}" for note in self.matches.notes)
        return f"{count:,} matches, the most similar first.{valid_unicode(notes)}"


def thumbnail_url(path: str, pixels: int) -> str:
    """Return a small copy of a picture as a URL that holds it; "" if it cannot be read."""
    try:
        return data_url(path, pixels, quality=80)
    except ImageError:
        return ""


def draw_pictures(library: Browsable, matches: Matches | None = None) -> Figure:
    """Draw matches if there are some, or else the first pictures of the library."""
    from simsearch.plotting.matches import show_matches
    from simsearch.plotting.sheet import show_images

    if matches:
        return show_matches(matches)[0]
    count = min(len(library), DRAWN_PICTURES)
    return show_images([str(library.paths[row]) for row in range(count)])[0]
