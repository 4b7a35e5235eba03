"""A plan carried out: each copy is checked once more, then moved away, never deleted.

The copies go to `.simsearch-removed/DATE/` below the root. A journal is written, and is on the
disk, before each move, so that `undo_cleanup` brings everything back, whenever a run was killed.
"""

from __future__ import annotations

import json
import os
import stat
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING

from tqdm.auto import tqdm

from simsearch.cleanup.journal import (
    JOURNAL,
    REMOVED,
    check_folder,
    make_folders,
    only_clean_up,
    rename_to_free_place,
    sync_folder,
)
from simsearch.errors import MissingExtraError, QueryError, SimsearchError
from simsearch.files import digest_unchanged, modified_ns
from simsearch.images.compare import compare_files
from simsearch.printable import one_line, valid_unicode

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from simsearch.cleanup.plan import CleanupPlan, FileState, PlannedCopy

PRINTED_REASONS = 20


@dataclass(frozen=True)
class CleanupResult:
    """What a clean-up moved, and what it left.

    Attributes
    ----------
    moved : tuple of str
        Paths of the copies that were moved away.
    left : mapping of str to str
        Reason by path of each copy that stays where it is. Of a group with any fault, all stay.
    folder : str
        Where the copies are; "" if nothing was moved, or all went to the system's trash.
    """

    moved: tuple[str, ...]
    left: Mapping[str, str] = field(default_factory=dict)
    folder: str = ""

    def __str__(self) -> str:
        place = f" to {one_line(self.folder)}" if self.folder else ""
        lines = [f"{len(self.moved):,} cop{'y' if len(self.moved) == 1 else 'ies'} moved{place}"]
        if self.left:
            lines.append(f"{len(self.left):,} left where they are:")
            shown = list(self.left.items())[:PRINTED_REASONS]
            lines += [f"  {one_line(path)}: {one_line(reason)}" for path, reason in shown]
            hidden = len(self.left) - len(shown)
            lines += [f"  ... and {hidden:,} more"] if hidden else []
        return valid_unicode("\n".join(lines))


def apply_cleanup(
    plan: CleanupPlan,
    root: str | os.PathLike[str],
    *,
    to_trash: bool = False,
    progress: bool = True,
) -> CleanupResult:
    """Move the copies of a plan away, after one more look at each.

    Before anything of a group is moved: every extra is a file, no link, below the root and behind
    no link; it and the picture that stays have the size, time and content of the plan; the latter
    is nobody's extra; and the two are compared on their pixels once more. A group with any fault
    stays as it is, with the reason.

    Parameters
    ----------
    plan
        From `plan_cleanup` or `read_plan`.
    root
        Folder below which files may be moved.
    to_trash
        Send the copies to the system's trash instead, from where this program cannot bring them
        back.
    progress
        Whether to show a progress bar.

    Returns
    -------
    CleanupResult

    Raises
    ------
    QueryError
        If the root is no folder, or a copy cannot be moved for a reason that holds for all, such as
        a full disk; what was moved until then can be undone.
    MissingExtraError
        For the trash, if send2trash is not installed.
    """
    folder = check_folder(root)
    send = _trash() if to_trash else None
    extras = {_identity(copy.extra.path) for copy in plan} - {None}
    paths = Counter(copy.extra.path for copy in plan)
    moved: list[str] = []
    left: dict[str, str] = {}
    with (
        only_clean_up(folder),
        _Removal(folder) as removal,
        tqdm(desc="Moving copies", total=len(plan), unit="image", disable=not progress) as bar,
    ):
        for group in plan.groups():
            fault = _fault(group, folder, extras, paths)
            if fault:
                left |= {copy.extra.path: fault for copy in group}
            for copy in () if fault else group:
                if not _is_unchanged(copy.extra):
                    left[copy.extra.path] = "it has changed just now"
                elif not _is_unchanged(copy.keep, follow=True):
                    left[copy.extra.path] = f"what stays has changed just now: {copy.keep.path}"
                elif send:
                    _send(send, copy.extra.path, len(moved))
                    moved.append(copy.extra.path)
                else:
                    removal.move(copy.extra)
                    moved.append(copy.extra.path)
            bar.update(len(group))
    return CleanupResult(tuple(moved), left, str(removal.place or ""))


def _trash() -> Callable[[str], None]:
    try:
        from send2trash import send2trash
    except ImportError as error:
        raise MissingExtraError(
            'the system\'s trash needs one more package: pip install "simsearch[trash]"'
        ) from error
    send: Callable[[str], None] = send2trash
    return send


def _send(send: Callable[[str], None], path: str, sent: int) -> None:
    try:
        send(path)
    except Exception as error:  # each system's trash has errors of its own
        raise QueryError(
            f"cannot send {path} to the trash: {error}; {sent:,} were sent before it, and the rest "
            "stays where it is"
        ) from error


