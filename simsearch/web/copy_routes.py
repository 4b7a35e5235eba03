"""Routes of the review of copies: looked for in the background, listed, and planned."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated

import anyio
from anyio import to_thread
from fastapi import APIRouter, Query, Response

from simsearch.web.copy_schemas import Copies, Plan, PlanRequest
from simsearch.web.problems import Utf8JsonResponse

if TYPE_CHECKING:
    from simsearch.web.service import Service

Offset = Annotated[int, Query(ge=0, le=2**53, description="Groups to pass over.")]
Limit = Annotated[int, Query(ge=1, le=100, description="Groups to list, at most.")]
Version = Annotated[
    str | None, Query(description="Version of the library; 409 if it has changed since.")
]


def copy_routes(service: Service) -> APIRouter:
    """Return the routes; a plan is made, and never applied."""
    api = APIRouter(prefix="/api/duplicates", tags=["duplicates"])
    reading, planning = anyio.CapacityLimiter(2), anyio.CapacityLimiter(1)

    @api.post("/search", response_model=Copies)
    async def start(v: Version = None) -> Response:
        """Look for copies in the background; the result is kept until the library changes."""
        begin = partial(service.copies.start, service.state(v))
        return Utf8JsonResponse(await to_thread.run_sync(begin, limiter=reading))

    @api.get("", response_model=Copies)
    async def status(v: Version = None, offset: Offset = 0, limit: Limit = 20) -> Response:
        """Tell how far the search for copies is, and list its groups."""
        look = partial(service.copies.status, service.state(v), offset, limit)
        return Utf8JsonResponse(await to_thread.run_sync(look, limiter=reading))

    @api.post("/plan", response_model=Plan)
    async def plan(request: PlanRequest) -> Response:
        """Plan a clean-up, to be applied at the command line; nothing is moved."""
        make = partial(service.copies.plan, service.state(request.version), request)
        return Utf8JsonResponse(await to_thread.run_sync(make, limiter=planning))

    return api
