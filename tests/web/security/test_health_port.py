"""The port that tells whether the server is up, whatever the server does."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import anyio
import numpy as np
import pytest
from web_server import send, send_raw, wait_until

import simsearch as ss
from simsearch.errors import QueryError
from simsearch.web import health_process, server
from simsearch.web.health_port import HealthPort
from simsearch.web.health_process import HealthServer

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs descriptors of POSIX")
ANSWER = b'{"status":"ok","images":3,"version":"abc"}'


@pytest.fixture
def on_thread():
    """The server of the small process, on a thread: address, and where its lines go."""
    listening = server.listen("127.0.0.1", 0)
    ours, theirs = socket.socketpair()
    with listening, ours, theirs:
        thread = threading.Thread(target=HealthServer(listening, theirs).run)
        thread.start()
        yield SimpleNamespace(port=listening.getsockname()[1], lines=ours)
        ours.close()
        thread.join(10)
        assert not thread.is_alive()


def test_the_last_line_is_answered_until_lines_stop(on_thread, monkeypatch):
    assert send(on_thread, "GET", "/api/health").status == 503
    on_thread.lines.send(b"old\n" + ANSWER[:9])
    on_thread.lines.send(ANSWER[9:] + b"\nnot yet wh")
    wait_until(lambda: send(on_thread, "GET", "/api/health").body == ANSWER)
    answer = send(on_thread, "HEAD", "/")
    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers["content-length"] == str(len(ANSWER))
    monkeypatch.setattr(health_process, "LATE_SECONDS", 0.0)
    answer = send(on_thread, "GET", "/api/health")
    assert answer.status == 503
    assert json.loads(answer.body)["status"] == 503
    assert answer.headers["content-type"] == "application/problem+json"


def test_who_sends_nothing_or_too_much_holds_up_nobody(on_thread, monkeypatch):
    on_thread.lines.send(ANSWER + b"\n")
    wait_until(lambda: send(on_thread, "GET", "/").status == 200)
    address = ("127.0.0.1", on_thread.port)
    with ExitStack() as held:
        for _ in range(2 * health_process.MAX_CONNECTIONS):
            connection = held.enter_context(socket.create_connection(address, 5))
            connection.send(b"GET / HT")
        assert send(on_thread, "GET", "/").body == ANSWER
        assert send_raw(on_thread, b"x" * 10_000) == b""
        monkeypatch.setattr(health_process, "SECONDS", 0.0)
        assert connection.recv(10) == b""  # the last one, dropped for its time


def test_the_process_answers_until_its_lines_end(monkeypatch):
    """In this process: what is asked before the end is answered, and the end ends it."""
    listening, (ours, theirs) = server.listen("127.0.0.1", 0), socket.socketpair()
    address = listening.getsockname()
    descriptors = [str(each.detach()) for each in (listening, theirs)]
    monkeypatch.setattr(sys, "argv", ["health_process", *descriptors])
    before = signal.getsignal(signal.SIGINT)
    with socket.create_connection(address, 5) as client:
        client.sendall(b"GET / HTTP/1.1\r\n\r\n")
        with ours:
            ours.sendall(ANSWER + b"\n")
        try:
            health_process.main()
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        finally:
            signal.signal(signal.SIGINT, before)
        answer = client.recv(2**16)
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(b"\r\n\r\n" + ANSWER)


@contextmanager
def beating(answer):
    """A port whose process is sent an answer by an event loop on a thread."""
    listening = server.listen("127.0.0.1", 0)
    port, stop = HealthPort(listening), threading.Event()

    async def beat():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(port.beat, answer)
            while not stop.is_set():
                await anyio.sleep(0.02)
            tasks.cancel_scope.cancel()

    thread = threading.Thread(target=partial(anyio.run, beat))
    thread.start()
    try:
        yield port
    finally:
        stop.set()
        thread.join(10)
        port.close()


def test_a_process_that_has_ended_is_started_again(monkeypatch):
    monkeypatch.setattr("simsearch.web.health_port.BEAT_SECONDS", 0.05)
    with beating(lambda: ANSWER) as port:
        wait_until(lambda: send(port, "GET", "/").body == ANSWER)
        first = port.process.pid
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: port.process.pid != first)
        wait_until(lambda: send(port, "GET", "/").body == ANSWER)
    assert port.process.poll() is not None


def test_a_port_that_is_taken_is_said():
    with server.listen("127.0.0.1", 0) as taken, pytest.raises(QueryError, match="choose another"):
        server.open_health_port("127.0.0.1", taken.getsockname()[1])


@pytest.mark.server
@pytest.mark.parametrize("libraries", [["."], ["one=.", "two=."]], ids=["one", "several"])
def test_a_server_that_is_stopped_is_told_and_one_that_ends_takes_it_along(
    tmp_path, monkeypatch, libraries
):
    ss.ImageLibrary(np.eye(3), ["a.jpg", "b.jpg", "c.jpg"]).save(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(ss.__file__).parents[1]))
    command = [sys.executable, "-m", "simsearch.cli", "serve", *libraries, "--port", "0"]
    options = {"stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([*command, "--health-port", "0"], **options) as running:
        try:
            lines = [running.stdout.readline() for _ in range(3)]
            port, health = (
                SimpleNamespace(port=int(re.search(r"\d{4,}", lines[i])[0])) for i in (0, 2)
            )
            wait_until(lambda: send(health, "GET", "/api/health").status == 200)
            assert send(health, "GET", "/").body == send(port, "GET", "/api/health").body
            os.kill(running.pid, signal.SIGSTOP)
            start = time.monotonic()
            assert send(health, "GET", "/api/health").status == 200
            assert time.monotonic() - start < 2
        finally:
            running.kill()
    wait_until(lambda: is_refused(health.port))


def is_refused(port):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except ConnectionRefusedError:
        return True
    return False
