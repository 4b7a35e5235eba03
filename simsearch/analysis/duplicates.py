"""Near-duplicates of a library, confirmed on the pixels of the whole pictures; and their figure.

No file is deleted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from simsearch.analysis.candidates import CANDIDATE_COSINE
from simsearch.analysis.confirmation import confirmed_copies, pool
from simsearch.analysis.duplicate_groups import (
    LEVELS,
    SAME_FILE,
    UNCONFIRMED,
    Copy,
    DuplicateGroup,
    Duplicates,
)
from simsearch.analysis.similar_rows import copies_of_reference, similar_rows
from simsearch.errors import QueryError
from simsearch.library.not_duplicates import pairs_apart
from simsearch.plotting.grid import (
    Cell,
    check_positive,
    draw_grid,
    load_thumbnail,
    short_path,
)
from simsearch.plotting.refusals import short_repr
from simsearch.retrieval.exact import exact_cosines
from simsearch.retrieval.options import NEAR_DUPLICATE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from simsearch.library.library import ImageLibrary

__all__ = ["DuplicateGroup", "Duplicates", "duplicates", "show_duplicates"]


def duplicates(
    library: ImageLibrary,
    reference: ImageLibrary | float | None = None,
    threshold: float | None = None,
    *,
    level: str = "near",
    progress: bool = True,
) -> Duplicates:
    """Find the images of a library that are copies of each other.

    Candidates are near in embedding, or in a hash of the whole picture in any of its eight
    orientations; then the pixels of the two whole pictures decide, and name the edit: "crop",
    "border", "screenshot", "rotated", "turn", "mirror", "watermark", "grey", "tint", "resized" or
    "recompressed". A picture of which a part was replaced, such as the next one of a burst, is no
    copy. See `benchmarks/duplicates.py` for what is found, and what is not.

    The first of a group is the one to keep: the one of most pixels, then of most bytes, then the
    oldest file; but no picture in a border or on a screen in place of the picture itself, and no
    part in place of the whole that it may have been cut from. Every other one of the group is
    itself a copy of the first. Several paths of one file (links) are
    told as "same file", and are no extras.

    The first call reads every picture, and stores small signatures beside the library. Of
    animations and files of several pages, and of pictures that show nothing, only equal bytes are
    found. Where no picture can be read, the answer is that of level "similar", and says so.

    Parameters
    ----------
    library
        From `embed_dataset` or `ImageLibrary.load`.
    reference
        Another library, with embeddings of the same kind: find the pictures of `library` that are
        copies of one of its pictures. The first of each group is of the reference, with its row
        there, and is kept; the others are of `library`. Copies within either are not looked for.
        (A number is taken for the threshold.)
    threshold
        Least cosine of two candidates, in [-1, 1]; 0.6 if it is not given, for the 20 nearest of
        each. For level "similar", the least cosine of an extra to the image to keep: 0.95.
    level
        "identical": equal bytes, or equal pixels. "near": the same picture, perhaps edited, too.
        "similar": near in embedding, compared with all others, and not confirmed on the pixels.
    progress
        Whether to show progress bars, for what takes more than a second.

    Returns
    -------
    Duplicates

    Raises
    ------
    QueryError
        If the threshold is not between -1 and 1, there is no such level, or the embeddings of the
        two libraries cannot be compared.

    Examples
    --------
    >>> from simsearch import ImageLibrary
    >>> rows = [[1, 0], [0.99, 0.14], [0, 1]]
    >>> library = ImageLibrary(rows, ["a.jpg", "b.jpg", "c.jpg"])
    >>> [group.paths for group in duplicates(library, level="similar")]
    [('a.jpg', 'b.jpg')]
    """
    if isinstance(reference, (int, float)):
        reference, threshold = None, reference
    if threshold is not None and not -1 <= threshold <= 1:
        raise QueryError(f"threshold={threshold}: a cosine lies between -1 and 1")
    if level not in LEVELS:
        raise QueryError(f"level={level!r}: give one of {', '.join(map(repr, LEVELS))}")
    if level == "similar":
        return _similar(library, reference, threshold, UNCONFIRMED, progress=progress)
    least = CANDIDATE_COSINE if threshold is None else float(threshold)
    found = confirmed_copies(
        library, least, reference=reference, identical=level == "identical", progress=progress
    )
    if not found.readable:
        reason = f"no picture of this library can be read, so the answer is {UNCONFIRMED}"
        return _similar(library, reference, threshold, reason, progress=progress)
    uncompared = {
        "not compared: the file is not there": found.missing,
        "not compared: the file cannot be read": found.unreadable,
        "of several frames or pages, compared by their bytes alone": found.animated,
        "that show nothing, compared by their bytes alone": found.blank,
    }
    groups = [_make_group(library, group, reference) for group in found.groups]
    return Duplicates(_sorted(groups), least, len(library), level, uncompared)


def _similar(
    library: ImageLibrary,
    reference: ImageLibrary | None,
    threshold: float | None,
    note: str,
    *,
    progress: bool,
) -> Duplicates:
    """Answer by embeddings alone."""
    least = NEAR_DUPLICATE if threshold is None else float(threshold)
    if reference is not None:
        found = copies_of_reference(pool(reference, library), len(reference), least)
        groups = [_make_group(library, group, reference) for group in found]
        return Duplicates(_sorted(groups), least, len(library), notes=(note,))
    apart = pairs_apart(library)
    stars, files = similar_rows(library, least, progress=progress)
    groups = []
    for rows in stars:
        seen: set[int] = set()
        copies = []
        for row in rows.tolist():
            file = int(files.same[row])
            again = ("identical", SAME_FILE) if file in seen else ("similar", "")
            if frozenset((int(rows[0]), row)) not in apart:
                copies.append(Copy(row, *again))
                seen.add(file)
        if len(copies) > 1:
            groups.append(_make_group(library, [Copy(copies[0].row), *copies[1:]]))
    return Duplicates(_sorted(groups), least, len(library), notes=(note,))


def _sorted(groups: list[DuplicateGroup]) -> tuple[DuplicateGroup, ...]:
    return tuple(sorted(groups, key=lambda group: (-len(group), group.paths[0])))


def _make_group(
    library: ImageLibrary, copies: list[Copy], reference: ImageLibrary | None = None
) -> DuplicateGroup:
    """Sort the others by falling cosine to the first, which may be of a reference."""
    first, start = (library, 0) if reference is None else (reference, len(reference))
    rows = np.array([copies[0].row, *(copy.row - start for copy in copies[1:])])
    others = exact_cosines(library, rows[1:], first.embeddings[rows[0]])
    scores = np.concatenate([[1], np.clip(others, -1, 1)])
    paths = np.concatenate([first.paths[rows[:1]], library.paths[rows[1:]]])
    order = np.lexsort((paths, -scores, np.arange(len(rows)) != 0)).tolist()
    return DuplicateGroup(
        tuple(rows[order].tolist()),
        tuple(paths[order].tolist()),
        tuple(scores[order].tolist()),
        tuple(copies[i].level for i in order),
        tuple(copies[i].edit for i in order),
    )


def show_duplicates(
    duplicates: Duplicates, limit: int = 10, columns: int = 6, size: float = 1.6, *, page: int = 1
) -> tuple[Figure, NDArray[Any]]:
    """Show near-duplicates, one row per group.

    The image to keep is on the left, in a blue frame; the others follow with their cosine to it,
    the most similar first, and with the edit, or else the level. The last cell of a full row counts
    those that are not shown; the title tells which groups of how many are on this page.

    Parameters
    ----------
    duplicates
        What `simsearch.duplicates` returned.
    limit
        How many groups to show at most, the largest first.
    columns
        Images per row, at least two.
    size
        Width of a picture in inches.
    page
        Which `limit` groups to show: 2 for those after the first page, and so on.

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
    pages = max(1, -(-len(duplicates) // limit))
    if not 1 <= page <= pages:
        raise QueryError(f"page={page}: with limit={limit} there are {pages:,}, from 1 on")
    start = (page - 1) * limit
    shown = duplicates[start : start + limit]
    rows = [_group_cells(i, group, columns, size) for i, group in enumerate(shown, start + 1)]
    title = f"{len(shown):,} of {len(duplicates):,} groups" if pages > 1 else ""
    if page > 1:
        title = f"groups {start + 1:,} to {start + len(shown):,} of {len(duplicates):,}"
    return draw_grid(rows or [[Cell("no duplicates")]], size, title)


def _group_cells(number: int, group: DuplicateGroup, columns: int, size: float) -> list[Cell]:
    """Make the cells of a group that fit into a row; the last one counts the others."""
    shown = len(group) if len(group) <= columns else columns - 1
    headings = [f"{number} · {len(group)} images", *_captions(group, shown)]
    cells = [
        Cell(load_thumbnail(path, size), (headings[i], short_path(path)), accent=i == 0)
        for i, path in enumerate(group.paths[:shown])
    ]
    return cells if shown == len(group) else [*cells, Cell(f"{len(group) - shown:,} more")]


def _captions(group: DuplicateGroup, shown: int) -> Iterator[str]:
    """Cosine to the first, and the edit, or else the level."""
    for i in range(1, shown):
        yield f"{group.scores[i]:.3f} {group.edits[i] or group.levels[i]}".rstrip()
