"""Every figure: the matches of a query, a sheet of images, the map of a library.

Each function returns `(fig, axes)`, ready for `fig.savefig`. Nothing here searches or embeds, and
matplotlib is imported only when a figure is drawn. Layouts are computed in inches, and an axes'
data units are inches too, so that cells are equal, nothing is clipped, and no solver is needed.
"""

from __future__ import annotations

import math
import os
import posixpath
import statistics
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from PIL import Image

from simsearch.errors import ImageError, QueryError
from simsearch.images import ImageSource, describe, load_image
from simsearch.library import ImageLibrary
from simsearch.search import Match, Matches, percentile

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text
    from numpy.typing import NDArray

_DPI = 130
_SHARPNESS = 2  # image pixels per figure pixel, so that a figure can be saved at twice its dpi
# Inches: around a figure, between cells, from a cell to its caption, for a line of it, for a title.
_MARGIN, _GAP, _DROP, _LINE, _HEAD = 0.15, 0.18, 0.08, 0.17, 0.3
_MATCHES_A_ROW = 6

_INK, _GREY, _EDGE, _ACCENT = "#222222", "#767676", "#d0d0d0", "#0072b2"
# Paul Tol's "muted" scheme, which colour-blind readers can tell apart; then again with triangles.
_COLORS = "#cc6677 #332288 #ddaa33 #117733 #88ccee #882255 #44aa99 #999933 #aa4499".split()  # noqa: SIM905
_STYLES = [(color, marker) for marker in "o^" for color in _COLORS]
_UNLABELLED, _OTHER = "#cccccc", "#999999"

_PLAIN: dict[str, Any] = {"parse_math": False, "usetex": False}  # a "$" in a name is a "$"
_ON_TOP = 2.5  # zorder: over the points of a map, under text

_MAP = (7.6, 6.2)  # inches
_MAP_THUMBNAIL, _MAP_LEGEND = 0.42, 1.5  # inches
_MAP_ROWS = {"pca": 10_000, "tsne": 2_000}  # at most, so that a map takes seconds


def show_matches(
    matches: Matches | Sequence[Matches], columns: int | None = None, size: float = 1.8
) -> tuple[Figure, NDArray[Any]]:
    """Show queries and what was found for them.

    Each query stands on the left, in a blue frame, with its matches on its right: rank, score,
    how few random pairs of the library are as alike, and the end of the path. A file that cannot
    be read leaves a grey cell with the reason.

    Parameters
    ----------
    matches
        What `search` returned: the matches of one query, or a list of them.
    columns
        Matches a row; what does not fit goes on below. By default up to 6, evenly filled.
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
        If there is nothing to show, or an argument is out of range.
    """
    answers: Sequence[Any] = matches if isinstance(matches, (list, tuple)) else [matches]
    if not answers or not all(isinstance(answer, Matches) for answer in answers):
        raise QueryError(
            f"show_matches cannot show {_briefly(matches)}; give what simsearch.search returns: "
            "Matches, or a list with at least one"
        )
    _check_positive(columns=columns, size=size)
    most = max(1, *map(len, answers))
    columns = min(columns or math.ceil(most / math.ceil(most / _MATCHES_A_ROW)), most)

    pictures = [
        [_picture(source, size) for source in (answer.image, *answer.paths)] for answer in answers
    ]
    heights = [max(1, math.ceil(len(answer) / columns)) for answer in answers]
    cell = _cell(size, [picture for row in pictures for picture in row])
    fig, axes = _grid((sum(heights), 1 + columns), cell, lines=2, lead=_GAP)
    tops = np.cumsum(heights) - heights
    for top, answer, (query, *found) in zip(tops, answers, pictures, strict=True):
        _show(axes[top, 0], query, _ACCENT, 2.5)
        _caption(axes[top, 0], "query", _tail(answer.query), color=_ACCENT, weight="bold")
        cells = axes[top:, 1:].ravel()
        if not answer:
            _show(cells[0], "no match")
        for ax, match, picture in zip(cells, answer, found, strict=False):
            _show(ax, picture)
            _caption(ax, _in_words(match), _tail(match.path), color=_INK)
    return fig, axes


