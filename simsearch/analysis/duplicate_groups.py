"""Groups of near-duplicates: what is kept, its copies, and the edit that made each; as a table."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, overload

from simsearch.csv_file import saving, write_csv
from simsearch.printable import one_line, valid_unicode

if TYPE_CHECKING:
    import pandas as pd


LEVELS = ("identical", "near", "similar")
SAME_FILE = "same file"
PRINTED_GROUPS = 10
UNCONFIRMED = "told by embeddings alone, not confirmed on the pixels: look before you delete"


class Copy(NamedTuple):
    """A picture of a group: row, level and edit, both "" for the one to keep."""

    row: int
    level: str = ""
    edit: str = ""


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
    levels : tuple of str
        How each was found to be a copy of the first: "identical" (equal bytes or pixels), "near"
        (the same picture, edited) or "similar" (near in embedding, unconfirmed); "" for the first.
    edits : tuple of str
        What makes the first of each, or each of the first: "crop", "resized", "watermark", ...; or
        "same file" for a link, or another name of a file of the group. "" for the first, and where
        that is not known.
    """

    rows: tuple[int, ...]
    paths: tuple[str, ...]
    scores: tuple[float, ...]
    levels: tuple[str, ...]
    edits: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def lowest(self) -> float:
        """Lowest cosine of an image to the first."""
        return min(self.scores[1:])

    @property
    def highest(self) -> float:
        """Highest cosine of an image to the first."""
        return max(self.scores[1:])

    @property
    def extras(self) -> list[str]:
        """Path of each image but the first, without further names of one file."""
        pairs = zip(self.paths[1:], self.edits[1:], strict=True)
        return [path for path, edit in pairs if edit != SAME_FILE]


@dataclass(frozen=True)
class Duplicates(Sequence[DuplicateGroup]):
    """The near-duplicates of a library: prints as a table, and is a sequence of groups.

    Attributes
    ----------
    groups : tuple of DuplicateGroup
        The largest first; groups of one size in the order of their first paths.
    threshold : float
        The least cosine of a pair of candidates; for level "similar", of an extra to the one kept.
    images : int
        How many images the library holds.
    level : str
        "identical", "near" or "similar": what an extra is at least. "similar" is not confirmed.
    uncompared : mapping of str to int
        How many images could not be compared, or not in full, by reason.
    notes : tuple of str
        What to know of how they were found; printed, too.
    """

    groups: tuple[DuplicateGroup, ...] = field(repr=False)
    threshold: float
    images: int
    level: str = "similar"
    uncompared: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

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
        """Path of each image but the first of its group: what may be deleted.

        A link, or another name of a file that is in the group, is none.
        """
        return [path for group in self.groups for path in group.extras]

    def to_frame(self) -> pd.DataFrame:
        """Return a pandas frame, one row per image: group (from 1), path, cosine, row, level, edit.

        Level and edit are "" for the image to keep.
        """
        from simsearch.library.odd_names import make_frame

        return make_frame(self._table(), ["group", "path", "cosine", "row", "level", "edit"])

    def _table(self) -> list[tuple[int, str, float, int, str, str]]:
        return [
            (number, *image)
            for number, group in enumerate(self.groups, 1)
            for image in zip(
                group.paths, group.scores, group.rows, group.levels, group.edits, strict=True
            )
        ]

    def save(self, file: str | os.PathLike[str] = "duplicates.csv") -> None:
        """Write a CSV file: group (from 1), path, cosine to the first of its group, level, edit.

        Raises
        ------
        QueryError
            If the file cannot be written.
        """
        rows = (
            (number, path, f"{score:.6f}", level, edit)
            for number, path, score, _, level, edit in self._table()
        )
        with saving(file) as target:
            write_csv(target, ("group", "path", "cosine", "level", "edit"), rows)

    def __str__(self) -> str:
        lines = [self._summary()]
        lines += [_describe(group) for group in self.groups[:PRINTED_GROUPS]]
        hidden = len(self) - PRINTED_GROUPS
        lines += [f"... and {hidden:,} more: to_frame()"] if hidden > 0 else []
        lines += [f"{count:,} {reason}" for reason, count in self.uncompared.items() if count]
        return valid_unicode("\n".join([*lines, *self.notes]))

    def _summary(self) -> str:
        name = "identical images" if self.level == "identical" else "near-duplicates"
        of = f"{self.images:,} images"
        if self.level == "similar":
            of += f" at a cosine of {self.threshold:g} or more"
        else:
            of += ", compared on their pixels"
        if not self.groups:
            return f"no {name} among {of}"
        groups = f"{len(self):,} group{'s' * (len(self) > 1)} of {name}"
        return f"{groups} among {of}: {len(self.extras):,} extra"


def _describe(group: DuplicateGroup) -> str:
    """Count, range of cosines, path and edits of a group in one line."""
    edits = [edit for edit in dict.fromkeys(group.edits[1:]) if edit]
    line = f"{len(group):>6,}  {group.lowest:.3f}–{group.highest:.3f}  {one_line(group.paths[0])}"
    return f"{line}  ({', '.join(edits)})" if edits else line
