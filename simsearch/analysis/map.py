"""The map of a library: a scatter plot with thumbnails and names, or a widget to zoom into."""

from __future__ import annotations

import logging
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, overload

import numpy as np

from simsearch.analysis.map_labels import place_labels
from simsearch.analysis.projection import MAX_ROWS, project, screen_places
from simsearch.errors import QueryError
from simsearch.plotting.charts import COLORS, lay_out, make_axes
from simsearch.plotting.grid import (
    ABOVE_POINTS,
    ACCENT,
    MARGIN_INCHES,
    TITLE_INCHES,
    Picture,
    draw_thumbnail,
    load_thumbnail,
    printable,
)
from simsearch.plotting.sheet import round_robin
from simsearch.registry import resolve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from simsearch.library.library import ImageLibrary
    from simsearch.library.types import Labels


# Colour and marker of each group; where there are more, the colours again with triangles.
GROUP_STYLES = [(color, marker) for marker in "o^" for color in COLORS]
UNLABELLED_COLOR, OTHER_COLOR = GREYS = "#cccccc", "#999999"

Method = Literal["pca", "tsne", "umap"]
log = logging.getLogger("simsearch")
MAP_INCHES, THUMBNAIL_INCHES = (7.6, 6.2), 0.42


class MapWidget(Protocol):
    """What an interactive map tells, such as `simsearch.notebook.map_widget.LibraryMap`."""

    rows: list[int]  # of the library: those that are chosen

    @property
    def paths(self) -> list[str]:
        """The paths of the chosen pictures."""


@overload
def show_map(
    library: ImageLibrary,
    method: Method = "pca",
    images: int = 50,
    color_by: Labels = "folder",
    seed: int = 0,
    *,
    interactive: Literal[False] = False,
) -> tuple[Figure, Axes]: ...
@overload
def show_map(
    library: ImageLibrary,
    method: Method = "pca",
    images: int = 50,
    color_by: Labels = "folder",
    seed: int = 0,
    *,
    interactive: bool,
) -> tuple[Figure, Axes] | MapWidget: ...
def show_map(
    library: ImageLibrary,
    method: Method = "pca",
    images: int = 50,
    color_by: Labels = "folder",
    seed: int = 0,
    *,
    interactive: bool = False,
) -> tuple[Figure, Axes] | MapWidget:
    """Show a library as a map on which similar images lie close together.

    Parameters
    ----------
    library
        From `embed_dataset` or `ImageLibrary.load`.
    method
        `pca` keeps the large distances: a straight-on view of the two widest directions, of up to
        10,000 images. `tsne` keeps the neighbours, of up to 2,000 images, in some seconds, and
        `umap` those of up to 4,000, and more of how groups lie to each other (extra "umap").
        The names of groups stand on the map, each near the median of its points.
    images
        How many thumbnails to lay over a figure at most. They never overlap, so there may be fewer.
    color_by
        What `ImageLibrary.label_rows` takes: "folder" (the last part of it, so that
        `seg_train/forest` and `seg_test/forest` are one), or a label for each image.
    seed
        Seed of all random numbers.
    interactive
        A widget in place of the figure, for a notebook: it is zoomed and moved, shows the picture
        under the pointer, and a line around pictures chooses them. Without anywidget (the extra
        "notebook") it is the figure.

    Returns
    -------
    (matplotlib.figure.Figure, matplotlib.axes.Axes) or MapWidget
        The widget's `rows` and `paths` say which pictures are chosen.

    Raises
    ------
    QueryError
        If the method is unknown, or the labels do not fit.
    MissingExtraError
        If the method is "umap" and umap-learn is not installed.
    """
    if method not in MAX_ROWS:
        raise QueryError(f"method={method!r} is unknown; choose from {', '.join(MAX_ROWS)}")
    labels = library.label_rows(color_by)
    count = min(len(library), MAX_ROWS[method])
    rows = np.sort(np.random.default_rng(seed).choice(len(library), count, replace=False))
    points, kept = project(np.asarray(library.embeddings[rows]), method, seed)
    title = _title(method, kept, count, len(library))
    draw = partial(_draw, library, _Places(rows, points, labels), title, images, seed)
    if interactive and (widget := _find_widget()):
        return widget(library, screen_places(rows, points, labels[rows]), title, lambda: draw()[0])
    return draw()


class _Places(NamedTuple):
    """Where rows lie in the unit square, and the labels of the whole library."""

    rows: NDArray[np.intp]
    points: NDArray[np.floating[Any]]
    labels: NDArray[np.str_]


