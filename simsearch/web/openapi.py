"""OpenAPI schema of the REST API: FastAPI's, with every problem response and the token."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi.openapi.utils import get_openapi

from simsearch.web.api_examples import ANSWERS, REQUESTS
from simsearch.web.json_bodies import JSON_TYPE, json_model
from simsearch.web.middleware import HEALTH_PATH, OPEN_PATHS
from simsearch.web.problems import MEDIA_TYPE, Problem, problem_content

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastapi import FastAPI
    from pydantic import BaseModel

# What each status means, and the detail of one such problem.
TOKEN_SCHEME = {
    "type": "http",
    "scheme": "bearer",
    "description": "The token that the server printed when it was started, or SIMSEARCH_TOKEN. "
    "Browsers log in at /login and then send a cookie.",
}
PROBLEMS_EVERYWHERE = {
    401: ("A token is needed.", "a token is needed: send it as 'Authorization: Bearer TOKEN'"),
    403: ("Cross-site request.", "another site may link to this page, but not use it"),
    421: (
        "Wrong host name.",
        "this server is not called 'photos.example'; start it with --host to be reached by "
        "another name",
    ),
}
PROBLEMS_OF_WORK = {
    503: (
        "Too many requests are waiting, or this one took too long.",
        "too many requests are waiting; ask again in a moment",
    ),
}
PROBLEMS_OF_LISTS = {
    409: (
        "The library has changed since.",
        "the library has changed since; read /api/library and ask again",
    ),
    422: ("An option is invalid.", "limit: '0' is too small: give at least 1"),
}
PROBLEMS_OF_ROWS = PROBLEMS_OF_LISTS | {
    404: ("There is no such row.", "there is no row 9000"),
    422: (
        "An option is invalid.",
        "row: 'x' is not a whole number",
    ),
}
PROBLEMS_OF_QUERIES = PROBLEMS_OF_ROWS | {
    400: ("The body is neither a form nor JSON.", "Missing boundary in multipart."),
    408: (
        "The upload is too slow.",
        "the upload has fallen 20 seconds behind 4,096 bytes per second",
    ),
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
}
PROBLEMS_OF_PLANS = {status: PROBLEMS_OF_QUERIES[status] for status in (408, 409, 413)} | {
    400: ("The body is no text.", "There was an error parsing the body"),
    422: (
        "A choice is invalid.",
        "copies have not been looked for yet: POST /api/duplicates/search, and wait for the state "
        "'ready'",
    ),
}


def describe_api(
    app: FastAPI, forms: Mapping[str, type[BaseModel]], *, needs_token: bool
) -> dict[str, Any]:
    """Return the OpenAPI schema of an app; it is made once.

    `forms` are the models of calls that take JSON, too, by their paths.
    """
    if app.openapi_schema is None:
        schema = get_openapi(
            title=app.title,
            version=app.version,
            description=app.description,
            routes=app.routes,
            servers=app.servers or None,
        )
        components = schema["components"]
        components["schemas"]["Problem"] = Problem.model_json_schema()
        for unused in ("HTTPValidationError", "ValidationError"):
            components["schemas"].pop(unused, None)
        if needs_token:
            components["securitySchemes"] = {"token": TOKEN_SCHEME}
            schema["security"] = [{"token": []}, {}]  # or the cookie, which browsers send anyway
        for path, operations in schema["paths"].items():
            for method, operation in operations.items():
                _describe_operation(path, method, operation)
        for path, form in forms.items():
            content = schema["paths"][path]["post"]["requestBody"]["content"]
            content[JSON_TYPE] = _json_body(form, components["schemas"])
        for path, example in ANSWERS.items():
            (operation,) = schema["paths"][path].values()
            operation["responses"]["200"]["content"][JSON_TYPE]["example"] = example
        app.openapi_schema = schema
    return app.openapi_schema


def _json_body(form: type[BaseModel], schemas: dict[str, Any]) -> dict[str, Any]:
    """Describe the JSON body that a form's call takes, too."""
    model = json_model(form)
    described = model.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas.update(described.pop("$defs", {}))
    schemas[model.__name__] = described
    example = REQUESTS[form.__name__]
    return {"schema": {"$ref": f"#/components/schemas/{model.__name__}"}, "example": example}


def _describe_operation(path: str, method: str, operation: dict[str, Any]) -> None:
    """Add a summary in words, the problems, and whether a token is needed."""
    operation["summary"], _, operation["description"] = operation["description"].partition("\n")
    problems = PROBLEMS_EVERYWHERE
    if path in OPEN_PATHS:
        operation["security"] = []
        problems = {status: each for status, each in problems.items() if status != 401}
    if path != HEALTH_PATH:
        problems = problems | PROBLEMS_OF_WORK
    if path.startswith("/api/duplicates"):
        problems = problems | (PROBLEMS_OF_PLANS if method == "post" else PROBLEMS_OF_LISTS)
    elif method == "post":
        problems = problems | PROBLEMS_OF_QUERIES
    elif path.startswith(("/api/images", "/api/map")):
        problems = problems | (PROBLEMS_OF_ROWS if "{row}" in path else PROBLEMS_OF_LISTS)
    schema = {"$ref": "#/components/schemas/Problem"}
    for status, (description, detail) in sorted(problems.items()):
        media = {"schema": schema, "example": problem_content(status, detail)}
        operation["responses"][str(status)] = {
            "description": description,
            "content": {MEDIA_TYPE: media},
        }
