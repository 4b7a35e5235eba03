"""Errors as problem JSON (RFC 9457): a title for programs, a sentence for people."""

from __future__ import annotations

import logging
import re
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, Field
from starlette.responses import HTMLResponse, JSONResponse, Response

from simsearch.errors import (
    BackboneError,
    ImageError,
    LibraryError,
    QueryError,
    SimsearchError,
    StaleVersionError,
)
from simsearch.plain_json import dumps
from simsearch.web.field_errors import describe_errors, suggest
from simsearch.web.root_path import ROOT, local_path

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.datastructures import Headers
    from starlette.exceptions import HTTPException
    from starlette.requests import Request

NOT_FOUND = Path(__file__).with_name("static") / "not_found.html"
MEDIA_TYPE = "application/problem+json"
MAX_DETAIL_CHARACTERS = 1000  # a long request is not echoed
STATUS_CODES: dict[type[SimsearchError], int] = {
    QueryError: 422,
    ImageError: 422,
    StaleVersionError: 409,
    BackboneError: 501,  # a library without backbone is searched by row only
    LibraryError: 503,
}

logger = logging.getLogger("simsearch.web")


def encode_json(content: Any) -> bytes:  # noqa: ANN401
    """Encode JSON; characters that UTF-8 cannot encode become "?"."""
    text = dumps(content, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "replace")


class Utf8JsonResponse(JSONResponse):
    """JSON response; characters that UTF-8 cannot encode, as in some file names, become "?"."""

    def render(self, content: Any) -> bytes:  # noqa: ANN401
        """Encode content; a number that is not finite becomes null."""
        return encode_json(content)


class Problem(BaseModel):
    """An error, and its remedy."""

    type: str = Field("about:blank", description="Always about:blank: the status says the kind.")
    title: str = Field(description="The status in words.", examples=["Unprocessable Entity"])
    status: int = Field(description="The HTTP status.", examples=[422])
    detail: str = Field(
        description="What is wrong, and what to do, in one sentence.",
        examples=["k=0: ask for a whole number of matches, at least one"],
    )


def problem(status: int, detail: str) -> Utf8JsonResponse:
    """Return a problem response."""
    return Utf8JsonResponse(problem_content(status, detail), status, media_type=MEDIA_TYPE)


def problem_content(status: int, detail: str) -> dict[str, Any]:
    """Return what a problem response holds, as `Problem`."""
    return {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail[:MAX_DETAIL_CHARACTERS],
    }


def rooted_page(page: str, status: int = 200) -> Response:
    """Return a page whose own addresses, which begin with "/", are put below the root path."""
    text = re.sub(r'( (?:href|src|action)=")/', rf"\g<1>{ROOT.get()}/", page)
    return HTMLResponse(text, status)


def wants_page(path: str, headers: Headers) -> bool:
    """Tell whether somebody opens an address in a browser, rather than a program or a page."""
    return not path.startswith(("/api/", "/static/")) and "text/html" in headers.get("accept", "")


def handle_problems(app: FastAPI) -> None:
    """Answer every expected error of an app with a problem."""
    from fastapi.exceptions import RequestValidationError
    from starlette.exceptions import HTTPException

    @app.exception_handler(SimsearchError)
    def simsearch_error(_: Request, error: SimsearchError) -> JSONResponse:
        status = next((code for kind, code in STATUS_CODES.items() if isinstance(error, kind)), 500)
        return problem(status, _public_message(error))

    @app.exception_handler(RequestValidationError)
    def validation_error(request: Request, error: RequestValidationError) -> JSONResponse:
        return problem(422, describe_errors(error.errors(), _field_names(request)))

    @app.exception_handler(HTTPException)
    def http_error(request: Request, error: HTTPException) -> Response:
        if error.status_code == 404 and wants_page(local_path(request.scope), request.headers):
            return rooted_page(NOT_FOUND.read_text("utf-8"), 404)
        response = problem(error.status_code, _http_detail(request, error))
        response.headers.update(error.headers or {})
        return response


def _public_message(error: SimsearchError) -> str:
    """Return the message of an error without paths of the server."""
    if isinstance(error, ImageError):
        return f"the image cannot be read: {error.reason}"
    message = " ".join(str(error).split())
    if isinstance(error, QueryError) or not {"/", "\\"} & set(message):
        return message
    logger.warning("a request failed: %s", error)
    return "the library or its network cannot do this; the server's log says why"


def _http_detail(request: Request, error: HTTPException) -> str:
    """Return the detail of an HTTP error, where it is its title alone with what to do."""
    if error.detail != HTTPStatus(error.status_code).phrase:
        return error.detail
    path = str(request.scope["path"]).removeprefix(ROOT.get())
    allowed = (error.headers or {}).get("Allow")
    if error.status_code == 405 and allowed:
        return f"{path:.80} does not take {request.method}: use {allowed}"
    if error.status_code == 404:
        known = [*request.app.openapi()["paths"], request.app.openapi_url or "/"]
        return f"there is nothing at {path!r:.80}{suggest(path[:80], known)}"
    return error.detail


def _field_names(request: Request) -> list[str]:
    """Return the names of what a call takes, in its address and its body."""
    taken = request.scope["route"].dependant
    names = [each.alias for each in (*taken.query_params, *taken.path_params)]
    for each in taken.body_params:
        fields = getattr(each.field_info.annotation, "model_fields", {})
        names += [*fields] or [each.alias]
    return names