def _draw(
    library: ImageLibrary, where: _Places, title: str, images: int, seed: int
) -> tuple[Figure, Axes]:
    rows, points, labels = where
    room = THUMBNAIL_INCHES + 2 * MARGIN_INCHES  # a thumbnail fits around every point
    points = points * (np.array(MAP_INCHES) - room) + room / 2

    groups = _groups(labels, rows)
    fig, ax = _empty_map(title)
    _scatter(ax, points, groups)
    free = _write_names(ax, points, groups)
    order = round_robin(labels[rows], seed)
    places = _spaced_points(points, order[free[order]], 1.15 * THUMBNAIL_INCHES)
    for i in islice(places, max(0, images)):
        picture = load_thumbnail(str(library.paths[rows[i]]), THUMBNAIL_INCHES)
        color = next(group.color for group in groups if i in group.rows)
        if isinstance(picture, Picture):  # otherwise its point will do
            draw_thumbnail(ax, picture, points[i], (THUMBNAIL_INCHES,) * 2, frame=color, line=1)
    lay_out(fig)
    return fig, ax


def _find_widget() -> Callable[..., MapWidget] | None:
    """Import the widget, or say what it needs."""
    try:
        widget: Callable[..., MapWidget] = resolve("widget", "map")
    except ImportError:
        log.warning('To zoom into the map: pip install "simsearch[notebook]"')
        return None
    return widget


def _empty_map(title: str) -> tuple[Figure, Axes]:
    """Make a map without points, whose unit is an inch."""
    width, height = MAP_INCHES
    fig, ax = make_axes(width + 2 * MARGIN_INCHES, height + TITLE_INCHES + 2 * MARGIN_INCHES, title)
    ax.set(xlim=(0, width), ylim=(0, height), xticks=[], yticks=[], aspect="equal", anchor="NW")
    return fig, ax


class _Group(NamedTuple):
    """The points of a map that share a colour."""

    name: str
    color: str
    marker: str
    rows: NDArray[np.intp]


def _groups(labels: NDArray[np.str_], rows: NDArray[np.intp]) -> list[_Group]:
    """Assign a colour and a marker to each frequent label, by name; the rest is grey."""
    shown = labels[rows]
    every, counts = np.unique(labels[labels != ""], return_counts=True)
    if not len(every):
        return [_Group("", ACCENT, "o", np.arange(len(rows)))]
    names = np.sort(every[np.argsort(-counts, kind="stable")[: len(GROUP_STYLES)]])
    groups = [
        _Group(name, color, marker, np.flatnonzero(shown == name))
        for name, (color, marker) in zip(names.tolist(), GROUP_STYLES, strict=False)
    ]
    if others := len(every) - len(names):
        rest = np.flatnonzero(~np.isin(shown, ["", *names]))
        groups.append(_Group(f"{others:,} more", OTHER_COLOR, "o", rest))
    if "" in labels:
        groups.append(_Group("no label", UNLABELLED_COLOR, "o", np.flatnonzero(shown == "")))
    return groups


def _title(method: str, kept: float, count: int, total: int) -> str:
    of = f"{count:,} of {total:,} images, drawn at random" if count < total else f"{total:,} images"
    names = {"tsne": "t-SNE", "umap": "UMAP", "pca": "PCA"}
    return f"{names[method]} of {of}" + f" ({kept:.0%} of the variance)" * (method == "pca")


def _scatter(ax: Axes, points: NDArray[np.floating[Any]], groups: Sequence[_Group]) -> None:
    """Draw the points, grey ones lowest."""
    area = float(np.clip(20_000 / len(points), 4, 30))
    for group in groups:
        ax.scatter(
            points[group.rows, 0],
            points[group.rows, 1],
            s=area,
            alpha=0.8,
            linewidths=0,
            color=group.color,
            marker=group.marker,
            label=printable(group.name),
            zorder=ABOVE_POINTS - (2 if group.color in GREYS else 1),
        )


def _write_names(
    ax: Axes, points: NDArray[np.floating[Any]], groups: Sequence[_Group]
) -> NDArray[np.bool_]:
    """Name the groups if there are several; return where a thumbnail would cover no name."""
    named = [group for group in groups if len(groups) > 1 and len(group.rows)]
    named.sort(key=lambda group: (group.color in GREYS, -len(group.rows)))
    boxes = place_labels(
        ax,
        [group.name for group in named],
        [group.color for group in named],
        [np.median(points[group.rows], axis=0) for group in named],
        MAP_INCHES,
    )
    half = THUMBNAIL_INCHES / 2
    free = np.ones(len(points), bool)
    for box in boxes:
        low, high = np.array(box[:2]) - half, np.array(box[2:]) + half
        free &= ~((points > low) & (points < high)).all(axis=1)
    return free


def _spaced_points(
    points: NDArray[np.floating[Any]], order: NDArray[np.intp], distance: float
) -> Iterator[int]:
    """Yield points in an order, except those within a square around an earlier one."""
    taken = np.empty((0, 2))
    for i in order.tolist():
        if np.all(np.abs(taken - points[i]).max(axis=1) >= distance):
            taken = np.vstack([taken, points[i]])
            yield i
