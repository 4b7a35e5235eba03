"""The process that tells whether a server is up: on a port of its own, whatever the server does.

Run as a file, with the descriptors of a listening socket and of one on which the server's event
loop sends its answer, a line each second. It is answered for as long as lines come, with status 503
after that. It loads nothing but the standard library, so that it is small and never waits.
"""

from __future__ import annotations

import json
import selectors
import signal
import socket
import sys
import time
from contextlib import suppress

LATE_SECONDS = 10.0  # without a line from the event loop
MAX_CONNECTIONS = 64  # the oldest one gives way
SECONDS, MAX_HEAD_BYTES = 5.0, 8192  # for a request
CHUNK_BYTES = 65_536


class HealthServer:
    """Answers every request with the last line that came.

    Parameters
    ----------
    listening
        Takes connections.
    lines
        From the server; its end ends this one.
    """

    def __init__(self, listening: socket.socket, lines: socket.socket) -> None:
        self._listening, self._lines = listening, lines
        self._answer, self._answered, self._part = b"", -LATE_SECONDS, b""
        self._heads: dict[socket.socket, tuple[float, bytes]] = {}  # since when, and what came
        self._selector = selectors.DefaultSelector()
        for each in (listening, lines):
            each.setblocking(False)
            self._selector.register(each, selectors.EVENT_READ)

    def run(self) -> None:
        """Answer until the server has gone."""
        while True:
            ready = {key.fileobj for key, _ in self._selector.select(1.0)}
            if self._lines in ready and not self._read_lines():
                return
            for each in ready - {self._lines, self._listening}:
                self._read(each)  # type: ignore[arg-type]
            if self._listening in ready:
                self._accept()
            now = time.monotonic()
            for each in [one for one, (since, _) in self._heads.items() if now - since > SECONDS]:
                self._close(each)

    def _read_lines(self) -> bool:
        """Take over the last whole line; False at the end."""
        with suppress(BlockingIOError):
            data = self._lines.recv(CHUNK_BYTES)
            if not data:
                return False
            *lines, self._part = (self._part + data).split(b"\n")
            if lines:
                self._answer, self._answered = lines[-1], time.monotonic()
        return True

    def _accept(self) -> None:
        with suppress(OSError):
            connection = self._listening.accept()[0]
            connection.setblocking(False)
            if len(self._heads) >= MAX_CONNECTIONS:
                self._close(next(iter(self._heads)))
            self._heads[connection] = time.monotonic(), b""
            self._selector.register(connection, selectors.EVENT_READ)
            self._read(connection)  # which is mostly there already

    def _read(self, connection: socket.socket) -> None:
        """Read a part of a request, and answer it once its head is there."""
        if connection not in self._heads:  # it gave way a moment ago
            return
        try:
            data = connection.recv(CHUNK_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        since, head = self._heads[connection]
        head += data
        if b"\r\n\r\n" in head:
            with suppress(OSError):
                connection.send(self._response(head))
        elif data and len(head) < MAX_HEAD_BYTES:
            self._heads[connection] = since, head
            return
        self._close(connection)

    def _response(self, head: bytes) -> bytes:
        late = time.monotonic() - self._answered
        status, kind, body = b"200 OK", b"application/json", self._answer
        if late > LATE_SECONDS:
            detail = f"the server has not moved for {late:.0f} seconds"
            problem = {"type": "about:blank", "title": "Service Unavailable", "status": 503}
            status, kind = b"503 Service Unavailable", b"application/problem+json"
            body = json.dumps(problem | {"detail": detail}).encode()
        fields = b"Content-Type: %b\r\nContent-Length: %d\r\n" % (kind, len(body))
        fields += b"Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n"
        content = b"" if head.startswith(b"HEAD ") else body
        return b"HTTP/1.1 %b\r\n%bConnection: close\r\n\r\n%b" % (status, fields, content)

    def _close(self, connection: socket.socket) -> None:
        del self._heads[connection]
        self._selector.unregister(connection)
        connection.close()


def main() -> None:
    """Answer on the sockets whose descriptors were given."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, whose end ends this
    listening, lines = (socket.socket(fileno=int(each)) for each in sys.argv[1:3])
    with listening, lines:
        HealthServer(listening, lines).run()


if __name__ == "__main__":
    main()
