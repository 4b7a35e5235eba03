"""Names of groups on a map: each near the median of its points, none over another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from simsearch.plotting.grid import DPI, fit_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from matplotlib.axes import Axes
    from matplotlib.text import Text
    from numpy.typing import NDArray

LABEL_INCHES, LABEL_POINTS = 1.6, 9.5  # width at most, size of the letters
GAP_INCHES = 0.06  # between two labels, and to the edge
OUTLINE_POINTS = 3.0
INK_CONTRAST = 4.5  # against the outline, which is white
TURNS, STEP_INCHES = 24, 0.12  # of the rings around a median on which a label looks for room


class Box(NamedTuple):
    """A rectangle on the map, in inches from its lower left corner."""

    left: float
    bottom: float
    right: float
    top: float

    def meets(self, other: Box) -> bool:
        """Whether the two have points in common."""
        across = self.left < other.right and other.left < self.right
        return across and self.bottom < other.top and other.bottom < self.top


def place_labels(
    ax: Axes,
    names: Sequence[str],
    colors: Sequence[str],
    medians: Sequence[NDArray[np.floating[Any]]],
    area: tuple[float, float],
) -> list[Box]:
    """Write names on a map whose unit is an inch, the first where it belongs.

    Parameters
    ----------
    ax
        Its data coordinates are inches from the lower left corner.
    names, colors
        Of each label. The letters are as dark as it takes to read them on white.
    medians
        Where each belongs, x and y. It goes to the nearest free place around it, with a line back
        to it where that is not the place itself.
    area
        Width and height of the map in inches.

    Returns
    -------
    boxes : list of Box
        Where each name stands; no two meet, as long as the map has room for all.
    """
    taken: list[Box] = []
    for name, color, median in zip(names, colors, medians, strict=True):
        text = _write(ax, name, dark(color))
        seen = text.get_window_extent(dpi=DPI)
        size = np.array([seen.width, seen.height]) / DPI + GAP_INCHES
        box = next(
            (box for box in _candidates(median, size, area) if not any(map(box.meets, taken))),
            _box(median, size, area),  # no room is left at all
        )
        middle = (box.left + box.right) / 2, (box.bottom + box.top) / 2
        text.set_position(middle)
        if not (box.left <= median[0] <= box.right and box.bottom <= median[1] <= box.top):
            ax.plot(*zip(median, middle, strict=True), color=dark(color), lw=0.7, zorder=2.9)
        taken.append(box)
    return taken


def _write(ax: Axes, name: str, color: str) -> Text:
    """Make an outlined text whose name is cut to the width of a label."""
    from matplotlib.patheffects import withStroke

    text = ax.text(0, 0, "", ha="center", va="center", color=color, size=LABEL_POINTS, zorder=4)
    text.set_fontweight("bold")
    fit_text(text, name, LABEL_INCHES)
    text.set_path_effects([withStroke(linewidth=OUTLINE_POINTS, foreground="white")])
    text.set_in_layout(False)
    return text


def _candidates(
    median: NDArray[np.floating[Any]], size: NDArray[np.floating[Any]], area: tuple[float, float]
) -> Iterator[Box]:
    """Yield places for a label: its median, then rings around it, the nearest first."""
    yield _box(median, size, area)
    angles = np.linspace(0, 2 * np.pi, TURNS, endpoint=False) + np.pi / 2
    for radius in np.arange(STEP_INCHES, sum(area), STEP_INCHES):
        for angle in angles:
            yield _box(median + radius * np.array([np.cos(angle), np.sin(angle)]), size, area)


def _box(
    middle: NDArray[np.floating[Any]], size: NDArray[np.floating[Any]], area: tuple[float, float]
) -> Box:
    """Return the box around a point, moved into the map."""
    low = np.clip(middle - size / 2, 0, np.maximum(np.array(area) - size, 0))
    return Box(*low.tolist(), *(low + size).tolist())


def dark(color: str) -> str:
    """Darken a colour until letters of it can be read on white (WCAG's contrast)."""
    from matplotlib.colors import to_hex, to_rgb

    rgb = np.array(to_rgb(color))
    while 1.05 / (_luminance(rgb) + 0.05) < INK_CONTRAST:
        rgb = rgb * 0.95
    return str(to_hex(rgb.tolist()))


def _luminance(rgb: NDArray[np.floating[Any]]) -> float:
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])
