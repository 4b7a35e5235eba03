"""Figures of an evaluation: precision-recall curves, confusion matrix, worst queries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from simsearch.errors import QueryError
from simsearch.evaluation.evaluation import Evaluation
from simsearch.evaluation.metrics import RECALL_PERCENTS
from simsearch.plotting.charts import COLORS, add_legend, lay_out, make_axes, text_width
from simsearch.plotting.grid import (
    ACCENT,
    EDGE,
    INK,
    PLAIN_TEXT,
    TITLE_INCHES,
    check_positive,
    fit_text,
)
from simsearch.plotting.matches import show_answers
from simsearch.plotting.refusals import short_repr
from simsearch.retrieval.search import search

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from simsearch.library.library import ImageLibrary
    from simsearch.retrieval.matches import Match, Matches


CURVE_INCHES, LEGEND_INCHES = (6.1, 5.3), 2.2
MATRIX_CLASSES = 30  # rows of a confusion matrix at most
MATRIX_INCHES, NAMES_INCHES = 6.6, 1.7
CELL_INCHES, NUMBERED_CELL_INCHES = (0.22, 0.52), 0.34  # limits; the least that holds a number
FRAME_INCHES = 0.5  # two margins, and the gaps between names and cells
SHADES = ("#ffffff", "#7fb8d9", ACCENT, "#00334f")  # white for none to dark blue for all


def show_precision_recall(
    evaluations: Evaluation | Mapping[str, Evaluation],
) -> tuple[Figure, Axes]:
    """Show how precision falls as more of the relevant images are found.

    Each curve is the interpolated precision, mean over queries: at 0.5 recall, the highest share of
    relevant images among those ranked so far. The mAP stands before its name.

    Parameters
    ----------
    evaluations
        From `evaluate`: one, to show its classes, or several by name, to compare them.

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
    lines = _class_curves(one) if one else _curves_to_compare(evaluations)
    title = "Precision and recall"
    if one:
        title += f" of {len(one.rows):,} queries in {len(one.gallery):,} images"
    fig, ax = make_axes(CURVE_INCHES[0] + LEGEND_INCHES, CURVE_INCHES[1], title)
    ax.set(xlim=(0, 1), ylim=(0, 1.01))
    ax.set_xlabel("recall", color=INK, fontsize=10)
    ax.set_ylabel("precision", color=INK, fontsize=10)
    ax.grid(visible=True, color=EDGE, linewidth=0.5, linestyle="-", alpha=1)
    handles = [ax.plot(RECALL_PERCENTS / 100, line.precision, **line.style)[0] for line in lines]
    named = [i for i, line in enumerate(lines) if line.name]
    add_legend(
        ax, [handles[i] for i in named], [lines[i].name for i in named], LEGEND_INCHES, "mAP"
    )
    lay_out(fig)
    return fig, ax


def show_confusion(evaluation: Evaluation) -> tuple[Figure, Axes]:
    """Show the confusion matrix: the classes of queries by the class of the most similar image.

    A row is a class of queries and adds up to 100%; the diagonal is precision@1. Of more than 30
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
    from matplotlib.colors import LinearSegmentedColormap

    _check_evaluation(evaluation)
    rows, columns, shares = _confusion(evaluation)
    title = "Queries (rows) by the class of their most similar image, in %"
    if len(rows) < len(evaluation.classes):
        title = f"{title}: the {len(rows)} most confused of {len(evaluation.classes):,} classes"
    cell = float(np.clip(MATRIX_INCHES / len(columns), *CELL_INCHES))
    left, below = (min(NAMES_INCHES, text_width(each, 9)) for each in (rows, columns))
    width = max(cell * len(columns) + left, text_width([title], 11)) + FRAME_INCHES
    fig, ax = make_axes(width, cell * len(rows) + below + TITLE_INCHES + FRAME_INCHES, title)
    ax.set_anchor("NW")
    cmap = LinearSegmentedColormap.from_list("shares", SHADES)
    ax.imshow(shares, cmap=cmap, vmin=0, vmax=1, aspect="equal", interpolation="nearest")
    if cell >= NUMBERED_CELL_INCHES:
        _write_percentages(ax, shares)
    _write_names(ax.yaxis, rows)
    _write_names(ax.xaxis, columns, rotation=90)
    lay_out(fig)
    return fig, ax


def show_worst(
    library: ImageLibrary, evaluation: Evaluation, n: int = 5, k: int = 5, size: float = 1.6
) -> tuple[Figure, NDArray[Any]]:
    """Show the queries with the lowest average precision, and the wrong images most like them.

    Each query's caption is its label and average precision (AP), and each match's is its rank,
    cosine and label. Often the label is at fault.

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
    answers = [_wrong_matches(library, evaluation, row, k) for row in rows]
    headings = [f"{labels[row]} · AP {precision[row]:.2f}" for row in rows]

    def caption(match: Match) -> str:
        return f"{match.rank} · {match.score:.3f} · {labels[match.row]}"

    return show_answers(answers, headings, caption, None, size)


