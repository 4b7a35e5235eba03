"""Figures of an evaluation: precision-recall curves, confusions, the worst queries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from simsearch.errors import QueryError
from simsearch.evaluation.metrics import RECALLS, Evaluation
from simsearch.plotting.charts import COLORS, add_legend, axes_inches, text_width
from simsearch.plotting.grid import (
    ACCENT,
    CAPTION_GAP_INCHES,
    EDGE,
    GREY,
    INK,
    MARGIN_INCHES,
    PLAIN_TEXT,
    TITLE_INCHES,
    briefly,
    check_positive,
    fit_text,
    new_figure,
)
from simsearch.plotting.matches import show_answers
from simsearch.retrieval.search import search

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from simsearch.library.library import ImageLibrary
    from simsearch.retrieval.matches import Match, Matches


CURVE_INCHES, _CURVE_LEGEND = (5.2, 4.2), 2.2  # inches
_CONFUSED = 30  # classes whose confusion is shown at most
_CONFUSION, _CONFUSION_CELL = 6.6, (0.22, 0.52)  # inches: the whole, and the limits of a cell
_CONFUSION_NAMES, _NUMBERED = 1.7, 0.34  # inches: for the names, and of a cell that holds a number


def show_precision_recall(
    evaluations: Evaluation | Mapping[str, Evaluation],
) -> tuple[Figure, Axes]:
    """Show how precision falls as more of the relevant images are found.

    Each curve is the interpolated precision, mean over queries: at 0.5 recall, how many of the
    images seen by then are right at best. Before its name stands the mAP.

    Parameters
    ----------
    evaluations
        From `evaluate`: one, to see its classes, or several by name, to compare them.

    Returns
    -------
    fig : matplotlib.figure.Figure
    axes : matplotlib.axes.Axes

    Raises
    ------
    QueryError
        If there is nothing to show.

    Examples
    --------
    >>> fig, ax = show_precision_recall({"before": before, "after": after})  # doctest: +SKIP
    """
    one = evaluations if isinstance(evaluations, Evaluation) else None
    lines = _class_lines(one) if one else _compared_lines(evaluations)
    title = "Precision and recall"
    if one:
        title += f" of {len(one.rows):,} queries in {len(one.gallery):,} images"
    fig, ax = plot_curve(CURVE_INCHES, title, right=_CURVE_LEGEND)
    ax.set(xlim=(0, 1), ylim=(0, 1.01))
    ax.set_xlabel("recall", color=INK, fontsize=10)
    ax.set_ylabel("precision", color=INK, fontsize=10)
    ax.grid(visible=True, color=EDGE, linewidth=0.5, linestyle="-", alpha=1)
    handles = [ax.plot(RECALLS / 100, line.precision, **line.style)[0] for line in lines]
    named = [i for i, line in enumerate(lines) if line.name]
    add_legend(
        ax, [handles[i] for i in named], [lines[i].name for i in named], _CURVE_LEGEND, "mAP"
    )
    return fig, ax


def show_confusion(evaluation: Evaluation) -> tuple[Figure, Axes]:
    """Show which classes are taken for which: the class of the most alike image.

    A row is a class of queries and adds up to 100%; its diagonal is precision@1. Of more than 30
    classes those with the most wrong queries are shown, and a last column holds all others.

    Parameters
    ----------
    evaluation
        From `evaluate`.

    Returns
    -------
    fig : matplotlib.figure.Figure
    axes : matplotlib.axes.Axes

    Raises
    ------
    QueryError
        If it is no evaluation.
    """
    _check_evaluation(evaluation)
    rows, columns, shares = _confusion(evaluation)
    low, high = _CONFUSION_CELL
    cell = min(high, max(low, _CONFUSION / len(columns)))
    title = "Queries (rows) by the class of their most alike image, in %"
    if len(rows) < len(evaluation.classes):
        title = f"{title}: the {len(rows)} most confused of {len(evaluation.classes):,} classes"
    left, bottom = (min(_CONFUSION_NAMES, text_width(each, 9) + 0.15) for each in (rows, columns))
    width, height = cell * len(columns), cell * len(rows)
    spare = max(0.0, text_width([title], 11) + 0.1 - left - width)
    fig, ax = plot_curve((width, height), title, left=left, bottom=bottom, right=spare)
    ax.imshow(shares, cmap=_shades(), vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    if cell >= _NUMBERED:
        _number(ax, shares)
    _name_cells(ax, rows, columns, (left, bottom))
    return fig, ax


def show_worst(
    library: ImageLibrary, evaluation: Evaluation, n: int = 5, k: int = 5, size: float = 1.6
) -> tuple[Figure, NDArray[Any]]:
    """Show the queries with the lowest average precision, and the wrong images most like them.

    Beside each label stands the average precision (AP) of the query, or the rank and the cosine
    of what was wrongly found. Often the label is at fault.

    Parameters
    ----------
    library
        The one that was evaluated.
    evaluation
        From `evaluate`.
    n
        How many queries to show at most.
    k
        How many wrong images to show for each.
    size
        Width of a picture in inches.

    Returns
    -------
    fig : matplotlib.figure.Figure
    axes : numpy.ndarray of matplotlib.axes.Axes
        (rows, 1 + columns); queries are in the first column.

    Raises
    ------
    QueryError
        If the evaluation is of another library, or an argument is out of range.
    """
    _check_evaluation(evaluation)
    check_positive(n=n, k=k, size=size)
    if len(evaluation.labels) != len(library):
        raise QueryError(
            f"an evaluation of {len(evaluation.labels):,} images is not of this library of "
            f"{len(library):,}; give the library that was evaluated"
        )
    labels, rows = evaluation.labels, evaluation.worst(n).tolist()
    precision = dict(zip(evaluation.rows.tolist(), evaluation.per_query("mAP"), strict=True))
    answers = [_wrong(library, evaluation, row, k) for row in rows]
    headings = [f"{labels[row]} · AP {precision[row]:.2f}" for row in rows]

    def in_words(match: Match) -> str:
        return f"{match.rank} · {match.score:.3f} · {labels[match.row]}"

    return show_answers(answers, headings, in_words, None, size)


def _check_evaluation(evaluation: object) -> None:
    if not isinstance(evaluation, Evaluation):
        raise QueryError(f"{briefly(evaluation)} is no evaluation; give what evaluate returns")


class _Line(NamedTuple):
    """A curve, and how it is drawn; one without a name stays out of the legend."""

    name: str
    precision: NDArray[np.float64]
    style: dict[str, Any]


def _compared_lines(evaluations: object) -> list[_Line]:
    if not evaluations or not isinstance(evaluations, Mapping):
        raise QueryError(
            f"show_precision_recall cannot show {briefly(evaluations)}; give what "
            "simsearch.evaluate returns, or a mapping of names to such"
        )
    for each in evaluations.values():
        _check_evaluation(each)
    return [
        _Line(f"{each.overall['mAP'].value:.3f}  {name}", each.curve, _stroke(i, 1.8))
        for i, (name, each) in enumerate(evaluations.items())
    ]


def _class_lines(evaluation: Evaluation) -> list[_Line]:
    """Draw each class, the best named first, and all queries over them; too many are grey."""
    best = [table["mAP"].value for table in evaluation.by_class.values()]
    order = sorted(range(len(best)), key=lambda i: -best[i])
    named = len(order) <= 2 * len(COLORS)
    grey: dict[str, Any] = {"color": EDGE, "linewidth": 0.7, "linestyle": "-"}
    lines = [
        _Line(
            f"{best[i]:.3f}  {evaluation.classes[i]}" if named else "",
            evaluation.curves[i],
            _stroke(place, 1.2) if named else grey,
        )
        for place, i in enumerate(order)
    ]
    bold: dict[str, Any] = {"color": INK, "linewidth": 2.4, "linestyle": "-", "zorder": 3}
    name = f"{evaluation.overall['mAP'].value:.3f}  all"
    return [_Line(name, evaluation.curve, bold), *lines]


def _stroke(place: int, width: float) -> dict[str, Any]:
    """Give a colour to each of 9 lines, then again dashed, then dotted."""
    turn, color = divmod(place, len(COLORS))
    linestyle = ("-", "--", ":")[turn % 3]
    return {"color": COLORS[color], "linewidth": width, "linestyle": linestyle}


def _confusion(evaluation: Evaluation) -> tuple[list[str], list[str], NDArray[np.float64]]:
    """Return the classes of rows and of columns, and (rows, columns) shares of a row, in [0, 1]."""
    counts = evaluation.confusion()
    rows, columns = list(counts.index), list(counts.columns)
    shares = counts.to_numpy(float)
    right = np.array([row[columns.index(name)] for row, name in zip(shares, rows, strict=True)])
    wrong = shares.sum(axis=1) - right
    shares = shares / shares.sum(axis=1, keepdims=True)
    if len(columns) <= _CONFUSED:
        return rows, columns, shares
    kept = np.sort(np.argsort(-wrong, kind="stable")[:_CONFUSED])
    rows = [rows[i] for i in kept]
    own = shares[kept][:, [columns.index(name) for name in rows]]
    others = 1 - own.sum(axis=1, keepdims=True)
    return rows, [*rows, "all others"], np.hstack([own, others])


def whole_numbers() -> Any:  # noqa: ANN401
    """Return a locator whose ticks are whole numbers."""
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(integer=True)


def _shades() -> Any:  # noqa: ANN401
    """White for none to dark blue for all."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("shares", ["#ffffff", "#7fb8d9", ACCENT, "#00334f"])


