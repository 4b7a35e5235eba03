"""The path below which a server is reached: behind a proxy, and for each of several libraries."""

from __future__ import annotations

import re
from contextvars import ContextVar
from typing import TYPE_CHECKING

from simsearch.errors import QueryError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

ROOT: ContextVar[str] = ContextVar("root path of the request", default="")
PLAIN_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)*")


def read_root_path(text: str) -> str:
    """Return a root path with a slash before it and none behind; "" for none.

    Raises
    ------
    QueryError
        If it is no path of unaccented letters, digits and ``._~-``.

    Examples
    --------
    >>> [read_root_path(each) for each in ("/photos/", "a/b", "/", "")]
    ['/photos', '/a/b', '', '']
    """
    path = f"/{text.strip('/')}" if text.strip("/") else ""
    if not PLAIN_PATH.fullmatch(path) or {".", ".."} & set(path.split("/")):
        raise QueryError(
            f"root_path={text!r:.80} is no path: give what stands behind the host in the address, "
            "such as /photos"
        )
    return path


def local_path(scope: Scope) -> str:
    """Return the path of a request below the root path, as the routes have it."""
    root, path = scope.get("root_path", ""), scope["path"]
    if root and (path == root or path.startswith(f"{root}/")):
        return str(path[len(root) :]) or "/"
    return str(path)


class RootPathMiddleware:
    """Puts requests below the root path, whether or not the proxy has taken it off.

    An app that is mounted below another one keeps that one's root path.

    Parameters
    ----------
    app
        What handles the request.
    root_path
        As `read_root_path` returns it.
    """

    def __init__(self, app: ASGIApp, root_path: str) -> None:
        self.app, self._root = app, root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on a request with its root path."""
        root = scope.get("root_path") or self._root
        if scope["type"] != "http" or not root:
            return await self.app(scope, receive, send)
        path = scope["path"]
        if not (path == root or path.startswith(f"{root}/")):
            path = root + path
        token = ROOT.set(root)
        try:
            await self.app({**scope, "root_path": root, "path": path}, receive, send)
        finally:
            ROOT.reset(token)