def _check_evaluation(evaluation: object) -> None:
    if not isinstance(evaluation, Evaluation):
        raise QueryError(f"{short_repr(evaluation)} is no evaluation; give what evaluate returns")


class _Curve(NamedTuple):
    """A curve and its style; one without a name is not in the legend."""

    name: str
    precision: NDArray[np.float64]
    style: dict[str, Any]


def _curves_to_compare(evaluations: object) -> list[_Curve]:
    if not evaluations or not isinstance(evaluations, Mapping):
        raise QueryError(
            f"show_precision_recall cannot show {short_repr(evaluations)}; give what "
            "simsearch.evaluate returns, or a mapping of names to such"
        )
    for each in evaluations.values():
        _check_evaluation(each)
    return [
        _Curve(f"{each.overall['mAP'].value:.3f}  {name}", each.curve, _line_style(i, 1.8))
        for i, (name, each) in enumerate(evaluations.items())
    ]


def _class_curves(evaluation: Evaluation) -> list[_Curve]:
    """Return a curve of all queries, then one per class, best first; too many are grey."""
    best = [table["mAP"].value for table in evaluation.by_class.values()]
    order = sorted(range(len(best)), key=lambda i: -best[i])
    named = len(order) <= 2 * len(COLORS)
    grey: dict[str, Any] = {"color": EDGE, "linewidth": 0.7, "linestyle": "-"}
    lines = [
        _Curve(
            f"{best[i]:.3f}  {evaluation.classes[i]}" if named else "",
            evaluation.curves[i],
            _line_style(place, 1.2) if named else grey,
        )
        for place, i in enumerate(order)
    ]
    bold: dict[str, Any] = {"color": INK, "linewidth": 2.4, "linestyle": "-", "zorder": 3}
    name = f"{evaluation.overall['mAP'].value:.3f}  all"
    return [_Curve(name, evaluation.curve, bold), *lines]


def _line_style(place: int, width: float) -> dict[str, Any]:
    """Cycle through 9 colours, solid, then dashed, then dotted."""
    cycle, color = divmod(place, len(COLORS))
    return {"color": COLORS[color], "linewidth": width, "linestyle": ("-", "--", ":")[cycle % 3]}


def _confusion(evaluation: Evaluation) -> tuple[list[str], list[str], NDArray[np.float64]]:
    """Return the classes of rows and of columns, and (rows, columns) shares of a row, in [0, 1]."""
    counts = evaluation.confusion()
    sums = counts.sum(axis=1)
    shares = counts.div(sums, axis=0)
    if counts.shape[1] > MATRIX_CLASSES:
        wrong = sums - np.diag(counts[counts.index])
        kept = wrong.nlargest(MATRIX_CLASSES).index.sort_values()
        shares = shares.loc[kept, kept]
        others = 1 - shares.sum(axis=1)
        shares.insert(len(kept), "all others", others, allow_duplicates=True)
    return list(shares.index), list(shares.columns), shares.to_numpy()


def _write_percentages(ax: Axes, shares: NDArray[np.float64]) -> None:
    """Write the percentage into each cell that is not empty."""
    for (row, column), share in np.ndenumerate(shares):
        if share >= 0.005:
            style = PLAIN_TEXT | {"color": "white" if share > 0.4 else INK, "fontsize": 9}
            ax.text(column, row, f"{100 * share:.0f}", ha="center", va="center", **style)


def _write_names(axis: Axis, names: Sequence[str], rotation: float = 0) -> None:
    """Name the ticks of an axis, in `NAMES_INCHES` at most."""
    line = axis.axes.text(0, 0, "", fontsize=9)
    fitted = []
    for name in names:
        fit_text(line, name, NAMES_INCHES)
        fitted.append(line.get_text())
    line.remove()
    axis.set_ticks(range(len(names)), fitted, color=INK, rotation=rotation, **PLAIN_TEXT)


def _wrong_matches(library: ImageLibrary, evaluation: Evaluation, row: int, k: int) -> Matches:
    """Find the wrong images of the gallery that are most like a query, with their ranks in it."""
    gallery = set(evaluation.gallery.tolist())
    matches = search(library, row, k=len(library))
    ranked = [match for match in matches if match.row in gallery]
    wrong = [
        replace(match, rank=rank)
        for rank, match in enumerate(ranked, 1)
        if evaluation.labels[match.row] != evaluation.labels[row]
    ]
    return replace(matches, rows=tuple(wrong[:k]))
