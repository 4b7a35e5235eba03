"""The clean-up of `simsearch duplicates`: plan, apply, undo, and pairs that are no duplicates."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import simsearch as ss
from simsearch.cli.output import say

ACTIONS = ("apply", "undo", "not_duplicates")
PLAN_FLAGS = {"plan": "--plan", "keep": "--keep", "protect": "--protect"}


def act_on_duplicates(outputs: str, root: str | None, options: dict[str, Any]) -> bool:
    """Do what was asked for instead of a search; return whether anything was.

    Raises
    ------
    QueryError
        If flags do not belong together, or the root is missing.
    """
    action = next((name for name in ACTIONS if name in options), None)
    trash = options.pop("to_trash", False)
    yes = options.pop("yes", False)
    for flag, is_given in (("--to-trash", trash), ("--yes", yes)):
        if is_given and action != "apply":
            raise ss.QueryError(f"{flag} belongs to --apply PLAN")
    if action is None:
        return False
    value = options.pop(action)
    if options:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in options)
        raise ss.QueryError(f"--{action.replace('_', '-')} does not go with {flags}")
    if action == "not_duplicates":
        count = ss.mark_not_duplicates(ss.ImageLibrary.load(outputs, root), [value])
        say(f"{count:,} pair{'s' * (count != 1)} remembered as no duplicates")
        return True
    if root is None:
        raise ss.QueryError(f"--{action} needs --root DATASET: nothing outside it is touched")
    if action == "undo":
        say(ss.undo_cleanup(root))
        return True
    _apply(outputs, root, ss.read_plan(value, root), trash=trash, yes=yes)
    return True


def _apply(outputs: str, root: str, plan: ss.CleanupPlan, *, trash: bool, yes: bool) -> None:
    """Carry a plan out, once somebody has agreed."""
    if not yes and (trash or sys.stdin.isatty()):
        _ask(plan, root, trash=trash)
    result = ss.apply_cleanup(plan, root, to_trash=trash)
    say(result)
    if result.moved and not trash:
        say(f"To bring them back: simsearch duplicates {outputs} --undo --root {root}")
    if result.moved:
        say(f"To update the library: simsearch embed {root} {outputs}")
    if result.left:
        raise ss.QueryError(f"{len(result.left):,} copies were left where they are, see above")


def _ask(plan: ss.CleanupPlan, root: str, *, trash: bool) -> None:
    """Ask at the terminal; raise where there is none, or the answer is not yes."""
    if not sys.stdin.isatty():  # then it is the trash
        raise ss.QueryError("--to-trash asks first, as nothing comes back; or give --yes")
    say(plan)
    place = "the system's trash, with no way back from here" if trash else ".simsearch-removed"
    if input(f"Move these below {root} to {place}? [y/N] ").strip().lower() not in {"y", "yes"}:
        raise ss.QueryError("nothing was moved, as the answer was not yes")


def take_plan_options(options: dict[str, Any]) -> Callable[[ss.Duplicates], None] | None:
    """Take the flags of a plan out of the options; return what makes and saves it, if wanted."""
    given = {name: options.pop(name) for name in PLAN_FLAGS if name in options}
    file = given.pop("plan", None)
    if file is None:
        if given:
            raise ss.QueryError(f"{PLAN_FLAGS[next(iter(given))]} belongs to --plan FILE")
        return None
    rule = given.get("keep", ["largest"])
    if len(rule) == 1 and rule[0] in {"largest", "oldest"}:
        given["keep"] = rule[0]

    def make_plan(found: ss.Duplicates) -> None:
        plan = ss.plan_cleanup(found, **given)
        plan.save(file)
        say(f"\n{plan}\nThe plan is in {file}: look at it, delete lines of what shall stay, then")
        say(f"simsearch duplicates OUTPUTS --apply {file} --root DATASET")

    return make_plan
