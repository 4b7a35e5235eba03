"""What the page asks for first, made ready before anybody asks."""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import anyio
from anyio import to_thread

from simsearch.errors import ImageError
from simsearch.images.address import is_uri, local_path
from simsearch.web.page_template import read_page
from simsearch.web.pages import PAGES

if TYPE_CHECKING:
    from simsearch.web.metrics import Metrics
    from simsearch.web.service import Service
    from simsearch.web.thumbnails import Size

LISTED = 60  # pictures of the library that the page asks for at once
SHOWN = 40  # of them, those in view and shortly below it on a wide screen
SHOWN_SIZE: Size = 512
IDLE_SECONDS = 0.5  # without a request, after which a picture is made ready

logger = logging.getLogger("simsearch.web")


async def warm_up(service: Service, metrics: Metrics) -> None:
    """Make the pages, the description of the library, and the thumbnails of its first pictures.

    Only while nobody asks for anything, and one picture at a time, in the processes that decode.
    Pictures at addresses are left until somebody asks for them. What fails is answered when it is
    asked for.
    """
    try:
        for page in PAGES.values():
            await _idle(metrics)
            await to_thread.run_sync(read_page, page)
        await _idle(metrics)
        await service.library()
        await _idle(metrics)
        await service.page(0, LISTED, None, None, shapes=True)
        library = service.state().library
        for row in library.page(0, SHOWN):
            path = str(library.paths[row])
            if not is_uri(local_path(path)):
                await _idle(metrics)
                await to_thread.run_sync(partial(_make_thumbnail, service, path))
    except Exception as error:  # as a database that does not answer: the server goes on
        logger.debug("the first page was not made ready: %s", error)


async def _idle(metrics: Metrics) -> None:
    """Wait until no request has come or been answered for a while."""
    while (left := metrics.last_request + IDLE_SECONDS - time.monotonic()) > 0:
        await anyio.sleep(left)


def _make_thumbnail(service: Service, path: str) -> None:
    with service.decoders.in_use(one_at_a_time=True), suppress(ImageError):
        service.thumbnails.get(path, SHOWN_SIZE)
