"""Parts of charts: axes, legends beside them, colours of groups, constrained layout."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from simsearch.plotting.grid import (
    EDGE,
    GREY,
    INK,
    MARGIN_INCHES,
    fit_text,
    new_figure,
    printable,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LAYOUT_PASSES = 3  # after which nothing moves by a visible part of a pixel
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
    """Name what is drawn, to the right of the axes, in `room` inches."""
    legend = ax.legend(
        handles,
        [" "] * len(names),  # matplotlib would leave out a name that starts with "_"
        loc="upper left",
        bbox_to_anchor=(1.02, 1),
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


def make_axes(width: float, height: float, title: str) -> tuple[Figure, Axes]:
    """Make axes in a figure of a size in inches; `lay_out` fits them into it."""
    fig = new_figure(width, height, title)
    ax = fig.add_subplot()
    ax.set(facecolor="white", axisbelow=True)
    ax.grid(visible=False)
    ax.tick_params(colors=GREY, labelsize=9, length=0, labelcolor=GREY)
    ax.spines[:].set(color=EDGE, linewidth=0.6, visible=True)
    return fig, ax


def lay_out(fig: Figure) -> None:
    """Make room for what stands around the axes, whatever is set in rcParams."""
    fig.set_layout_engine("constrained", w_pad=MARGIN_INCHES, h_pad=MARGIN_INCHES)
    for _ in range(LAYOUT_PASSES):
        fig.draw_without_rendering()
