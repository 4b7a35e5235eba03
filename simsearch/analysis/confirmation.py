"""Copies confirmed on the pixels of the whole pictures: a star around each picture to keep.

Every copy was compared with the very picture that it is a copy of.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from simsearch.analysis.candidates import CANDIDATE_COSINE, candidate_pairs
from simsearch.analysis.duplicate_groups import SAME_FILE, Copy
from simsearch.analysis.picture_files import label_equal_bytes, look_at_files
from simsearch.analysis.progress import follow_all
from simsearch.analysis.stored_signatures import PictureSignatures, signatures_of
from simsearch.backbones.long_pictures import describe_difference
from simsearch.errors import QueryError, SimsearchError
from simsearch.images.alignment import alignments
from simsearch.images.compare import COMPARED_SIDE, equal_pixels, judge
from simsearch.images.decode import load_image
from simsearch.images.signature import is_blank
from simsearch.library.library import ImageLibrary
from simsearch.library.not_duplicates import pairs_apart

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from PIL import Image

    from simsearch.analysis.candidates import Positions
    from simsearch.analysis.picture_files import PictureFiles


HELD_PICTURES = 8  # decoded


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
    reference: ImageLibrary | None = None,
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
    reference
        Another library: then only copies of its pictures are found, and all are kept. Its rows
        count first in the groups, those of `library` from `len(reference)` on.
    identical
        Whether only equal bytes and equal pixels count.
    progress
        Whether to show progress bars, for what takes more than a second.
    """
    parts = (library,) if reference is None else (reference, library)
    looked = [look_at_files(each) for each in parts]
    made = _signatures_of_all(parts, looked, progress=progress)
    library = library if reference is None else pool(reference, library)
    files = (
        looked[0] if reference is None else look_at_files(library)
    )  # links from one to the other
    labels = label_equal_bytes(library, files)
    order = keeping_order(library, files, made.rows)
    known = np.arange(len(order)) < len(parts[0]) * (reference is not None)  # rows of the reference
    order = np.concatenate([order[known[order]], order[~known[order]]])
    rank = np.empty(len(order), np.intp)
    rank[order] = np.arange(len(order))
    first = _first_of(labels[files.same], rank)  # (N,), the row that stands for equal bytes
    blank = (made.frames == 1) & is_blank(made.rows)
    compared = (made.frames == 1) & ~blank & (first == np.arange(len(first)))
    apart = pairs_apart(library) if reference is None else set()
    rows = np.flatnonzero(compared)
    positions = candidate_pairs(
        *(library, made.rows, rows, threshold),
        known=known if reference is not None else None,
        identical=identical,
    )
    search = _Stars(library, made, rank, positions, apart=apart, identical=identical)
    near = search.near
    if reference is not None:
        near = {row: others for row, others in near.items() if known[row]}
    stars = search.find(rows, near, progress=progress)
    groups = _with_equal_files(stars, first, files, rank)
    if reference is not None:
        ours = [group for group in groups if known[group[0].row]]
        groups = [[first, *(copy for copy in rest if not known[copy.row])] for first, *rest in ours]
    groups = [
        [first, *(copy for copy in rest if frozenset((first.row, copy.row)) not in apart)]
        for first, *rest in groups
    ]
    groups = [group for group in groups if len(group) > 1]
    return Confirmed(
        groups,
        int((~files.there).sum()),
        int((files.there & (made.frames == 0)).sum()) + search.failed,
        int((made.frames > 1).sum()),
        int(blank.sum()),
        int((made.frames > 0).sum()),
    )


def pool(reference: ImageLibrary, library: ImageLibrary) -> ImageLibrary:
    """Join the rows of two libraries, those of the first one first; only to be compared.

    Raises
    ------
    QueryError
        If their embeddings were not made in the same way.
    """
    if (reference.dim, reference.fingerprint) != (library.dim, library.fingerprint):
        why = describe_difference(reference.fingerprint, library.fingerprint)
        raise QueryError(
            f"the embeddings of {reference!r} and {library!r} cannot be compared; embed one of "
            f"the two datasets again, with the backbone of the other{why}"
        )
    both = ImageLibrary(
        np.concatenate([reference.embeddings, library.embeddings]),
        np.concatenate([reference.paths, library.paths]),
    )
    if reference.stats is not None and library.stats is not None:
        both.stats = np.concatenate([reference.stats, library.stats])
        if reference.digests is not None and library.digests is not None:
            both.digests = np.concatenate([reference.digests, library.digests])
    return both


