"""A port that tells whether the server is up, answered by a process of its own."""

from __future__ import annotations

import logging
import socket
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from simsearch.web import health_process

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

BEAT_SECONDS = 1.0

logger = logging.getLogger("simsearch.web")


class HealthPort:
    """Keeps a process that answers for this one; see `health_process`.

    Parameters
    ----------
    listening
        Takes the connections.

    Attributes
    ----------
    port : int
    """

    def __init__(self, listening: socket.socket) -> None:
        self._listening, self.port = listening, listening.getsockname()[1]
        self.process: subprocess.Popen[bytes] | None = None
        self._start()

    @asynccontextmanager
    async def running(self, answer: Callable[[], bytes]) -> AsyncIterator[None]:
        """Send an answer each second while the body runs, then close."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.beat, answer)
            yield
            tasks.cancel_scope.cancel()
        self.close()

    async def beat(self, answer: Callable[[], bytes]) -> None:
        """Send an answer each second, until cancelled: JSON of one line."""
        while True:
            try:
                self._lines.send(answer() + b"\n")
            except BlockingIOError:  # it does not read for now, and has newer ones to come
                pass
            except OSError:
                logger.warning("the process that tells whether the server is up has ended: again")
                self._end()
                self._start()
            await anyio.sleep(BEAT_SECONDS)

    def close(self) -> None:
        """End the process, and listen no more."""
        self._end()
        self._listening.close()

    def _end(self) -> None:
        self._lines.close()
        if self.process is not None:
            self.process.wait()

    def _start(self) -> None:
        self._lines, theirs = socket.socketpair()
        self._lines.setblocking(False)
        descriptors = [self._listening.fileno(), theirs.fileno()]
        command = [sys.executable, "-I", "-S", str(Path(health_process.__file__))]
        with theirs:
            self.process = subprocess.Popen(  # noqa: S603 (this interpreter)
                [*command, *map(str, descriptors)],
                pass_fds=descriptors,
                stdin=subprocess.DEVNULL,
            )
