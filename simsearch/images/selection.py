"""Globs that choose files of a dataset: what to include, and what to exclude."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from simsearch.errors import DatasetError
from simsearch.images.find import FOLDERS_LEFT_OUT, left_out_by_default

if TYPE_CHECKING:
    from simsearch.images.find import Rule


def make_rule(include: str | Sequence[str] = (), exclude: str | Sequence[str] = ()) -> Rule:
    """Make the rule that leaves out what the globs say; see `find.list_dataset`.

    Raises
    ------
    DatasetError
        If a glob is empty or not text.
    """
    excluded = _globs("exclude", exclude)
    included = _globs("include", include)
    restored = [glob for glob in included if _names_a_default(glob)]
    wanted = [glob for glob in included if glob not in restored]

    def rule(name: str, folder: bool) -> str | None:
        if any(_matches(glob, name) for glob in excluded):
            return "excluded folder" if folder else "excluded file"
        kind = left_out_by_default(name, folder)
        if kind and not any(_leads_to(glob, name) for glob in restored):
            return kind
        if folder or not wanted or _is_wanted(wanted, name):
            return None
        return "file not included"

    return rule


def _globs(option: str, globs: str | Sequence[str]) -> list[str]:
    """Check globs; `./` at the front and `/` at either end mean nothing."""
    given = [globs] if isinstance(globs, str) else list(globs)
    for glob in given:
        if not isinstance(glob, str) or not glob.strip("./"):
            raise DatasetError(
                f"{option}={glob!r} is not a glob: give names or paths relative to the dataset, "
                'such as "@eaDir", "*.png" or "2019/drafts"'
            )
    return [glob.removeprefix("./").strip("/") for glob in given]


def _names_a_default(glob: str) -> bool:
    parts = glob.lower().split("/")
    return any(part in FOLDERS_LEFT_OUT or part.startswith(".") for part in parts)


def _matches(glob: str, name: str) -> bool:
    """Compare a glob with a whole path or, if it has no slash, with the last name."""
    if "/" not in glob:
        return fnmatchcase(name[name.rfind("/") + 1 :], glob)
    return fnmatchcase(name, glob) or (glob.startswith("**/") and _matches(glob[3:], name))


def _is_wanted(wanted: Sequence[str], name: str) -> bool:
    """Tell whether a glob matches a file, or a folder above it."""
    parts = name.split("/")
    paths = ["/".join(parts[:depth]) for depth in range(1, len(parts) + 1)]
    return any(_matches(glob, path) for glob in wanted for path in paths)


def _leads_to(glob: str, name: str) -> bool:
    """Tell whether a glob, or the start of its path, matches a name."""
    parts = glob.split("/")
    return any(_matches("/".join(parts[:depth]), name) for depth in range(1, len(parts) + 1))
