"""OpenAPI schema of the REST API: FastAPI's, with every problem response and the token."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi.openapi.utils import get_openapi

from simsearch.web.middleware import OPEN_PATHS
from simsearch.web.problems import MEDIA_TYPE, Problem, problem_content

if TYPE_CHECKING:
    from fastapi import FastAPI

# What each status means, and the detail of one such problem.
PROBLEMS_EVERYWHERE = {
    401: ("A token is needed.", "a token is needed: send it as 'Authorization: Bearer TOKEN'"),
    403: ("Cross-site request.", "another site may link to this page, but not use it"),
    421: (
        "Wrong host name.",
        "this server is not called 'photos.example'; start it with --host to be reached by "
        "another name",
    ),
}
PROBLEMS_OF_LISTS = {
    409: (
        "The library has changed since.",
        "the library has changed since; read /api/library and ask again",
    ),
    422: ("An option is invalid.", "limit ('0'): Input should be greater than or equal to 1"),
}
PROBLEMS_OF_ROWS = PROBLEMS_OF_LISTS | {
    404: ("There is no such row.", "there is no row 9000"),
    422: (
        "An option is invalid.",
        "path.row ('x'): Input should be a valid integer, unable to parse string as an integer",
    ),
}
PROBLEMS_OF_QUERIES = PROBLEMS_OF_ROWS | {
    400: ("The body is not a form.", "Missing boundary in multipart."),
    408: ("The upload took too long.", "the upload took over 60 seconds"),
    413: ("The upload is too large.", "an upload may have 33,554,432 bytes"),
    422: (
        "An option or a query is invalid.",
        "k=0: ask for a whole number of matches, at least one",
    ),
    501: (
        "The library's backbone cannot be loaded.",
        "this library does not know what made its embeddings: pass backbone= to ImageLibrary, or "
        "query with a row number or an embedding",
    ),
    503: (
        "Too many requests are waiting; see Retry-After.",
        "too many requests are waiting; ask again in a moment",
    ),
}
PROBLEMS_OF_PLANS = {status: PROBLEMS_OF_QUERIES[status] for status in (408, 409, 413, 503)} | {
    400: ("The body is no text.", "There was an error parsing the body"),
    422: (
        "A choice is invalid.",
        "copies have not been looked for yet: POST /api/duplicates/search, and wait for the state "
        "'ready'",
    ),
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
                _describe_operation(path, method, operation)
        app.openapi_schema = schema
    return app.openapi_schema


def _describe_operation(path: str, method: str, operation: dict[str, Any]) -> None:
    """Add a summary in words, the problems, and whether a token is needed."""
    operation["summary"], _, operation["description"] = operation["description"].partition("\n")
    problems = PROBLEMS_EVERYWHERE
    if path in OPEN_PATHS:
        operation["security"] = []
        problems = {status: each for status, each in problems.items() if status != 401}
    if path.startswith("/api/duplicates"):
        problems = problems | (PROBLEMS_OF_PLANS if method == "post" else PROBLEMS_OF_LISTS)
    elif method == "post":
        problems = problems | PROBLEMS_OF_QUERIES
    elif path.startswith("/api/images"):
        problems = problems | (PROBLEMS_OF_ROWS if "{row}" in path else PROBLEMS_OF_LISTS)
    schema = {"$ref": "#/components/schemas/Problem"}
    for status, (description, detail) in sorted(problems.items()):
        media = {"schema": schema, "example": problem_content(status, detail)}
        operation["responses"][str(status)] = {
            "description": description,
            "content": {MEDIA_TYPE: media},
        }
