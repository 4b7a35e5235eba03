"""What `check_dataset` found: a table, CSV files, and a summary for terminals and notebooks."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from simsearch.csv_file import write_csv
from simsearch.errors import QueryError
from simsearch.printable import one_line, valid_unicode

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pandas as pd
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from simsearch.analysis.health_checks import Check

COLUMNS = ("kind", "path", "score", "threshold", "other", "note", "row")


class Finding(NamedTuple):
    """A picture that has a fault, or may have one.

    Attributes
    ----------
    kind : str
        A key of `HealthReport.checks`.
    path : str
        As in the library's `paths`, or in `skipped.csv`.
    score : float
        The measure that the check compares with its threshold; NaN for unreadable files.
    other : str
        Of copies, the path of the one they are copies of; else "".
    note : str
        Reason, edit, splits, or the label that the neighbours have.
    row : int or None
        In the library; None for a file that is not in it.
    """

    kind: str
    path: str
    score: float = math.nan
    other: str = ""
    note: str = ""
    row: int | None = None


@dataclass(frozen=True)
class HealthReport(Mapping[str, "tuple[Finding, ...]"]):
    """The health of a dataset: a mapping of kinds of faults to findings, the worst first.

    It prints as a summary, and holds no library: what it found stays as it was found.

    Attributes
    ----------
    images : int
        How many pictures the library holds.
    checks : mapping of str to Check
        What each kind means, with its threshold.
    findings : mapping of str to tuple of Finding
        By kind, in the order of `checks`; a kind that was not checked is left out.
    unchecked : mapping of str to str
        Kinds that could not be checked, or not for all pictures, each with the reason.
    """

    images: int
    checks: Mapping[str, Check] = field(repr=False)
    findings: Mapping[str, tuple[Finding, ...]] = field(repr=False)
    unchecked: Mapping[str, str] = field(default_factory=dict)

    def __getitem__(self, kind: str) -> tuple[Finding, ...]:
        if kind in self.checks and kind not in self.findings:
            raise QueryError(f"{kind!r} was not checked: {self.unchecked.get(kind, 'left out')}")
        return self.findings[kind]

    def __contains__(self, kind: object) -> bool:
        return kind in self.findings

    def get(self, kind: str, default: Any = None) -> Any:  # noqa: ANN401
        """Return the findings of a kind; the default where that was not checked."""
        return self.findings.get(kind, default)

    def __iter__(self) -> Any:  # noqa: ANN401
        return iter(self.findings)

    def __len__(self) -> int:
        return len(self.findings)

    @property
    def counts(self) -> dict[str, int]:
        """Number of findings by kind."""
        return {kind: len(found) for kind, found in self.findings.items()}

    @property
    def total(self) -> int:
        """Number of findings; a picture counts once for each of its faults."""
        return sum(self.counts.values())

    def to_frame(self, kind: str | None = None) -> pd.DataFrame:
        """Return a pandas frame, one row per finding.

        Its columns are kind, path, score, threshold, other, note and row.

        Parameters
        ----------
        kind
            One kind alone.

        Raises
        ------
        QueryError
            If that was not checked.
        """
        from simsearch.library.odd_names import make_frame

        frame = make_frame(self._table([kind] if kind else self.findings), COLUMNS)
        return frame.astype({"score": "float64", "threshold": "float64", "row": "Int64"})

    def to_csv(self, place: str | os.PathLike[str] = "health.csv") -> None:
        """Write the findings as CSV.

        Parameters
        ----------
        place
            A file ending in ``.csv``, which takes all findings; or else a folder, made if it is
            not there, which takes one file per kind.

        Raises
        ------
        QueryError
            If it cannot be written.
        """
        target = Path(place).expanduser()
        try:
            if target.suffix.lower() == ".csv" and not target.is_dir():
                write_csv(target, COLUMNS, self._table(self.findings))
                return
            target.mkdir(parents=True, exist_ok=True)
            for kind in self.findings:
                write_csv(target / f"{kind}.csv", COLUMNS, self._table([kind]))
        except OSError as error:
            raise QueryError(
                f"cannot write {os.fspath(place)!r}: {error.strerror or error}; give a file or a "
                "folder on a disk with free space"
            ) from error

    def show(self, kind: str | None = None, **options: Any) -> tuple[Figure, NDArray[Any]]:  # noqa: ANN401
        """Show thumbnails of what was found; see `simsearch.show_health`."""
        from simsearch.analysis.health_figure import show_health

        return show_health(self, kind, **options)

    def _table(self, kinds: Iterable[str]) -> list[tuple[object, ...]]:
        return [
            (
                kind,
                each.path,
                None if math.isnan(each.score) else round(float(each.score), 6),
                None if math.isnan(self.checks[kind].threshold) else self.checks[kind].threshold,
                each.other,
                each.note,
                each.row,
            )
            for kind in kinds
            for each in self[kind]
        ]

    def __str__(self) -> str:
        found = f"{self.total:,} finding{'s' * (self.total != 1)}" if self.total else "no faults"
        lines = [f"{found} in {self.images:,} image{'s' * (self.images != 1)}"]
        wide = max(map(len, self.checks), default=0)
        for kind, worst in self.findings.items():
            line = f"{len(worst):>7,}  {kind:<{wide}}"
            if worst:
                line += (
                    f"  worst: {one_line(worst[0].path)} ({describe(self.checks[kind], worst[0])})"
                )
            lines.append(line)
        lines += [f"not checked, {kind}: {reason}" for kind, reason in self.unchecked.items()]
        return valid_unicode("\n".join(lines))

    def _repr_html_(self) -> str:
        from simsearch.analysis.health_html import to_html

        return to_html(self)


def describe(check: Check, finding: Finding) -> str:
    """Put the score of a finding and what is known beside it in a few words."""
    score = "" if math.isnan(finding.score) else f"{check.measure} {finding.score:.3g}"
    return ", ".join(filter(None, (score, one_line(finding.note))))
