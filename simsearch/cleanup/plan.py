"""Plan of a clean-up: which copies may go, for which pictures that stay; as a CSV or JSON file."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, overload

from simsearch.cleanup.relative_names import relative_name, resolved_name
from simsearch.csv_file import read_csv, saving, write_csv
from simsearch.errors import QueryError
from simsearch.files import write_text
from simsearch.printable import one_line, valid_unicode

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

FORMAT = "simsearch clean-up plan 1"
PRINTED_COPIES = 10
COLUMNS = (
    *("group", "keep", "extra", "level", "edit", "reason"),
    *("keep_bytes", "keep_time_ns", "keep_digest", "extra_bytes", "extra_time_ns", "extra_digest"),
)


class FileState(NamedTuple):
    """A file as it was when the plan was made.

    Attributes
    ----------
    path : str
        Absolute.
    bytes, time_ns : int
        Size, and time of the last change.
    digest : str
        BLAKE2b of 16 bytes, as hex digits.
    """

    path: str
    bytes: int
    time_ns: int
    digest: str


@dataclass(frozen=True)
class PlannedCopy:
    """A copy that may go, and the picture that stays in its place.

    Attributes
    ----------
    group : int
        Number of the group, from 1: all copies of one picture that stays.
    keep, extra : FileState
    level, edit : str
        How the extra was found to be a copy; see `DuplicateGroup`.
    reason : str
        Why that picture stays.
    """

    group: int
    keep: FileState
    extra: FileState
    level: str
    edit: str
    reason: str


@dataclass(frozen=True)
class CleanupPlan(Sequence[PlannedCopy]):
    """Copies that may go. Making or saving a plan moves nothing; `apply_cleanup` does.

    Attributes
    ----------
    copies : tuple of PlannedCopy
    left : mapping of str to int
        How many copies are not in the plan, by reason.
    """

    copies: tuple[PlannedCopy, ...] = field(repr=False)
    left: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.copies)

    @overload
    def __getitem__(self, index: int) -> PlannedCopy: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[PlannedCopy, ...]: ...
    def __getitem__(self, index: int | slice) -> PlannedCopy | tuple[PlannedCopy, ...]:
        return self.copies[index]

    @property
    def bytes(self) -> int:
        """How many bytes all extras have together."""
        return sum(copy.extra.bytes for copy in self.copies)

    def groups(self) -> list[list[PlannedCopy]]:
        """Return the copies by group."""
        groups: dict[int, list[PlannedCopy]] = {}
        for copy in self.copies:
            groups.setdefault(copy.group, []).append(copy)
        return list(groups.values())

    def save(
        self,
        file: str | os.PathLike[str] = "plan.csv",
        root: str | os.PathLike[str] | None = None,
    ) -> None:
        """Write the plan to a file: JSON if its name ends in .json, else CSV.

        Parameters
        ----------
        file
            The file to write.
        root
            Write names relative to this folder, to be read by `read_plan(file, root)` where the
            folder may have another place. By default, absolute paths.

        Raises
        ------
        QueryError
            If the file cannot be written, or a picture does not lie below the root, or lies behind
            a link.
        """
        copies = self.copies if root is None else [_named(copy, root) for copy in self.copies]
        with saving(file) as target:
            if target.suffix.lower() == ".json":
                record = {"format": FORMAT, "copies": [asdict(copy) for copy in copies]}
                write_text(target, json.dumps(record, indent=2, default=list))
            else:
                write_csv(target, COLUMNS, [_row(copy) for copy in copies])

    def __str__(self) -> str:
        groups = len(self.groups())
        lines = [
            f"{len(self):,} cop{'y' if len(self) == 1 else 'ies'} of {groups:,} "
            f"picture{'s' * (groups != 1)} may go: {self.bytes / 1e6:,.1f} MB"
        ]
        lines += [
            f"  {one_line(copy.extra.path)}  ({copy.edit or copy.level} of "
            f"{one_line(copy.keep.path)}; {copy.reason})"
            for copy in self.copies[:PRINTED_COPIES]
        ]
        hidden = len(self) - PRINTED_COPIES
        lines += [f"  ... and {hidden:,} more"] if hidden > 0 else []
        lines += [f"{count:,} left: {reason}" for reason, count in self.left.items()]
        return valid_unicode("\n".join(lines))


def _row(copy: PlannedCopy) -> tuple[object, ...]:
    head = (copy.group, copy.keep.path, copy.extra.path, copy.level, copy.edit, copy.reason)
    return (*head, *copy.keep[1:], *copy.extra[1:])


def _named(copy: PlannedCopy, root: str | os.PathLike[str]) -> PlannedCopy:
    """Name the two files of a copy from a root."""
    try:
        keep, extra = (
            state._replace(path=relative_name(state.path, root))
            for state in (copy.keep, copy.extra)
        )
    except ValueError as error:
        raise QueryError(f"root={os.fspath(root)!r}: {error}; save without root=") from error
    return replace(copy, keep=keep, extra=extra)


def read_plan(
    file: str | os.PathLike[str], root: str | os.PathLike[str] | None = None
) -> CleanupPlan:
    """Read a plan that `CleanupPlan.save` wrote; lines may have been deleted since.

    Parameters
    ----------
    file
        CSV or JSON.
    root
        The folder from which names that are not absolute are meant, such as those that the page
        exports. They may not lead out of it, nor through a link.

    Raises
    ------
    QueryError
        If it cannot be read, or is no such plan; if names are relative and no root is given.
    """
    source = Path(file).expanduser()
    try:
        if source.suffix.lower() == ".json":
            rows: Sequence[Mapping[str, Any]] = _rows_of_json(source)
        else:
            header, *lines = read_csv(source) or [[]]
            if tuple(header) != COLUMNS:
                raise ValueError(f"its first line is not {','.join(COLUMNS)}")
            rows = [dict(zip(COLUMNS, line, strict=True)) for line in lines]
        return CleanupPlan(tuple(_planned(row, i, root) for i, row in enumerate(rows, 1)))
    except OSError as error:
        raise QueryError(f"cannot read {os.fspath(file)!r}: {error.strerror or error}") from error
    except (ArithmeticError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise QueryError(
            f"{os.fspath(file)!r} is no plan of a clean-up: {error}; make one with "
            "`simsearch duplicates outputs --plan plan.csv`"
        ) from error


def _rows_of_json(source: Path) -> Sequence[Mapping[str, Any]]:
    record = json.loads(source.read_text("utf-8"))
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise ValueError(f"its format is not {FORMAT!r}")
    rows = []
    for copy in record["copies"]:
        row = {name: copy[name] for name in ("group", "level", "edit", "reason")}
        for side in ("keep", "extra"):
            path, size, time, digest = copy[side]
            state = {"": path, "_bytes": size, "_time_ns": time, "_digest": digest}
            row |= {f"{side}{key}": value for key, value in state.items()}
        rows.append(row)
    return rows


def _planned(
    row: Mapping[str, Any], number: int, root: str | os.PathLike[str] | None
) -> PlannedCopy:
    """Check one line of a plan."""
    try:
        keep, extra = (
            FileState(
                _absolute(str(row[side]), root),
                int(row[f"{side}_bytes"]),
                int(row[f"{side}_time_ns"]),
                str(row[f"{side}_digest"]),
            )
            for side in ("keep", "extra")
        )
        texts = (str(row[name]) for name in ("level", "edit", "reason"))
        copy = PlannedCopy(int(row["group"]), keep, extra, *texts)
    except ValueError as error:
        raise ValueError(f"line {number}: {error}") from error
    return copy


def _absolute(path: str, root: str | os.PathLike[str] | None) -> str:
    if os.path.isabs(path):  # noqa: PTH117 (a name such as "~1.jpg")
        return path
    if root is None:
        raise ValueError(f"{path!r} is not an absolute path, and no root= (--root) is given")
    return resolved_name(path, root)
