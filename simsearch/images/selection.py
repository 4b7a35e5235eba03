"""Globs that choose files of a dataset: what to include, and what to exclude."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, TypedDict

from simsearch.errors import DatasetError
from simsearch.images.find import FOLDERS_LEFT_OUT, left_out_by_default
from simsearch.images.links import folders_to_follow

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import TypeAlias

    from simsearch.images.find import Skipped

logger = logging.getLogger("simsearch")

Rule: TypeAlias = "Callable[[str, bool], str | None]"
"""Takes a name and whether it is a folder's; returns the kind under which it is left out."""

Place: TypeAlias = "str | Callable[[int], bytes]"
"""The path of a file, or what reads so many of its first bytes."""


class ListingOptions(TypedDict, total=False):
    """What chooses files, as `embed_dataset` takes it: globs, and folders behind links."""

    include: str | Sequence[str]
    exclude: str | Sequence[str]
    follow: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


class GlobRule:
    """The rule that leaves out what globs say, and folders behind links; see `embed_dataset`.

    Raises
    ------
    DatasetError
        If a glob is empty or not text, or a folder to follow is none.
    """

    def __init__(
        self,
        include: str | Sequence[str] = (),
        exclude: str | Sequence[str] = (),
        follow: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] = (),
    ) -> None:
        self.follow = folders_to_follow(follow or ())
        included = _globs("include", include)
        self._excluded = _globs("exclude", exclude)
        self._restored = [glob for glob in included if _names_a_default(glob)]
        self._wanted = [glob for glob in included if glob not in self._restored]
        self._unused = {*included, *self._excluded}

    def __call__(self, name: str, folder: bool) -> str | None:
        """Return the kind under which a file or folder is left out; None to keep it."""
        if self._any(self._excluded, _matches, name):
            return "excluded folder" if folder else "excluded file"
        kind = left_out_by_default(name, folder)
        if kind and not self._any(self._restored, _leads_to, name):
            return kind
        if folder or not self._wanted or self._any(self._wanted, _covers, name):
            return None
        return "file not included"

    def warn_of_unused(self) -> None:
        """Warn of globs that matched nothing, which may be misspelt."""
        for glob in sorted(self._unused):
            logger.warning(
                "The glob %r matches nothing: globs are compared with paths relative to the "
                "dataset, such as '2019/a.jpg'",
                glob,
            )

    def _any(self, globs: list[str], fits: Callable[[str, str], bool], name: str) -> bool:
        fitting = [glob for glob in globs if fits(glob, name)]
        self._unused.difference_update(fitting)
        return bool(fitting)


def _globs(option: str, globs: str | Sequence[str]) -> list[str]:
    """Check globs; `./` at the front and `/` at the end mean nothing."""
    alone = isinstance(globs, (str, os.PathLike)) or not isinstance(globs, Iterable)
    given: list[Any] = [globs] if alone and globs is not None else list(globs or ())
    given = [PurePath(glob).as_posix() if isinstance(glob, PurePath) else glob for glob in given]
    for glob in given:
        if not isinstance(glob, str) or not glob.strip("./"):
            raise DatasetError(
                f"{option}={glob!r} is not a glob: give names or paths relative to the dataset, "
                'such as "@eaDir", "*.png" or "2019/drafts"'
            )
    return [glob.removeprefix("./").rstrip("/") for glob in given]


def _names_a_default(glob: str) -> bool:
    parts = glob.lower().split("/")
    return any(part in FOLDERS_LEFT_OUT or part.startswith(".") for part in parts)


def _matches(glob: str, name: str) -> bool:
    """Compare a glob with a whole path or, if it has no slash, with the last name.

    A name that holds brackets, such as `[raw]`, matches itself.
    """
    if "/" not in glob:
        last = name[name.rfind("/") + 1 :]
        return last == glob or fnmatchcase(last, glob)
    whole = glob.removeprefix("/")
    return (
        name == whole
        or fnmatchcase(name, whole)
        or (glob.startswith("**/") and _matches(glob[3:], name))
    )


def _covers(glob: str, name: str) -> bool:
    """Tell whether a glob matches a file, or a folder above it."""
    parts = name.split("/")
    return any(_matches(glob, "/".join(parts[:depth])) for depth in range(1, len(parts) + 1))


def _leads_to(glob: str, name: str) -> bool:
    """Tell whether a glob, or the start of its path, matches a name."""
    parts = glob.split("/")
    return any(_matches("/".join(parts[:depth]), name) for depth in range(1, len(parts) + 1))


def describe_left_out(left_out: Mapping[str, int], skipped: Sequence[Skipped] = ()) -> str:
    """Say what lies in a dataset that is no image to embed: the end of a sentence, or nothing."""
    counts = [f"{count:,} {kind}" for kind, count in sorted(left_out.items())]
    counts += [f"{name or 'all'} ({reason})" for name, reason in skipped[:3]]
    return f"; left out: {', '.join(counts)}" if counts else ""
