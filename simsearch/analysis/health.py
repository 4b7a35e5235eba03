"""The health of a dataset: one report of all that may be wrong with its pictures.

Nothing is changed but for derived files beside the library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from simsearch.analysis.health_checks import (
    LEAST_IMAGES,
    LEAST_OF_LABEL,
    NEIGHBOURS,
    Check,
    choose_checks,
    quality_scores,
)
from simsearch.analysis.health_figure import show_health
from simsearch.analysis.health_report import Finding, HealthReport
from simsearch.analysis.neighbours import label_votes, nearest_neighbours, outlier_scores
from simsearch.analysis.picture_files import look_at_files
from simsearch.analysis.splits import names_splits, split_rank, split_rows
from simsearch.analysis.stored_quality import quality_of
from simsearch.errors import QueryError
from simsearch.library.library import ImageLibrary
from simsearch.library.skipped import read_skipped
from simsearch.printable import one_line

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from simsearch.analysis.duplicate_groups import DuplicateGroup
    from simsearch.analysis.neighbours import Neighbours
    from simsearch.library.types import Labels

__all__ = ["Finding", "HealthReport", "check_dataset", "show_health"]


def check_dataset(
    library: ImageLibrary,
    labels: Labels = "folder",
    *,
    split: Labels | None = None,
    thresholds: Mapping[str, float] | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> HealthReport:
    """Look for all that may be wrong with the pictures of a dataset.

    Files that were not read; pictures that are blank, dark, bright, of low contrast, blurred, of an
    odd size or shape; exact and near duplicates, and the same picture in two splits, confirmed on
    the pixels; pictures far from all others; labels that the neighbours do not share. What could
    not be checked is said, and stops nothing. Thresholds, and how often each kind is found, were
    measured by `benchmarks/health.py`.

    The first call reads every picture that is there; its measures are stored beside the library,
    and later calls read only what changed.

    Parameters
    ----------
    library
        From `embed_dataset` or `ImageLibrary.load`.
    labels
        "folder", a column of the attached table, one label per row, or a mapping of path to label.
    split
        The same for the split of each picture. By default a column named "split", "subset" or
        "partition", or else folders such as "train" and "seg_test".
    thresholds
        Other thresholds, by kind, such as ``{"blurred": 0.35}``; `HealthReport.checks` has those
        that are used.
    workers
        Threads that read pictures; by default one per core, eight at most.
    progress
        Whether to show progress bars, for what takes more than a second.

    Returns
    -------
    HealthReport
        Prints as a summary; a mapping of kinds to findings, the worst first.

    Raises
    ------
    QueryError
        If it is no `ImageLibrary`, labels or splits do not fit it, or an argument is out of range.

    Examples
    --------
    >>> from simsearch import ImageLibrary
    >>> library = ImageLibrary([[1, 0], [0, 1]], ["gone/a.jpg", "gone/b.jpg"])
    >>> report = check_dataset(library, progress=False)
    >>> report.counts
    {'unreadable': 0}
    """
    if not isinstance(library, ImageLibrary):
        raise QueryError(
            f"check_dataset takes an ImageLibrary, not {type(library).__name__}: give what "
            "embed_dataset or ImageLibrary.load returns"
        )
    if workers is not None and workers < 1:
        raise QueryError(f"workers={workers}: give a number above 0, or None")
    found = _Findings(library, choose_checks(thresholds))
    names, splits = _labels(library, labels), split_rows(library, split)
    _check_pictures(found, workers, progress=progress)
    _check_copies(found, splits, progress=progress)
    _check_neighbours(found, names, progress=progress)
    return HealthReport(len(library), found.checks, found.in_order(), found.unchecked)


class _Findings:
    """What is found while the checks run."""

    def __init__(self, library: ImageLibrary, checks: dict[str, Check]) -> None:
        self.library, self.checks = library, checks
        self.by_kind: dict[str, list[Finding]] = {}
        self.unchecked: dict[str, str] = {}

    def add_scores(
        self,
        kind: str,
        scores: NDArray[np.float64],
        notes: Sequence[str] | None = None,
        but: Sequence[int] = (),
    ) -> None:
        """Add the rows whose scores fail a check, but for some."""
        fails = self.checks[kind].fails(scores)
        fails[list(but)] = False
        self.by_kind[kind] = [
            Finding(
                kind,
                str(self.library.paths[row]),
                float(scores[row]),
                note=notes[row] if notes else "",
                row=row,
            )
            for row in np.flatnonzero(fails).tolist()
        ]

    @property
    def blank_rows(self) -> list[int]:
        """Rows that show nothing: they are told as that alone."""
        return [each.row for each in self.by_kind.get("blank", ()) if each.row is not None]

    def in_order(self) -> dict[str, tuple[Finding, ...]]:
        """Sort findings: kinds as the checks, in each the worst first, then by path."""
        return {
            kind: tuple(
                sorted(
                    self.by_kind[kind],
                    key=lambda each: (
                        np.nan_to_num(each.score) * (1 if check.low else -1),
                        each.path,
                    ),
                )
            )
            for kind, check in self.checks.items()
            if kind in self.by_kind
        }


def _labels(library: ImageLibrary, labels: Labels) -> NDArray[np.str_]:
    """Label the rows; folders that only name splits are no labels."""
    found = library.label_rows(labels)
    by_folder = isinstance(labels, str) and labels == "folder"
    return np.full(len(found), "", "U1") if by_folder and names_splits(found) else found


def _check_pictures(found: _Findings, workers: int | None, *, progress: bool) -> None:
    """Look at each picture by itself."""
    library = found.library
    files = look_at_files(library)
    quality = quality_of(library, files, workers=workers, progress=progress)
    skipped = read_skipped(library.stored[0]) if library.stored else []
    found.by_kind["unreadable"] = [
        *(Finding("unreadable", each.name, note=each.reason) for each in skipped),
        *(
            Finding("unreadable", str(library.paths[row]), note=reason, row=row)
            for row, reason in quality.unreadable.items()
        ),
    ]
    missing = np.flatnonzero(~files.there)
    if len(missing):
        few = ", ".join(one_line(str(path)) for path in sorted(library.paths[missing])[:3])
        found.unchecked["missing files"] = f"{len(missing):,} of {len(library):,}, such as {few}"
    if not quality.measured.any():
        found.unchecked["light, sharpness, size, copies"] = "no picture can be read"
        return
    scores = quality_scores(quality.rows, found.checks)
    for kind, values in scores.scores.items():
        found.add_scores(kind, values, scores.notes.get(kind))


def _check_copies(found: _Findings, splits: NDArray[np.str_], *, progress: bool) -> None:
    """Find copies, and those of them that lie in two splits."""
    from simsearch.analysis.duplicates import duplicates

    parts = np.unique(splits[splits != ""])
    if len(parts) < 2:
        found.unchecked["leak"] = (
            "no two splits are known: name folders train and test, or give split="
        )
    if "blank" not in found.by_kind:  # no picture can be read
        return
    copies = duplicates(found.library, progress=progress)
    for reason, count in copies.uncompared.items():
        if count and "not there" not in reason:
            found.unchecked[f"copies of {count:,} images"] = reason.removeprefix("not compared: ")
    if copies.level == "similar":
        found.unchecked["copies"] = "; ".join(copies.notes)
        return
    kinds: dict[str, list[Finding]] = {"exact_duplicate": [], "near_duplicate": []}
    for group in copies:
        for i in range(1, len(group)):
            kind = "exact_duplicate" if group.levels[i] == "identical" else "near_duplicate"
            kinds[kind].append(_copy(kind, group, i, 0, group.edits[i]))
    found.by_kind |= kinds
    if len(parts) >= 2:
        found.by_kind["leak"] = [leak for group in copies for leak in _leaks(group, splits)]


def _copy(kind: str, group: DuplicateGroup, i: int, of: int, note: str) -> Finding:
    """One picture of a group as a copy of another, with the lower cosine to the first."""
    score = min(group.scores[i], group.scores[of])
    return Finding(kind, group.paths[i], score, group.paths[of], note, group.rows[i])


def _leaks(group: DuplicateGroup, splits: NDArray[np.str_]) -> list[Finding]:
    """Name each picture of a group that is also in a split before its own, such as train."""
    parts = [str(splits[row]) for row in group.rows]
    named = [i for i, part in enumerate(parts) if part]
    if len({parts[i] for i in named}) < 2:
        return []
    first = min(named, key=lambda i: (split_rank(parts[i]), i))
    return [
        _copy("leak", group, i, first, f"in {parts[i]} and in {parts[first]}")
        for i in named
        if parts[i] != parts[first]
    ]


def _check_neighbours(found: _Findings, names: NDArray[np.str_], *, progress: bool) -> None:
    """Find outliers and labels that neighbours do not share."""
    count = len(found.library)
    classes, sizes = np.unique(names[names != ""], return_counts=True)
    if count < LEAST_IMAGES:
        found.unchecked["outlier"] = f"fewer than {LEAST_IMAGES} images"
    if len(classes) < 2:
        found.unchecked["label"] = "fewer than two labels are known: give labels="
    if count < 2 or (count < LEAST_IMAGES and len(classes) < 2):
        return
    neighbours = nearest_neighbours(found.library, NEIGHBOURS, progress=progress)
    if count >= LEAST_IMAGES:
        found.add_scores("outlier", outlier_scores(neighbours), but=found.blank_rows)
    if len(classes) >= 2:
        _check_labels(found, names, neighbours, set(classes[sizes < LEAST_OF_LABEL].tolist()))


def _check_labels(
    found: _Findings, names: NDArray[np.str_], neighbours: Neighbours, rare: set[str]
) -> None:
    votes = label_votes(neighbours, names)
    unsure = np.isin(names, list(rare))
    if unsure.any() or (names == "").any():
        found.unchecked["label of some"] = (
            f"{int((names == '').sum()):,} images have no label, and {int(unsure.sum()):,} one "
            f"that fewer than {LEAST_OF_LABEL} have"
        )
    notes = [
        f"{name} {own:.0%}, {other} {share:.0%}"
        for name, own, other, share in zip(
            names.tolist(),
            votes.own.tolist(),
            votes.other.tolist(),
            votes.share.tolist(),
            strict=True,
        )
    ]
    found.add_scores("label", np.where(unsure, np.nan, votes.own), notes, but=found.blank_rows)
