"""The process in front of the server: it tells health, whatever the server does."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace

import httptools
import numpy as np
import pytest
import uvicorn
from hypothesis import given
from hypothesis import strategies as st
from web_server import read_all, send, send_raw, wait_until

import simsearch as ss
from simsearch.errors import QueryError
from simsearch.web import front_process, server
from simsearch.web.front_process import asks_health

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs descriptors of POSIX")
ANSWER = b'{"status":"ok","images":3,"version":"abc"}'
PATHS = ["/api/health"]
ASK = b"GET /api/health HTTP/1.1\r\nHost: localhost\r\n\r\n"
OTHER = b"GET /api/library HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture
def on_thread():
    """The process in front, on a thread: its ports, where its lines go, what it passes on."""
    listening, health = (server.listen("127.0.0.1", 0) for _ in range(2))
    (lines, theirs), (channel, other_end) = socket.socketpair(), socket.socketpair()
    other_end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    ports = [SimpleNamespace(port=each.getsockname()[1]) for each in (listening, health)]
    given = {"lines": theirs, "channel": other_end, "listening": listening, "health": health}
    settings = {name: each.detach() for name, each in given.items()}
    settings |= {"paths": PATHS, "hosts": ["localhost", "127.0.0.1"]}
    with lines, channel:
        thread = threading.Thread(target=front_process.run, args=[settings])
        thread.start()
        yield SimpleNamespace(port=ports[0].port, health=ports[1], lines=lines, channel=channel)
        lines.close()
        thread.join(10)
        assert not thread.is_alive()


def take(front):
    """Take a connection that is passed on."""
    front.channel.settimeout(10)
    descriptors = socket.recv_fds(front.channel, 1, 1)[1]
    return socket.socket(fileno=descriptors[0])


def connect(front, data=b""):
    connection = socket.create_connection(("127.0.0.1", front.port), 5)
    connection.sendall(data)
    return connection


def test_the_last_line_is_answered_until_lines_stop(on_thread, monkeypatch):
    assert send(on_thread.health, "GET", "/api/health").status == 503
    on_thread.lines.send(b"old\n" + ANSWER[:9])
    on_thread.lines.send(ANSWER[9:] + b"\nnot yet wh")
    for port in (on_thread, on_thread.health):
        wait_until(lambda port=port: send(port, "GET", "/api/health").body == ANSWER)
        answer = send(port, "HEAD", "/api/health")
        assert (answer.status, answer.body) == (200, b"")
        assert answer.headers["content-length"] == str(len(ANSWER))
    monkeypatch.setattr(front_process, "LATE_SECONDS", 0.0)
    for port in (on_thread, on_thread.health):
        answer = send(port, "GET", "/api/health")
        assert answer.status == 503
        assert json.loads(answer.body)["status"] == 503
        assert answer.headers["content-type"] == "application/problem+json"


def test_who_sends_nothing_or_too_much_holds_up_nobody(on_thread, monkeypatch):
    """At the port for health alone, where nothing is passed on."""
    on_thread.lines.send(ANSWER + b"\n")
    port = on_thread.health
    wait_until(lambda: send(port, "GET", "/").status == 200)
    with ExitStack() as held:
        for _ in range(2 * front_process.MAX_CONNECTIONS):
            connection = held.enter_context(connect(port, b"GET / HT"))
        assert send(port, "GET", "/").body == ANSWER
        assert send_raw(port, b"x" * 10_000) == b""
        monkeypatch.setattr(front_process, "SECONDS", 0.0)
        assert connection.recv(10) == b""  # the last one, dropped for its time


def test_what_asks_for_more_than_health_is_passed_on_whole(on_thread):
    with connect(on_thread, OTHER) as client, take(on_thread) as taken:
        assert taken.recv(2**16) == OTHER
        taken.sendall(b"answer")
        taken.shutdown(socket.SHUT_RDWR)
        assert read_all(client) == b"answer"
    with connect(on_thread) as client:
        time.sleep(0.1)
        client.sendall(OTHER[:5])  # it is passed on once it has sent something
        with take(on_thread) as taken:
            client.sendall(OTHER[5:])
            time.sleep(0.1)
            assert taken.recv(2**16) == OTHER


@pytest.mark.parametrize("data", [b"", OTHER, ASK[:20]], ids=["silent", "waiting", "half a head"])
def test_health_is_told_while_the_server_takes_no_connection(on_thread, data):
    """Far more connections of the same address than wait here; the later ones stay."""
    on_thread.lines.send(ANSWER + b"\n")
    with ExitStack() as held:
        clients = [
            held.enter_context(connect(on_thread, data))
            for _ in range(front_process.MAX_WAITING + 100)
        ]
        for _ in range(5):
            assert send(on_thread, "GET", "/api/health").body == ANSWER
        first, last = clients[20], clients[-1]
        with suppress(ConnectionResetError):
            assert first.recv(1) == b""
        last.setblocking(False)
        with pytest.raises(BlockingIOError):
            last.recv(1)


def test_who_leaves_or_stays_silent_is_closed(on_thread, monkeypatch):
    connect(on_thread).close()
    with connect(on_thread) as silent, connect(on_thread, OTHER), take(on_thread) as taken:
        assert taken.recv(2**16) == OTHER  # and nothing of the one that has left
        monkeypatch.setattr(front_process, "SILENT_SECONDS", 0.0)
        assert silent.recv(1) == b""


def test_addresses_take_turns(on_thread):
    """Each of the few is passed on after one more of the many; these give way."""
    selector = front_process.selectors.DefaultSelector()
    ours, theirs = socket.socketpair()
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    with ExitStack() as held, socket.create_server(("127.0.0.1", 0)) as listening, ours, theirs:
        entrance = front_process.Entrance(listening, theirs, None, lambda _: False, selector)

        def arrive(address, name):
            client, connection = socket.socketpair()
            held.enter_context(client)
            client.sendall(name)
            entrance._take(connection, address)

        for i in range(front_process.MAX_WAITING + 50):
            arrive("many", b"%d" % i)
        for i in range(3):
            arrive("few", b"few %d" % i)
        names = []
        ours.setblocking(False)
        while entrance._turns:
            entrance._pass_on(theirs)
            with suppress(BlockingIOError):
                while True:
                    descriptors = socket.recv_fds(ours, 1, 1)[1]
                    with socket.socket(fileno=descriptors[0]) as taken:
                        names.append(taken.recv(100))
        entrance.close()
        selector.close()
    few = [i for i, name in enumerate(names) if name.startswith(b"few")]
    assert [names[i] for i in few] == [b"few 0", b"few 1", b"few 2"]
    assert few[2] - few[0] == 4  # every second one
    many = [int(name) for name in names if not name.startswith(b"few")]
    assert many == sorted(many)
    assert many[-1] == front_process.MAX_WAITING + 49


# What asks for health


@pytest.mark.parametrize(
    "data",
    [
        *(ASK[:-2], ASK + b"x", ASK + ASK, ASK.lower(), b"", b"\r\n\r\n"),
        ASK.replace(b"GET", b"POST"),
        ASK.replace(b"health", b"healthy"),
        ASK.replace(b"HTTP/1.1", b"HTTP/1.0"),
        ASK.replace(b"localhost", b"evil.example"),
        ASK.replace(b"localhost", b"localhost\r\nHost: evil.example"),
        ASK.replace(b"Host: localhost", b"A: b"),
        ASK.replace(b"Host", b"Host "),
        ASK.replace(b"Host", b"A: b\r\n Host"),
        ASK.replace(b"Host", b"Content-Length: 5\r\nHost"),
        ASK.replace(b"Host", b"transfer-encoding: chunked\r\nHost"),
        ASK.replace(b"Host", b"Sec-Fetch-Site: cross-site\r\nHost"),
    ],
)
def test_what_the_server_has_to_look_at_is_passed_on(data):
    assert not asks_health(PATHS, {"localhost"}, data)


def test_who_asks_for_health_is_told():
    for data in (ASK, ASK.replace(b"GET", b"HEAD"), ASK.replace(b"localhost", b"LOCALHOST:80")):
        assert asks_health(PATHS, {"localhost"}, data)
    assert asks_health(PATHS, {"[::1]"}, ASK.replace(b"localhost", b"[::1]:8000"))
    assert asks_health(PATHS, None, ASK.replace(b"localhost", b"any.example"))
    assert asks_health(["/a", "/b/api/health"], None, ASK.replace(b"/api", b"/b/api"))


PIECES = (
    *("GET", "HEAD", "POST", " ", "/api/health", "?", "HTTP/1.1", "\r\n", "\r", "\n", ":", ": "),
    *("Host", "host", "localhost", "evil", ",", "\t", "Content-Length", "5", "chunked", "x"),
    "Transfer-Encoding",
)


@given(
    st.lists(st.sampled_from(PIECES), max_size=12).map("".join),
    st.sampled_from([b"GET", b"HEAD"]),
)
def test_what_is_taken_for_a_question_is_one_to_the_servers_parser(text, method):
    """No request hides behind another; the host is the one that the server would see."""
    data = method + b" /api/health HTTP/1.1\r\n" + text.encode() + b"Host: localhost\r\n\r\n"
    if not asks_health(PATHS, {"localhost"}, data):
        return
    seen = SimpleNamespace(url=b"", hosts=[], done=0)
    seen.on_url = lambda part: setattr(seen, "url", seen.url + part)
    seen.on_header = lambda name, value: seen.hosts.append(value) if name == b"Host" else None
    seen.on_message_complete = lambda: setattr(seen, "done", seen.done + 1)
    parser = httptools.HttpRequestParser(seen)
    try:
        parser.feed_data(data)
    except httptools.HttpParserError:
        return  # the server would refuse it; it did nothing here
    assert (seen.url, seen.hosts, seen.done) == (b"/api/health", [b"localhost"], 1)


# The server behind it


@contextmanager
def fronted(app, answer=lambda: ANSWER):
    """A server with a process in front, on a thread."""
    from simsearch.web.front import FrontedServer

    config = uvicorn.Config(app, log_level="warning", lifespan="off", timeout_graceful_shutdown=1)
    running = FrontedServer(config, answer)
    listening = server.listen("127.0.0.1", 0)
    port = listening.getsockname()[1]
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        wait_until(lambda: running.front.process is not None)
        yield SimpleNamespace(port=port, front=running.front)
    finally:
        running.should_exit = True
        thread.join(10)
    assert running.front.process.poll() is not None
    assert is_refused(port)


async def tell_client(scope, _, respond):
    """Answer with the address that a request came from."""
    body = json.dumps(scope["client"]).encode()
    headers = [(b"content-length", b"%d" % len(body)), (b"connection", b"close")]
    await respond({"type": "http.response.start", "status": 200, "headers": headers})
    await respond({"type": "http.response.body", "body": body})


def test_the_server_sees_who_its_clients_are():
    with fronted(tell_client) as running, connect(running, OTHER) as client:
        assert json.dumps(client.getsockname()).encode() in read_all(client)


def test_health_is_told_while_the_event_loop_is_held_up():
    go = threading.Event()

    async def hold_up(scope, receive, respond):
        go.wait(20)
        await tell_client(scope, receive, respond)

    with fronted(hold_up) as running, connect(running, OTHER) as client:
        for _ in range(5):
            assert send(running, "GET", "/api/health").body == ANSWER
        go.set()
        assert b" 200 " in client.recv(2**16)


def test_many_clients_are_all_served():
    with fronted(tell_client) as running, ExitStack() as held:
        clients = [held.enter_context(connect(running, OTHER)) for _ in range(300)]
        for client in clients:
            assert json.dumps(client.getsockname()).encode() in read_all(client)


def test_a_process_that_has_ended_is_started_again(monkeypatch):
    monkeypatch.setattr("simsearch.web.front.BEAT_SECONDS", 0.05)
    with fronted(tell_client) as running:
        wait_until(lambda: send(running, "GET", "/api/health").body == ANSWER)
        first = running.front.process.pid
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: running.front.process.pid != first)
        assert send(running, "GET", "/api/health").body == ANSWER
        assert send(running, "GET", "/api/library").status == 200


def test_a_client_that_leaves_while_it_is_passed_on_harms_nobody(monkeypatch):
    tried = []

    async def fail(*_):
        tried.append(1)
        raise OSError("it has left")

    with fronted(tell_client) as running:
        with monkeypatch.context() as patched, connect(running, OTHER) as client:
            loop = running.front._loop
            patched.setattr(
                running.front,
                "_loop",
                SimpleNamespace(connect_accepted_socket=fail, create_task=loop.create_task),
            )
            wait_until(lambda: tried)
            assert read_all(client) == b""
        assert send(running, "GET", "/api/library").status == 200


def test_a_connection_that_is_lost_for_want_of_files_costs_no_other(monkeypatch):
    """Where too many files are open, the system drops the descriptor, and not the message."""
    lost, receive = [], socket.recv_fds

    def lose_first(*arguments):
        data, descriptors, *rest = receive(*arguments)
        if descriptors and not lost:
            lost.append(descriptors[0])
            os.close(descriptors[0])
            return data, [], *rest
        return data, descriptors, *rest

    with fronted(tell_client) as running:
        monkeypatch.setattr(socket, "recv_fds", lose_first)
        with connect(running, OTHER) as client:
            assert read_all(client) == b""
        assert lost
        assert send(running, "GET", "/api/library").status == 200


def test_a_process_that_cannot_be_started_is_tried_again(monkeypatch, caplog):
    monkeypatch.setattr("simsearch.web.front.BEAT_SECONDS", 0.05)
    start, failed = subprocess.Popen, []

    def fail_twice(*arguments, **options):
        if len(failed) < 2:
            failed.append(1)
            raise OSError(11, "Resource temporarily unavailable")
        return start(*arguments, **options)

    with fronted(tell_client) as running:
        first = running.front.process.pid
        monkeypatch.setattr(subprocess, "Popen", fail_twice)
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: running.front.process.pid != first)
        assert send(running, "GET", "/api/library").status == 200
    assert caplog.text.count("cannot be started") == 2


def test_a_server_ends_though_the_process_in_front_is_stopped():
    with fronted(tell_client) as running:
        os.kill(running.front.process.pid, signal.SIGSTOP)


def test_a_port_that_is_taken_is_said():
    with server.listen("127.0.0.1", 0) as taken, pytest.raises(QueryError, match="choose another"):
        server.listen_for_health("127.0.0.1", taken.getsockname()[1])


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
            for each in (health, port):
                assert send(each, "GET", "/api/health").status == 200
        finally:
            running.kill()
    wait_until(lambda: is_refused(health.port) and is_refused(port.port))


def is_refused(port):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except ConnectionRefusedError:
        return True
    return False
