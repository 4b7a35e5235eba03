"""The FastAPI app: routes and middleware; `service` does the work."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from importlib.resources import files
from typing import Annotated, Any

from anyio import create_task_group, to_thread
from fastapi import APIRouter, FastAPI, Form, Path, Query, Request, Response
from fastapi.middleware import Middleware
from fastapi.staticfiles import StaticFiles
from pydantic import BeforeValidator

import simsearch
from simsearch.images.budget import use_budget
from simsearch.images.download import public_urls_only
from simsearch.web import schemas
from simsearch.web.copy_routes import copy_routes
from simsearch.web.decoder_pool import DecoderPool
from simsearch.web.json_bodies import JsonOrFormRoute, forms_of
from simsearch.web.map_routes import map_routes
from simsearch.web.metrics import Metrics, MetricsMiddleware
from simsearch.web.middleware import (
    CheckMiddleware,
    HeadMiddleware,
    RequestLimitsMiddleware,
    SecurityHeadersMiddleware,
    TokenAuth,
    check_host_and_origin,
    check_token,
)
from simsearch.web.openapi import describe_api
from simsearch.web.page_files import PageFiles
from simsearch.web.page_template import STATIC
from simsearch.web.pages import login_routes, page_routes
from simsearch.web.problems import Utf8JsonResponse, handle_problems
from simsearch.web.root_path import RootPathMiddleware
from simsearch.web.service import Service
from simsearch.web.settings import Settings
from simsearch.web.streams import FileStreamResponse
from simsearch.web.thumbnails import Original, Picture, Size
from simsearch.web.warm_up import warm_up

SWAGGER_UI = str(files("fastapi_swagger.resources"))  # Swagger UI's own files
SWAGGER_UI_FILES = {"swagger-ui.css", "swagger-ui-bundle.js"}

CACHE_FOR_A_YEAR = "private, max-age=31536000, immutable"  # for addresses with a version
MULTIPART = Form(media_type="multipart/form-data")

Row = Annotated[int, Path(description="Row number in the library.", examples=[0])]
Version = Annotated[
    str | None, Query(description="Version of the library; 409 if it has changed since.")
]
Offset = Annotated[int, Query(ge=0, le=2**53, description="Images to pass over.")]
Limit = Annotated[int, Query(ge=1, le=500, description="Images to list, at most.")]
Where = Annotated[
    str | None, Query(description="A glob, or JSON, as in a search.", examples=["sea/*"])
]
WithShapes = Annotated[bool, Query(description="Whether to read width and height of each image.")]
ThumbnailSize = Annotated[
    Size, BeforeValidator(int), Query(description="Longer side in pixels, at most.")
]


def create_app(settings: Settings, decoders: DecoderPool | None = None) -> FastAPI:
    """Make the app that serves a library.

    Parameters
    ----------
    settings
        Which library, and to whom.
    decoders
        Those of another library in the same process; by default its own.

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
    service = Service(settings, metrics, decoders)
    auth = TokenAuth(settings.token, settings.root_path)
    login_page = read_login_page()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        with public_urls_only(settings.root):  # the decoders, too, which inherit it
            async with create_task_group() as tasks:
                tasks.start_soon(service.watch_library)
                tasks.start_soon(to_thread.run_sync, service.decoders.start)
                if settings.warm_up:
                    tasks.start_soon(warm_up, service, metrics)
                tasks.start_soon(metrics.watch_loop)
                with use_budget(service.decoders.budget):  # of this process
                    yield
                tasks.cancel_scope.cancel()
            service.close()

    app = FastAPI(
        title="simsearch",
        version=simsearch.__version__,
        description="Image similarity search: a picture in, the most similar ones out.",
        lifespan=lifespan,
        middleware=[  # the outermost first
            Middleware(RootPathMiddleware, settings.root_path),
            *guards(settings, auth, login_page, metrics),
        ],
        openapi_url="/api/openapi.json",
        docs_url=None,  # FastAPI's pages load scripts from another host
        redoc_url=None,
        redirect_slashes=False,  # a redirect would use the host name that the client sent
    )
    app.state.service, app.state.settings, app.state.health = service, settings, service.health
    handle_problems(app)
    api = _api_routes(service)
    app.include_router(api)
    app.include_router(copy_routes(service))
    app.include_router(map_routes(service))
    app.include_router(page_routes(metrics))
    app.include_router(login_routes(auth, login_page))
    app.mount("/static/swagger", _SwaggerUiFiles(directory=SWAGGER_UI), "swagger")
    app.mount("/static", PageFiles(), "static")
    app.openapi = partial(describe_api, app, forms_of(api), needs_token=settings.token is not None)  # type: ignore[method-assign]
    return app


def guards(
    settings: Settings, auth: TokenAuth, login_page: str, metrics: Metrics | None = None
) -> list[Middleware]:
    """Return what every request passes before it is answered, the outermost first."""
    return [
        Middleware(SecurityHeadersMiddleware),
        Middleware(HeadMiddleware),
        *([Middleware(MetricsMiddleware, metrics)] if metrics else []),
        Middleware(CheckMiddleware, partial(check_host_and_origin, settings.hosts)),
        Middleware(CheckMiddleware, partial(check_token, auth, login_page)),
        Middleware(
            RequestLimitsMiddleware, settings, metrics.rejected.inc if metrics else lambda: None
        ),
    ]


