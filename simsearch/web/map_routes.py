"""The route of the map: where the images of the library lie."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Query, Response

from simsearch.web import schemas
from simsearch.web.map_view import Method

if TYPE_CHECKING:
    from simsearch.web.service import Service

Version = Annotated[
    str | None, Query(description="Version of the library; 409 if it has changed since.")
]
MapMethod = Annotated[
    Method, Query(description="pca keeps distances, of 10,000 images; tsne neighbours, of 2,000.")
]


def map_routes(service: Service) -> APIRouter:
    """Return the route."""
    api = APIRouter(prefix="/api", tags=["library"])

    @api.get("/map", response_model=schemas.Map)
    async def draw(v: Version = None, method: MapMethod = "pca") -> Response:
        """Tell where the images lie on a map, on which similar ones are neighbours."""
        return Response(await service.map(method, v), media_type="application/json")

    return api
