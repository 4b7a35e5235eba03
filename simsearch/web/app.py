"""The FastAPI app: routes and middleware; `service` does the work."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from importlib.resources import files
from pathlib import Path as File
from typing import Annotated, Any

import anyio
from fastapi import APIRouter, FastAPI, Form, Path, Query, Request, Response
from fastapi.openapi.utils import get_openapi
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4
from pydantic import BeforeValidator

import simsearch
from simsearch.web import schemas
from simsearch.web.metrics import Metrics, MetricsMiddleware
from simsearch.web.middleware import (
    RequestLimitsMiddleware,
    SecurityHeadersMiddleware,
    TokenAuth,
    TokenAuthMiddleware,
)
from simsearch.web.problems import MEDIA_TYPE, Problem, Utf8JsonResponse, handle_problems
from simsearch.web.service import Service
from simsearch.web.settings import Settings
from simsearch.web.thumbnails import Picture, Size

STATIC = File(__file__).with_name("static")
SWAGGER = str(files("fastapi_swagger.resources"))  # Swagger UI, as this package carries it

CACHE_FOR_A_YEAR = (
    "private, max-age=31536000, immutable"  # for what an address with a version stands for
)
REVALIDATE = {"Cache-Control": "no-cache"}
_FORM = Form(media_type="multipart/form-data")

Row = Annotated[int, Path(description="Row number in the library.", examples=[0])]
Version = Annotated[
    str | None, Query(description="Version of the library; 409 if it has changed since.")
]
Offset = Annotated[int, Query(ge=0, le=2**53, description="Images to pass over.")]
Limit = Annotated[int, Query(ge=1, le=500, description="Images to list, at most.")]
Where = Annotated[str | None, Query(description="JSON, as in a search.", examples=['"sea/*"'])]
ThumbnailSize = Annotated[
    Size, BeforeValidator(int), Query(description="Longer side in pixels, at most.")
]

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


def create_app(settings: Settings) -> FastAPI:
    """Make the app that serves a library.

    Parameters
    ----------
    settings
        Which library, and to whom.

    Returns
    -------
    fastapi.FastAPI
        To be run by any ASGI server, in one process: its batches are its own.

    Raises
    ------
    LibraryError
        If there is no library, or it is damaged.
    QueryError
        If the table cannot be attached.
    """
    metrics = Metrics()
    service = Service(settings, metrics)
    lock = TokenAuth(settings.token, (STATIC / "login.html").read_text("utf-8"))

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(service.watch_library)
            yield
            tasks.cancel_scope.cancel()
        service.manager.close()

    app = FastAPI(
        title="simsearch",
        version=simsearch.__version__,
        description="Image similarity search: a picture in, the most similar ones out.",
        lifespan=lifespan,
        openapi_url="/api/openapi.json",
        docs_url=None,  # those pages would come from another host
        redoc_url=None,
        redirect_slashes=False,  # it would send to whatever name the request called the server
    )
    app.state.service = service
    handle_problems(app)
    app.include_router(_api_routes(service))
    app.include_router(_page_routes(lock, metrics))
    app.mount("/static/swagger", StaticFiles(directory=SWAGGER), "swagger")
    app.mount("/static", StaticFiles(directory=STATIC), "static")
    app.openapi = partial(_describe, app)  # type: ignore[method-assign]
    app.add_middleware(RequestLimitsMiddleware, settings=settings, rejected=metrics.rejected.inc)
    app.add_middleware(TokenAuthMiddleware, lock=lock, hosts=settings.hosts)
    app.add_middleware(MetricsMiddleware, metrics=metrics)
    app.add_middleware(SecurityHeadersMiddleware)  # the outermost
    return app


def _api_routes(service: Service) -> APIRouter:
    api = APIRouter(prefix="/api")

    @api.get("/library", response_model=schemas.Library)
    async def library() -> Response:
        """Describe the served library and the limits of requests."""
        return Utf8JsonResponse(await service.library())

    @api.get("/images", response_model=schemas.Page)
    async def images(
        v: Version = None, offset: Offset = 0, limit: Limit = 60, where: Where = None
    ) -> Response:
        """List images, in the order of their paths."""
        return Utf8JsonResponse(await service.page(offset, limit, where, v))

    @api.get("/images/{row}", **_picture("The image; one that browsers do not show, as JPEG."))
    async def image(request: Request, row: Row, v: Version = None) -> Response:
        """Return an image as it is."""
        return _image_response(request, await service.read_original(row, v), v)

    @api.get("/images/{row}/thumbnail", **_picture("A small copy.", "image/jpeg"))
    async def thumbnail(
        request: Request, row: Row, v: Version = None, size: ThumbnailSize = 256
    ) -> Response:
        """Return a small copy of an image."""
        return _image_response(request, await service.thumbnail(row, v, size), v)

    @api.get("/images/{row}/facts", response_model=schemas.Image)
    async def facts(row: Row, v: Version = None) -> Response:
        """Return path, caption and metadata of an image."""
        state = service.state(v, row)
        return Utf8JsonResponse(schemas.image(state.library, state.version, row))

    @api.post("/search", response_model=schemas.Answers)
    async def search(form: Annotated[schemas.SearchForm, _FORM]) -> Response:
        """Find the images that are most similar to a row, an image, or several of them."""
        return Utf8JsonResponse(await service.search(form))

    @api.post("/recommend", response_model=schemas.Answers)
    async def recommend(form: Annotated[schemas.RecommendForm, _FORM]) -> Response:
        """Find what somebody may like, from what they liked and what they did not."""
        return Utf8JsonResponse(await service.recommend(form))

    @api.post("/explain", **_picture("A heat map, to lay over the thumbnail.", "image/png"))
    async def explain(form: Annotated[schemas.ExplainForm, _FORM]) -> Response:
        """Show which parts of a match carry its likeness."""
        found = await service.explain(form)
        return Response(found.data, media_type=found.media_type)

    @api.get("/health", response_model=schemas.Health)
    async def health() -> Response:
        """Return status ok while the server answers."""
        state = service.state()
        content = schemas.Health(images=len(state.library), version=state.version)
        return Utf8JsonResponse(content.model_dump())

    return api


def _page_routes(lock: TokenAuth, metrics: Metrics) -> APIRouter:
    """Make the routes beside the API: the page, its documentation, the log-in, the metrics."""
    pages = APIRouter(include_in_schema=False)

    @pages.get("/")
    async def index() -> Response:
        return FileResponse(STATIC / "index.html", headers=REVALIDATE)

    @pages.get("/docs")
    async def docs() -> Response:
        return FileResponse(STATIC / "docs.html", headers=REVALIDATE)

    @pages.post("/login")
    async def login(request: Request, token: Annotated[str, Form()]) -> Response:
        if lock.is_valid(token.strip()):
            return lock.log_in_redirect("/", secure=request.url.scheme == "https")
        return Response(lock.page, 401, media_type="text/html")

    @pages.get("/metrics")
    async def prometheus() -> Response:
        return Response(metrics.text(), media_type=CONTENT_TYPE_PLAIN_0_0_4)

    return pages


def _picture(description: str, media_type: str = "image/*") -> dict[str, Any]:
    """Describe an answer that is an image, for the API's schema."""
    content = {media_type: {"schema": {"type": "string", "format": "binary"}}}
    answers = {200: {"description": description, "content": content}}
    return {"response_class": Response, "responses": answers}


def _image_response(request: Request, picture: Picture, version: str | None) -> Response:
    """Send an image, unless the browser has it."""
    headers = {"ETag": picture.etag, "Cache-Control": CACHE_FOR_A_YEAR if version else "no-cache"}
    if picture.etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(picture.data, media_type=picture.media_type, headers=headers)


def _describe(app: FastAPI) -> dict[str, Any]:
    """Make the API's schema, with the problems that each address may answer."""
    if app.openapi_schema is None:
        schema = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes
        )
        schemas = schema["components"]["schemas"]
        schemas["Problem"] = Problem.model_json_schema()
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        schema["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        schema["security"] = [{"token": []}, {}]  # a browser sends its cookie
        for path, operations in schema["paths"].items():
            for method, operation in operations.items():
                operation["responses"] |= _problem_responses(path, method)
        app.openapi_schema = schema
    return app.openapi_schema


def _problem_responses(path: str, method: str) -> dict[str, Any]:
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    asks = method == "post"
    found = PROBLEMS_EVERYWHERE | (
        PROBLEMS_OF_QUERIES if asks else PROBLEMS_OF_ROWS if path.startswith("/api/images") else {}
    )
    return {
        str(status): {"description": description, "content": content}
        for status, description in sorted(found.items())
    }