def _identity(path: str) -> tuple[int, int] | None:
    """Device and number of the file that a path leads to."""
    try:
        status = Path(path).stat()
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def _fault(
    group: Sequence[PlannedCopy],
    root: Path,
    extras: set[tuple[int, int] | None],
    paths: Mapping[str, int],
) -> str:
    """Say why a group has to stay; "" if all is as the plan says."""
    for copy in group:
        if paths[copy.extra.path] > 1:
            return f"it stands in the plan {paths[copy.extra.path]} times: {copy.extra.path}"
        fault = (
            _fault_of_keep(copy.keep, extras)
            or _fault_of_place(Path(copy.extra.path), root)
            or _fault_of_extra(copy.extra, root)
            or _fault_of_pair(copy)
        )
        if fault:
            return fault
    return ""


def _fault_of_keep(keep: FileState, extras: set[tuple[int, int] | None]) -> str:
    if REMOVED in Path(keep.path).parts:
        return f"the picture that stays was moved away before: {keep.path}"
    identity = _identity(keep.path)
    if identity is None:
        return f"the picture that stays is not there: {keep.path}"
    if identity in extras:
        return f"the picture that stays is an extra itself: {keep.path}"
    if not _is_unchanged(keep, follow=True) or not _has_content(keep):
        return f"the picture that stays has changed since the plan was made: {keep.path}"
    return ""


def _fault_of_place(path: Path, root: Path) -> str:
    """Check that a path lies below the root, and that none of the folders between is a link."""
    if not path.is_relative_to(root) or path == root or os.pardir in path.parts:
        return f"it does not lie below {root}: {path}"
    folders = path.relative_to(root).parts[:-1]
    if REMOVED in folders:
        return f"it was moved away before: {path}"
    for count in range(1, len(folders) + 1):
        folder = root.joinpath(*folders[:count])
        if folder.is_symlink():
            return f"it lies behind a link, {folder}: {path}"
    return ""


def _fault_of_extra(extra: FileState, root: Path) -> str:
    try:
        status = Path(extra.path).lstat()
    except (OSError, ValueError):
        return f"it is not there: {extra.path}"
    if not stat.S_ISREG(status.st_mode):
        return f"it is no plain file: {extra.path}"
    if status.st_dev != root.stat().st_dev:
        return f"it is on another volume than {root}: {extra.path}"
    if not _is_unchanged(extra) or not _has_content(extra):
        return f"it has changed since the plan was made: {extra.path}"
    return ""


def _fault_of_pair(copy: PlannedCopy) -> str:
    try:
        verdict = compare_files(copy.keep.path, copy.extra.path)
    except SimsearchError as error:
        return f"it cannot be compared with the picture that stays: {error}"
    if verdict is None:
        return f"it is not confirmed as a copy of {copy.keep.path}: {copy.extra.path}"
    if not verdict.second_may_go:
        return f"{copy.keep.path} is a part of it, or was made of it: {copy.extra.path}"
    return ""


def _is_unchanged(state: FileState, *, follow: bool = False) -> bool:
    """Tell whether a file has the size and time of the plan."""
    try:
        status = Path(state.path).stat() if follow else Path(state.path).lstat()
    except OSError:
        return False
    plain = stat.S_ISREG(status.st_mode)
    return plain and (status.st_size, modified_ns(status)) == (state.bytes, state.time_ns)


def _has_content(state: FileState) -> bool:
    return digest_unchanged(state.path, state.bytes, state.time_ns).hex() == state.digest


class _Removal:
    """One dated folder of what is moved away, with its journal; made at the first move."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.place: Path | None = None
        self._journal: IO[bytes] | None = None

    def __enter__(self) -> _Removal:
        return self

    def __exit__(self, *error: object) -> None:
        if self._journal:
            self._journal.close()

    def move(self, extra: FileState) -> None:
        """Record a file in the journal, then move it."""
        try:
            place, journal = self._open()
            name = Path(extra.path).relative_to(self.root)
            make_folders(place, name.parent)
            record = extra._asdict() | {"path": str(name)}
            journal.write(json.dumps(record).encode() + b"\n")
            journal.flush()
            os.fsync(journal.fileno())
            rename_to_free_place(Path(extra.path), place / name)
            sync_folder((place / name).parent)
        except OSError as error:
            where = self.place or self.root / REMOVED
            raise QueryError(
                f"cannot move {extra.path}: {error.strerror or error}; what was moved before is in "
                f"{where}, and comes back with undo_cleanup, or --undo"
            ) from error

    def _open(self) -> tuple[Path, IO[bytes]]:
        """Make the folder, under a name of its own, and the journal in it."""
        if self.place is None or self._journal is None:
            make_folders(self.root, Path(REMOVED))
            stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H%M%S.%f")
            place = self.root / REMOVED / stamp
            place.mkdir(0o700)
            self._journal = (place / JOURNAL).open("xb")
            for folder in (place, place.parent, self.root):
                sync_folder(folder)
            self.place = place
        return self.place, self._journal
