"""The server's side of the process in front of it; see `front_process`. Linux and macOS."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import subprocess
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvicorn

from simsearch.web import front_process
from simsearch.web.middleware import HEALTH_PATH

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

BEAT_SECONDS = 1.0
TAKEN_AT_ONCE = 8  # connections, before what others have sent is looked at
CHANNEL_BYTES = 4096  # so that connections wait in front, where the addresses take turns
CLOSE_ON_EXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)

logger = logging.getLogger("simsearch.web")


class FrontedServer(uvicorn.Server):
    """Serves what a process in front of it passes on, and tells that process its health.

    Parameters
    ----------
    config
        Of uvicorn.
    answer
        Makes what is told of health: JSON of one line.
    hosts
        Host names that requests may use; None for any.
    root_path
        Path below which a proxy has the server.
    health
        A socket that listens for questions about health alone, if there is one.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        answer: Callable[[], bytes],
        hosts: Collection[str] | None = None,
        root_path: str = "",
        health: socket.socket | None = None,
    ) -> None:
        super().__init__(config)
        paths = sorted({HEALTH_PATH, root_path + HEALTH_PATH})
        given = {"paths": paths, "hosts": None if hosts is None else sorted(hosts)}
        self.front = Front(answer, given, health)
        self._beat: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the app, then the process in front, which listens from now on."""
        await super().startup(sockets=[])
        if sockets and self.started and not self.should_exit:
            protocol: Any = self.config.http_protocol_class
            make_protocol = partial(
                protocol,
                config=self.config,
                server_state=self.server_state,
                app_state=self.lifespan.state,
            )
            self.front.start(sockets[0], make_protocol)
            self._beat = asyncio.create_task(self.front.beat())

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the process in front, then the connections that there are."""
        if self._beat is not None:
            self._beat.cancel()
            self.front.close()
        await super().shutdown(sockets)


class Front:
    """Keeps the process in front of a server.

    Parameters
    ----------
    answer
        Makes what is told of health: JSON of one line.
    given
        What the process is told besides.
    health
        A socket that listens for questions about health alone, if there is one.

    Attributes
    ----------
    process : subprocess.Popen or None
    """

    def __init__(
        self, answer: Callable[[], bytes], given: dict[str, Any], health: socket.socket | None
    ) -> None:
        self._answer, self._given, self._health = answer, given, health
        self.process: subprocess.Popen[bytes] | None = None
        self._connecting = set[asyncio.Task[None]]()

    def start(
        self, listening: socket.socket, make_protocol: Callable[[], asyncio.BaseProtocol]
    ) -> None:
        """Start the process; serve what it passes on, in this event loop."""
        self._listening, self._make_protocol = listening, make_protocol
        self._loop = asyncio.get_running_loop()
        self._start()

    async def beat(self) -> None:
        """Tell the health each second, until cancelled."""
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            try:
                self._tell()
            except OSError:
                logger.warning("the process in front of the server has ended: it is started again")
                self._restart()

    def _restart(self) -> None:
        try:
            self._end()
            self._start()
        except OSError as error:  # the next beat tries again
            logger.error("it cannot be started: %s", error)

    def close(self) -> None:
        """End the process; from then on, nothing listens for questions about health alone."""
        self._end()
        if self._health is not None:
            self._health.close()

    def _start(self) -> None:
        self._lines, lines = socket.socketpair()
        self._channel, channel = socket.socketpair()
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, CHANNEL_BYTES)
        passed = {"lines": lines, "channel": channel, "listening": self._listening}
        passed |= {"health": self._health} if self._health is not None else {}
        descriptors = {name: each.fileno() for name, each in passed.items()}
        given = json.dumps({"health": None, **descriptors, **self._given})
        with lines, channel:
            self.process = subprocess.Popen(  # noqa: S603 (this interpreter)
                [sys.executable, "-I", "-S", str(Path(front_process.__file__)), given],
                pass_fds=list(descriptors.values()),
                stdin=subprocess.DEVNULL,
            )
        for each in (self._lines, self._channel):
            each.setblocking(False)
        self._tell()
        self._loop.add_reader(self._channel, self._take)

    def _tell(self) -> None:
        with suppress(BlockingIOError):  # it does not read for now, and has newer ones to come
            self._lines.send(self._answer() + b"\n")

    def _end(self) -> None:
        if self._channel.fileno() >= 0:
            self._loop.remove_reader(self._channel)
        self._lines.close()
        self._channel.close()
        if self.process is not None:
            self.process.kill()  # what it has passed on is here; it may be stopped
            self.process.wait()

    def _take(self) -> None:
        """Take connections; the next ones when what they and others have sent was looked at."""
        for _ in range(TAKEN_AT_ONCE):
            try:
                data, descriptors, *_ = socket.recv_fds(self._channel, 1, 1, CLOSE_ON_EXEC)
            except OSError:  # there is none
                return
            if not data:  # the process has ended, which the next beat notes
                self._loop.remove_reader(self._channel)
                return
            if not descriptors:  # as where too many files are open: that client has to come again
                continue
            os.set_inheritable(descriptors[0], False)
            connection = socket.socket(fileno=descriptors[0])
            connection.setblocking(False)
            task = self._loop.create_task(self._serve(connection))
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)

    async def _serve(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._make_protocol, connection)
        except OSError:  # the client has left meanwhile
            connection.close()