def show_images(
    images: Sequence[ImageSource] | ImageLibrary,
    captions: Sequence[str] | None = None,
    columns: int = 6,
    limit: int = 30,
    *,
    title: str | None = None,
    size: float = 1.6,
) -> tuple[Figure, NDArray[Any]]:
    """Show a contact sheet.

    Parameters
    ----------
    images
        A list of anything that `load_image` takes; or a library, whose folders then take turns
        until the sheet is full, each with images drawn at random (the same ones every time).
    captions
        A line for each image. By default the end of its path; for a library its folder.
    columns
        Images a row.
    limit
        How many images to show at most.
    title
        By default says what was left out, if anything was.
    size
        Width of an image in inches.

    Returns
    -------
    fig : matplotlib.figure.Figure
    axes : numpy.ndarray of matplotlib.axes.Axes
        (rows, columns)

    Raises
    ------
    QueryError
        If there is nothing to show, or an argument is out of range.
    """
    _check_positive(columns=columns, limit=limit, size=size)
    sources, names, order = _sheet(images)
    names = names if captions is None else captions
    if not len(sources):
        raise QueryError("show_images got no images; give a list with at least one")
    if len(names) != len(sources):
        raise QueryError(f"{len(names)} captions for {len(sources)} images; give one an image")
    rows = np.sort(order[:limit])
    if title is None:
        title = f"{len(rows):,} of {len(sources):,} images" if len(rows) < len(sources) else ""

    pictures = [_picture(sources[row], size) for row in rows]
    columns = min(columns, len(pictures))
    shape = (math.ceil(len(pictures) / columns), columns)
    fig, axes = _grid(shape, _cell(size, pictures), lines=1, title=title)
    for ax, picture, row in zip(axes.flat, pictures, rows, strict=False):
        _show(ax, picture)
        _caption(ax, names[row])
    return fig, axes


def show_map(
    library: ImageLibrary,
    method: Literal["pca", "tsne"] = "pca",
    images: int = 50,
    color_by: str | Sequence[str] = "folder",
    seed: int = 0,
) -> tuple[Figure, Axes]:
    """Show a library as a map on which alike images lie close together.

    Parameters
    ----------
    library
        From `embed_dataset` or `ImageLibrary.load`.
    method
        `pca` keeps the large distances: a straight-on view of the two widest directions, of up to
        10,000 images. `tsne` keeps the neighbours, of up to 2,000 images, in some seconds.
    images
        How many thumbnails to lay over it at most. They never overlap, so there may be fewer.
    color_by
        "folder" (the last part of it, so that `seg_train/forest` and `seg_test/forest` are one),
        or a label for each image, "" where there is none.
    seed
        Of everything that is drawn at random.

    Returns
    -------
    fig : matplotlib.figure.Figure
    axes : matplotlib.axes.Axes

    Raises
    ------
    QueryError
        If the method is unknown, or the labels do not fit.
    """
    if method not in _MAP_ROWS:
        raise QueryError(f"method={method!r} is unknown; choose from {', '.join(_MAP_ROWS)}")
    labels = _labels(library, color_by)
    count = min(len(library), _MAP_ROWS[method])
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.choice(len(library), count, replace=False))
    points, kept = _project(np.asarray(library.embeddings[rows]), method, seed)
    room = _MAP_THUMBNAIL + 2 * _MARGIN
    points = points * (np.array(_MAP) - room) + room / 2  # a thumbnail fits around every point

    groups = _groups(labels, rows)
    fig, ax = _canvas(_title(method, kept, count, len(library)), legend=len(groups) > 1)
    _scatter(ax, points, groups)
    places = _apart(points, _in_turns(labels[rows], seed), 1.15 * _MAP_THUMBNAIL)
    for _, i in zip(range(images), places, strict=False):
        picture = _picture(str(library.paths[rows[i]]), _MAP_THUMBNAIL)
        color = next(group.color for group in groups if i in group.rows)
        if isinstance(picture, _Picture):  # otherwise its point will do
            _paste(ax, picture, points[i], (_MAP_THUMBNAIL,) * 2, frame=color, line=1)
    return fig, ax


# Arguments


def _check_positive(**values: float | None) -> None:
    for name, value in values.items():
        if value is not None and not value > 0:
            raise QueryError(f"{name}={value}: give a number above 0")


def _briefly(value: object) -> str:
    return textwrap.shorten(repr(value), 60, placeholder=" ...")


