"""Grids of thumbnails with captions: equal cells, nothing clipped, text that always fits.

The data units of a cell are inches. All figures of the package are made by `new_figure`.
"""

from __future__ import annotations

import sys
import textwrap
from itertools import chain
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from simsearch.errors import ImageError, QueryError
from simsearch.images.decode import load_preview

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text
    from numpy.typing import NDArray

    from simsearch.images.decode import ImageSources


DPI = 130
PIXELS_PER_DOT = 2  # image pixels per figure pixel, so that a figure can be saved at twice its dpi
MARGIN_INCHES, TITLE_INCHES = 0.15, 0.3  # around a figure, for its title
GAP_INCHES = 0.18  # between cells
CAPTION_GAP_INCHES, LINE_INCHES = 0.08, 0.17  # from a cell to its caption, for a line of it

INK, GREY, EDGE, ACCENT = "#222222", "#767676", "#d0d0d0", "#0072b2"

PLAIN_TEXT: dict[str, Any] = {"parse_math": False, "usetex": False}  # a "$" in a name is a "$"
ABOVE_POINTS = 2.5  # zorder: over the points of a map, under text


def check_positive(**values: float | None) -> None:
    """Refuse a number that is given and not above 0."""
    for name, value in values.items():
        if value is not None and not value > 0:
            raise QueryError(f"{name}={value}: give a number above 0")


def short_path(path: str) -> str:
    """Keep the folder and the name of a path."""
    return "/".join(PurePath(path).as_posix().split("/")[-2:])


def printable(text: str) -> str:
    """Put a name on one line, with "?" for each character that matplotlib's fonts lack.

    Drawing such a character would warn, or raise for half a surrogate pair. A font that has it can
    be added to `matplotlib.rcParams["font.family"]`.
    """
    from matplotlib.font_manager import FontProperties, findfont, get_font

    families = FontProperties().get_family()
    fonts = [get_font(findfont(FontProperties(family=[family]))) for family in families]
    return "".join(
        char if any(font.get_char_index(ord(char)) for font in fonts) else "?"
        for char in " ".join(text.split())
    )


def fit_text(line: Text, text: str, width: float) -> None:
    """Set a line's text, cut in its middle until it fits into `width` inches."""
    full = printable(text)
    line.set(text=full, **PLAIN_TEXT)
    keep = len(full)
    while keep > 1 and (wide := line.get_window_extent(dpi=DPI).width / DPI) > width:
        keep = max(1, min(keep - 1, int(keep * width / wide)))
        end = keep * 2 // 3  # the end tells names apart: photo_0001.jpg
        line.set_text(f"{full[: keep - 1 - end]}…{full[len(full) - end :]}")


def new_figure(width: float, height: float, title: str = "") -> Figure:
    """Make an empty figure of a size in inches, known to pyplot so that a notebook shows it."""
    import matplotlib.pyplot as plt
    from matplotlib.layout_engine import PlaceHolderLayoutEngine

    # After a first save, layout="none" would give way to the one in rcParams.
    layout = PlaceHolderLayoutEngine(adjust_compatible=True, colorbar_gridspec=True)
    fig = plt.figure(figsize=(width, height), dpi=DPI, facecolor="white", layout=layout)
    if "IPython" in sys.modules:
        from simsearch.plotting.alt_text import add_alt_texts

        add_alt_texts()
    if title:
        line = fig.suptitle("", x=MARGIN_INCHES / width, ha="left", color=INK, size=11)
        line.set(y=1 - MARGIN_INCHES / height, va="top", weight="normal")
        fit_text(line, title, width - 2 * MARGIN_INCHES)
    return fig


class Picture(NamedTuple):
    """An image, no larger than a figure needs it."""

    pixels: NDArray[np.uint8]  # (H, W, 3)
    ratio: float  # height / width of the image itself, as a thumbnail's is rounded


BLANK_PIXELS = np.full((1, 1, 3), 240, np.uint8)


def load_thumbnail(source: ImageSources | None, size: float) -> Picture | str:
    """Load an image to be shown `size` inches wide and high at most; if that fails, say why."""
    if source is None:
        return "an embedding, not an image"
    pixels = max(1, round(size * DPI * PIXELS_PER_DOT))
    try:
        image = load_preview(source, min_side=pixels)
    except ImageError as error:
        return error.reason
    ratio = image.height / image.width
    image.thumbnail((pixels, pixels))
    return Picture(np.asarray(image), ratio)


class Cell(NamedTuple):
    """A picture, or why there is none, over the lines of its caption."""

    picture: Picture | str
    caption: Sequence[str] = ()
    accent: bool = False  # with a blue frame and a blue first line


