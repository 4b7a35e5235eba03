"""Albums: groups of a library's images at several grains, without a number of groups given."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from simsearch.analysis.album_levels import Album, AlbumLevel, Albums, distinct
from simsearch.analysis.album_names import AlbumNames
from simsearch.analysis.row_groups import ALONE, MAX_ROWS, MIN_SIZE, group_rows
from simsearch.errors import QueryError
from simsearch.plotting.grid import Cell, check_positive, draw_grid, load_thumbnail, short_path

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from simsearch.analysis.album_names import AlbumWords
    from simsearch.library.library import ImageLibrary
    from simsearch.library.types import Labels

COARSE_SHARE = 1 / 20  # of all images: the least size of a coarse album
FINE_FACTOR = 1 / 3  # of the square root of their number: that of a fine one


def albums(
    library: ImageLibrary,
    labels: Labels = "folder",
    words: AlbumWords | None = None,
    seed: int = 0,
) -> Albums:
    """Group the images of a library into albums, at three grains; no number of albums is given.

    Embeddings are reduced by PCA, moved towards their neighbours until groups are dense, and
    grouped by HDBSCAN: once each for albums of at least a twentieth of all images ("coarse"), of
    at least a third of the square root of their number ("fine"), and of the geometric mean of both
    ("medium"). What is like no other is in no album, and is told. The answer is always the same,
    and does not depend on the order of the rows. No image is opened.

    Of more than 20,000 images, so many are drawn and grouped; each other one joins the album of
    the drawn one that is nearest to it. See `benchmarks/albums.py` for quality and cost.

    Parameters
    ----------
    library
        From `embed_dataset` or `ImageLibrary.load`.
    labels
        What `ImageLibrary.label_rows` takes: an album is named by the label that at least half of
        its images have, or else by the two most frequent. Without labels, by its typical image.
    words
        Each album is named by the one that is nearest to its mean: words, looked up as `search`
        does with ``text=``; or names with an embedding of each, (D,), such as of an example
        (`library.encode(["beach.jpg"])[0]`), of any norm but 0; or "classes", for those that the
        backbone was taught to tell apart. An album that is near to no class is named as without.
    seed
        Of the draw among more than 20,000 images.

    Returns
    -------
    Albums

    Raises
    ------
    QueryError
        If labels or words do not fit the library.
    MissingExtraError, WeightsError
        If words have to be looked up, and what that needs is not there.

    Examples
    --------
    >>> from simsearch import ImageLibrary
    >>> rows = np.repeat(np.eye(2), 4, axis=0)
    >>> library = ImageLibrary(rows, [f"{'sea' if i < 4 else 'hill'}/{i}.jpg" for i in range(8)])
    >>> [(album.name, len(album)) for album in albums(library).level("fine")]
    [('hill', 4), ('sea', 4)]
    """
    names = AlbumNames(library, library.label_rows(labels), words)
    order = np.argsort(library.paths, kind="stable")
    sizes = _least_sizes(len(library))
    found = group_rows(library.embeddings, order, list(sizes.values()), seed)
    levels = [
        _make_level(library, order, groups, AlbumLevel(grain, (), size), names)
        for (grain, size), groups in zip(sizes.items(), found, strict=True)
    ]
    notes = []
    if len(library) > MAX_ROWS:
        notes.append(
            f"grouped by {MAX_ROWS:,} images, drawn at random; the others joined the nearest"
        )
    return Albums(tuple(levels), len(library), tuple(notes))


def _least_sizes(count: int) -> dict[str, int]:
    coarse = max(MIN_SIZE, count * COARSE_SHARE)
    fine = min(coarse, max(MIN_SIZE, math.sqrt(count) * FINE_FACTOR))
    sizes = {"coarse": coarse, "medium": math.sqrt(coarse * fine), "fine": fine}
    return {grain: round(size) for grain, size in sizes.items()}


def _make_level(
    library: ImageLibrary,
    order: NDArray[np.intp],
    groups: NDArray[np.intp],
    empty: AlbumLevel,
    names: AlbumNames,
) -> AlbumLevel:
    """Fill a grain; `groups` is the group of each row, or -1."""
    by_path = groups[order]
    members = [
        _by_typicality(library, order[by_path == group]) for group in range(int(groups.max()) + 1)
    ]
    titles = distinct([names.name(rows, mean) for rows, mean in members])
    unassigned = order[by_path == ALONE]
    return replace(
        empty,
        albums=tuple(
            Album(each, tuple(rows.tolist()), tuple(library.paths[rows].tolist()))
            for each, (rows, _) in zip(titles, members, strict=True)
        ),
        unassigned_rows=tuple(unassigned.tolist()),
        unassigned=tuple(library.paths[unassigned].tolist()),
    )


def _by_typicality(
    library: ImageLibrary, rows: NDArray[np.intp]
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Sort rows by falling mean cosine to all of them, then as given; return their mean, too."""
    embeddings = np.asarray(library.embeddings[rows], np.float64)
    mean = embeddings.mean(axis=0)
    cosines = (embeddings @ mean).round(9)  # so that equal images keep the order of their paths
    return rows[np.argsort(-cosines, kind="stable")], mean


def show_albums(
    albums: Albums, grain: str = "medium", limit: int = 10, columns: int = 6, size: float = 1.6
) -> tuple[Figure, NDArray[Any]]:
    """Show albums, one row per album: the most typical image in a blue frame, then the next ones.

    Parameters
    ----------
    albums
        What `simsearch.albums` returned.
    grain
        "coarse", "medium" or "fine".
    limit
        How many albums to show at most, the largest.
    columns
        Images per row; those of large albums that are shown run from the most typical to the
        least, evenly.
    size
        Width of a picture in inches.

    Returns
    -------
    fig : matplotlib.figure.Figure
    axes : numpy.ndarray of matplotlib.axes.Axes
        (albums, columns); one cell that says so if there are no albums.

    Raises
    ------
    QueryError
        If it is no result of `simsearch.albums`, or an argument is out of range.
    """
    if not isinstance(albums, Albums):
        raise QueryError(f"show_albums takes what simsearch.albums returns, not {type(albums)}")
    check_positive(limit=limit, columns=columns, size=size)
    level = albums.level(grain)
    shown = level[:limit]
    rows = [_album_cells(album, columns, size) for album in shown]
    title = f"{grain}: {level.summary}"
    if len(shown) < len(level):
        title += f"; the {len(shown):,} largest"
    return draw_grid(rows or [[Cell("no albums")]], size, title if rows else "")


def _album_cells(album: Album, columns: int, size: float) -> Sequence[Cell]:
    places = np.unique(np.linspace(0, len(album) - 1, columns).round().astype(int)).tolist()
    captions = [(album.name, f"{len(album):,} images")]
    captions += [(short_path(album[place]), "") for place in places[1:]]
    return [
        Cell(load_thumbnail(album[place], size), caption, accent=place == 0)
        for place, caption in zip(places, captions, strict=True)
    ]