def read_login_page() -> str:
    """Return the page with the log-in form."""
    return (STATIC / "login.html").read_text("utf-8")


class _SwaggerUiFiles(StaticFiles):
    """The files that the API page loads, without the package's Python files.

    Compiled Python files hold paths of the server.
    """

    def lookup_path(self, path: str) -> tuple[str, os.stat_result | None]:
        """Find a file that may be served."""
        return super().lookup_path(path) if path in SWAGGER_UI_FILES else ("", None)


def _api_routes(service: Service) -> APIRouter:
    """Return the routes of the REST API."""
    api = APIRouter(prefix="/api", route_class=JsonOrFormRoute)

    @api.get("/library", tags=["library"], response_model=schemas.Library)
    async def library() -> Response:
        """Describe the served library and the limits of requests."""
        return Response(await service.library(), media_type="application/json")

    @api.get("/images", tags=["images"], response_model=schemas.Page)
    async def images(
        v: Version = None,
        offset: Offset = 0,
        limit: Limit = 60,
        where: Where = None,
        shapes: WithShapes = False,
    ) -> Response:
        """List images, in the order of their paths."""
        content = await service.page(offset, limit, where, v, shapes=shapes)
        return Response(content, media_type="application/json")

    @api.get(
        "/images/{row}",
        tags=["images"],
        **_image_route("The image; one that browsers do not show, as JPEG."),
    )
    async def image(request: Request, row: Row, v: Version = None) -> Response:
        """Return an image as it is."""
        return _image_response(request, await service.original(row, v), v)

    @api.get(
        "/images/{row}/thumbnail", tags=["images"], **_image_route("A small copy.", "image/jpeg")
    )
    async def thumbnail(
        request: Request, row: Row, v: Version = None, size: ThumbnailSize = 256
    ) -> Response:
        """Return a small copy of an image."""
        return _image_response(request, await service.thumbnail(row, v, size), v)

    @api.get("/images/{row}/facts", tags=["images"], response_model=schemas.Image)
    async def facts(row: Row, v: Version = None) -> Response:
        """Return path, caption and metadata of an image."""
        state = service.state(v, row)
        return Utf8JsonResponse(schemas.image(state.library, state.version, row))

    @api.get("/health", tags=["library"], response_model=schemas.Health)
    async def health() -> Response:
        """Return status ok while the server answers."""
        return Response(service.health(), media_type="application/json")

    _add_search_routes(api, service)
    return api


def _add_search_routes(api: APIRouter, service: Service) -> None:
    """Add what is asked with a query: a row, an image, words."""

    @api.post("/search", tags=["search"], response_model=schemas.Answers)
    async def search(
        form: Annotated[schemas.SearchForm, MULTIPART], shapes: WithShapes = False
    ) -> Response:
        """Find the images that are most similar to a row, an image, or several of them."""
        content = await service.search(form, shapes=shapes)
        return Response(content, media_type="application/json")

    @api.post("/recommend", tags=["search"], response_model=schemas.Answers)
    async def recommend(
        form: Annotated[schemas.RecommendForm, MULTIPART], shapes: WithShapes = False
    ) -> Response:
        """Find what somebody may like, from what they liked and what they did not."""
        content = await service.recommend(form, shapes=shapes)
        return Response(content, media_type="application/json")

    @api.post(
        "/explain",
        tags=["search"],
        **_image_route("A heat map, to lay over the thumbnail.", "image/png"),
    )
    async def explain(form: Annotated[schemas.ExplainForm, MULTIPART]) -> Response:
        """Show which parts of a match are similar to the query: a heat map."""
        found = await service.explain(form)
        return Response(found.data, media_type=found.media_type)

    @api.post("/suggest", tags=["search"], response_model=schemas.Parts)
    async def suggest(form: Annotated[schemas.SuggestForm, MULTIPART]) -> Response:
        """Suggest parts of a picture to search with, where something stands out."""
        return Response(await service.suggest(form), media_type="application/json")


def _image_route(description: str, media_type: str = "image/*") -> dict[str, Any]:
    """Return keywords of a route that answers with an image."""
    content = {media_type: {"schema": {"type": "string", "format": "binary"}}}
    answers = {200: {"description": description, "content": content}}
    return {"response_class": Response, "responses": answers}


def _image_response(request: Request, picture: Picture | Original, version: str | None) -> Response:
    """Send an image, or status 304 if the browser has it in its cache."""
    headers = {"ETag": picture.etag, "Cache-Control": CACHE_FOR_A_YEAR if version else "no-cache"}
    known = picture.etag in request.headers.get("if-none-match", "")
    if isinstance(picture, Original):
        if not known:
            return FileStreamResponse(picture.stream, picture.media_type, headers)
        picture.stream.close()
    elif not known:
        return Response(picture.data, media_type=picture.media_type, headers=headers)
    return Response(status_code=304, headers=headers)
