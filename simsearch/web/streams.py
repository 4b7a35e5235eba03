"""Responses that are read from a file while they are sent, so that slow readers hold no memory."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import IO, TYPE_CHECKING

from anyio import to_thread
from starlette.responses import Response

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

CHUNK_BYTES = 2**16  # as much as the server buffers of one response


class FileStreamResponse(Response):
    """Sends an open file, a chunk at a time, as fast as the client reads; then closes it.

    Parameters
    ----------
    stream
        Open for reading; what is in it now is sent, from its start.
    media_type
        Of its content.
    headers
        Of the response, besides.
    """

    def __init__(self, stream: IO[bytes], media_type: str, headers: Mapping[str, str]) -> None:
        self._stream, self._size = stream, os.fstat(stream.fileno()).st_size
        super().__init__(
            headers={**headers, "Content-Length": str(self._size)}, media_type=media_type
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Send the file."""
        with self._stream:
            start = {"type": "http.response.start", "status": self.status_code}
            await send({**start, "headers": self.raw_headers})
            left = self._size
            while left > 0:
                size = min(left, CHUNK_BYTES)
                data = await to_thread.run_sync(self._stream.read, size)
                left = left - len(data) if data else 0  # it has been cut meanwhile
                await send({"type": "http.response.body", "body": data, "more_body": left > 0})
            if not self._size:
                await send({"type": "http.response.body", "body": b""})
