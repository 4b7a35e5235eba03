"""Service behind the API: reads a request, calls the library on a thread, describes the answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import anyio
from anyio import to_thread
from starlette.exceptions import HTTPException

from simsearch.analysis.suggested_parts import suggest_parts
from simsearch.backbones.precision import usable_cores
from simsearch.errors import QueryError
from simsearch.library.parts import has_parts
from simsearch.retrieval.matches import Matches
from simsearch.retrieval.recommend import recommend
from simsearch.retrieval.search import search
from simsearch.retrieval.words import Words, takes_words
from simsearch.web import schemas
from simsearch.web.answer_cache import AnswerCache
from simsearch.web.copy_search import CopySearch
from simsearch.web.decoder_pool import DecoderPool
from simsearch.web.json_bodies import IMAGE_FIELDS
from simsearch.web.library_manager import LibraryManager, State
from simsearch.web.map_view import Method, draw_map
from simsearch.web.problems import encode_json
from simsearch.web.shapes import Shapes
from simsearch.web.thumbnails import (
    Original,
    Picture,
    Size,
    Thumbnails,
    draw_heat_map,
    open_original,
)
from simsearch.web.uploads import PixelBudget, fetch_images
from simsearch.web.warm_up import warm_up
from simsearch.web.where import check_cost, read_where

if TYPE_CHECKING:
    from pydantic import BaseModel

    from simsearch.web.metrics import Metrics
    from simsearch.web.settings import Settings

_T = TypeVar("_T")
_Form = TypeVar("_Form", schemas.SearchForm, schemas.RecommendForm)
Uploads: TypeAlias = dict[str, list[bytes]]
REFRESH_SECONDS = 1.0  # between checks whether the library has changed
MIN_DECODERS = 3  # a large picture holds one; small ones pass it
CACHED_ANSWER_BYTES = 32 * 2**20
REGION_WEIGHT = 4  # the parts of a picture take so many times its pixels


class Service:
    """The calls of the API: a served library, its thumbnails, and threads to work on.

    Parameters
    ----------
    settings
        Which library, and the limits.
    metrics
        Counts batches and reloads.
    decoders
        Those of another library in the same process; by default its own.

    Attributes
    ----------
    manager : LibraryManager
    copies : CopySearch
    """

    def __init__(
        self, settings: Settings, metrics: Metrics, decoders: DecoderPool | None = None
    ) -> None:
        self.settings, self._metrics = settings, metrics
        self.manager = LibraryManager(settings, metrics.batch.observe)
        self.thumbnails = Thumbnails(self.manager.cache)
        # Ranking is fastest with one thread per core. Embedding requests need many threads, as only
        # requests that wait at the same time form a batch.
        self._ranking = anyio.CapacityLimiter(usable_cores())
        self._embedding = anyio.CapacityLimiter(settings.workers)
        self._reading = anyio.CapacityLimiter(settings.workers)
        self._mapping = anyio.CapacityLimiter(1)  # each takes seconds and all cores
        self.decoders = decoders or DecoderPool(
            max(MIN_DECODERS, usable_cores()), settings.decoding_bytes
        )
        self.copies = CopySearch(self.decoders)
        self._decoding = PixelBudget(
            settings.max_decoding, settings.max_pixels, self.decoders.measure
        )
        self._shapes = Shapes(self.decoders)
        self._answers = AnswerCache(CACHED_ANSWER_BYTES)
        metrics.images.set(len(self.manager.state.library))

    def close(self) -> None:
        """End threads and processes, and close the library."""
        self.copies.close()
        self.manager.close()
        self.decoders.close()
        self.thumbnails.close()

    async def watch_library(self) -> None:
        """Reload the library whenever it changes, until cancelled."""
        while True:
            await anyio.sleep(REFRESH_SECONDS)
            if await to_thread.run_sync(self.manager.refresh):
                self._metrics.reloads.inc()
                self._metrics.images.set(len(self.manager.state.library))
                if self.settings.warm_up:
                    await warm_up(self, self._metrics)

    async def search(self, form: schemas.SearchForm, *, shapes: bool = False) -> bytes:
        """Answer a search: JSON of `schemas.Answers`; with the shapes of matches, if asked."""
        embeds = bool(form.image or form.url or form.text or form.box or form.regions)
        return await self._answer(form, self._search, embeds=embeds, shapes=shapes)

    async def recommend(self, form: schemas.RecommendForm, *, shapes: bool = False) -> bytes:
        """Answer a recommendation: JSON of `schemas.Answers`."""
        texts = form.liked_text or form.disliked_text
        embeds = bool(form.liked_image or form.disliked_image or texts)
        return await self._answer(form, self._recommend, embeds=embeds, shapes=shapes)

    async def explain(self, form: schemas.ExplainForm) -> Picture:
        """Draw the heat map of a match."""
        uploads = await _read_uploads(form)
        find = (
            self._recommend if form.liked or form.liked_image or form.liked_text else self._search
        )

        def draw() -> Picture:
            state = self.state(form.version, form.match)
            found = find(state, form, uploads)
            if len(found) != 1 or found[0].embedding is None:
                raise QueryError("several answers cannot be explained at once: ask for one")
            return draw_heat_map(state.library, form.match, found[0].embedding)

        return await self._run(draw, self._embedding)

    async def suggest(self, form: schemas.SuggestForm) -> bytes:
        """Suggest parts of a picture to search with: JSON of `schemas.Parts`."""
        images = (await _read_uploads(form))["image"]

        def look() -> bytes:
            state = self.state(form.version, *form.row)
            pictures: list[str | bytes] = [
                *(str(state.library.paths[row]) for row in form.row),
                *images,
            ]
            if len(pictures) != 1:
                raise QueryError(f"{len(pictures)} pictures: give one, by row or by image")
            with self._decoding.reserve(images):
                parts = suggest_parts(state.library.backbone, pictures[0])
            return encode_json({"version": state.version, "parts": parts})

        return await self._run(look, self._embedding)

    async def thumbnail(self, row: int, version: str | None, size: Size) -> Picture:
        """Return a small copy of an image."""
        path = str(self.state(version, row).library.paths[row])
        return await self._run(partial(self.thumbnails.get, path, size), self._reading)

    async def original(self, row: int, version: str | None) -> Original:
        """Open an image."""
        path = str(self.state(version, row).library.paths[row])
        return await self._run(partial(open_original, path), self._reading)

    async def page(
        self,
        offset: int,
        limit: int,
        where: str | None,
        version: str | None,
        *,
        shapes: bool = False,
    ) -> bytes:
        """List images: JSON of `schemas.Page`; with their shapes, if asked."""

        def list_images(state: State) -> dict[str, Any]:
            conditions = None if where is None else read_where(where)
            check_cost(conditions, len(state.library))
            rows = state.library.page(offset, limit, conditions)
            images = [schemas.image(state.library, state.version, row) for row in rows]
            if shapes:
                self._shapes.add(images, state.library.paths)
            total = state.library.count(conditions)
            return {"version": state.version, "total": total, "images": images}

        state = self.state(version)
        return await self._run(
            lambda: self._answers.get(state, (offset, limit, where, shapes), list_images)
        )

    async def map(self, method: Method, version: str | None) -> bytes:
        """Draw the map of the library: JSON of `schemas.Map`."""
        state = self.state(version)
        draw = partial(draw_map, method=method)
        return await self._run(
            lambda: self._answers.get(state, ("map", method), draw), self._mapping
        )

    async def library(self) -> bytes:
        """Describe what is served: JSON of `schemas.Library`."""
        state = self.manager.state
        describe = partial(_describe, settings=self.settings)
        return await self._run(lambda: self._answers.get(state, "library", describe))

    def health(self) -> bytes:
        """Tell that the server is up: JSON of `schemas.Health`."""
        state = self.manager.state
        content = schemas.Health(status="ok", images=len(state.library), version=state.version)
        return encode_json(content.model_dump())

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

    async def _run(
        self, function: Callable[[], _T], limiter: anyio.CapacityLimiter | None = None
    ) -> _T:
        """Run a function on a thread, by default one of those that rank."""

        def run() -> _T:
            with self.decoders.in_use():
                return function()

        return await to_thread.run_sync(run, limiter=limiter or self._ranking)

    async def _answer(
        self,
        form: _Form,
        find: Callable[[State, _Form, Uploads], list[Matches]],
        *,
        embeds: bool,
        shapes: bool,
    ) -> bytes:
        uploads = await _read_uploads(form)

        def answer() -> bytes:
            start = time.perf_counter()
            state = self.state(form.version)
            found = find(state, form, uploads)
            milliseconds = round(1000 * (time.perf_counter() - start), 3)
            answers = [schemas.answer(state.library, state.version, each) for each in found]
            if shapes:
                for each in answers:
                    self._shapes.add(each["matches"], state.library.paths)
            content = {"version": state.version, "answers": answers, "milliseconds": milliseconds}
            return encode_json(content)  # here: thousands of matches would hold the event loop

        return await self._run(answer, self._embedding if embeds else None)

    def _search(self, state: State, form: schemas.SearchForm, uploads: Uploads) -> list[Matches]:
        """Search with rows, images and URLs; no text of a request is used as a path."""
        _check_counts(self.settings, form.k, form.row, form.image, form.url, form.text)
        if form.url and not self.settings.urls:
            raise QueryError("url: this server fetches no URLs; send the image itself")
        options = form.options()
        check_cost(options.get("where"), len(state.library))
        images = [*uploads["image"], *fetch_images(form.url, self.settings.max_bytes)]
        queries: Any = [*form.row, *images, *map(Words, form.text)]
        if not queries:
            raise QueryError("no query: give a row, an image, a URL, or words")
        if len(queries) == 1 and not options.keys() & {"combine", "weights"}:
            (queries,) = queries
        weight = REGION_WEIGHT if form.regions else 1
        with self._decoding.reserve(images, weight):
            found = search(state.library, queries, index=state.index_for(options), **options)
        return [found] if isinstance(found, Matches) else found

    def _recommend(
        self, state: State, form: schemas.RecommendForm, uploads: Uploads
    ) -> list[Matches]:
        liked, disliked = uploads["liked_image"], uploads["disliked_image"]
        likes = [*form.liked, *liked, *map(Words, form.liked_text)]
        dislikes = [*form.disliked, *disliked, *map(Words, form.disliked_text)]
        _check_counts(self.settings, form.k, likes, dislikes)
        options = form.recommend_options()
        check_cost(options.get("where"), len(state.library))
        with self._decoding.reserve([*liked, *disliked]):
            found = recommend(
                state.library,
                likes,
                dislikes,
                index=state.index,
                **options,
            )
        return [found]


async def _read_uploads(form: BaseModel) -> Uploads:
    """Return the files of a form's fields for images, by field."""
    names = IMAGE_FIELDS & type(form).model_fields.keys()
    return {name: [await file.read() for file in getattr(form, name)] for name in names}


def _check_counts(settings: Settings, k: int | None, *queries: Sequence[object]) -> None:
    if k is not None and k > settings.max_matches:
        raise QueryError(f"k={k}: this server gives up to {settings.max_matches} matches")
    count = sum(map(len, queries))
    if count > settings.max_queries:
        raise QueryError(f"{count} queries: ask with up to {settings.max_queries} at once")


def _describe(state: State, settings: Settings) -> dict[str, Any]:
    library = state.library
    folders, columns = library.overview()
    return {
        "version": state.version,
        "name": settings.name,
        "libraries": list(settings.libraries),
        "images": len(library),
        "dim": library.dim,
        "backbone": library.source.backbone if library.source else None,
        "head": repr(library.head) if library.head else None,
        "index": state.index_kind,
        "folders": [{"name": name, "images": count} for name, count in folders],
        "columns": columns,
        "urls": settings.urls,
        "embeds": state.embeds,
        "words": takes_words(library.source),
        "explains": state.embeds,
        "parts": has_parts(library),
        "limits": {"bytes": settings.max_bytes, "pixels": settings.max_pixels},
        "matches": settings.max_matches,
        "auto_threshold": library.threshold() if len(library) > 1 else None,
        "skipped": state.skipped,
    }
