"""Groups of near-duplicates: copies, resized, recompressed, slightly cropped; and their figure.

Connected components of the pairs of embeddings whose cosine reaches a threshold. No image is
opened, and no file is deleted.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations_with_replacement
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from tqdm.auto import tqdm

from simsearch.errors import QueryError
from simsearch.files import iter_blocks, valid_unicode, write_text
from simsearch.plotting.grid import (
    Cell,
    check_positive,
    draw_grid,
    load_thumbnail,
    short_path,
    short_repr,
)
from simsearch.retrieval.exact import exact_cosines, rounding_error
from simsearch.retrieval.options import NEAR_DUPLICATE

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from simsearch.library.library import ImageLibrary


BLOCK_ROWS = 2048  # rows compared with as many others: 16 MB of scores, 64 MB if all are similar
TIE_TOLERANCE = 1e-12  # by less than this a float64 cosine depends on the order of its sum
PRINTED_GROUPS = 10


@dataclass(frozen=True)
class DuplicateGroup:
    """Images that are nearly the same, the one to keep first.

    Attributes
    ----------
    rows : tuple of int
        Row numbers in the library: first the one to keep, then the others, by falling cosine.
    paths : tuple of str
        As in the library's `paths`.
    scores : tuple of float
        Cosine of each to the first, in [-1, 1].
    """

    rows: tuple[int, ...]
    paths: tuple[str, ...]
    scores: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def lowest(self) -> float:
        """Lowest cosine of an image to the first.

        Below the threshold where two images are linked only through others.
        """
        return min(self.scores[1:])

    @property
    def highest(self) -> float:
        """Highest cosine of an image to the first."""
        return max(self.scores[1:])


@dataclass(frozen=True)
class Duplicates(Sequence[DuplicateGroup]):
    """The near-duplicates of a library: prints as a table, and is a sequence of groups.

    Attributes
    ----------
    groups : tuple of DuplicateGroup
        The largest first; groups of one size in the order of their first paths.
    threshold : float
        The least cosine of a pair of near-duplicates.
    images : int
        How many images the library holds.
    """

    groups: tuple[DuplicateGroup, ...] = field(repr=False)
    threshold: float
    images: int

    def __len__(self) -> int:
        return len(self.groups)

    @overload
    def __getitem__(self, index: int) -> DuplicateGroup: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[DuplicateGroup, ...]: ...
    def __getitem__(self, index: int | slice) -> DuplicateGroup | tuple[DuplicateGroup, ...]:
        return self.groups[index]

    @property
    def extras(self) -> list[str]:
        """Path of each image but the first of its group: what may be deleted."""
        return [path for group in self.groups for path in group.paths[1:]]

    def to_frame(self) -> pd.DataFrame:
        """Return a pandas frame with one row per image: group (from 1), path, cosine, row."""
        from simsearch.library.odd_names import make_frame

        return make_frame(self._table(), ["group", "path", "cosine", "row"])

    def _table(self) -> list[tuple[int, str, float, int]]:
        return [
            (number, *image)
            for number, group in enumerate(self.groups, 1)
            for image in zip(group.paths, group.scores, group.rows, strict=True)
        ]

    def save(self, file: str | os.PathLike[str] = "duplicates.csv") -> None:
        """Write a CSV file: group (from 1), path, and cosine to the first of its group.

        Raises
        ------
        QueryError
            If the file cannot be written.
        """
        text = io.StringIO()  # not by pandas, whose strings hold no name that is not UTF-8
        lines = csv.writer(text)
        lines.writerow(("group", "path", "cosine"))
        lines.writerows((number, path, f"{score:.6f}") for number, path, score, _ in self._table())
        try:
            write_text(Path(file).expanduser(), text.getvalue())
        except OSError as error:
            raise QueryError(
                f"cannot write {os.fspath(file)!r}: {error.strerror or error}; give a file in a "
                "folder that exists, on a disk with free space"
            ) from error

    def __str__(self) -> str:
        of = f"{self.images:,} images at a cosine of {self.threshold:g} or more"
        if not self.groups:
            return f"no near-duplicates among {of}"
        groups = f"{len(self):,} group{'s' * (len(self) > 1)} of near-duplicates"
        lines = [f"{groups} among {of}: {len(self.extras):,} extra"]
        lines += [
            f"{len(group):>6,}  {group.lowest:.3f}–{group.highest:.3f}  {group.paths[0]}"
            for group in self.groups[:PRINTED_GROUPS]
        ]
        hidden = len(self) - PRINTED_GROUPS
        lines += [f"... and {hidden:,} more: to_frame()"] if hidden > 0 else []
        return valid_unicode("\n".join(lines))


def duplicates(
    library: ImageLibrary, threshold: float = NEAR_DUPLICATE, *, progress: bool = True
) -> Duplicates:
    """Find the images of a library that are nearly the same.

    Two images are in one group if their cosine reaches the threshold, or if a chain of such pairs
    links them. Exact, as if every pair were compared in float64, in memory that
    does not grow with the number of pairs; the time does.

    With EfficientNet-Lite0, all 23 pairs of 8,000 scene photos that reach 0.95 are visibly copies;
    the highest cosine of any other pair is 0.947. Of copies planted among 250 larger photos, 0.95
    finds 94 to 100% after a watermark or a change of brightness by a fifth, 88% cropped by 5%,
    77% recompressed (JPEG, quality 75), and 49% at half the size; 0.9 finds 87 to 100% of all
    these. The smaller the picture, the more a copy differs: use a lower threshold to miss none.

    The first of a group is the one to keep: the largest file, where the library knows its files;
    among equals the one with the highest mean cosine to the group, then the first by path.

    Parameters
    ----------
    library
        From `embed_dataset` or `ImageLibrary.load`.
    threshold
        Least cosine of two near-duplicates, in [-1, 1].
    progress
        Whether to show a progress bar, if it takes more than a second.

    Returns
    -------
    Duplicates

    Raises
    ------
    QueryError
        If the threshold is not between -1 and 1.

    Examples
    --------
    >>> from simsearch import ImageLibrary
    >>> rows = [[1, 0], [0.99, 0.14], [0, 1]]
    >>> found = duplicates(ImageLibrary(rows, ["a.jpg", "b.jpg", "c.jpg"]))
    >>> [group.paths for group in found]
    [('a.jpg', 'b.jpg')]
    """
    if not -1 <= threshold <= 1:
        raise QueryError(f"threshold={threshold}: a cosine lies between -1 and 1")
    rows, inverse = _distinct(library.embeddings)
    with tqdm(
        desc="Comparing",
        total=len(rows) ** 2 // 2,
        unit="pair",
        unit_scale=True,
        delay=1,
        disable=not progress,
    ) as bar:
        labels = _components(library.embeddings, rows, threshold, bar)[inverse]  # (N,)
    members = np.split(np.argsort(labels, kind="stable"), np.cumsum(np.bincount(labels))[:-1])
    groups = [_make_group(library, each) for each in members if len(each) > 1]
    groups.sort(key=lambda group: (-len(group), group.paths[0]))
    return Duplicates(tuple(groups), float(threshold), len(library))


def _distinct(embeddings: NDArray[np.float32]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the first of each set of equal rows, (M,), and the number of each row's set, (N,)."""
    seen: dict[bytes, int] = {}
    inverse = np.empty(len(embeddings), np.intp)
    for i, row in enumerate(embeddings):
        inverse[i] = seen.setdefault(hashlib.blake2b(row.data, digest_size=16).digest(), len(seen))
    return np.unique(inverse, return_index=True)[1], inverse


