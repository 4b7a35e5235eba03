"""What went wrong, as problem JSON (RFC 9457): a title for programs, a sentence for people."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, Field
from starlette.responses import JSONResponse

from simsearch.errors import (
    BackboneError,
    ImageError,
    LibraryError,
    QueryError,
    SimsearchError,
)

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.requests import Request

MEDIA_TYPE = "application/problem+json"
_STATUS: dict[type[SimsearchError], int] = {
    QueryError: 422,
    ImageError: 422,
    BackboneError: 501,  # asked of a library that only finds what it holds
    LibraryError: 503,
}


class Problem(BaseModel):
    """What went wrong, and what to do about it."""

    type: str = "about:blank"
    title: str = Field(examples=["Unprocessable Entity"])
    status: int = Field(examples=[422])
    detail: str = Field(examples=["k=0: ask for a whole number of matches, at least one"])


def problem(status: int, detail: str) -> JSONResponse:
    """Answer with a problem."""
    content = Problem(title=HTTPStatus(status).phrase, status=status, detail=detail)
    return JSONResponse(content.model_dump(), status, media_type=MEDIA_TYPE)


def handle_problems(app: FastAPI) -> None:
    """Turn whatever goes wrong in an app into a problem."""
    from fastapi.exceptions import RequestValidationError
    from starlette.exceptions import HTTPException

    @app.exception_handler(SimsearchError)
    def known(_: Request, error: SimsearchError) -> JSONResponse:
        status = next((code for kind, code in _STATUS.items() if isinstance(error, kind)), 500)
        return problem(status, " ".join(str(error).split()))

    @app.exception_handler(RequestValidationError)
    def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        return problem(422, "; ".join(map(_in_words, error.errors())))

    @app.exception_handler(HTTPException)
    def refused(_: Request, error: HTTPException) -> JSONResponse:
        response = problem(error.status_code, str(error.detail))
        response.headers.update(error.headers or {})
        return response


def _in_words(error: Any) -> str:  # noqa: ANN401
    """Put what pydantic says of a field in one line, the value at fault included."""
    places: Sequence[object] = [each for each in error["loc"] if each not in {"body", "query"}]
    value = error.get("input")
    given = f" ({value!r:.80})" if isinstance(value, (str, int, float)) else ""
    return f"{'.'.join(map(str, places)) or 'request'}{given}: {error['msg']}"