def _sheet(
    images: Sequence[ImageSource] | ImageLibrary,
) -> tuple[Sequence[Any], Sequence[str], NDArray[np.intp]]:
    """Return the images of a contact sheet, their names, and in which order to take them."""
    if isinstance(images, ImageLibrary):
        return images.paths.tolist(), images.folders.tolist(), _in_turns(images.folders)
    if isinstance(images, (str, bytes, os.PathLike, Image.Image)):
        raise QueryError(f"show_images takes a list; for one image, give [{_briefly(images)}]")
    sources = list(images)
    return sources, [_tail(describe(source)) for source in sources], np.arange(len(sources))


def _in_turns(labels: NDArray[Any], seed: int = 0) -> NDArray[np.intp]:
    """Order rows so that each label has its n-th turn before any has its next; else at random."""
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    _, which, counts = np.unique(labels[shuffled], return_inverse=True, return_counts=True)
    turn = np.empty(len(labels), np.intp)
    turn[np.argsort(which, kind="stable")] = np.concatenate([np.arange(n) for n in counts])
    return shuffled[np.argsort(turn, kind="stable")]


# Text


def _in_words(match: Match) -> str:
    share = percentile(match.percentile)
    return f"{match.rank} · {match.score:.3f}" + (f" · {share}" if share != "–" else "")


def _tail(path: str) -> str:
    """Keep the folder and the name of a path."""
    return "/".join(PurePath(path).as_posix().split("/")[-2:])


def _printable(text: str) -> str:
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


def _fit(line: Text, text: str, width: float) -> None:
    """Set a line's text, cut in its middle until `width` inches hold it."""
    full = _printable(text)
    line.set(text=full, **_PLAIN)
    keep = len(full)
    while keep > 1 and (wide := line.get_window_extent(dpi=_DPI).width / _DPI) > width:
        keep = max(1, min(keep - 1, int(keep * width / wide)))
        end = keep * 2 // 3  # the end tells names apart: photo_0001.jpg
        line.set_text(f"{full[: keep - 1 - end]}…{full[len(full) - end :]}")


def _caption(ax: Axes, *lines: str, **first: Any) -> None:  # noqa: ANN401
    """Write small grey lines under a cell; `first` is how the first of them differs."""
    width, height = _inches(ax)
    for i, text in enumerate(lines):
        style: dict[str, Any] = {"color": _GREY, "fontsize": 9} | (first if i == 0 else {})
        line = ax.text(0, -height / 2 - _DROP - i * _LINE, "", ha="center", va="top", **style)
        _fit(line, text, width + _GAP / 2)


# Cells


def _figure(inches: NDArray[np.floating[Any]]) -> Figure:
    """Make an empty figure, known to pyplot so that a notebook shows it."""
    import matplotlib.pyplot as plt
    from matplotlib.layout_engine import PlaceHolderLayoutEngine

    # After a first save, layout="none" would give way to the one in rcParams.
    layout = PlaceHolderLayoutEngine(adjust_compatible=True, colorbar_gridspec=True)
    width, height = inches.tolist()
    return plt.figure(figsize=(width, height), dpi=_DPI, facecolor="white", layout=layout)


class _Picture(NamedTuple):
    """An image, no larger than a figure needs it."""

    pixels: NDArray[np.uint8]  # (H, W, 3)
    ratio: float  # height / width of the image itself, as a thumbnail's is rounded


_BLANK = np.full((1, 1, 3), 240, np.uint8)


def _picture(source: ImageSource | None, size: float) -> _Picture | str:
    """Load an image to be shown `size` inches wide and high at most; if that fails, say why."""
    if source is None:
        return "an embedding, not an image"
    pixels = max(1, round(size * _DPI * _SHARPNESS))
    try:
        image = load_image(source, min_side=pixels)
    except ImageError as error:
        return error.reason
    ratio = image.height / image.width
    image.thumbnail((pixels, pixels))
    return _Picture(np.asarray(image), ratio)


def _cell(width: float, pictures: Sequence[_Picture | str]) -> tuple[float, float]:
    """Make all cells as high as their highest picture, and square at most."""
    ratios = [picture.ratio for picture in pictures if isinstance(picture, _Picture)]
    return width, width * min(1, max([0.6, *ratios]))


