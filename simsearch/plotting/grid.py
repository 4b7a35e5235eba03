"""Grids of thumbnails with captions: equal cells, nothing clipped, texts that always fit.

Layouts are computed in inches, and the data units of cells are inches, too.
"""

from __future__ import annotations

import textwrap
from pathlib import PurePath
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from simsearch.errors import ImageError, QueryError
from simsearch.images.decode import load_preview

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text
    from numpy.typing import NDArray

    from simsearch.images.decode import ImageSources


DPI = 130
PIXELS_PER_DOT = 2  # image pixels per figure pixel, so that a figure can be saved at twice its dpi
# Around a figure, between cells, from a cell to its caption, for a line of it, for a title.
MARGIN_INCHES, GAP_INCHES, CAPTION_GAP_INCHES, LINE_INCHES, TITLE_INCHES = (
    0.15,
    0.18,
    0.08,
    0.17,
    0.3,
)

INK, GREY, EDGE, ACCENT = "#222222", "#767676", "#d0d0d0", "#0072b2"

PLAIN_TEXT: dict[str, Any] = {"parse_math": False, "usetex": False}  # a "$" in a name is a "$"
ABOVE_POINTS = 2.5  # zorder: over the points of a map, under text


def check_positive(**values: float | None) -> None:
    """Refuse a number that is given and not above 0."""
    for name, value in values.items():
        if value is not None and not value > 0:
            raise QueryError(f"{name}={value}: give a number above 0")


def briefly(value: object) -> str:
    """Show a value in a message, shortened."""
    return textwrap.shorten(repr(value), 60, placeholder=" ...")


def round_robin(labels: NDArray[Any], seed: int = 0) -> NDArray[np.intp]:
    """Order rows so that each label has its n-th turn before any has its next; else at random."""
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    _, which, counts = np.unique(labels[shuffled], return_inverse=True, return_counts=True)
    turn = np.empty(len(labels), np.intp)
    turn[np.argsort(which, kind="stable")] = np.concatenate([np.arange(n) for n in counts])
    return shuffled[np.argsort(turn, kind="stable")]


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
    """Set a line's text, cut in its middle until `width` inches hold it."""
    full = printable(text)
    line.set(text=full, **PLAIN_TEXT)
    keep = len(full)
    while keep > 1 and (wide := line.get_window_extent(dpi=DPI).width / DPI) > width:
        keep = max(1, min(keep - 1, int(keep * width / wide)))
        end = keep * 2 // 3  # the end tells names apart: photo_0001.jpg
        line.set_text(f"{full[: keep - 1 - end]}…{full[len(full) - end :]}")


def write_caption(ax: Axes, *lines: str, **first: Any) -> None:  # noqa: ANN401
    """Write small grey lines under a cell; `first` is how the first of them differs."""
    width, height = cell_inches(ax)
    for i, text in enumerate(lines):
        style: dict[str, Any] = {"color": GREY, "fontsize": 9} | (first if i == 0 else {})
        line = ax.text(
            0,
            -height / 2 - CAPTION_GAP_INCHES - i * LINE_INCHES,
            "",
            ha="center",
            va="top",
            **style,
        )
        fit_text(line, text, width + GAP_INCHES / 2)


def new_figure(inches: NDArray[np.floating[Any]]) -> Figure:
    """Make an empty figure, known to pyplot so that a notebook shows it."""
    import matplotlib.pyplot as plt
    from matplotlib.layout_engine import PlaceHolderLayoutEngine

    # After a first save, layout="none" would give way to the one in rcParams.
    layout = PlaceHolderLayoutEngine(adjust_compatible=True, colorbar_gridspec=True)
    width, height = inches.tolist()
    return plt.figure(figsize=(width, height), dpi=DPI, facecolor="white", layout=layout)


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


def cell_size(width: float, pictures: Sequence[Picture | str]) -> tuple[float, float]:
    """Make all cells as high as their highest picture, and square at most."""
    ratios = [picture.ratio for picture in pictures if isinstance(picture, Picture)]
    return width, width * min(1, max([0.6, *ratios]))


def make_grid(
    shape: tuple[int, int],
    cell: tuple[float, float],
    lines: int,
    lead: float = 0,
    title: str = "",
) -> tuple[Figure, NDArray[Any]]:
    """Make a figure of empty cells, `lead` inches between the first column and the others."""
    (rows, columns), (width, height) = shape, cell
    step = np.array([width, height + CAPTION_GAP_INCHES + lines * LINE_INCHES]) + GAP_INCHES
    head = TITLE_INCHES if title else 0
    full = step * (columns, rows) - GAP_INCHES + 2 * MARGIN_INCHES + (lead, head)
    fig = new_figure(full)
    axes = np.empty(shape, object)
    for row, column in np.ndindex(shape):
        left, top = step * (column, row) + (
            MARGIN_INCHES + lead * (column > 0),
            MARGIN_INCHES + head,
        )
        box = np.array([left, full[1] - top - height, width, height]) / np.tile(full, 2)
        ax = axes[row, column] = fig.add_axes(tuple(box))
        ax.set(xlim=(-width / 2, width / 2), ylim=(-height / 2, height / 2))
        ax.set_axis_off()
    if title:
        line = fig.text(
            MARGIN_INCHES / full[0], 1 - MARGIN_INCHES / full[1], "", va="top", color=INK, size=11
        )
        fit_text(line, title, full[0] - 2 * MARGIN_INCHES)
    return fig, axes


def cell_inches(ax: Axes) -> tuple[float, float]:
    """Width and height of a cell, which are its data units too."""
    return 2 * ax.get_xlim()[1], 2 * ax.get_ylim()[1]


def show_picture(ax: Axes, picture: Picture | str, frame: str = EDGE, line: float = 0.6) -> None:
    """Draw a picture in the middle of its cell, or a grey one that says why there is none."""
    width, height = cell_inches(ax)
    if isinstance(picture, str):
        reason = textwrap.fill(printable(picture), max(6, int(width * 11)), max_lines=4)
        style: dict[str, Any] = {"color": GREY, "fontsize": 9} | PLAIN_TEXT
        ax.text(0, 0, reason, ha="center", va="center", **style)
        picture = Picture(BLANK_PIXELS, height / width)
    draw_thumbnail(ax, picture, (0, 0), (width, height), frame=frame, line=line)


def draw_thumbnail(
    ax: Axes,
    picture: Picture,
    middle: tuple[float, float],
    room: tuple[float, float],
    *,
    frame: str,
    line: float,
) -> None:
    """Draw a picture around a point, undistorted and as large as the room for it, in a frame."""
    from matplotlib.patches import Rectangle

    width = min(room[0], room[1] / picture.ratio)
    height = min(room[1], room[0] * picture.ratio)
    left, bottom = middle[0] - width / 2, middle[1] - height / 2
    # The frame lies behind, so that it takes nothing off the picture: only its outer half shows.
    style: dict[str, Any] = {"color": frame, "linewidth": 2 * line, "zorder": ABOVE_POINTS}
    ax.add_patch(Rectangle((left, bottom), width, height, clip_on=False, **style))
    extent = (left, left + width, bottom, bottom + height)
    ax.imshow(picture.pixels, extent=extent, aspect="auto", zorder=ABOVE_POINTS)
