"""Parts of charts: axes of a fixed size, legends beside them, colours of groups."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from simsearch.plotting.grid import (
    EDGE,
    GREY,
    INK,
    MARGIN_INCHES,
    TITLE_INCHES,
    axes_inches,
    fit_text,
    new_figure,
    printable,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Paul Tol's "muted" scheme, which colour-blind readers can tell apart.
COLORS = "#cc6677 #332288 #ddaa33 #117733 #88ccee #882255 #44aa99 #999933 #aa4499".split()  # noqa: SIM905


def text_width(names: Sequence[str], points: float) -> float:
    """Width of the widest of some lines of text, in inches."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath

    font = FontProperties(size=points)
    paths = [TextPath((0, 0), printable(name).replace("$", "S"), prop=font) for name in names]
    return max(path.get_extents().width for path in paths) / 72


def add_legend(
    ax: Axes,
    handles: Sequence[Any],
    names: Sequence[str],
    room: float,
    heading: str | None = None,
) -> None:
    """Name what is drawn, to the right of it, in `room` inches."""
    legend = ax.legend(
        handles,
        [" "] * len(names),  # matplotlib would leave out a name that starts with "_"
        loc="upper left",
        bbox_to_anchor=(1 + MARGIN_INCHES / axes_inches(ax)[0], 1),
        borderaxespad=0,
        borderpad=0,
        handletextpad=0.3,
        labelspacing=0.6,
        markerscale=1.4,
        frameon=False,
        fontsize=9,
        labelcolor=INK,
        title=heading,
        title_fontproperties={"size": 9},
        alignment="left",
    )
    legend.get_title().set_color(GREY)
    for line, name in zip(legend.get_texts(), names, strict=True):
        fit_text(line, name, room - 0.4)


def make_axes(
    size: tuple[float, float],
    title: str,
    *,
    left: float = 0.6,
    bottom: float = 0.5,
    right: float = 0,
) -> tuple[Figure, Axes]:
    """Make axes of `size` inches, with room around them, in a style that no setting changes."""
    width, height = size
    full_width = left + width + right + 2 * MARGIN_INCHES
    full_height = bottom + height + TITLE_INCHES + 2 * MARGIN_INCHES
    fig = new_figure(full_width, full_height, title)
    start = (MARGIN_INCHES + left) / full_width, (MARGIN_INCHES + bottom) / full_height
    ax = fig.add_axes((*start, width / full_width, height / full_height))
    ax.set(facecolor="white", axisbelow=True)
    ax.grid(visible=False)
    ax.tick_params(colors=GREY, labelsize=9, length=0, labelcolor=GREY)
    ax.spines[:].set(color=EDGE, linewidth=0.6, visible=True)
    return fig, ax
