"""Routes beside the API: search page, duplicates, map, API page, log-in and metrics."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form, Query, Request, Response
from fastapi.responses import HTMLResponse
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4

from simsearch.web.metrics import Metrics
from simsearch.web.middleware import PAGE_PATHS, TokenAuth
from simsearch.web.page_template import read_page
from simsearch.web.problems import rooted_page
from simsearch.web.root_path import ROOT, local_path

REVALIDATE = {"Cache-Control": "no-cache"}
PAGES = {
    "/": "index.html",
    "/docs": "docs.html",
    "/duplicates": "duplicates.html",
    "/map": "map.html",
}

Next = Annotated[str, Query(alias="next")]  # what is opened after the log-in


def page_routes(metrics: Metrics) -> APIRouter:
    """Return the routes of pages and of metrics."""
    pages = APIRouter(include_in_schema=False)

    for path in PAGES:

        @pages.get(path)
        async def page(request: Request) -> Response:
            return page_response(request, PAGES[local_path(request.scope)])

    @pages.get("/metrics")
    async def prometheus() -> Response:
        return Response(metrics.text(), media_type=CONTENT_TYPE_PLAIN_0_0_4)

    return pages


def page_response(request: Request, name: str) -> Response:
    """Send a page of the static files, or status 304 if the browser has it as it is now."""
    text, etag = read_page(name)
    headers = {"ETag": etag, **REVALIDATE}
    if etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return HTMLResponse(text, headers=headers)


def login_routes(auth: TokenAuth, login_page: str) -> APIRouter:
    """Return the routes of the log-in."""
    pages = APIRouter(include_in_schema=False)

    @pages.get("/login")
    async def log_in_again() -> Response:
        return rooted_page(login_page)

    @pages.post("/login")
    async def login(
        request: Request, token: Annotated[str, Form()], opened: Next = "/"
    ) -> Response:
        if auth.is_valid(token.strip()):
            return auth.log_in_redirect(_own_page(opened), secure=request.url.scheme == "https")
        return rooted_page(login_page, 401)

    return pages


def _own_page(address: str) -> str:
    """Return the address of a page below the root path, with its query; "/" for any other.

    Examples
    --------
    >>> [_own_page(each) for each in ("/?row=3", "/docs", "//evil.example/", "/api/library")]
    ['/?row=3', '/docs', '/', '/']
    """
    path, mark, query = address.removeprefix(ROOT.get()).partition("?")
    return f"{path}{mark}{query}" if path in PAGE_PATHS else "/"
