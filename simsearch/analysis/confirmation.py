"""Copies confirmed on the pixels of the whole pictures: a star around each picture to keep.

Candidates are near in embedding or in the hash of their signatures; every copy was compared with
the very picture that it is a copy of.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from tqdm.auto import tqdm

from simsearch.analysis.duplicate_groups import SAME_FILE
from simsearch.analysis.picture_files import label_equal_bytes, look_at_files
from simsearch.analysis.stored_signatures import signatures_of
from simsearch.errors import SimsearchError
from simsearch.files import iter_blocks
from simsearch.images.alignment import alignments
from simsearch.images.coarse_search import find_positions
from simsearch.images.confirm import confirm
from simsearch.images.decode import has_16_bit_colour, load_image, open_image
from simsearch.images.signature import MAX_DISTANCE, candidates, is_blank
from simsearch.retrieval.exact import rounding_error

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from PIL import Image

    from simsearch.analysis.picture_files import PictureFiles
    from simsearch.analysis.stored_signatures import PictureSignatures
    from simsearch.images.alignment import Alignment
    from simsearch.library.library import ImageLibrary

    Positions = dict[tuple[int, int], list[Alignment] | None]

CANDIDATE_COSINE, NEIGHBOURS = 0.6, 20  # of embeddings
BLOCK_ROWS = 1024
COMPARED_SIDE = 1024  # pixels: least side of a JPEG that is decoded at a part of its size
HELD_PICTURES = 8  # decoded


class Copy(NamedTuple):
    """A picture of a group: row, level and edit, both "" for the one to keep."""

    row: int
    level: str = ""
    edit: str = ""


class Confirmed(NamedTuple):
    """Groups of copies, the picture to keep first, and what could not be compared.

    Attributes
    ----------
    groups : list of list of Copy
    missing : int
        Rows whose file is not there.
    unreadable : int
        Rows whose file cannot be read.
    animated : int
        Rows of several frames or pages, of which only the bytes are compared.
    blank : int
        Rows of pictures that show nothing, of which only the bytes are compared.
    readable : int
        Rows that were read.
    """

    groups: list[list[Copy]]
    missing: int
    unreadable: int
    animated: int
    blank: int
    readable: int


def confirmed_copies(
    library: ImageLibrary,
    threshold: float = CANDIDATE_COSINE,
    *,
    identical: bool = False,
    progress: bool = True,
) -> Confirmed:
    """Find the copies in a library, each confirmed with the picture to keep.

    Parameters
    ----------
    library
        Whose files are where its paths say.
    threshold
        Least cosine of two candidates; those that are near in hash are candidates anyway.
    identical
        Whether only equal bytes and equal pixels count.
    progress
        Whether to show progress bars, for what takes more than a second.
    """
    files = look_at_files(library)
    made = signatures_of(library, files, progress=progress)
    labels = label_equal_bytes(library, files)
    order = keeping_order(library, files, made.rows)
    rank = np.empty(len(order), np.intp)
    rank[order] = np.arange(len(order))
    first = _first_of(labels[files.same], rank)  # (N,), the row that stands for equal bytes
    blank = (made.frames == 1) & is_blank(made.rows)
    compared = (made.frames == 1) & ~blank & (first == np.arange(len(first)))
    rows = np.flatnonzero(compared)
    positions = candidate_pairs(library, made, rows, threshold, identical=identical)
    search = _Stars(library, made, rank, positions, identical=identical)
    stars = search.find(rows, progress=progress)
    groups = _with_equal_files(stars, first, files, rank)
    return Confirmed(
        groups,
        int((~files.there).sum()),
        int((files.there & (made.frames == 0)).sum()) + search.failed,
        int((made.frames > 1).sum()),
        int(blank.sum()),
        int((made.frames > 0).sum()),
    )


def keeping_order(
    library: ImageLibrary, files: PictureFiles, rows: NDArray[np.void]
) -> NDArray[np.intp]:
    """Sort the rows by what is best kept: most pixels, no link, most bytes, oldest, path."""
    pixels = rows["width"].astype(np.int64) * rows["height"]
    keys = (library.paths, files.times, -files.sizes, files.links, -pixels)
    return np.lexsort(keys)


def _first_of(labels: NDArray[np.intp], rank: NDArray[np.intp]) -> NDArray[np.intp]:
    """Row of the best rank among those of one label: (N,)."""
    order = np.lexsort((rank, labels))
    _, start, inverse = np.unique(labels[order], return_index=True, return_inverse=True)
    first = np.empty(len(labels), np.intp)
    first[order] = order[start][inverse]
    return first


def _with_equal_files(
    stars: dict[int, list[Copy]],
    first: NDArray[np.intp],
    files: PictureFiles,
    rank: NDArray[np.intp],
) -> list[list[Copy]]:
    """Add the files of equal bytes, and the paths that lead to one file; drop who stands alone."""
    members: dict[int, list[int]] = {}
    for row in np.flatnonzero(files.there).tolist():
        members.setdefault(int(first[row]), []).append(row)
    in_star = {copy.row for star in stars.values() for copy in star}
    stars = stars | {row: [Copy(row)] for row in members if row not in in_star}
    groups = []
    for star in stars.values():
        group = []
        for copy in star:
            group.append(copy)
            level, edit = copy.level or "identical", copy.edit or "identical"
            files_seen = {int(files.same[copy.row])}
            for row in sorted(members[copy.row], key=lambda each: rank[each]):
                if row != copy.row:
                    seen = int(files.same[row]) in files_seen
                    group.append(Copy(row, level, SAME_FILE if seen else edit))
                    files_seen.add(int(files.same[row]))
        if len(group) > 1:
            groups.append(group)
    return groups


def candidate_pairs(
    library: ImageLibrary,
    made: PictureSignatures,
    rows: NDArray[np.intp],
    threshold: float,
    *,
    identical: bool = False,
) -> Positions:
    """Find the pairs to compare, the smaller row first, and where; None where that is not known.

    What is near in hash is compared anyway, and what is near in embedding where the thumbnails
    are alike somewhere.
    """
    positions: Positions = {}
    near = rows[candidates(made.rows[rows], 0 if identical else MAX_DISTANCE)]
    if not identical:
        pairs = np.sort(np.concatenate([near[:0], *_neighbours(library, rows, threshold)]), axis=1)
        codes = np.unique(pairs @ [len(library), 1])
        codes = np.setdiff1d(codes, near @ [len(library), 1], assume_unique=True)
        positions.update(
            find_positions(made.rows, np.stack(np.divmod(codes, len(library)), axis=1))
        )
    positions.update(dict.fromkeys(map(tuple, near.tolist())))
    return positions


def _neighbours(
    library: ImageLibrary, rows: NDArray[np.intp], threshold: float
) -> Iterator[NDArray[np.intp]]:
    """Pairs of rows with their nearest in embedding, from a cosine up: (P, 2) each."""
    embeddings = np.asarray(library.embeddings[rows])
    least = threshold - rounding_error(library.dim)
    count = min(NEIGHBOURS, len(rows) - 1)
    for block in iter_blocks(len(rows), BLOCK_ROWS) if count > 0 else ():
        scores = embeddings[block] @ embeddings.T
        scores[np.arange(len(scores)), np.arange(len(rows))[block]] = -2
        nearest = np.argpartition(-scores, count - 1, axis=1)[:, :count]
        i, place = np.nonzero(np.take_along_axis(scores, nearest, axis=1) >= least)
        yield rows[np.stack([i + block.start, nearest[i, place]], axis=1)]


class _Stars:
    """Search for the copies of each picture, the best one to keep first."""

    def __init__(
        self,
        library: ImageLibrary,
        made: PictureSignatures,
        rank: NDArray[np.intp],
        positions: Positions,
        *,
        identical: bool,
    ) -> None:
        self.paths, self.signatures, self.rank = library.paths, made.rows, rank
        self.positions = positions
        self.near: dict[int, set[int]] = {}
        for i, j in positions:
            self.near.setdefault(i, set()).add(j)
            self.near.setdefault(j, set()).add(i)
        self.identical = identical
        self.unread: set[int] = set()
        self._pictures: OrderedDict[int, Image.Image] = OrderedDict()

    @property
    def failed(self) -> int:
        """How many pictures could be read for their signature, and not for a comparison."""
        return len(self.unread)

    def find(self, rows: NDArray[np.intp], *, progress: bool) -> dict[int, list[Copy]]:
        """Find the stars: the rows that are kept, with their copies."""
        stars: dict[int, list[Copy]] = {}
        settled: set[int] = set()
        ordered = rows[np.argsort(self.rank[rows])].tolist()
        for kept in tqdm(ordered, "Comparing", unit="image", delay=1, disable=not progress):
            if kept not in settled:
                settled.add(kept)
                stars[kept] = [Copy(kept), *self._copies(kept, settled)]
                settled.update(copy.row for copy in stars[kept])
        return stars

    def _copies(self, kept: int, settled: set[int]) -> list[Copy]:
        """Compare a picture with its candidates, and with those of the copies that are found."""
        copies: list[Copy] = []
        tried, waiting = set(settled), self.near.get(kept, set()) - settled
        while waiting:
            row = min(waiting, key=lambda each: self.rank[each])
            tried.add(row)
            copy = self._compare(kept, row)
            if copy:
                copies.append(copy)
                waiting |= self.near.get(row, set())
            waiting -= tried
        return copies

    def _compare(self, kept: int, row: int) -> Copy | None:
        """Compare two pictures on their pixels."""
        first, second = pair = min(kept, row), max(kept, row)
        rows = self.signatures[first], self.signatures[second]
        if self.identical:
            same = rows[0] == rows[1] and self._equal_pixels(kept, row)
            return Copy(row, "identical", "identical") if same else None
        positions = self.positions.get(pair) or alignments(*rows)
        if not positions:
            return None
        a, b = self._load(first), self._load(second)
        edit = confirm(a, b, rows, positions) if a is not None and b is not None else None
        if edit is None:
            return None
        if edit.level != "identical":
            return Copy(row, "near", edit.kind)
        if self._equal_pixels(kept, row):
            return Copy(row, "identical", "identical")
        return Copy(row, "near", "recompressed")

    def _load(self, row: int) -> Image.Image | None:
        if row not in self._pictures:
            try:
                self._pictures[row] = load_image(str(self.paths[row]), COMPARED_SIDE)
            except SimsearchError:
                self.unread.add(row)
                return None
            if len(self._pictures) > HELD_PICTURES:
                self._pictures.popitem(last=False)
        self._pictures.move_to_end(row)
        return self._pictures[row]

    def _equal_pixels(self, a: int, b: int) -> bool:
        """Tell whether two whole pictures, as they are in their files, have equal pixels."""
        paths = str(self.paths[a]), str(self.paths[b])
        try:
            first, second = map(load_image, paths)
            if first.size != second.size or first.tobytes() != second.tobytes():
                return False
            return _pixels_of_file(paths[0]) == _pixels_of_file(paths[1]) is not None
        except SimsearchError:
            return False


def _pixels_of_file(path: str) -> tuple[bool, bytes] | None:
    """Return what a picture has beyond 8-bit RGB: its transparency; None for deeper pixels."""
    with open_image(path) as image:
        if has_16_bit_colour(image) or image.mode[0] in "IF":
            return None
        if not image.has_transparency_data:
            return False, b""
        return True, image.convert("RGBA").tobytes()
