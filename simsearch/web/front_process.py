"""The process in front of a server: it takes the connections, tells health, and passes on the rest.

Run as a file, with descriptors: of a listening socket, of one on which the server's event loop
sends its health, a line each second, and of one to pass connections on. Health is told for as long
as lines come, with status 503 after that. It loads nothing but the standard library, so that it is
small, and waits neither for the server's event loop nor for a thread that computes there.
"""

from __future__ import annotations

import json
import selectors
import signal
import socket
import sys
import time
from collections import deque
from contextlib import ExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

LATE_SECONDS = 10.0  # without a line from the event loop
MAX_HEAD_BYTES = 8192  # of a question about health
PEEK = socket.MSG_PEEK | socket.MSG_DONTWAIT if sys.platform != "win32" else 0
MAX_CONNECTIONS = 64  # at a port for health alone; the oldest one gives way
SECONDS = 5.0  # for a request there
MAX_WAITING = 512  # connections that are not passed on yet; of the address with most, one gives way
SILENT_SECONDS = 20.0  # for the first byte
ACCEPTED_AT_ONCE = 64  # before others are looked at
CHUNK_BYTES = 65_536
FOR_THE_SERVER = {"sec-fetch-site", "content-length", "transfer-encoding", "expect", "upgrade"}


class Health:
    """What is answered: the last line that came from the server's event loop.

    Parameters
    ----------
    lines
        From the server; their end ends this process.
    """

    def __init__(self, lines: socket.socket) -> None:
        self._lines = lines
        self._answer, self._answered, self._part = b"", -LATE_SECONDS, b""
        lines.setblocking(False)

    def read(self) -> bool:
        """Take over the last whole line; False at the end."""
        with suppress(BlockingIOError):
            data = self._lines.recv(CHUNK_BYTES)
            if not data:
                return False
            *lines, self._part = (self._part + data).split(b"\n")
            if lines:
                self._answer, self._answered = lines[-1], time.monotonic()
        return True

    def response(self, head: bytes) -> bytes:
        """Return the response to a request."""
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


class HealthPort:
    """Answers every request at a port for health alone."""

    def __init__(
        self, listening: socket.socket, health: Health, selector: selectors.BaseSelector
    ) -> None:
        self._listening, self._health, self._selector = listening, health, selector
        self._heads: dict[socket.socket, tuple[float, bytes]] = {}  # since when, and what came
        listening.setblocking(False)
        selector.register(listening, selectors.EVENT_READ, self._accept)

    def drop_late(self) -> None:
        """Close connections whose request has not come in time."""
        now = time.monotonic()
        for each in [one for one, (since, _) in self._heads.items() if now - since > SECONDS]:
            self._close(each)

    def close(self) -> None:
        """Close all connections."""
        for each in list(self._heads):
            self._close(each)

    def _accept(self, _: object) -> None:
        with suppress(OSError):
            connection = self._listening.accept()[0]
            connection.setblocking(False)
            if len(self._heads) >= MAX_CONNECTIONS:
                self._close(next(iter(self._heads)))
            self._heads[connection] = time.monotonic(), b""
            self._selector.register(connection, selectors.EVENT_READ, self._read)
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
                connection.send(self._health.response(head))
        elif data and len(head) < MAX_HEAD_BYTES:
            self._heads[connection] = since, head
            return
        self._close(connection)

    def _close(self, connection: socket.socket) -> None:
        del self._heads[connection]
        self._selector.unregister(connection)
        connection.close()


class Waiting:
    """Connections of one address: those that have sent nothing yet, and those to be passed on."""

    def __init__(self) -> None:
        self.silent: dict[socket.socket, float] = {}  # since when, the oldest first
        self.ready: deque[socket.socket] = deque()

    def __len__(self) -> int:
        return len(self.silent) + len(self.ready)