def _components(
    embeddings: NDArray[np.float32], rows: NDArray[np.intp], threshold: float, bar: tqdm[None]
) -> NDArray[np.intp]:
    """Label the connected components of the pairs that reach the threshold: (M,)."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    labels = np.arange(len(rows))
    blocks = iter_blocks(len(rows), BLOCK_ROWS)
    for i, j in combinations_with_replacement(blocks, 2):
        if np.ptp(labels[i]) or np.ptp(labels[j]) or labels[i][0] != labels[j][0]:
            # There may be far too many pairs to keep: only the components are kept.
            a, b = embeddings[rows[i]], embeddings[rows[j]]
            edges = _edges(a, b, labels[i], labels[j], threshold)
            if edges.size:
                graph = coo_array((np.ones(edges.shape[1], bool), edges), shape=(len(rows),) * 2)
                labels = connected_components(graph, directed=False)[1][labels]
        bar.update((i.stop - i.start) * (j.stop - j.start) // (1 + (i == j)))
    return labels


def _edges(
    a: NDArray[np.float32],
    b: NDArray[np.float32],
    labels_a: NDArray[np.intp],
    labels_b: NDArray[np.intp],
    threshold: float,
) -> NDArray[np.intp]:
    """Return the pairs of components that rows of two blocks link: (2, P)."""
    error = rounding_error(a.shape[1])
    scores = a @ b.T
    i, j = np.divmod(np.flatnonzero(scores >= threshold - error), len(b))
    apart = labels_a[i] != labels_b[j]
    i, j = i[apart], j[apart]
    unsure = scores[i, j] <= threshold + error
    linked = ~unsure
    linked[unsure] = _exact_scores(a, b, i[unsure], j[unsure]) >= threshold - TIE_TOLERANCE
    return np.stack([labels_a[i[linked]], labels_b[j[linked]]])


def _exact_scores(
    a: NDArray[np.float32], b: NDArray[np.float32], i: NDArray[np.intp], j: NDArray[np.intp]
) -> NDArray[np.float64]:
    """Cosines of pairs of rows in float64: (P,)."""
    rows_a, i = np.unique(i, return_inverse=True)
    rows_b, j = np.unique(j, return_inverse=True)
    return np.asarray((a[rows_a].astype(np.float64) @ b[rows_b].astype(np.float64).T)[i, j])


def _make_group(library: ImageLibrary, rows: NDArray[np.intp]) -> DuplicateGroup:
    """Choose the image to keep, and sort the others by falling cosine to it."""
    total = sum(
        library.embeddings[rows[block]].sum(axis=0, dtype=np.float64)
        for block in iter_blocks(len(rows), BLOCK_ROWS)
    )
    means = exact_cosines(library, rows, total / len(rows)).round(6)  # equal for a pair
    sizes = np.zeros(len(rows)) if library.stats is None else library.stats[rows, 0]
    keep = np.lexsort((library.paths[rows], -means, -sizes))[0]
    scores = np.clip(exact_cosines(library, rows, library.embeddings[rows[keep]]), -1, 1)
    scores[keep] = 1
    order = np.lexsort((library.paths[rows], -scores, np.arange(len(rows)) != keep))
    rows, scores = rows[order], scores[order]
    return DuplicateGroup(
        tuple(rows.tolist()), tuple(library.paths[rows].tolist()), tuple(scores.tolist())
    )


def show_duplicates(
    duplicates: Duplicates, limit: int = 10, columns: int = 6, size: float = 1.6
) -> tuple[Figure, NDArray[Any]]:
    """Show near-duplicates, one row per group.

    The image to keep is on the left, in a blue frame; the others follow with their cosine to it,
    the most similar first. The last cell of a full row counts those that are not shown.

    Parameters
    ----------
    duplicates
        What `simsearch.duplicates` returned.
    limit
        How many groups to show at most, the largest.
    columns
        Images per row, at least two.
    size
        Width of a picture in inches.

    Returns
    -------
    fig : matplotlib.figure.Figure
    axes : numpy.ndarray of matplotlib.axes.Axes
        (groups, columns); one cell that says so if there are no duplicates.

    Raises
    ------
    QueryError
        If it is no result of `simsearch.duplicates`, or an argument is out of range.
    """
    if not isinstance(duplicates, Duplicates):
        raise QueryError(
            f"show_duplicates cannot show {short_repr(duplicates)}; give what simsearch.duplicates "
            "returns"
        )
    check_positive(limit=limit, size=size)
    if columns < 2:
        raise QueryError(f"columns={columns}: give at least 2, one for a copy beside its original")
    shown = duplicates[:limit]
    rows = [_group_cells(i, group, columns, size) for i, group in enumerate(shown, 1)]
    title = f"{len(shown):,} of {len(duplicates):,} groups" if len(shown) < len(duplicates) else ""
    return draw_grid(rows or [[Cell("no duplicates")]], size, title)


def _group_cells(number: int, group: DuplicateGroup, columns: int, size: float) -> list[Cell]:
    """Make the cells of a group that fit into a row; the last one counts the others."""
    shown = len(group) if len(group) <= columns else columns - 1
    headings = [f"{number} · {len(group)} images", *(f"{x:.3f}" for x in group.scores[1:shown])]
    cells = [
        Cell(load_thumbnail(path, size), (headings[i], short_path(path)), accent=i == 0)
        for i, path in enumerate(group.paths[:shown])
    ]
    return cells if shown == len(group) else [*cells, Cell(f"{len(group) - shown:,} more")]
