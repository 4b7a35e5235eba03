"""HTTP protocol of uvicorn, with limits on the head of a request."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

if TYPE_CHECKING:
    from fastapi import FastAPI

MAX_HEAD_BYTES = 2**16  # of anything that is not a body
HEAD_SECONDS = 20.0  # for the head of a request to arrive


def uvicorn_config(app: FastAPI) -> uvicorn.Config:
    """Return how uvicorn runs the app."""
    return uvicorn.Config(
        app,
        http=Protocol,
        access_log=False,  # it would log tokens
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=5,
    )


class Protocol(HttpToolsProtocol):
    """Rejects a head that does not end, in bytes or in time; uvicorn's parser would accept any."""

    _read = 0  # bytes since there was something for the app
    _waiting: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for a head."""
        super().connection_made(transport)
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timer."""
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse data, unless the head is already too long."""
        self._read += len(data)
        super().data_received(data)
        if self._read > MAX_HEAD_BYTES:
            self._reject()

    def on_message_begin(self) -> None:
        """Wait for the rest of the head."""
        super().on_message_begin()
        self._start_timer()

    def on_headers_complete(self) -> None:
        """Call the app."""
        self._stop_timer()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Pass a part of the body on; the app has its own limits for it."""
        self._read = 0
        super().on_body(body)

    def _start_timer(self) -> None:
        self._stop_timer()
        self._waiting = self.loop.call_later(HEAD_SECONDS, self._reject)

    def _stop_timer(self) -> None:
        self._read = 0
        if self._waiting:
            self._waiting.cancel()

    def _reject(self) -> None:
        if not self.transport.is_closing():
            self.send_400_response("The request has no end.")
