"""uvicorn's HTTP protocol, with limits on the bytes and seconds of a request's head."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

if TYPE_CHECKING:
    from fastapi import FastAPI

MAX_HEAD_BYTES = 2**16  # and of what follows a body, such as trailers
HEAD_SECONDS = 20.0  # for a head to arrive


def uvicorn_config(app: FastAPI) -> uvicorn.Config:
    """Return how uvicorn runs the app."""
    return uvicorn.Config(
        app,
        http=HeadLimitsProtocol,
        access_log=False,  # it would log tokens
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=5,
    )


class HeadLimitsProtocol(HttpToolsProtocol):
    """Rejects endless heads; httptools itself has no limits."""

    _head_bytes = 0  # received since the last part of a body
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the timer for the first head."""
        super().connection_made(transport)
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timer."""
        self._stop_timer()
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
        self._start_timer()

    def on_headers_complete(self) -> None:
        """Stop the timer: the app has limits of its own for the body."""
        self._stop_timer()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Pass on a part of a body."""
        self._head_bytes = 0
        super().on_body(body)

    def _start_timer(self) -> None:
        self._stop_timer()
        self._timer = self.loop.call_later(HEAD_SECONDS, self._reject)

    def _stop_timer(self) -> None:
        self._head_bytes = 0
        if self._timer:
            self._timer.cancel()

    def _reject(self) -> None:
        if not self.transport.is_closing():
            self.send_400_response("The request has no end.")