def _number(ax: Axes, shares: NDArray[np.float64]) -> None:
    """Write the percentage into each cell in which there is any."""
    for (row, column), share in np.ndenumerate(shares):
        if share >= 0.005:
            color = "white" if share > 0.4 else INK
            style: dict[str, Any] = {"color": color, "fontsize": 9} | PLAIN_TEXT
            ax.text(column, row, f"{100 * share:.0f}", ha="center", va="center", **style)


def _name_cells(
    ax: Axes, rows: Sequence[str], columns: Sequence[str], room: tuple[float, float]
) -> None:
    """Write the names of rows on the left, and those of columns below, upright."""
    ax.set(xticks=[], yticks=[])
    style: dict[str, Any] = {"color": INK, "fontsize": 9}
    width, height = axes_inches(ax)
    across, down = len(columns) / width, len(rows) / height  # cells an inch
    for i, name in enumerate(rows):
        line = ax.text(-0.5 - CAPTION_GAP_INCHES * across, i, "", ha="right", va="center", **style)
        fit_text(line, name, room[0] - CAPTION_GAP_INCHES)
    for i, name in enumerate(columns):
        line = ax.text(
            i, len(rows) - 0.5 + CAPTION_GAP_INCHES * down, "", ha="center", va="top", **style
        )
        fit_text(line, name, room[1] - CAPTION_GAP_INCHES)
        line.set_rotation(90)


