"""uvicorn's HTTP protocol, with limits on connections, heads, and readers that do not read."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from simsearch.web.connections import ConnectionLimit

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastapi import FastAPI

    from simsearch.web.settings import Settings

MAX_HEAD_BYTES = 2**16  # and of what follows a body, such as trailers
HEAD_SECONDS = 20.0  # for a head to arrive
BODY_LEFT_SECONDS = 5.0  # for the rest of a body that was answered already
READ_SECONDS = 20.0  # in which a client has to read what waits, or so many bytes each second:
MIN_READ_RATE = 2048
IDLE, LEFT_BODY, HEAD, BODY, SLOW_READER = range(
    5
)  # states that can give way, the first ones first


def uvicorn_config(app: FastAPI) -> uvicorn.Config:
    """Return how uvicorn runs the app."""
    settings: Settings = app.state.service.settings
    proxies = ["127.0.0.1", "::1", *settings.trusted_proxies]
    return uvicorn.Config(
        app,
        http=limited_protocol(ConnectionLimit(settings.max_connections)),
        ws="none",  # none is spoken, and the limits of HTTP would not hold
        access_log=False,  # it would log tokens
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=5,
        forwarded_allow_ips=proxies,  # whose word on a client's address is taken
    )


def limited_protocol(limit: ConnectionLimit) -> type[LimitedProtocol]:
    """Return a protocol whose connections share a limit."""
    return type("LimitedProtocol", (LimitedProtocol,), {"limit": limit})


class LimitedProtocol(HttpToolsProtocol):
    """Drops connections that are too many, heads that do not end, answers that are not read.

    httptools and uvicorn have no limits of these kinds.
    """

    limit = ConnectionLimit(2**31)
    address = ""
    since = 0.0
    _head_bytes = 0  # received since the last part of a body
    _state: int | None = HEAD
    _timer: asyncio.TimerHandle | None = None  # of what the client has to do next
    _read_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the timer for the first head, if there is room."""
        fits = self.limit.make_room(self.connections)  # type: ignore[arg-type]
        super().connection_made(transport)
        self.address = self.client[0] if self.client else ""
        if not fits:
            self.drop()
            return
        self._wait_for(HEAD, HEAD_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timers."""
        self._stop_timer()
        self._stop_read_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse data, and reject a head that is too long."""
        self._head_bytes += len(data)
        super().data_received(data)
        if self._head_bytes > MAX_HEAD_BYTES:
            self._reject()

    def on_message_begin(self) -> None:
        """Start the timer for a further head on the same connection."""
        super().on_message_begin()
        self._wait_for(HEAD, HEAD_SECONDS)

    def on_headers_complete(self) -> None:
        """Stop the timer: the app has limits of its own for the body."""
        self._wait_for(BODY)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Pass on a part of a body."""
        self._head_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Note that the whole request is there."""
        super().on_message_complete()
        if self.cycle.response_complete:
            self._wait_for(IDLE, self.timeout_keep_alive)
        else:
            self._wait_for(None)

    def on_response_complete(self) -> None:
        """Wait for the next request; for the rest of this one, if it was answered before that."""
        super().on_response_complete()
        if self.transport.is_closing():
            self._start_read_timer()  # for what is still to be sent
        elif self._state == BODY:
            self._wait_for(LEFT_BODY, BODY_LEFT_SECONDS)
        elif self._state in {None, SLOW_READER} and not self.pipeline:
            self._wait_for(IDLE, self.timeout_keep_alive)

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection without a further request, and do not wait for its reader for ever."""
        super().timeout_keep_alive_handler()
        self._start_read_timer()

    def pause_writing(self) -> None:
        """Start the timer: the client does not read as fast as it is answered."""
        super().pause_writing()
        if self._state is None:
            self._state, self.since = SLOW_READER, time.monotonic()
        self._start_read_timer()

    def resume_writing(self) -> None:
        """Stop the timer."""
        super().resume_writing()
        if self._state == SLOW_READER:
            self._state = None
        self._stop_read_timer()

    @property
    def idle_rank(self) -> int | None:
        """How little this connection would be missed; None while its request is answered."""
        return self._state

    def drop(self) -> None:
        """Close at once, unsent bytes included."""
        self.connections.discard(self)
        self.transport.abort()

    def _wait_for(self, state: int | None, seconds: float | None = None) -> None:
        """Enter a state; the client has so much time to leave it."""
        self._stop_timer()
        self._state, self.since = state, time.monotonic()
        if seconds is not None:
            late: dict[int | None, Callable[[], None]] = {
                LEFT_BODY: self.drop,
                IDLE: self.timeout_keep_alive_handler,
            }
            self._timer = self.loop.call_later(seconds, late.get(state, self._reject))

    def _stop_timer(self) -> None:
        self._head_bytes = 0
        if self._timer:
            self._timer.cancel()

    def _start_read_timer(self) -> None:
        self._stop_read_timer()
        waiting = self.transport.get_write_buffer_size()
        self._read_timer = self.loop.call_later(READ_SECONDS, self._check_reader, waiting)

    def _check_reader(self, waiting: int) -> None:
        """Drop a client that has read less than the least rate since the timer began."""
        self._read_timer = None
        if waiting - self.transport.get_write_buffer_size() < MIN_READ_RATE * READ_SECONDS:
            self.drop()
        else:
            self._start_read_timer()

    def _stop_read_timer(self) -> None:
        if self._read_timer:
            self._read_timer.cancel()
            self._read_timer = None

    def _reject(self) -> None:
        if not self.transport.is_closing():
            self.send_400_response("The request has no end.")
            self._start_read_timer()