def _grid(
    shape: tuple[int, int],
    cell: tuple[float, float],
    lines: int,
    lead: float = 0,
    title: str = "",
) -> tuple[Figure, NDArray[Any]]:
    """Make a figure of empty cells, `lead` inches between the first column and the others."""
    (rows, columns), (width, height) = shape, cell
    step = np.array([width, height + _DROP + lines * _LINE]) + _GAP
    head = _HEAD if title else 0
    full = step * (columns, rows) - _GAP + 2 * _MARGIN + (lead, head)
    fig = _figure(full)
    axes = np.empty(shape, object)
    for row, column in np.ndindex(shape):
        left, top = step * (column, row) + (_MARGIN + lead * (column > 0), _MARGIN + head)
        box = np.array([left, full[1] - top - height, width, height]) / np.tile(full, 2)
        ax = axes[row, column] = fig.add_axes(tuple(box))
        ax.set(xlim=(-width / 2, width / 2), ylim=(-height / 2, height / 2))
        ax.set_axis_off()
    if title:
        line = fig.text(_MARGIN / full[0], 1 - _MARGIN / full[1], "", va="top", color=_INK, size=11)
        _fit(line, title, full[0] - 2 * _MARGIN)
    return fig, axes


def _inches(ax: Axes) -> tuple[float, float]:
    """Width and height of a cell, which are its data units too."""
    return 2 * ax.get_xlim()[1], 2 * ax.get_ylim()[1]


def _show(ax: Axes, picture: _Picture | str, frame: str = _EDGE, line: float = 0.6) -> None:
    """Draw a picture in the middle of its cell, or a grey one that says why there is none."""
    width, height = _inches(ax)
    if isinstance(picture, str):
        reason = textwrap.fill(_printable(picture), max(6, int(width * 11)), max_lines=4)
        style: dict[str, Any] = {"color": _GREY, "fontsize": 9} | _PLAIN
        ax.text(0, 0, reason, ha="center", va="center", **style)
        picture = _Picture(_BLANK, height / width)
    _paste(ax, picture, (0, 0), (width, height), frame=frame, line=line)


