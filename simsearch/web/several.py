"""Several libraries in one server, each below its name, and a page that lists them."""

from __future__ import annotations

import re
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.middleware import Middleware
from fastapi.responses import RedirectResponse

from simsearch.errors import QueryError
from simsearch.web.app import create_app, guards, read_login_page
from simsearch.web.middleware import TokenAuth
from simsearch.web.page_files import PageFiles
from simsearch.web.pages import login_routes, page_response
from simsearch.web.problems import Utf8JsonResponse, encode_json, handle_problems
from simsearch.web.root_path import ROOT, RootPathMiddleware, local_path

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from starlette.types import ASGIApp, Receive, Scope, Send

    from simsearch.web.service import Service
    from simsearch.web.settings import Settings

RESERVED = {"api", "static", "login", "docs", "duplicates", "map", "metrics"}
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
COVERS = 4  # pictures of a library on the page that lists them


def check_names(names: Sequence[str], root_path: str = "") -> None:
    """Refuse names of libraries that no address can have.

    Raises
    ------
    QueryError
        If a name stands twice, is another address of the server, or has other characters.
    """
    first = root_path.strip("/").partition("/")[0]
    for name in names:
        if names.count(name) > 1:
            raise QueryError(f"two libraries are named {name!r}; give each a name: NAME=FOLDER")
        if not NAME.fullmatch(name) or name in RESERVED or name == first:
            raise QueryError(
                f"a library cannot be named {name!r} in an address; give it another name of "
                f"letters, digits and '_.-': NAME=FOLDER"
            )


def create_libraries_app(libraries: Mapping[str, Settings]) -> FastAPI:
    """Make the app that serves several libraries, each at /NAME/.

    Parameters
    ----------
    libraries
        Settings of each by its name; token, hosts and root path are those of the first one.

    Returns
    -------
    fastapi.FastAPI
        Its `state` has the settings and the service of the first library.

    Raises
    ------
    LibraryError
        If one is missing, or damaged.
    QueryError
        If a name cannot stand in an address.
    """
    first = next(iter(libraries.values()))
    check_names(list(libraries), first.root_path)
    apps: dict[str, FastAPI] = {}
    decoders = None  # one pool of processes, and of memory, for all
    for name, settings in libraries.items():
        apps[name] = create_app(settings, decoders)
        decoders = apps[name].state.service.decoders

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for each in apps.values():
                await stack.enter_async_context(each.router.lifespan_context(each))
            yield

    auth = TokenAuth(first.token, first.root_path)
    login_page = read_login_page()
    app = FastAPI(
        title="simsearch",
        lifespan=lifespan,
        middleware=[
            Middleware(RootPathMiddleware, first.root_path),
            Middleware(_LibraryMiddleware, apps),  # what follows is for the pages of this app
            *guards(first, auth, login_page),
        ],
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.settings, app.state.service = first, next(iter(apps.values())).state.service
    app.state.health = partial(_health, list(apps))
    handle_problems(app)
    app.include_router(_list_routes({name: each.state.service for name, each in apps.items()}))
    app.include_router(login_routes(auth, login_page))
    app.mount("/static", PageFiles(), "static")
    return app


class _LibraryMiddleware:
    """Hands requests below a library's name to its app, and the others on."""

    def __init__(self, app: ASGIApp, apps: Mapping[str, ASGIApp]) -> None:
        self.app, self._apps = app, apps

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        name, slash, _ = local_path(scope).removeprefix("/").partition("/")
        library = self._apps.get(name)
        if library is None:
            await self.app(scope, receive, send)
            return
        place = f"{scope.get('root_path', '')}/{name}"
        if not slash:  # relative addresses of the page start from there
            query = scope["query_string"].decode("latin-1")
            moved = RedirectResponse(f"{place}/{'?' * bool(query)}{query}", 308)
            await moved(scope, receive, send)
            return
        await library({**scope, "root_path": place}, receive, send)


def _list_routes(services: Mapping[str, Service]) -> APIRouter:
    """Return the page that lists the libraries, and what it shows."""
    routes = APIRouter(include_in_schema=False)

    @routes.get("/")
    async def page(request: Request) -> Response:
        return page_response(request, "libraries.html")

    @routes.get("/api/health")
    async def health() -> Response:
        return Response(_health(list(services)), media_type="application/json")

    @routes.get("/api/libraries")
    async def libraries() -> Response:
        root = ROOT.get()
        return Utf8JsonResponse(
            [
                {
                    "name": name,
                    "address": f"{root}/{name}/",
                    "images": len(state.library),
                    "covers": [
                        f"{root}/{name}/api/images/{row}/thumbnail?v={state.version}"
                        for row in _spread(len(state.library), COVERS)
                    ],
                }
                for name, service in services.items()
                if (state := service.state())
            ]
        )

    return routes


def _health(names: Sequence[str]) -> bytes:
    return encode_json({"status": "ok", "libraries": names})


def _spread(count: int, wanted: int) -> list[int]:
    """Return so many rows, spread over all.

    Examples
    --------
    >>> _spread(100, 4), _spread(2, 4)
    ([0, 25, 50, 75], [0, 1])
    """
    return sorted({i * count // wanted for i in range(wanted)}) if count else []
