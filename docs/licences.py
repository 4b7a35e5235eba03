"""Licences of the packages that simsearch needs, checked against docs/licences.toml.

python docs/licences.py        # a table of all, and exit code 1 if one is not allowed
"""

from __future__ import annotations

import re
import sys
import tomllib
from fnmatch import fnmatch
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any

RULES = Path(__file__).with_name("licences.toml")
DEVELOPMENT = {"dev", "docs", "bench", "trial"}  # extras of those who work on the project
CLASSIFIER = "License :: "
TEXT_CHARACTERS = 60  # longer ones are the whole text of a licence


class Licence(NamedTuple):
    """The licence of an installed package, and why it is not allowed, "" if it is."""

    package: str
    declared: str
    fault: str
    reason: str = ""  # of an exception


def read_rules() -> dict[str, Any]:
    """Read docs/licences.toml."""
    return tomllib.loads(RULES.read_text("utf-8"))


def dependencies(package: str = "simsearch") -> dict[str, metadata.Distribution]:
    """Find the installed packages that one needs, with those that these need, by name."""
    found: dict[str, metadata.Distribution] = {}
    extras = set(metadata.metadata(package).get_all("Provides-Extra", ())) - DEVELOPMENT
    waiting = [(package, frozenset(extras))]
    seen = set(waiting)
    while waiting:
        name, wanted = waiting.pop()
        try:
            found[name] = metadata.distribution(name)
        except metadata.PackageNotFoundError:  # an extra that is not installed
            continue
        for needed in _needed(found[name], wanted):
            entry = (canonicalize_name(needed.name), frozenset(needed.extras))
            if entry not in seen:
                seen.add(entry)
                waiting.append(entry)
    del found[package]
    return dict(sorted(found.items()))


def _needed(package: metadata.Distribution, extras: Iterable[str]) -> Iterator[Requirement]:
    for line in package.requires or ():
        requirement = Requirement(line)
        marker = requirement.marker
        if not marker or any(marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            yield requirement


def declared_licences(facts: Mapping[str, Any], classifiers: Iterable[str]) -> list[str]:
    """Return what a package declares: its SPDX expression, else its classifiers, else its text."""
    if expression := facts.get("License-Expression"):
        return [str(expression)]
    named = [each.rsplit(" :: ", 1)[-1] for each in classifiers if each.startswith(CLASSIFIER)]
    text = str(facts.get("License") or "").strip()
    short = [text] if text and text != "UNKNOWN" and len(text) <= TEXT_CHARACTERS else []
    return [each for each in named if each != "OSI Approved"] or short


def judge(package: str, declared: list[str], rules: Mapping[str, Any]) -> Licence:
    """Tell whether a package may be needed; every licence that it names has to be allowed.

    Of "A OR B", too: that is stricter than it need be, and an exception can say why.
    """
    for exception in rules["exceptions"]:
        if fnmatch(package, exception["name"]):
            return Licence(package, exception["licence"], "", exception["reason"])
    if not declared:
        return Licence(package, "", "declares no licence")
    expressions = [rules["spelled"].get(each, each) for each in declared]
    names = {name for each in expressions for name in re.split(r"\s+(?:AND|OR|WITH)\s+|[()]", each)}
    unknown = sorted(name for name in names if name.strip() and name not in rules["allowed"])
    fault = f"{', '.join(unknown)} is not allowed" if unknown else ""
    return Licence(package, " AND ".join(expressions), fault)


def check() -> list[Licence]:
    """Judge all packages that are installed for simsearch."""
    rules, found = read_rules(), []
    for name, package in dependencies().items():
        facts = package.metadata
        classifiers = facts.get_all("Classifier") or ()
        declared = declared_licences({key: facts[key] for key in facts}, classifiers)
        found.append(judge(name, declared, rules))
    return found


def table(found: Iterable[Licence]) -> str:
    """Lay the packages out in Markdown."""
    lines = ["| package | licence | |", "| --- | --- | --- |"]
    lines += [
        f"| {each.package} | {each.declared} | {each.fault or each.reason} |" for each in found
    ]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Print the table; say what is not allowed."""
    found = check()
    print(table(found))
    faults = [each for each in found if each.fault]
    for each in faults:
        print(f"{each.package}: {each.fault}; see docs/licences.toml", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
