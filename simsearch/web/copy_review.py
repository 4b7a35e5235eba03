"""Copies found and looked at: who may go in each group, and plans of what was chosen.

Nothing is moved: a plan is text, applied at the command line.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from simsearch.analysis.duplicate_groups import DuplicateGroup
from simsearch.analysis.progress import follow_all, listening
from simsearch.cleanup.plan import CleanupPlan, PlannedCopy
from simsearch.cleanup.relative_names import relative_name
from simsearch.cleanup.rules import plan_cleanup, plan_pair
from simsearch.errors import QueryError
from simsearch.images.address import local_path

if TYPE_CHECKING:
    from simsearch.analysis.progress import Listener
    from simsearch.library.library import ImageLibrary
    from simsearch.web.copy_schemas import Choice

CHOSEN = "it was chosen on the page"
BOTH_WAYS = "it stays for another picture"
MARKED = "marked as no duplicate"
UNCHOSEN = "left where it is"


class Member(NamedTuple):
    """A picture of a group.

    Attributes
    ----------
    row : int
    level, edit : str
        How it is a copy of the first one; "" for that.
    score : float
        Cosine to the first one.
    planned : PlannedCopy or None
        Its line of the plan, if it may go.
    reason : str
        Why it stays, if it does.
    """

    row: int
    level: str
    edit: str
    score: float
    planned: PlannedCopy | None = None
    reason: str = ""


@dataclass(frozen=True)
class Review:
    """Groups of copies of one version of a library, by number; the first of each stays.

    Attributes
    ----------
    groups : dict of int to list of Member
    notes : list of str
        What could not be compared.
    """

    groups: dict[int, list[Member]]
    notes: list[str]

    @property
    def planned(self) -> list[PlannedCopy]:
        """Every line of the plan, if nothing else is chosen."""
        members = (member for group in self.groups.values() for member in group)
        return [member.planned for member in members if member.planned]

    def without(self, pairs: set[frozenset[int]]) -> Review:
        """Return the groups without members that are no copies of the first one."""
        groups = {
            number: [each for each in group if {group[0].row, each.row} not in pairs]
            for number, group in self.groups.items()
        }
        kept = {number: group for number, group in groups.items() if len(group) > 1}
        return replace(self, groups=kept)


def find_copies(library: ImageLibrary, listener: Listener) -> Review:
    """Find the copies of a library, and plan which may go.

    Parameters
    ----------
    library
        One whose files are on this machine.
    listener
        Called with step, done and total; what it raises ends the search.
    """
    from simsearch.analysis.duplicates import duplicates  # which loads matplotlib

    listener("Looking for candidates", 0, 0)
    with listening(listener):
        found = duplicates(library)
        groups = {
            number: _members(library, number, group)
            for number, group in enumerate(
                follow_all(found.groups, "Checking the copies", progress=False), 1
            )
        }
    notes = [f"{count:,} {reason}" for reason, count in found.uncompared.items() if count]
    return Review(_without_conflicts(groups), [*notes, *found.notes])


def _members(library: ImageLibrary, number: int, group: DuplicateGroup) -> list[Member]:
    facts = zip(group.rows, group.levels, group.edits, group.scores, strict=True)
    first, *others = (Member(*each) for each in facts)
    return [first, *(_planned(library, number, group, i, each) for i, each in enumerate(others, 1))]


def _planned(
    library: ImageLibrary, number: int, group: DuplicateGroup, i: int, member: Member
) -> Member:
    """Plan that a member may go for the first one, or say why not."""
    rows, paths, scores = group.rows, group.paths, group.scores
    pair = DuplicateGroup(
        (rows[0], rows[i]),
        (paths[0], paths[i]),
        (scores[0], scores[i]),
        ("", group.levels[i]),
        ("", group.edits[i]),
    )
    plan = plan_cleanup([pair])
    if not plan:
        return member._replace(reason=next(iter(plan.left), UNCHOSEN))
    fault = _fault_of_names(library, plan[0])
    if fault:
        return member._replace(reason=fault)
    return member._replace(planned=replace(plan[0], group=number))


def _fault_of_names(library: ImageLibrary, copy: PlannedCopy) -> str:
    """Say why the page's plan cannot name a pair; "" if it can."""
    if not library.root:
        return "the pictures have no folder in common"
    for state in (copy.keep, copy.extra):
        try:
            relative_name(state.path, library.root).encode()
        except UnicodeEncodeError:
            return "its name is no valid text"
        except ValueError:
            return "not below the dataset's folder, or behind a link"
    return ""


