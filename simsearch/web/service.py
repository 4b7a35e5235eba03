"""Service behind the API: reads a request, calls the library on a thread, describes the answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import anyio
from anyio import to_thread
from starlette.exceptions import HTTPException

from simsearch.embedding.batching import cpu_count
from simsearch.errors import QueryError
from simsearch.retrieval.matches import Matches
from simsearch.retrieval.recommend import recommend
from simsearch.retrieval.search import search
from simsearch.web import schemas
from simsearch.web.copy_search import CopySearch
from simsearch.web.library_manager import LibraryManager, State
from simsearch.web.thumbnails import (
    Picture,
    Size,
    Thumbnails,
    draw_heat_map,
    read_original,
)
from simsearch.web.uploads import PixelBudget, fetch_images
from simsearch.web.where import read_where

if TYPE_CHECKING:
    from pydantic import BaseModel

    from simsearch.web.metrics import Metrics
    from simsearch.web.settings import Settings

_T = TypeVar("_T")
_Form = TypeVar("_Form", schemas.SearchForm, schemas.RecommendForm)
Uploads: TypeAlias = dict[str, list[bytes]]
REFRESH_SECONDS = 1.0  # between checks whether the library has changed


class Service:
    """The calls of the API: a served library, its thumbnails, and threads to work on.

    Parameters
    ----------
    settings
        Which library, and the limits.
    metrics
        Counts batches and reloads.

    Attributes
    ----------
    manager : LibraryManager
    copies : CopySearch
    """

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self.settings, self._metrics = settings, metrics
        self.manager = LibraryManager(settings, metrics.batch.observe)
        self.copies = CopySearch()
        self._thumbnails = Thumbnails(self.manager.cache)
        # Ranking is fastest with one thread per core. Embedding requests need many threads, as only
        # requests that wait at the same time form a batch.
        self._ranking = anyio.CapacityLimiter(cpu_count())
        self._embedding = anyio.CapacityLimiter(settings.workers)
        self._reading = anyio.CapacityLimiter(settings.workers)
        self._decoding = PixelBudget(settings.max_decoding, settings.max_pixels)
        metrics.images.set(len(self.manager.state.library))

    async def watch_library(self) -> None:
        """Reload the library whenever it changes, until cancelled."""
        while True:
            await anyio.sleep(REFRESH_SECONDS)
            if await to_thread.run_sync(self.manager.refresh):
                self._metrics.reloads.inc()
                self._metrics.images.set(len(self.manager.state.library))

    async def search(self, form: schemas.SearchForm) -> dict[str, Any]:
        """Answer a search, as `schemas.Answers`."""
        return await self._answer(
            form, self._search, embeds=bool(form.image or form.url or form.box or form.regions)
        )

    async def recommend(self, form: schemas.RecommendForm) -> dict[str, Any]:
        """Answer a recommendation, as `schemas.Answers`."""
        return await self._answer(
            form, self._recommend, embeds=bool(form.liked_image or form.disliked_image)
        )

    async def explain(self, form: schemas.ExplainForm) -> Picture:
        """Draw the heat map of a match."""
        uploads = await _read_uploads(form)
        find = self._recommend if form.liked or form.liked_image else self._search

        def draw() -> Picture:
            state = self.state(form.version, form.match)
            found = find(state, form, uploads)
            if len(found) != 1 or found[0].embedding is None:
                raise QueryError("several answers cannot be explained at once: ask for one")
            return draw_heat_map(state.library, form.match, found[0].embedding)

        return await self._run(draw, embeds=True)

    async def picture(self, row: int, version: str | None, size: Size | None = None) -> Picture:
        """Return an image, or a small copy of it."""
        path = str(self.state(version, row).library.paths[row])
        read = partial(self._thumbnails.get, size=size) if size else read_original
        return await to_thread.run_sync(read, path, limiter=self._reading)

    async def page(
        self, offset: int, limit: int, where: str | None, version: str | None
    ) -> dict[str, Any]:
        """List images, as `schemas.Page`."""

        def list_images() -> dict[str, Any]:
            state = self.state(version)
            conditions = None if where is None else read_where(where)
            rows = state.library.page(offset, limit, conditions)
            return {
                "version": state.version,
                "total": state.library.count(conditions),
                "images": [schemas.image(state.library, state.version, row) for row in rows],
            }

        return await self._run(list_images)

    async def library(self) -> dict[str, Any]:
        """Describe what is served, as `schemas.Library`."""
        return await self._run(lambda: self._describe(self.manager.state))

    def state(self, version: str | None = None, *rows: int) -> State:
        """Return the served state; raise if it is not `version`, or has no such rows."""
        state = self.manager.state
        if version is not None and version != state.version:
            raise HTTPException(
                409, "the library has changed since; read /api/library and ask again"
            )
        for row in rows:
            if not state.library.has_row(row):
                raise HTTPException(404, f"there is no row {row}")
        return state

    async def _run(self, function: Callable[[], _T], *, embeds: bool = False) -> _T:
        """Run a function on a thread; `embeds` tells whether it has images to embed."""
        limiter = self._embedding if embeds else self._ranking
        return await to_thread.run_sync(function, limiter=limiter)

    async def _answer(
        self, form: _Form, find: Callable[[State, _Form, Uploads], list[Matches]], *, embeds: bool
    ) -> dict[str, Any]:
        uploads = await _read_uploads(form)

        def answer() -> dict[str, Any]:
            start = time.perf_counter()
            state = self.state(form.version)
            found = find(state, form, uploads)
            return {
                "version": state.version,
                "answers": [schemas.answer(state.library, state.version, each) for each in found],
                "milliseconds": round(1000 * (time.perf_counter() - start), 3),
            }

        return await self._run(answer, embeds=embeds)

    def _search(self, state: State, form: schemas.SearchForm, uploads: Uploads) -> list[Matches]:
        """Search with rows, images and URLs; no text of a request is used as a path."""
        self._check_counts(form.k, form.row, form.image, form.url)
        if form.url and not self.settings.urls:
            raise QueryError("url: this server fetches no URLs; send the image itself")
        options = form.options()
        images = [*uploads["image"], *fetch_images(form.url, self.settings.max_bytes)]
        queries: Any = [*form.row, *images]
        if not queries:
            raise QueryError("no query: give a row, an image, or a URL")
        if len(queries) == 1 and not options.keys() & {"combine", "weights"}:
            (queries,) = queries
        with self._decoding.reserve(images):
            found = search(state.library, queries, index=state.index, **options)
        return [found] if isinstance(found, Matches) else found

    def _recommend(
        self, state: State, form: schemas.RecommendForm, uploads: Uploads
    ) -> list[Matches]:
        liked, disliked = uploads["liked_image"], uploads["disliked_image"]
        self._check_counts(form.k, form.liked, form.disliked, liked, disliked)
        with self._decoding.reserve([*liked, *disliked]):
            found = recommend(
                state.library,
                [*form.liked, *liked],
                [*form.disliked, *disliked],
                index=state.index,
                **form.recommend_options(),
            )
        return [found]

    def _check_counts(self, k: int | None, *queries: Sequence[object]) -> None:
        settings = self.settings
        if k is not None and k > settings.max_matches:
            raise QueryError(f"k={k}: this server gives up to {settings.max_matches} matches")
        count = sum(map(len, queries))
        if count > settings.max_queries:
            raise QueryError(f"{count} queries: ask with up to {settings.max_queries} at once")

    def _describe(self, state: State) -> dict[str, Any]:
        library, settings = state.library, self.settings
        folders, columns = library.overview()
        return {
            "version": state.version,
            "images": len(library),
            "dim": library.dim,
            "backbone": library.source.backbone if library.source else None,
            "head": repr(library.head) if library.head else None,
            "index": state.index_kind,
            "folders": [{"name": name, "images": count} for name, count in folders],
            "columns": columns,
            "urls": settings.urls,
            "embeds": state.embeds,
            "explains": state.embeds,
            "limits": {"bytes": settings.max_bytes, "pixels": settings.max_pixels},
            "matches": settings.max_matches,
            "auto_threshold": library.threshold() if len(library) > 1 else None,
            "skipped": state.skipped,
        }


async def _read_uploads(form: BaseModel) -> Uploads:
    """Return the files of a form's fields for images, by field."""
    names = {"image", "liked_image", "disliked_image"} & type(form).model_fields.keys()
    return {name: [await file.read() for file in getattr(form, name)] for name in names}
