"""Every figure: the matches of a query, a sheet of images, the map of a library, its measures.

Each function returns `(fig, axes)`, ready for `fig.savefig`. Nothing here measures or embeds, and
matplotlib is imported only when a figure is drawn. Layouts are computed in inches, and the data
units of pictures are inches too, so that cells are equal, nothing is clipped, and no solver is
needed.
"""

from __future__ import annotations

import math
import os
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from PIL import Image

from simsearch.errors import ImageError, QueryError
from simsearch.images import ImageSource, Pictured, describe, load_picture
from simsearch.library import ImageLibrary, Labels
from simsearch.matches import Match, Matches, percentile
from simsearch.metrics import RECALLS, Evaluation
from simsearch.search import search
from simsearch.triplet import TrainedHead, best_epoch

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

_CURVE, _CURVE_LEGEND = (5.2, 4.2), 2.2  # inches
_CONFUSED = 30  # classes whose confusion is shown at most
_CONFUSION, _CONFUSION_CELL = 6.6, (0.22, 0.52)  # inches: the whole, and the limits of a cell
_CONFUSION_NAMES, _NUMBERED = 1.7, 0.34  # inches: for the names, and of a cell that holds a number


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
    return _answers(answers, ["query"] * len(answers), _in_words, columns, size)


def _answers(
    answers: Sequence[Matches],
    headings: Sequence[str],
    in_words: Callable[[Match], str],
    columns: int | None,
    size: float,
) -> tuple[Figure, NDArray[Any]]:
    """Draw queries, each with its heading, and what was found for them."""
    most = max(1, *map(len, answers))
    columns = min(columns or math.ceil(most / math.ceil(most / _MATCHES_A_ROW)), most)

    pictures = [
        [_picture(source, size) for source in (answer.image, *answer.paths)] for answer in answers
    ]
    heights = [max(1, math.ceil(len(answer) / columns)) for answer in answers]
    cell = _cell(size, [picture for row in pictures for picture in row])
    fig, axes = _grid((sum(heights), 1 + columns), cell, lines=2, lead=_GAP)
    tops = np.cumsum(heights) - heights
    for top, answer, heading, (query, *found) in zip(
        tops, answers, headings, pictures, strict=True
    ):
        _show(axes[top, 0], query, _ACCENT, 2.5)
        _caption(axes[top, 0], heading, _tail(answer.query), color=_ACCENT, weight="bold")
        cells = axes[top:, 1:].ravel()
        if not answer:
            _show(cells[0], "no match")
        for ax, match, picture in zip(cells, answer, found, strict=False):
            _show(ax, picture)
            _caption(ax, in_words(match), _tail(match.path), color=_INK)
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
    color_by: Labels = "folder",
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
        What `ImageLibrary.label_rows` takes: "folder" (the last part of it, so that
        `seg_train/forest` and `seg_test/forest` are one), or a label for each image.
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
    labels = library.label_rows(color_by)
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
    fig, ax = _plot(_CURVE, title, right=_CURVE_LEGEND)
    ax.set(xlim=(0, 1), ylim=(0, 1.01))
    ax.set_xlabel("recall", color=_INK, fontsize=10)
    ax.set_ylabel("precision", color=_INK, fontsize=10)
    ax.grid(visible=True, color=_EDGE, linewidth=0.5, linestyle="-", alpha=1)
    handles = [ax.plot(RECALLS / 100, line.precision, **line.style)[0] for line in lines]
    named = [i for i, line in enumerate(lines) if line.name]
    _legend(ax, [handles[i] for i in named], [lines[i].name for i in named], _CURVE_LEGEND, "mAP")
    return fig, ax