def _paste(
    ax: Axes,
    picture: _Picture,
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
    style: dict[str, Any] = {"color": frame, "linewidth": 2 * line, "zorder": _ON_TOP}
    ax.add_patch(Rectangle((left, bottom), width, height, clip_on=False, **style))
    extent = (left, left + width, bottom, bottom + height)
    ax.imshow(picture.pixels, extent=extent, aspect="auto", zorder=_ON_TOP)


# Map


class _Group(NamedTuple):
    """The points of a map that share a colour."""

    name: str
    color: str
    marker: str
    rows: NDArray[np.intp]


def _labels(library: ImageLibrary, color_by: str | Sequence[str]) -> NDArray[np.str_]:
    """Label each image: (N,) unicode, "" where there is no label."""
    if not isinstance(color_by, str):
        if len(color_by) != len(library):
            raise QueryError(f"{len(color_by)} labels for {len(library)} images; give one an image")
        return np.array([str(label) for label in color_by], "U")
    if color_by != "folder":
        raise QueryError(f'color_by={color_by!r}: give "folder", or a label for each image')
    folders, which = np.unique(library.folders, return_inverse=True)
    depths = [folder.count("/") for folder in folders.tolist()]
    # Beside seg_train/forest and its like, the images right in seg_pred are those without a class.
    usual = statistics.median_high(depths)
    names = [
        "" if folder == "." or depth < usual else posixpath.basename(folder)
        for folder, depth in zip(folders.tolist(), depths, strict=True)
    ]
    return np.array(names, "U")[which]


def _groups(labels: NDArray[np.str_], rows: NDArray[np.intp]) -> list[_Group]:
    """Give the frequent labels a colour and a marker each, by name; what is left is grey."""
    counts = Counter(labels.tolist())
    unlabelled = counts.pop("", 0)
    names = sorted(sorted(counts, key=lambda name: (-counts[name], name))[: len(_STYLES)])
    shown = labels[rows]
    if not names:
        return [_Group("", _ACCENT, "o", np.arange(len(rows)))]
    groups = [
        _Group(name, color, marker, np.flatnonzero(shown == name))
        for name, (color, marker) in zip(names, _STYLES, strict=False)
    ]
    if others := len(counts) - len(names):
        rest = np.flatnonzero(~np.isin(shown, ["", *names]))
        groups.append(_Group(f"{others:,} more", _OTHER, "o", rest))
    if unlabelled:
        groups.append(_Group("no label", _UNLABELLED, "o", np.flatnonzero(shown == "")))
    return groups


def _project(
    rows: NDArray[np.float32], method: str, seed: int
) -> tuple[NDArray[np.floating[Any]], float]:
    """Lay rows out in the unit square: (n, 2); and the share of variance that its axes hold."""
    from sklearn.decomposition import PCA

    if np.ptp(rows, axis=0).max() < 1e-6:
        return np.full((len(rows), 2), 0.5), 1.0  # one image, or copies of it, spans no axis
    pca = PCA(min(50, *rows.shape), random_state=seed)
    reduced = np.pad(pca.fit_transform(rows), ((0, 0), (0, 1)))  # one column may be all there is
    points = _tsne(reduced, seed) if method == "tsne" else reduced[:, :2]
    low, high = points.min(axis=0), points.max(axis=0)
    unit = np.where(high > low, (points - low) / np.where(high > low, high - low, 1), 0.5)
    return unit, float(pca.explained_variance_ratio_[:2].sum())


def _tsne(reduced: NDArray[np.float32], seed: int) -> NDArray[np.floating[Any]]:
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    start = reduced[:, :2] / reduced[:, 0].std() * 1e-4  # as its authors advise
    perplexity = min(30, (len(reduced) - 1) / 3)
    tsne = TSNE(perplexity=perplexity, init=start, random_state=seed)
    # Its threads spin while they wait: three times slower than one beside any other work.
    with threadpool_limits(1):
        points: NDArray[np.floating[Any]] = tsne.fit_transform(reduced)
    return points


def _title(method: str, kept: float, count: int, total: int) -> str:
    name = {"pca": "PCA", "tsne": "t-SNE"}[method]
    share = f" ({kept:.0%} of the variance)" if method == "pca" else ""
    of = f"{count:,} of {total:,} images, drawn at random" if count < total else f"{total:,} images"
    return f"{name} of {of}{share}"


def _canvas(title: str, *, legend: bool) -> tuple[Figure, Axes]:
    """Make a map's axes, with inches as data units, and room for a legend on the right."""
    width, height = _MAP
    full = np.array([width + 2 * _MARGIN + _MAP_LEGEND * legend, height + 2 * _MARGIN + _HEAD])
    fig = _figure(full)
    ax = fig.add_axes(tuple(np.array([_MARGIN, _MARGIN, width, height]) / np.tile(full, 2)))
    ax.set(xlim=(0, width), ylim=(0, height), xticks=[], yticks=[], facecolor="white")
    for spine in ax.spines.values():
        spine.set(color=_EDGE, linewidth=0.6)
    ax.text(0, height + 0.1, title, color=_INK, fontsize=11, **_PLAIN)
    return fig, ax


def _scatter(ax: Axes, points: NDArray[np.floating[Any]], groups: Sequence[_Group]) -> None:
    """Draw the points, grey ones lowest, and a legend if there is more than one group."""
    area = float(np.clip(20_000 / len(points), 4, 30))
    handles = []
    for _, color, marker, rows in groups:
        x, y = points[rows].T
        zorder = _ON_TOP - (2 if color in (_UNLABELLED, _OTHER) else 1)
        style: dict[str, Any] = {"color": color, "marker": marker, "zorder": zorder}
        handles.append(ax.scatter(x, y, s=area, alpha=0.8, linewidths=0, **style))
    if len(groups) > 1:
        _legend(ax, handles, [group.name for group in groups])


def _legend(ax: Axes, handles: Sequence[Any], names: Sequence[str]) -> None:
    """Name the groups, to the right of the map."""
    legend = ax.legend(
        handles,
        [" "] * len(names),  # matplotlib would leave out a name that starts with "_"
        loc="upper left",
        bbox_to_anchor=(1 + _MARGIN / _MAP[0], 1),
        borderaxespad=0,
        borderpad=0,
        handletextpad=0.3,
        labelspacing=0.6,
        markerscale=1.4,
        frameon=False,
        fontsize=9,
        labelcolor=_INK,
    )
    for line, name in zip(legend.get_texts(), names, strict=True):
        _fit(line, name, _MAP_LEGEND - 0.4)


def _apart(
    points: NDArray[np.floating[Any]], order: NDArray[np.intp], distance: float
) -> Iterator[int]:
    """Go through points in an order, leaving out those within a square around an earlier one."""
    taken = np.empty((0, 2))
    for i in order.tolist():
        if np.all(np.abs(taken - points[i]).max(axis=1) >= distance):
            taken = np.vstack([taken, points[i]])
            yield i