def _without_conflicts(groups: dict[int, list[Member]]) -> dict[int, list[Member]]:
    """Let nothing go that stays in another group."""
    kept = {group[0].row for group in groups.values()}
    return {
        number: [
            each._replace(planned=None, reason=BOTH_WAYS) if i and each.row in kept else each
            for i, each in enumerate(group)
        ]
        for number, group in groups.items()
    }


def plan_choices(
    library: ImageLibrary,
    review: Review,
    choices: Sequence[Choice],
    not_duplicates: Collection[frozenset[int]] = (),
) -> tuple[CleanupPlan, Counter[str]]:
    """Plan every group as it was found, but those of which something else was chosen.

    Of pairs that are no duplicates, neither goes for the other.

    Returns
    -------
    plan : CleanupPlan
    left : collections.Counter
        How many pictures stay that were to go, by reason.

    Raises
    ------
    QueryError
        If a choice names a group or row that is not there.
    """
    for given in choices:
        _check_choice(review, given)
    chosen = {given.group: given for given in choices}
    planned: list[PlannedCopy | str] = []
    for number, group in review.groups.items():
        choice: Choice | None = chosen.get(number)
        keep = choice.keep if choice else group[0].row
        for member in group:
            if frozenset((keep, member.row)) in not_duplicates:
                planned.append(MARKED)
            elif member.row != keep:
                planned.append(_plan_member(library, group, choice, member))
    left = Counter(each for each in planned if isinstance(each, str))
    copies = [each for each in planned if not isinstance(each, str)]
    kept = {copy.keep.path for copy in copies}
    safe = [copy for copy in copies if copy.extra.path not in kept]
    if len(safe) < len(copies):
        left[BOTH_WAYS] += len(copies) - len(safe)
    return CleanupPlan(tuple(safe), dict(left)), left


def _check_choice(review: Review, choice: Choice) -> None:
    group = review.groups.get(choice.group)
    if group is None:
        raise QueryError(f"there is no group {choice.group}; GET /api/duplicates lists them")
    rows = {member.row for member in group}
    for row in (choice.keep, *choice.extras):
        if row not in rows:
            raise QueryError(f"row {row} is not in group {choice.group}")
    if choice.keep in choice.extras:
        raise QueryError(f"row {choice.keep} of group {choice.group} cannot stay and go")


def _plan_member(
    library: ImageLibrary, group: list[Member], choice: Choice | None, member: Member
) -> PlannedCopy | str:
    """Plan a member as it was chosen; a pair that was not compared yet is compared."""
    if choice and member.row not in choice.extras:
        return UNCHOSEN
    if choice is None or choice.keep == group[0].row:
        return member.planned or member.reason
    paths = (str(local_path(library.paths[row])) for row in (choice.keep, member.row))
    keep, extra = (str(Path(path).absolute()) for path in paths)
    new = plan_pair(choice.group, keep, extra, CHOSEN)
    fault = "" if isinstance(new, str) else _fault_of_names(library, new)
    return fault or new


def plan_text(plan: CleanupPlan, root: str) -> str:
    """Return a plan as the text of a CSV file, with names relative to a root."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "plan.csv"
        plan.save(file, root)
        return file.read_text("utf-8")