class Entrance:
    """Takes the connections of the server's port.

    Whole questions about health are answered here, whatever else waits. The other connections are
    passed on once they have sent something, as fast as the server takes them, the addresses in
    turn.

    Parameters
    ----------
    listening
        The server's port.
    channel
        Where descriptors of connections are sent; what waits in it is little.
    health
        What is answered.
    asks
        Tells whether data ask for health; see `asks_health`.
    selector
        Calls back.
    """

    def __init__(
        self,
        listening: socket.socket,
        channel: socket.socket,
        health: Health,
        asks: Callable[[bytes], bool],
        selector: selectors.BaseSelector,
    ) -> None:
        self._listening, self._channel, self._health = listening, channel, health
        self._asks, self._selector = asks, selector
        self._waiting: dict[str, Waiting] = {}
        self._address: dict[socket.socket, str] = {}  # of those that have sent nothing
        self._turns: deque[str] = deque()  # addresses with connections to be passed on
        self._count, self._is_full = 0, False
        for each in (listening, channel):
            each.setblocking(False)
        selector.register(listening, selectors.EVENT_READ, self._accept)

    def drop_late(self) -> None:
        """Close connections that have sent nothing for long."""
        before = time.monotonic() - SILENT_SECONDS
        late = [
            each
            for waiting in self._waiting.values()
            for each, since in waiting.silent.items()
            if since < before
        ]
        for each in late:
            self._leave_silent(each)
            each.close()

    def close(self) -> None:
        """Close all connections that are not passed on."""
        for waiting in self._waiting.values():
            for each in (*waiting.silent, *waiting.ready):
                each.close()

    def _accept(self, _: object) -> None:
        for _n in range(ACCEPTED_AT_ONCE):
            try:
                connection, address = self._listening.accept()
            except OSError:  # none is left; or one has gone, and others are taken the next time
                return
            self._take(connection, address[0])

    def _take(self, connection: socket.socket, address: str) -> None:
        data = _peek(connection)
        if data is not None:
            self._decide(connection, address, data)
            return
        self._make_room()
        self._waiting.setdefault(address, Waiting()).silent[connection] = time.monotonic()
        self._address[connection] = address
        self._count += 1
        self._selector.register(connection, selectors.EVENT_READ, self._read)

    def _read(self, connection: socket.socket) -> None:
        """Look at what a connection has sent that was silent until now."""
        if connection not in self._address:  # it gave way a moment ago
            return
        data = _peek(connection)
        if data is not None:
            self._decide(connection, self._leave_silent(connection), data)

    def _decide(self, connection: socket.socket, address: str, data: bytes) -> None:
        """Answer, pass on, or close a connection, by the first bytes that it has sent."""
        if self._asks(data):
            with suppress(OSError):
                connection.recv(len(data))  # what is unread would reset the connection
                connection.send(self._health.response(data), socket.MSG_DONTWAIT)
            connection.close()
        elif not data:  # the client has left
            connection.close()
        else:
            self._make_room()
            waiting = self._waiting.setdefault(address, Waiting())
            if not waiting.ready:
                self._turns.append(address)
            waiting.ready.append(connection)
            self._count += 1
            if not self._is_full:
                self._pass_on(self._channel)

    def _pass_on(self, _: object) -> None:
        """Pass on connections until the channel is full: one of each address in turn."""
        while self._turns:
            address = self._turns[0]
            waiting = self._waiting[address]
            try:
                socket.send_fds(self._channel, [b"."], [waiting.ready[0].fileno()])
            except BlockingIOError:
                self._watch_channel(full=True)
                return
            except OSError:  # the server has gone, or is about to start this process anew
                return
            self._turns.popleft()
            waiting.ready.popleft().close()
            self._count -= 1
            if waiting.ready:
                self._turns.append(address)
            self._forget(address)
        self._watch_channel(full=False)

    def _watch_channel(self, *, full: bool) -> None:
        if full and not self._is_full:
            self._selector.register(self._channel, selectors.EVENT_WRITE, self._pass_on)
        elif self._is_full and not full:
            self._selector.unregister(self._channel)
        self._is_full = full

    def _make_room(self) -> None:
        """Close a connection if there are too many: of the address that has most."""
        if self._count < MAX_WAITING:
            return
        address = max(self._waiting, key=lambda each: len(self._waiting[each]))
        waiting = self._waiting[address]
        if waiting.silent:
            given_way = next(iter(waiting.silent))
            self._leave_silent(given_way)
        else:
            given_way = waiting.ready.popleft()
            self._count -= 1
            if not waiting.ready:
                self._turns.remove(address)
            self._forget(address)
        given_way.close()

    def _leave_silent(self, connection: socket.socket) -> str:
        """Take a connection from those that have sent nothing; return its address."""
        address = self._address.pop(connection)
        del self._waiting[address].silent[connection]
        self._count -= 1
        self._selector.unregister(connection)
        self._forget(address)
        return address

    def _forget(self, address: str) -> None:
        if not self._waiting[address]:
            del self._waiting[address]


