"""OpenAPI schema of the REST API: FastAPI's, with every problem response and the token."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi.openapi.utils import get_openapi

from simsearch.web.problems import MEDIA_TYPE, Problem

if TYPE_CHECKING:
    from fastapi import FastAPI

PROBLEMS_EVERYWHERE = {
    401: "A token is needed.",
    403: "Cross-site request.",
    421: "Wrong host name.",
}
PROBLEMS_OF_ROWS = {
    404: "There is no such row.",
    409: "The library has changed since.",
    422: "An option or a query is invalid.",
}
PROBLEMS_OF_QUERIES = PROBLEMS_OF_ROWS | {
    400: "The body is not a form.",
    408: "The upload took too long.",
    413: "The upload is too large.",
    501: "The library's backbone cannot be loaded.",
    503: "Too many requests are waiting; see Retry-After.",
}


def describe_api(app: FastAPI, *, needs_token: bool) -> dict[str, Any]:
    """Return the OpenAPI schema of an app; it is made once."""
    if app.openapi_schema is None:
        schema = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes
        )
        components = schema["components"]
        components["schemas"]["Problem"] = Problem.model_json_schema()
        for unused in ("HTTPValidationError", "ValidationError"):
            components["schemas"].pop(unused, None)
        if needs_token:
            components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
            schema["security"] = [{"token": []}, {}]  # or the cookie, which browsers send anyway
        for path, operations in schema["paths"].items():
            for method, operation in operations.items():
                operation["responses"] |= _problem_responses(path, method)
        app.openapi_schema = schema
    return app.openapi_schema


def _problem_responses(path: str, method: str) -> dict[str, Any]:
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    problems = PROBLEMS_EVERYWHERE
    if method == "post":
        problems = problems | PROBLEMS_OF_QUERIES
    elif path.startswith("/api/images"):
        problems = problems | PROBLEMS_OF_ROWS
    return {
        str(status): {"description": description, "content": content}
        for status, description in sorted(problems.items())
    }
