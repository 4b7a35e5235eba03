"""Figures of queries and their matches."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from simsearch import registry
from simsearch.errors import QueryError
from simsearch.plotting.grid import Cell, check_positive, draw_grid, load_thumbnail, short_path
from simsearch.retrieval.matches import Matches, also, percentile

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from simsearch.plotting.grid import Picture
    from simsearch.retrieval.matches import Match


MATCHES_PER_ROW = 6


def show_matches(
    matches: Matches | Sequence[Matches],
    columns: int | None = None,
    size: float = 1.8,
    explain: bool = False,
) -> tuple[Figure, NDArray[Any]]:
    """Show queries and their matches.

    Each query is on the left, in a blue frame, with its matches on the right: rank, score, the
    share of random pairs of the library with a higher score, the end of the path, and metadata.
    "+2 alike" counts the near-duplicates that were folded into a match. A file that cannot be read
    leaves a grey cell with the reason.

    Parameters
    ----------
    matches
        What `search` returned: the matches of one query, or a list of them.
    columns
        Matches per row; further ones are below. By default up to 6, evenly filled.
    size
        Width of a picture in inches.
    explain
        Show each match in grey, with a heat map of what its parts add to the score: the brighter,
        the more, on one scale per query. See `heat_map` for what is measured; the margins, which
        the network does not see, stay grey.

    Returns
    -------
    fig : matplotlib.figure.Figure
    axes : numpy.ndarray of matplotlib.axes.Axes
        (rows, 1 + columns); queries are in the first column.

    Raises
    ------
    QueryError
        If there is nothing to show, an argument is out of range, or matches that no search
        returned are to be explained.
    BackboneError
        With `explain`, if the library's backbone cannot be loaded, or pools no map.
    """
    answers: Sequence[Any] = matches if isinstance(matches, (list, tuple)) else [matches]
    if not answers or not all(isinstance(answer, Matches) for answer in answers):
        from simsearch.plotting.refusals import short_repr

        give = "give what simsearch.search returns: Matches, or a list with at least one"
        raise QueryError(f"show_matches cannot show {short_repr(matches)}; {give}")
    check_positive(columns=columns, size=size)
    headings = ["query"] * len(answers)
    return show_answers(answers, headings, _score_text, columns, size, explain=explain)


def show_answers(
    answers: Sequence[Matches],
    headings: Sequence[str],
    heading_of: Callable[[Match], str],
    columns: int | None,
    size: float,
    *,
    explain: bool = False,
) -> tuple[Figure, NDArray[Any]]:
    """Draw queries with their headings, and matches with theirs; otherwise like `show_matches`."""
    most = max(1, *map(len, answers))
    columns = min(columns or math.ceil(most / math.ceil(most / MATCHES_PER_ROW)), most)
    rows: list[list[Cell | None]] = []
    for answer, heading in zip(answers, headings, strict=True):
        picture, *pictures = _load_pictures(answer, size, explain=explain)
        query = Cell(picture, (heading, short_path(answer.query)), accent=True)
        cells = [
            Cell(picture, _caption(match, heading_of(match)))
            for match, picture in zip(answer, pictures, strict=True)
        ] or [Cell("no match")]
        starts = range(0, len(cells), columns)
        rows += [[None if i else query, *cells[i : i + columns]] for i in starts]
    return draw_grid(rows, size)


def _load_pictures(answer: Matches, size: float, *, explain: bool) -> list[Picture | str]:
    """Load the thumbnails of a query and its matches, with heat maps if asked for."""
    query, *found = [load_thumbnail(source, size) for source in (answer.image, *answer.paths)]
    if answer.image is None and answer.query.startswith("words "):
        query = answer.query.removeprefix("words ")
    if explain:
        found = registry.resolve("explainer", "heat_maps")(answer, found)
    if any(match.box for match in answer):
        from simsearch.plotting.boxes import mark_box

        found = list(map(mark_box, found, answer))
    return [query, *found]


def _score_text(match: Match) -> str:
    share = percentile(match.percentile).strip("–")  # unknown in a library of one image
    return " · ".join(filter(None, (str(match.rank), f"{match.score:.3f}", share)))


def _caption(match: Match, heading: str) -> list[str]:
    """Return the lines under a match; a long heading would run into its neighbour's."""
    note = " · ".join(filter(None, (also(match), match.caption)))
    return [line for line in (heading, short_path(match.path), note) if line]