def _peek(connection: socket.socket) -> bytes | None:
    """Look at what a connection has sent: nothing if it has left, None if it may send yet."""
    try:
        return connection.recv(MAX_HEAD_BYTES, PEEK)
    except BlockingIOError:
        return None
    except OSError:
        return b""


def asks_health(paths: Sequence[str], hosts: Collection[str] | None, data: bytes) -> bool:
    r"""Tell whether data are one whole request for health that nobody has to look at further.

    What another site's page sends, or what uses an unknown host name, is for the server to refuse.

    Examples
    --------
    >>> head = b"GET /api/health HTTP/1.1\r\nHost: %b\r\n\r\n"
    >>> hosts = [b"localhost:80", b"evil.example"]
    >>> [asks_health(["/api/health"], {"localhost"}, head % host) for host in hosts]
    [True, False]
    """
    first, *lines = data.decode("latin-1").split("\r\n")
    asked = (f"{method} {path} HTTP/1.1" for method in ("GET", "HEAD") for path in paths)
    if first not in asked or lines[-2:] != ["", ""] or "" in lines[:-2]:
        return False
    fields = [line.lower().partition(":") for line in lines[:-2]]
    if FOR_THE_SERVER & {name for name, *_ in fields}:
        return False
    found = [value.strip() for name, _, value in fields if name == "host"]
    return hosts is None or (len(found) == 1 and without_port(found[0]) in hosts)


def without_port(host: str) -> str:
    """Return a host name without its port.

    Examples
    --------
    >>> without_port("localhost:8000"), without_port("[::1]:8000")
    ('localhost', '[::1]')
    """
    name, bracket, _ = host.partition("]")
    return name + bracket if host.startswith("[") else host.partition(":")[0]


def run(settings: dict[str, Any]) -> None:
    """Answer and pass on until the server has gone.

    Parameters
    ----------
    settings
        Descriptors `lines`, `listening`, `channel`, and `health`, which may be None; `paths` of
        health, and `hosts`, which may be None.
    """
    selector = selectors.DefaultSelector()
    names = ("lines", "listening", "channel", "health")
    given = {name: settings[name] for name in names if settings[name] is not None}
    opened = {name: socket.socket(fileno=each) for name, each in given.items()}
    with ExitStack() as stack:
        stack.enter_context(selector)
        for each in opened.values():
            stack.enter_context(each)
        health = Health(opened["lines"])
        selector.register(opened["lines"], selectors.EVENT_READ, lambda _: None)
        asks = partial(asks_health, settings["paths"], settings["hosts"])
        entrance = Entrance(opened["listening"], opened["channel"], health, asks, selector)
        parts: list[Entrance | HealthPort] = [entrance]
        if "health" in opened:
            parts.append(HealthPort(opened["health"], health, selector))
        for part in parts:
            stack.callback(part.close)
        while health.read():
            for key, _ in selector.select(1.0):
                call: Callable[[object], None] = key.data
                call(key.fileobj)
            for part in parts:
                part.drop_late()


def main() -> None:
    """Answer on the sockets whose descriptors were given."""
    for each in (signal.SIGINT, signal.SIGTERM):  # they are for the server, whose end ends this
        signal.signal(each, signal.SIG_IGN)
    run(json.loads(sys.argv[1]))


if __name__ == "__main__":
    main()
