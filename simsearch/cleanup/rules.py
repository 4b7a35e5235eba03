"""Which picture of a group of copies stays: by pixels, age or folder; and what is protected."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from simsearch.cleanup.journal import REMOVED, absolute
from simsearch.cleanup.plan import CleanupPlan, FileState, PlannedCopy
from simsearch.errors import QueryError, SimsearchError
from simsearch.files import digest_unchanged, modified_ns
from simsearch.images.address import is_uri, local_path
from simsearch.images.compare import Verdict, compare_files

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Protocol

    class Group(Protocol):
        """What a plan needs of a `DuplicateGroup`."""

        @property
        def paths(self) -> tuple[str, ...]:
            """Paths, the best one first."""

        @property
        def levels(self) -> tuple[str, ...]:
            """Level of each as a copy of the first."""

        @property
        def edits(self) -> tuple[str, ...]:
            """Edit of each."""


RULES = ("largest", "oldest")
SAME_FILE = "same file"
UNREADABLE = "the file cannot be read"
UNCONFIRMED = "not confirmed as a copy of the picture that stays"
SHOWS_MORE = "of which the picture that stays is a part, or was made"
ONE_SIDED = {"crop", "border", "screenshot"}  # one of two pictures may go, and not the other


class _Member(NamedTuple):
    """A file of a group, in the order of `duplicates`: the best one first."""

    path: str
    level: str
    edit: str
    time_ns: int


def plan_cleanup(
    duplicates: Sequence[Group],
    *,
    keep: str | Sequence[str] = "largest",
    protect: str | Sequence[str] = (),
) -> CleanupPlan:
    """Plan which copies may go. Nothing is moved: see `apply_cleanup`.

    Parameters
    ----------
    duplicates
        What `simsearch.duplicates` returned, or some of its groups.
    keep
        "largest": the picture of most pixels, then of most bytes, then the oldest file, as
        `duplicates` orders them. "oldest": the file that was changed last the longest ago. Or
        folders, the most important first: a picture in an earlier one stays; those in none come
        last. A copy is compared anew, on its pixels, with the picture that stays by the rule.
    protect
        Folders of which nothing may go.

    Returns
    -------
    CleanupPlan
        Sorted as the groups are. Further paths of one file (links) are in no plan.

    Raises
    ------
    QueryError
        If the rule is unknown, or there is no such folder.
    """
    folders = _kept_folders(keep)
    guarded = _folders("protect", [protect] if isinstance(protect, str) else protect)
    copies: list[PlannedCopy] = []
    left: Counter[str] = Counter()
    for number, group in enumerate(duplicates, 1):
        members = _members(group, left)
        if len(members) > 1:
            order = _ordered(members, keep, folders, guarded)
            reason = _reason(keep, order[0], folders, guarded)
            copies += _plan_group(number, members, order, reason, left)
    kept = {copy.keep.path for copy in copies}
    safe = [copy for copy in copies if copy.extra.path not in kept]
    left["also stay for another group"] += len(copies) - len(safe)
    free = [copy for copy in safe if not _lies_in(copy.extra.path, guarded)]
    left["in a protected folder"] += len(safe) - len(free)
    return CleanupPlan(tuple(free), {reason: count for reason, count in left.items() if count})


def _kept_folders(keep: str | Sequence[str]) -> list[Path]:
    if isinstance(keep, str):
        if keep not in RULES:
            raise QueryError(
                f"keep={keep!r}: give 'largest', 'oldest', or a list of folders, the most "
                "important first"
            )
        return []
    if not keep:
        raise QueryError("keep=[]: give at least one folder, or 'largest'")
    return _folders("keep", keep)


def _folders(option: str, names: Sequence[str]) -> list[Path]:
    """Return absolute paths of folders; one that is mistyped would protect nothing."""
    folders = [absolute(name) for name in names]
    for name, folder in zip(names, folders, strict=True):
        if not folder.is_dir():
            raise QueryError(
                f"{option}={name!r}: there is no such folder; give its path from the current "
                "folder, such as dataset/masters"
            )
    return folders


def _lies_in(path: str, folders: Sequence[Path]) -> bool:
    """Tell whether a file lies in one of some folders, perhaps by way of a link."""
    real = Path(path).resolve()
    return any(
        Path(path).is_relative_to(each) or real.is_relative_to(each.resolve()) for each in folders
    )


def _members(group: Group, left: Counter[str]) -> list[_Member]:
    members = []
    for path, level, edit in zip(group.paths, group.levels, group.edits, strict=True):
        plain = str(local_path(path))
        if edit == SAME_FILE:
            left["further paths of one file"] += 1
        elif is_uri(plain):
            left["not on this machine"] += 1
        else:
            try:
                time = modified_ns(os.lstat(plain))
            except OSError:
                left["the file is not there"] += 1
                continue
            whole = os.path.abspath(plain)  # noqa: PTH100 (a name such as "~1.jpg")
            members.append(_Member(whole, level, edit, time))
    return members


def _ordered(
    members: list[_Member], keep: str | Sequence[str], folders: list[Path], guarded: list[Path]
) -> list[_Member]:
    """Sort the members, the one to keep first; a protected one stays anyway."""

    def place(member: _Member) -> tuple[bool, int]:
        if keep == "oldest":
            value = member.time_ns
        else:
            within = (i for i, each in enumerate(folders) if _lies_in(member.path, [each]))
            value = next(within, len(folders))
        return not _lies_in(member.path, guarded), value

    return sorted(members, key=place)


def _reason(
    keep: str | Sequence[str], member: _Member, folders: list[Path], guarded: list[Path]
) -> str:
    if _lies_in(member.path, guarded):
        return "it is in a protected folder"
    if isinstance(keep, str):
        return f"it is the {keep}"
    return "its folder comes first" if _lies_in(member.path, folders) else "it is the largest"


def _plan_group(
    number: int,
    members: list[_Member],
    order: list[_Member],
    reason: str,
    left: Counter[str],
) -> list[PlannedCopy]:
    """Plan a group; its copies were compared with its first member, perhaps not the one to keep."""
    kept = _state(order[0].path)
    if kept is None:
        left[UNREADABLE] += len(order) - 1
        return []
    copies = []
    for member in order[1:]:
        known = order[0] is members[0] and member.edit not in ONE_SIDED
        verdict = Verdict(member.level, member.edit) if known else None
        planned = _planned_copy(number, kept, member.path, reason, verdict)
        if isinstance(planned, PlannedCopy):
            copies.append(planned)
        else:
            left[planned] += 1
    return copies


def plan_pair(number: int, keep: str, extra: str, reason: str) -> PlannedCopy | str:
    """Plan that a picture may go for another one, whatever is known of them; or say why not.

    Both are looked at, and compared on their pixels.
    """
    kept = _state(keep)
    if kept is None:
        return UNREADABLE
    if REMOVED in Path(keep).parts or REMOVED in Path(extra).parts:
        return "moved away before"
    if _is_one_file(keep, extra):
        return "a further path of the file that stays"
    return _planned_copy(number, kept, extra, reason)


def _is_one_file(a: str, b: str) -> bool:
    try:
        return Path(a).samefile(b)
    except OSError:
        return False


def _planned_copy(
    number: int, kept: FileState, path: str, reason: str, verdict: Verdict | None = None
) -> PlannedCopy | str:
    """Plan that a copy may go, or say why not; without a verdict, the two are compared."""
    verdict = verdict or _compared(kept.path, path)
    state = _state(path)
    fault = _fault(verdict, state)
    if state and verdict and not fault:
        return PlannedCopy(number, kept, state, verdict.level, verdict.edit, reason)
    return fault


def _fault(verdict: Verdict | None, state: FileState | None) -> str:
    """Say why a copy may not go; "" if it may. What is unconfirmed is compared when it is due."""
    if state is None:
        return UNREADABLE
    if verdict is None:
        return UNCONFIRMED
    return "" if verdict.level == "similar" or verdict.second_may_go else SHOWS_MORE


def _compared(a: str, b: str) -> Verdict | None:
    try:
        return compare_files(a, b)
    except SimsearchError:
        return None


def _state(path: str) -> FileState | None:
    """Look at a file; None if it is not there, or changes meanwhile."""
    try:
        status = Path(path).stat()
    except OSError:
        return None
    size, time = status.st_size, modified_ns(status)
    digest = digest_unchanged(path, size, time)
    return FileState(path, size, time, digest.hex()) if digest else None
