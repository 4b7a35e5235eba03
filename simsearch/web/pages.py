"""Routes beside the API: search page, duplicates, API page, log-in and metrics."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Form, Query, Request, Response
from fastapi.responses import FileResponse
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4

from simsearch.web.metrics import Metrics
from simsearch.web.middleware import PAGE_PATHS, TokenAuth

STATIC = Path(__file__).with_name("static")
REVALIDATE = {"Cache-Control": "no-cache"}
PAGES = {"/": "index.html", "/docs": "docs.html", "/duplicates": "duplicates.html"}

Next = Annotated[str, Query(alias="next")]  # what is opened after the log-in


def page_routes(auth: TokenAuth, login_page: str, metrics: Metrics) -> APIRouter:
    """Return the routes of pages and of metrics."""
    pages = APIRouter(include_in_schema=False)

    for path in PAGES:

        @pages.get(path)
        async def page(request: Request) -> Response:
            return FileResponse(STATIC / PAGES[request.url.path], headers=REVALIDATE)

    @pages.get("/login")
    async def log_in_again() -> Response:
        return Response(login_page, media_type="text/html")

    @pages.post("/login")
    async def login(
        request: Request, token: Annotated[str, Form()], opened: Next = "/"
    ) -> Response:
        if auth.is_valid(token.strip()):
            return auth.log_in_redirect(_own_page(opened), secure=request.url.scheme == "https")
        return Response(login_page, 401, media_type="text/html")

    @pages.get("/metrics")
    async def prometheus() -> Response:
        return Response(metrics.text(), media_type=CONTENT_TYPE_PLAIN_0_0_4)

    return pages


def _own_page(address: str) -> str:
    """Return the address of a page of this server, with its query; "/" for any other.

    Examples
    --------
    >>> [_own_page(each) for each in ("/?row=3", "/docs", "//evil.example/", "/api/library")]
    ['/?row=3', '/docs', '/', '/']
    """
    path, mark, query = address.partition("?")
    return f"{path}{mark}{query}" if path in PAGE_PATHS else "/"
