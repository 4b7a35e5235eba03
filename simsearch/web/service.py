"""What the server does: read what was asked, call the library on a thread, describe the answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
from anyio import to_thread
from starlette.exceptions import HTTPException

from simsearch.embedding.batching import cpu_count
from simsearch.errors import ImageError, QueryError
from simsearch.images.decode import read_header
from simsearch.images.download import DOWNLOAD_SECONDS
from simsearch.retrieval.matches import Matches
from simsearch.retrieval.recommend import recommend
from simsearch.retrieval.search import search
from simsearch.web import schemas as forms
from simsearch.web.library_manager import Keeper, State
from simsearch.web.thumbnails import Picture, Size, Thumbnails, heat, original, scans
from simsearch.web.url_fetch import fetch

if TYPE_CHECKING:
    from fastapi import UploadFile

    from simsearch.web.metrics import Measures
    from simsearch.web.settings import Settings

_T = TypeVar("_T")
_LOOK = 1.0  # seconds between looks at whether the library has changed
_SCANS = 100  # of a JPEG; a progressive one has about ten


class Service:
    """One library, its pictures, and the threads that work on them."""

    def __init__(self, settings: Settings, measures: Measures) -> None:
        self.settings, self._measures = settings, measures
        self.keeper = Keeper(settings, measures.batch.observe)
        self._thumbnails = Thumbnails(self.keeper.cache)
        # What only reads memory is quickest with a thread a core; what waits for the network has
        # to wait together with others, or there would be no batches.
        self._ranking = anyio.CapacityLimiter(cpu_count())
        self._embedding = anyio.CapacityLimiter(settings.workers)
        self._looking = anyio.CapacityLimiter(settings.workers)
        self._decoding = Room(settings.max_decoding)
        measures.images.set(len(self.keeper.state.library))

    async def look_after(self) -> None:
        """Take up a library that has been embedded again, as long as the server runs."""
        while True:
            await anyio.sleep(_LOOK)
            if await to_thread.run_sync(self.keeper.refresh):
                self._measures.reloads.inc()
                self._measures.images.set(len(self.keeper.state.library))

    async def search(self, form: forms.SearchForm) -> dict[str, Any]:
        """Answer a search, as `forms.Answers`."""
        uploads = await _received(form.image)
        new = bool(uploads or form.url or form.box or form.regions)
        return await self._asked(lambda: self._answers(form, uploads), new=new)

    async def recommend(self, form: forms.RecommendForm) -> dict[str, Any]:
        """Answer a recommendation, as `forms.Answers`."""
        uploads = await _received(form.liked_image), await _received(form.disliked_image)
        new = any(uploads)
        return await self._asked(lambda: self._recommended(form, *uploads), new=new)

    async def explain(self, form: forms.ExplainForm) -> Picture:
        """Draw what makes an image of the library a match."""
        liked = await _received(form.liked_image), await _received(form.disliked_image)
        uploads = await _received(form.image)

        def draw() -> Picture:
            state = self.state(form.version, form.match)
            if form.liked or form.liked_image:
                found = [self._recommend(state, form, *liked)]
            else:
                found = self._search(state, form, uploads)
            if len(found) != 1 or found[0].embedding is None:
                raise QueryError("several answers cannot be explained at once: ask for one")
            return heat(found[0], form.match, 512)

        return await self._asked(draw, new=True)

    async def thumbnail(self, row: int, version: str | None, size: Size) -> Picture:
        """Return a small copy of an image."""
        path = self.state(version, row).library.paths[row]
        return await to_thread.run_sync(
            self._thumbnails.get, str(path), size, limiter=self._looking
        )

    async def original(self, row: int, version: str | None) -> Picture:
        """Return an image."""
        path = self.state(version, row).library.paths[row]
        return await to_thread.run_sync(original, str(path), limiter=self._looking)

    async def page(
        self, offset: int, limit: int, where: str | None, version: str | None
    ) -> dict[str, Any]:
        """List images, as `forms.Page`."""

        def listed() -> dict[str, Any]:
            state = self.state(version)
            asked = None if where is None else forms.conditions(where)
            rows = state.library.page(offset, limit, asked)
            return {
                "version": state.version,
                "total": state.library.count(asked),
                "images": [forms.image(state.library, state.version, row) for row in rows],
            }

        return await self._asked(listed, new=False)

    async def library(self) -> dict[str, Any]:
        """Describe what is served, as `forms.Library`."""
        return await self._asked(lambda: self._described(self.keeper.state), new=False)

    def state(self, version: str | None = None, *rows: int) -> State:
        """Return what is served now, if that is what a request was made for."""
        state = self.keeper.state
        if version is not None and version != state.version:
            raise HTTPException(
                409, "the library has changed since; read /api/library and ask again"
            )
        for row in rows:
            if not state.library.has_row(row):
                raise HTTPException(404, f"there is no row {row}")
        return state

    async def _asked(self, answer: Callable[[], _T], *, new: bool) -> _T:
        """Work on a thread; `new` tells whether images have to be embedded for it."""
        limiter = self._embedding if new else self._ranking
        return await to_thread.run_sync(answer, limiter=limiter)

    def _answers(self, form: forms.SearchForm, uploads: Sequence[bytes]) -> dict[str, Any]:
        start = time.perf_counter()
        state = self.state(form.version)
        return _in_words(state, self._search(state, form, uploads), start)

    def _recommended(
        self, form: forms.RecommendForm, liked: Sequence[bytes], disliked: Sequence[bytes]
    ) -> dict[str, Any]:
        start = time.perf_counter()
        state = self.state(form.version)
        return _in_words(state, [self._recommend(state, form, liked, disliked)], start)

    def _search(
        self, state: State, form: forms.SearchForm, uploads: Sequence[bytes]
    ) -> list[Matches]:
        """Search with rows, images and addresses; no text of a request is ever a path."""
        self._count(form.k, form.row, uploads, form.url)
        if form.url and not self.settings.urls:
            raise QueryError("url: this server fetches no addresses; send the image itself")
        options = form.options()
        images = [*uploads, *self._fetched(form.url)]
        queries: Any = [*form.row, *images]
        if not queries:
            raise QueryError("no query: give a row, an image, or an address")
        if len(queries) == 1 and not options.keys() & {"combine", "weights"}:
            (queries,) = queries
        with self._decoding.taken(self._pixels(images)):
            found = search(state.library, queries, index=state.index, **options)
        return [found] if isinstance(found, Matches) else found

    def _recommend(
        self,
        state: State,
        form: forms.RecommendForm,
        liked: Sequence[bytes],
        disliked: Sequence[bytes],
    ) -> Matches:
        self._count(form.k, form.liked, form.disliked, liked, disliked)
        with self._decoding.taken(self._pixels([*liked, *disliked])):
            return recommend(
                state.library,
                [*form.liked, *liked],
                [*form.disliked, *disliked],
                index=state.index,
                **form.recommend_options(),
            )

    def _count(self, k: int | None, *queries: Sequence[object]) -> None:
        settings = self.settings
        if k is not None and k > settings.max_matches:
            raise QueryError(f"k={k}: this server gives up to {settings.max_matches} matches")
        if (count := sum(map(len, queries))) > settings.max_queries:
            raise QueryError(f"{count} queries: ask with up to {settings.max_queries} at once")

    def _fetched(self, urls: Sequence[str]) -> list[bytes]:
        """Fetch images, all of them within the limits of an upload, and of one download's time."""
        end = time.monotonic() + DOWNLOAD_SECONDS
        images: list[bytes] = []
        for url in urls:
            images.append(fetch(url, end - time.monotonic()))
            if sum(map(len, images)) > self.settings.max_bytes:
                raise ImageError(f"over {self.settings.max_bytes:,} bytes", url)
        return images

    def _pixels(self, images: Sequence[bytes]) -> int:
        """Look at what images are before any is decoded, and count their pixels."""
        pixels = 0
        for data in images:
            header = read_header(data)
            if header.width * header.height > self.settings.max_pixels:
                raise ImageError(
                    f"{header.width}×{header.height} pixels, over the limit of "
                    f"{self.settings.max_pixels:,}: send a smaller copy"
                )
            if header.format in {"JPEG", "MPO"} and scans(data) > _SCANS:
                raise ImageError(f"over {_SCANS} scans: send another copy")
            pixels += header.width * header.height
        return pixels

    def _described(self, state: State) -> dict[str, Any]:
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
            "explains": True,
            "limits": {"bytes": settings.max_bytes, "pixels": settings.max_pixels},
            "matches": settings.max_matches,
            "auto_threshold": library.threshold() if len(library) > 1 else None,
            "skipped": state.skipped,
        }


class Room:
    """So much of something for everybody together: whoever wants more waits until it is free."""

    def __init__(self, size: int) -> None:
        self._size = self._free = size
        self._changed = threading.Condition()

    @contextmanager
    def taken(self, amount: int) -> Iterator[None]:
        """Hold an amount, or all there is if that is less."""
        amount = min(amount, self._size)
        with self._changed:
            self._changed.wait_for(lambda: self._free >= amount)
            self._free -= amount
        try:
            yield
        finally:
            with self._changed:
                self._free += amount
                self._changed.notify_all()


async def _received(files: Sequence[UploadFile]) -> list[bytes]:
    return [await file.read() for file in files]


def _in_words(state: State, found: Sequence[Matches], start: float) -> dict[str, Any]:
    return {
        "version": state.version,
        "answers": [forms.answer(state.library, state.version, each) for each in found],
        "milliseconds": round(1000 * (time.perf_counter() - start), 3),
    }