def _signatures_of_all(
    parts: Sequence[ImageLibrary], looked: Sequence[PictureFiles], *, progress: bool
) -> PictureSignatures:
    made = [
        signatures_of(each, files, progress=progress)
        for each, files in zip(parts, looked, strict=True)
    ]
    return PictureSignatures(*(np.concatenate(arrays) for arrays in zip(*made, strict=True)))


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


class _Stars:
    """Search for the copies of each picture, the best one to keep first."""

    def __init__(
        self,
        library: ImageLibrary,
        made: PictureSignatures,
        rank: NDArray[np.intp],
        positions: Positions,
        *,
        apart: set[frozenset[int]],
        identical: bool,
    ) -> None:
        self.paths, self.signatures, self.rank = library.paths, made.rows, rank
        self.apart, self.identical = apart, identical
        self.positions = positions
        self.near: dict[int, set[int]] = {}
        for i, j in positions:
            self.near.setdefault(i, set()).add(j)
            self.near.setdefault(j, set()).add(i)
        self.unread: set[int] = set()
        self._made_of: set[tuple[int, int]] = set()  # (framed copy, its original)
        self._pictures: OrderedDict[int, Image.Image] = OrderedDict()

    @property
    def failed(self) -> int:
        """How many pictures could be read for their signature, and not for a comparison."""
        return len(self.unread)

    def find(
        self, rows: NDArray[np.intp], near: dict[int, set[int]], *, progress: bool
    ) -> dict[int, list[Copy]]:
        """Find the stars: the rows that are kept, with their copies."""
        stars: dict[int, list[Copy]] = {}
        settled: set[int] = set()
        ordered = rows[np.argsort(self.rank[rows])].tolist()
        for row in follow_all(ordered, "Comparing", progress=progress):
            if row not in settled:
                kept, copies = self._star(row, near, settled)
                stars[kept] = [Copy(kept), *copies]
                settled.update(copy.row for copy in stars[kept])
        return stars

    def _star(
        self, kept: int, near: dict[int, set[int]], settled: set[int]
    ) -> tuple[int, list[Copy]]:
        """Find the copies of a picture, or of the one that it was made of."""
        tried: set[int] = set()
        while True:
            tried.add(kept)
            copies = self._copies(kept, near, settled)
            originals = {copy.row for copy in copies if (kept, copy.row) in self._made_of} - tried
            if not originals.intersection(near):
                return kept, copies
            kept = min(originals.intersection(near), key=lambda each: self.rank[each])

    def _copies(self, kept: int, near: dict[int, set[int]], settled: set[int]) -> list[Copy]:
        """Compare a picture with its candidates, and with those of the copies that are found."""
        copies: list[Copy] = []
        tried, waiting = {kept}, near.get(kept, set()) - settled
        while waiting:
            row = min(waiting, key=lambda each: self.rank[each])
            tried.add(row)
            copy = self._compare(kept, row)
            if copy:
                copies.append(copy)
                waiting |= near.get(row, set()) - settled
            waiting -= tried
        return copies

    def _compare(self, kept: int, row: int) -> Copy | None:
        """Compare two pictures on their pixels."""
        if frozenset((kept, row)) in self.apart:
            return None
        first, second = pair = min(kept, row), max(kept, row)
        rows = self.signatures[first], self.signatures[second]
        paths = str(self.paths[first]), str(self.paths[second])
        if self.identical:
            same = rows[0] == rows[1] and equal_pixels(*paths)
            return Copy(row, "identical", "identical") if same else None
        positions = self.positions.get(pair) or alignments(*rows)
        if not positions:
            return None
        a, b = self._load(first), self._load(second)
        if a is None or b is None:
            return None
        verdict = judge(paths, (a, b), rows, positions)
        if verdict and verdict.derived is not None:
            self._made_of.add((pair[verdict.derived], pair[1 - verdict.derived]))
        return verdict and Copy(row, verdict.level, verdict.edit)

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