def show_history(trained: TrainedHead) -> tuple[Figure, Axes]:
    """Show how a training went: the loss, and the mAP on the validation images.

    Good when the mAP has levelled off by the end. Where it falls again, the head has begun to
    learn the training images by heart; the marked epoch is the best.

    Parameters
    ----------
    trained
        From `train_head`.

    Returns
    -------
    fig : matplotlib.figure.Figure
    axes : matplotlib.axes.Axes
        Of the mAP; the loss has axes of its own, on the right.

    Examples
    --------
    >>> fig, ax = show_history(train_head(library))  # doctest: +SKIP
    """
    numbers, losses, reached = zip(*trained.history, strict=True)
    fig, ax = _plot(_CURVE, f"Training with the {trained.loss} loss", right=0.6)
    best = best_epoch(trained.history)
    right = ax.twinx()
    for axes, values, name, color in (
        (ax, reached, "mAP", _ACCENT),
        (right, losses, "loss", _GREY),
    ):
        axes.plot(numbers, values, color=color, linewidth=1.5)
        axes.set_ylabel(name, color=color, fontsize=10)
        axes.tick_params("y", colors=color, labelsize=9, length=0)
        axes.spines[:].set_visible(axes is ax)
    ax.plot(best.number, best.mAP, "o", color=_ACCENT)
    ax.set_xlabel("epoch", color=_INK, fontsize=10)
    ax.xaxis.set_major_locator(_whole_numbers())
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
    left, bottom = (min(_CONFUSION_NAMES, _width(each, 9) + 0.15) for each in (rows, columns))
    width, height = cell * len(columns), cell * len(rows)
    spare = max(0.0, _width([title], 11) + 0.1 - left - width)
    fig, ax = _plot((width, height), title, left=left, bottom=bottom, right=spare)
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
    _check_positive(n=n, k=k, size=size)
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

    return _answers(answers, headings, in_words, None, size)


# Arguments


def _check_positive(**values: float | None) -> None:
    for name, value in values.items():
        if value is not None and not value > 0:
            raise QueryError(f"{name}={value}: give a number above 0")


def _check_evaluation(evaluation: object) -> None:
    if not isinstance(evaluation, Evaluation):
        raise QueryError(f"{_briefly(evaluation)} is no evaluation; give what evaluate returns")


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


def _width(names: Sequence[str], points: float) -> float:
    """Width of the widest of several lines of text, in inches."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath

    font = FontProperties(size=points)
    paths = [TextPath((0, 0), _printable(name).replace("$", "S"), prop=font) for name in names]
    return max(path.get_extents().width for path in paths) / 72


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


def _picture(source: Pictured | None, size: float) -> _Picture | str:
    """Load an image to be shown `size` inches wide and high at most; if that fails, say why."""
    if source is None:
        return "an embedding, not an image"
    pixels = max(1, round(size * _DPI * _SHARPNESS))
    try:
        image = load_picture(source, min_side=pixels)
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


def _legend(
    ax: Axes,
    handles: Sequence[Any],
    names: Sequence[str],
    room: float = _MAP_LEGEND,
    heading: str | None = None,
) -> None:
    """Name what is drawn, to the right of it, in `room` inches."""
    legend = ax.legend(
        handles,
        [" "] * len(names),  # matplotlib would leave out a name that starts with "_"
        loc="upper left",
        bbox_to_anchor=(1 + _MARGIN / _size(ax)[0], 1),
        borderaxespad=0,
        borderpad=0,
        handletextpad=0.3,
        labelspacing=0.6,
        markerscale=1.4,
        frameon=False,
        fontsize=9,
        labelcolor=_INK,
        title=heading,
        title_fontproperties={"size": 9},
        alignment="left",
    )
    legend.get_title().set_color(_GREY)
    for line, name in zip(legend.get_texts(), names, strict=True):
        _fit(line, name, room - 0.4)


def _apart(
    points: NDArray[np.floating[Any]], order: NDArray[np.intp], distance: float
) -> Iterator[int]:
    """Go through points in an order, leaving out those within a square around an earlier one."""
    taken = np.empty((0, 2))
    for i in order.tolist():
        if np.all(np.abs(taken - points[i]).max(axis=1) >= distance):
            taken = np.vstack([taken, points[i]])
            yield i


# Measures


class _Line(NamedTuple):
    """A curve, and how it is drawn; one without a name stays out of the legend."""

    name: str
    precision: NDArray[np.float64]
    style: dict[str, Any]


def _compared_lines(evaluations: object) -> list[_Line]:
    if not evaluations or not isinstance(evaluations, Mapping):
        raise QueryError(
            f"show_precision_recall cannot show {_briefly(evaluations)}; give what "
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
    named = len(order) <= 2 * len(_COLORS)
    grey: dict[str, Any] = {"color": _EDGE, "linewidth": 0.7, "linestyle": "-"}
    lines = [
        _Line(
            f"{best[i]:.3f}  {evaluation.classes[i]}" if named else "",
            evaluation.curves[i],
            _stroke(place, 1.2) if named else grey,
        )
        for place, i in enumerate(order)
    ]
    bold: dict[str, Any] = {"color": _INK, "linewidth": 2.4, "linestyle": "-", "zorder": 3}
    name = f"{evaluation.overall['mAP'].value:.3f}  all"
    return [_Line(name, evaluation.curve, bold), *lines]


def _stroke(place: int, width: float) -> dict[str, Any]:
    """Give a colour to each of 9 lines, then again dashed, then dotted."""
    turn, color = divmod(place, len(_COLORS))
    linestyle = ("-", "--", ":")[turn % 3]
    return {"color": _COLORS[color], "linewidth": width, "linestyle": linestyle}


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


def _whole_numbers() -> Any:  # noqa: ANN401
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(integer=True)


def _shades() -> Any:  # noqa: ANN401
    """White for none to dark blue for all."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("shares", ["#ffffff", "#7fb8d9", _ACCENT, "#00334f"])