def _wrong(library: ImageLibrary, evaluation: Evaluation, row: int, k: int) -> Matches:
    """Find the wrong images of the gallery that are most like a query, with their ranks in it."""
    offered = set(evaluation.gallery.tolist())
    matches = search(library, row, k=len(library))
    ranked = [match for match in matches if match.row in offered]
    wrong = [
        replace(match, rank=rank)
        for rank, match in enumerate(ranked, 1)
        if evaluation.labels[match.row] != evaluation.labels[row]
    ]
    return replace(matches, rows=tuple(wrong[:k]))


def plot_curve(
    size: tuple[float, float],
    title: str,
    *,
    left: float = 0.6,
    bottom: float = 0.5,
    right: float = 0,
) -> tuple[Figure, Axes]:
    """Draw one curve into axes."""
    """Make axes of `size` inches, with room around them, that no setting changes."""
    width, height = size
    full = np.array(
        [
            left + width + right + 2 * MARGIN_INCHES,
            bottom + height + TITLE_INCHES + 2 * MARGIN_INCHES,
        ]
    )
    fig = new_figure(full)
    box = np.array([MARGIN_INCHES + left, MARGIN_INCHES + bottom, width, height]) / np.tile(full, 2)
    ax = fig.add_axes(tuple(box))
    ax.set(facecolor="white", axisbelow=True)
    ax.grid(visible=False)
    ax.tick_params(colors=GREY, labelsize=9, length=0, labelcolor=GREY)
    for spine in ax.spines.values():
        spine.set(color=EDGE, linewidth=0.6, visible=True)
    line = fig.text(
        MARGIN_INCHES / full[0], 1 - MARGIN_INCHES / full[1], "", va="top", color=INK, size=11
    )
    fit_text(line, title, full[0] - 2 * MARGIN_INCHES)
    return fig, ax
