"""A library as tools for AI agents, over the Model Context Protocol; read-only.

Queries are rows and paths of the library, or words. Files and addresses are opened only where
whoever starts the server allows it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar

import numpy as np

from simsearch.errors import MissingExtraError, QueryError, SimsearchError
from simsearch.library.paths import in_folder

if TYPE_CHECKING:
    from mcp.server import MCPServer

    from simsearch.library.library import ImageLibrary

MAX_MATCHES = 200
INSTRUCTIONS = (
    "Visual search in one library of images. Queries are row numbers, paths of the library (as "
    "results name them, or below its root), or words. Scores are cosines: 1 is the same direction. "
    "percentile says which share of random pairs of this library is less alike."
)

_P = ParamSpec("_P")
_T = TypeVar("_T")


class LibraryTools:
    """What agents may ask of one library; it is opened again when its files have changed.

    Parameters
    ----------
    outputs, root
        As for `ImageLibrary.load`.
    files, urls
        Whether a query may be a file of this machine, or an http(s) address.
    """

    def __init__(
        self, outputs: str, root: str | None = None, *, files: bool = False, urls: bool = False
    ) -> None:
        self.outputs, self.root, self.files, self.urls = outputs, root, files, urls
        self._state: object = None
        self._library: ImageLibrary | None = None
        self.library  # noqa: B018 (an error is to be said at the start)

    @property
    def library(self) -> ImageLibrary:
        """The library as it is on the disk now."""
        from simsearch.library.files import MANIFEST
        from simsearch.library.library import ImageLibrary

        try:
            status = Path(self.outputs, MANIFEST).expanduser().stat()
            state: object = (status.st_mtime_ns, status.st_ino)
        except OSError:
            state = None
        if self._library is None or state != self._state:
            self._library, self._state = ImageLibrary.load(self.outputs, self.root), state
        return self._library

    def search(
        self,
        query: int | str | list[int | str] | None = None,
        text: str | None = None,
        k: int = 5,
        *,
        where: str | None = None,
        threshold: float | None = None,
        unique: bool = False,
    ) -> dict[str, Any]:
        """Find the images most similar to a query: an image of the library, or words.

        query is a row number or a path of the library; of several, their mean is searched with.
        text is words in its place. where keeps images by a glob such as "shoes/*"; threshold is
        the lowest cosine; unique folds copies of a match into it.
        """
        from simsearch.retrieval.search import search

        options: dict[str, Any] = {"where": where, "threshold": threshold, "unique": unique}
        asked: Any = None if query is None else self.resolve(query)
        if isinstance(asked, list):
            options["combine"] = "mean"
        matches = search(self.library, asked, _checked(k), text=text, **options)
        return matches.to_dict()

    def recommend(
        self,
        liked: list[int | str],
        disliked: list[int | str] | None = None,
        k: int = 5,
        where: str | None = None,
    ) -> dict[str, Any]:
        """Find images near to those that are liked, and away from those that are not.

        Both are row numbers or paths of the library; none of them is found again.
        """
        from simsearch.retrieval.recommend import recommend

        near, far = self.resolve(liked), self.resolve(disliked or [])
        return recommend(self.library, near, far, _checked(k), where=where).to_dict()

    def duplicates(
        self, level: Literal["identical", "near", "similar"] = "near", limit: int = 50
    ) -> dict[str, Any]:
        """List groups of images that are nearly the same, the largest first.

        identical: the same pixels; near: the same picture, edited; similar: alike, unconfirmed.
        """
        from simsearch.analysis.duplicates import duplicates

        found = duplicates(self.library, level=level, progress=False)
        groups = [
            {"paths": list(group.paths), "rows": [int(row) for row in group.rows]}
            for group in list(found)[:limit]
        ]
        return {"groups": groups, "count": len(found), "images": len(self.library)}

    def resolve(self, query: int | str | Sequence[int | str]) -> Any:  # noqa: ANN401
        """Return a query in the library's own terms.

        Raises
        ------
        QueryError
            If it is no row and no path of the library, and nothing else is allowed.
        """
        if isinstance(query, int):
            return query
        if not isinstance(query, str):
            return [self.resolve(each) for each in query]
        row = self._row_of(query)
        if row is not None:
            return row
        if query.isdecimal():
            return int(query)
        if query.startswith(("http://", "https://")):
            if self.urls:
                from simsearch.registry import resolve

                return resolve("download", "public")(query)
        elif "://" not in query and self.files:
            return os.fspath(Path(query).expanduser())
        raise QueryError(f"{query!r} is no row and no path of this library")

    def _row_of(self, name: str) -> int | None:
        """Return the row of a path as the library lists it, or below its root; None without one."""
        library = self.library
        for path in (name, in_folder(library.root or "", name)):
            rows = np.flatnonzero(library.paths == path)
            if len(rows):
                return int(rows[-1])
        return None


def _checked(k: int) -> int:
    if not 1 <= k <= MAX_MATCHES:
        raise QueryError(f"k={k}: give a number from 1 to {MAX_MATCHES}")
    return k


def make_server(tools: LibraryTools) -> MCPServer[Any]:
    """Return a server with the tools of a library.

    Raises
    ------
    MissingExtraError
        If the package mcp is not installed.
    """
    try:
        from mcp.server import MCPServer
        from mcp.server.mcpserver.exceptions import ToolError
        from mcp.types import ToolAnnotations
    except ImportError as error:
        raise MissingExtraError('an MCP server needs: pip install "simsearch[mcp]"') from error
    from functools import wraps

    def told(function: Callable[_P, _T]) -> Callable[_P, _T]:
        @wraps(function)
        def call(*args: _P.args, **kwargs: _P.kwargs) -> _T:
            try:
                return function(*args, **kwargs)
            except SimsearchError as error:
                raise ToolError(str(error)) from error

        return call

    server: MCPServer[Any] = MCPServer("simsearch", instructions=INSTRUCTIONS, log_level="WARNING")
    reading = ToolAnnotations(
        read_only_hint=True, destructive_hint=False, open_world_hint=tools.urls
    )
    for tool in (tools.search, tools.recommend, tools.duplicates):
        server.add_tool(told(tool), annotations=reading)
    return server
