"""HTTP as uvicorn speaks it, with an end to what a stranger may send before the app is asked."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

if TYPE_CHECKING:
    from fastapi import FastAPI

_HEAD = 2**16  # bytes of a request's head; of what is no body, at all
_SECONDS = 20.0  # for a head to arrive


def configured(app: FastAPI) -> uvicorn.Config:
    """Choose how uvicorn runs the app."""
    return uvicorn.Config(
        app,
        http=Protocol,
        access_log=False,  # it would write tokens down
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=5,
    )


class Protocol(HttpToolsProtocol):
    """Gives up on a head that does not end, in bytes or in time: its parser would take any."""

    _read = 0  # bytes since there was something for the app
    _waiting: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for a head."""
        super().connection_made(transport)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._arrived()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on, unless all that was read is still no request."""
        self._read += len(data)
        super().data_received(data)
        if self._read > _HEAD:
            self._give_up()

    def on_message_begin(self) -> None:
        """Wait for the rest of the head."""
        super().on_message_begin()
        self._wait()

    def on_headers_complete(self) -> None:
        """Ask the app."""
        self._arrived()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Pass a part of the body on; the app has its own limits for it."""
        self._read = 0
        super().on_body(body)

    def _wait(self) -> None:
        self._arrived()
        self._waiting = self.loop.call_later(_SECONDS, self._give_up)

    def _arrived(self) -> None:
        self._read = 0
        if self._waiting:
            self._waiting.cancel()

    def _give_up(self) -> None:
        if not self.transport.is_closing():
            self.send_400_response("The request has no end.")