def _number(ax: Axes, shares: NDArray[np.float64]) -> None:
    """Write the percentage into each cell in which there is any."""
    for (row, column), share in np.ndenumerate(shares):
        if share >= 0.005:
            color = "white" if share > 0.4 else _INK
            style: dict[str, Any] = {"color": color, "fontsize": 9} | _PLAIN
            ax.text(column, row, f"{100 * share:.0f}", ha="center", va="center", **style)


def _name_cells(
    ax: Axes, rows: Sequence[str], columns: Sequence[str], room: tuple[float, float]
) -> None:
    """Write the names of rows on the left, and those of columns below, upright."""
    ax.set(xticks=[], yticks=[])
    style: dict[str, Any] = {"color": _INK, "fontsize": 9}
    width, height = _size(ax)
    across, down = len(columns) / width, len(rows) / height  # cells an inch
    for i, name in enumerate(rows):
        line = ax.text(-0.5 - _DROP * across, i, "", ha="right", va="center", **style)
        _fit(line, name, room[0] - _DROP)
    for i, name in enumerate(columns):
        line = ax.text(i, len(rows) - 0.5 + _DROP * down, "", ha="center", va="top", **style)
        _fit(line, name, room[1] - _DROP)
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


def _plot(
    size: tuple[float, float],
    title: str,
    *,
    left: float = 0.6,
    bottom: float = 0.5,
    right: float = 0,
) -> tuple[Figure, Axes]:
    """Make axes of `size` inches, with room around them, that no setting changes."""
    width, height = size
    full = np.array([left + width + right + 2 * _MARGIN, bottom + height + _HEAD + 2 * _MARGIN])
    fig = _figure(full)
    box = np.array([_MARGIN + left, _MARGIN + bottom, width, height]) / np.tile(full, 2)
    ax = fig.add_axes(tuple(box))
    ax.set(facecolor="white", axisbelow=True)
    ax.grid(visible=False)
    ax.tick_params(colors=_GREY, labelsize=9, length=0, labelcolor=_GREY)
    for spine in ax.spines.values():
        spine.set(color=_EDGE, linewidth=0.6, visible=True)
    line = fig.text(_MARGIN / full[0], 1 - _MARGIN / full[1], "", va="top", color=_INK, size=11)
    _fit(line, title, full[0] - 2 * _MARGIN)
    return fig, ax


def _size(ax: Axes) -> tuple[float, float]:
    """Width and height of axes in inches, whatever their data units are."""
    box = ax.get_window_extent()
    return box.width / _DPI, box.height / _DPI