def draw_grid(
    rows: Sequence[Sequence[Cell | None]], size: float, title: str = ""
) -> tuple[Figure, NDArray[Any]]:
    """Draw rows of cells, all of one size; the first column stands apart if it has an accent.

    Parameters
    ----------
    rows
        From top to bottom, as long as they are; None leaves a cell empty.
    size
        Width of a cell in inches. All are as high as their highest picture, and square at most.
    title
        Of the figure; "" for none.

    Returns
    -------
    fig : matplotlib.figure.Figure
    axes : numpy.ndarray of matplotlib.axes.Axes
        (rows, columns)
    """
    cells = [cell for cell in chain(*rows) if cell]
    ratios = [cell.picture.ratio for cell in cells if isinstance(cell.picture, Picture)]
    caption = CAPTION_GAP_INCHES + LINE_INCHES * max(len(cell.caption) for cell in cells)
    lead = GAP_INCHES * any(cell.accent for cell in cells)
    height = size * min(1, max([0.6, *ratios]))
    fig, axes = _empty_grid((len(rows), max(map(len, rows))), (size, height), caption, lead, title)
    for line, row in zip(axes, rows, strict=True):
        for ax, cell in zip(line, row, strict=False):
            if cell:
                _fill(ax, cell, size, height)
    return fig, axes


def _empty_grid(
    shape: tuple[int, int], size: tuple[float, float], caption: float, lead: float, title: str
) -> tuple[Figure, NDArray[Any]]:
    """Make empty cells of a size, with room for captions, and a lead after the first column."""
    width, height = size
    left, top = MARGIN_INCHES + lead, MARGIN_INCHES + TITLE_INCHES * bool(title)
    wide = left + shape[1] * (width + GAP_INCHES) - GAP_INCHES + MARGIN_INCHES
    high = top + shape[0] * (height + caption + GAP_INCHES) - GAP_INCHES + MARGIN_INCHES
    fig = new_figure(wide, high, title)
    layout = {
        "left": left / wide,
        "right": 1 - MARGIN_INCHES / wide,
        "top": 1 - top / high,
        "bottom": (MARGIN_INCHES + caption) / high,
        "wspace": GAP_INCHES / width,
        "hspace": (caption + GAP_INCHES) / height,
    }
    axes = fig.subplots(*shape, squeeze=False, gridspec_kw=layout)
    for ax in axes.flat:
        ax.set(xlim=(-width / 2, width / 2), ylim=(-height / 2, height / 2))
        ax.set_axis_off()
    for ax in axes[:, 0]:
        ax.set_position(ax.get_position().translated(-lead / wide, 0))
    return fig, axes


def _fill(ax: Axes, cell: Cell, width: float, height: float) -> None:
    """Draw a picture in the middle of its cell, or a grey one that says why there is none."""
    picture = cell.picture
    if isinstance(picture, str):
        reason = textwrap.fill(printable(picture), max(6, int(width * 11)), max_lines=4)
        ax.text(0, 0, reason, ha="center", va="center", color=GREY, fontsize=9, **PLAIN_TEXT)
        picture = Picture(BLANK_PIXELS, height / width)
    frame, line = (ACCENT, 2.5) if cell.accent else (EDGE, 0.6)
    draw_thumbnail(ax, picture, (0, 0), (width, height), frame=frame, line=line)
    first = {"color": ACCENT, "weight": "bold"} if cell.accent else {"color": INK}
    for i, text in enumerate(cell.caption):
        y = -height / 2 - CAPTION_GAP_INCHES - i * LINE_INCHES
        style: dict[str, Any] = {"color": GREY} if i else first
        written = ax.text(0, y, "", ha="center", va="top", fontsize=9, **style)
        fit_text(written, text, width)


def draw_thumbnail(
    ax: Axes,
    picture: Picture,
    middle: tuple[float, float],
    room: tuple[float, float],
    *,
    frame: str,
    line: float,
) -> None:
    """Draw a picture around a point, undistorted and as large as the room for it, in a frame.

    A data unit must be as long on both axes.
    """
    from matplotlib.patches import Rectangle

    width = min(room[0], room[1] / picture.ratio)
    height = min(room[1], room[0] * picture.ratio)
    left, bottom = middle[0] - width / 2, middle[1] - height / 2
    # The frame lies behind, so that it takes nothing off the picture: only its outer half shows.
    style: dict[str, Any] = {"color": frame, "linewidth": 2 * line, "zorder": ABOVE_POINTS}
    ax.add_patch(Rectangle((left, bottom), width, height, clip_on=False, **style))
    extent = (left, left + width, bottom, bottom + height)
    ax.imshow(picture.pixels, extent=extent, aspect=ax.get_aspect(), zorder=ABOVE_POINTS)
