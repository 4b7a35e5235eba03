"""What one request may take: its share of the server, the time its body takes, the time of work."""

from __future__ import annotations

import math
import time
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel
from starlette.exceptions import HTTPException

from simsearch.web.problems import problem
from simsearch.work import CHECK

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

METHODS_WITHOUT_BODY = {"GET", "HEAD", "OPTIONS"}
ADDRESS_SHARE = 0.8  # of what all clients may have together, one address may have so much


class Share:
    """A limited number that requests take parts of; no address takes all of it.

    Parameters
    ----------
    limit
        What all requests may have together.

    Attributes
    ----------
    taken : int
    """

    def __init__(self, limit: int) -> None:
        self._limit, self._own_limit = limit, math.ceil(ADDRESS_SHARE * limit)
        self.taken, self._by_address = 0, Counter[str]()

    def fits(self, address: str, size: int = 1) -> bool:
        """Tell whether a request of this address may have so much more."""
        own = self._by_address[address] + size
        return self.taken + size <= self._limit and own <= self._own_limit

    def take(self, address: str, size: int = 1) -> None:
        """Count what a request takes; a negative size gives it back."""
        self.taken += size
        self._by_address[address] += size
        if not self._by_address[address]:
            del self._by_address[address]


class BodyRate:
    """The least rate at which a body has to arrive; short pauses are made good by what came.

    Parameters
    ----------
    rate
        Bytes per second.
    seconds
        How long a body may fall behind that.
    """

    def __init__(self, rate: int, seconds: float) -> None:
        self._rate, self._seconds = rate, seconds
        self.left = seconds

    def record(self, size: int, seconds: float) -> None:
        """Count bytes that have arrived after so many seconds of waiting."""
        self.left = min(self._seconds, self.left - seconds + size / self._rate)


class Work:
    """The work of one request: it stops when its time is up, or its client has left.

    Parameters
    ----------
    seconds
        From when the whole request is there to the start of its response.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds, self._deadline = seconds, math.inf
        self._complete, self._left = anyio.Event(), anyio.Event()
        self._started = self._finished = False  # the response
        self._scope = anyio.CancelScope()

    async def run(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Call an app; if it is stopped before it begins to answer, answer with status 503."""
        error: Exception | None = None
        token = CHECK.set(self.check)
        try:
            async with anyio.create_task_group() as tasks:
                if scope["method"] in METHODS_WITHOUT_BODY:
                    self._begin()
                tasks.start_soon(self._watch, receive)
                with self._scope:
                    try:
                        await app(scope, partial(self._receive, receive), partial(self._send, send))
                    except Exception as raised:  # a task group would wrap it
                        error = raised
                tasks.cancel_scope.cancel()
        finally:
            CHECK.reset(token)
        if error is not None:
            raise error
        if not self._started and not self._left.is_set():
            await problem(503, self._late)(scope, receive, send)

    def check(self) -> None:
        """Raise if this work is to stop; called by the threads that do it."""
        if self._left.is_set():
            raise HTTPException(503, "the client has left")
        if not self._started and time.monotonic() > self._deadline:
            raise HTTPException(503, self._late)

    @property
    def _late(self) -> str:
        return (
            f"this took over {self._seconds:g} seconds; ask for less at once, such as fewer "
            "conditions or images, or again when the server is less busy"
        )

    def _begin(self) -> None:
        """Start the time of the work: the request is there."""
        self._complete.set()
        self._deadline = time.monotonic() + self._seconds
        self._scope.deadline = anyio.current_time() + self._seconds

    async def _watch(self, receive: Receive) -> None:
        """Stop the work when the client leaves before it has the answer."""
        await self._complete.wait()
        while (await receive())["type"] != "http.disconnect":
            pass  # the body of a request that needs none
        self._left.set()
        if not self._finished:
            self._scope.cancel()

    async def _receive(self, receive: Receive) -> Message:
        if self._complete.is_set():  # `_watch` receives what is left
            await self._left.wait()
            return {"type": "http.disconnect"}
        message = await receive()
        if message["type"] == "http.disconnect":
            self._left.set()
        if not message.get("more_body", False):
            self._begin()
        return message

    async def _send(self, send: Send, message: Message) -> None:
        if not self._started:
            await anyio.lowlevel.checkpoint_if_cancelled()  # a thread may have ended after its time
            self._started, self._scope.deadline = True, math.inf
        is_body = message["type"] == "http.response.body"
        self._finished = is_body and not message.get("more_body", False)
        await send(message)
