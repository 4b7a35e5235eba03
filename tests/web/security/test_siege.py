"""Clients that hold connections, requests and threads: the others are answered all the same."""

import json
import re
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
from security_cases import encode_image, problem_detail
from web_server import (
    LOCAL,
    post,
    read_all,
    request_limits,
    run_server,
    send,
    wait_until,
)

from simsearch.library import filters
from simsearch.web import protocol, service
from simsearch.web.connections import choose
from simsearch.web.limits import BodyRate, Share
from simsearch.web.settings import Settings
from simsearch.work import checkpoint

HEALTH = b"GET /api/health HTTP/1.1\r\nHost: localhost\r\n\r\n"


def connect(server, data=b""):
    connection = socket.create_connection(("127.0.0.1", server.port), 10)
    connection.sendall(data)
    return connection


def upload_head(length, path="/api/search"):
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n"
    return (head + "Content-Type: multipart/form-data; boundary=B\r\n\r\n").encode()


@contextmanager
def serving(library, **options):
    options = {"max_batch": 2} | options  # which would be measured otherwise
    with run_server(Settings(str(library.outputs), hosts=LOCAL, **options)) as server:
        yield server


def healthy(server, seconds=2.0):
    start = time.monotonic()
    answer = send(server, "GET", "/api/health")
    return answer.status == 200 and time.monotonic() - start < seconds


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GET /api/hea",
        HEALTH,  # kept open afterwards
        upload_head(10**6) + b"x",
        upload_head(10**9) + b"x",  # refused before its body
        upload_head(10**6, "/api/unknown") + b"x",
    ],
    ids=["nothing", "half a head", "kept open", "endless body", "refused body", "no such path"],
)
def test_connections_that_are_held_give_way(library, data):
    """Far more than the limit, none of which ends by itself, from the address of the others."""
    with serving(library, max_connections=20) as server, ExitStack() as held:
        for _ in range(100):
            held.enter_context(connect(server, data))
        for _ in range(5):
            assert healthy(server)
        assert post(server, "/api/search", ("row", "0")).status in {200, 503}


def test_a_connection_that_is_answered_does_not_give_way(library, monkeypatch):
    go, search = threading.Event(), service.search
    monkeypatch.setattr(service, "search", lambda *a, **b: go.wait(10) and search(*a, **b))
    with (
        serving(library, max_connections=5) as server,
        ExitStack() as held,
        ThreadPoolExecutor(3) as pool,
    ):
        answers = [pool.submit(post, server, "/api/search", ("row", "0")) for _ in range(3)]
        wait_until(lambda: request_limits(server).requests == 3)
        for _ in range(20):
            held.enter_context(connect(server))
        assert healthy(server)
        go.set()
        assert [each.result().status for each in answers] == [200] * 3


def connection(address="a", rank=0, since=0.0):
    return SimpleNamespace(address=address, idle_rank=rank, since=since)


def test_the_address_with_most_connections_gives_way_first():
    many = [connection("many", 3, since=i) for i in range(5)]
    few = [connection("few", 0, since=0) for _ in range(2)]
    assert choose([*few, *many], 100) == many[:1]
    assert choose([*few, *many], 100, 3) == many[:3]
    assert choose([*few, *(connection("many", None) for _ in many)], 100) == few[:1]
    assert choose([connection(rank=None)], 100) == []


def test_new_connections_give_way_last():
    old, new = connection(rank=3, since=0), connection(rank=0, since=99.9)
    assert choose([new, old], 100, 2) == [old]
    assert choose([new, connection(since=99.8)], 100, 2)[0].since == 99.8
    assert len(choose([new, new], 100, 2)) == 1


def test_a_body_that_was_refused_holds_its_connection_for_seconds(library, monkeypatch):
    monkeypatch.setattr(protocol, "BODY_LEFT_SECONDS", 0.3)
    with (
        run_server(Settings(str(library.outputs), token="x" * 20, max_batch=2)) as server,
        connect(server, upload_head(10**6) + b"x") as held,
    ):
        start = time.monotonic()
        with suppress(OSError):
            while time.monotonic() - start < 10:
                held.sendall(b"x")
                time.sleep(0.05)
        assert time.monotonic() - start < 5


def test_a_client_may_go_on_after_its_body_was_refused(library):
    """What is left of a body arrives, then another request on the same connection."""
    last = HEALTH.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    with (
        run_server(Settings(str(library.outputs), token="x" * 20, max_batch=2)) as server,
        connect(server, upload_head(2000) + b"x") as held,
    ):
        assert b" 401 " in held.recv(2**16)
        held.sendall(b"x" * 1999 + last)
        assert b" 200 " in read_all(held)


@pytest.fixture
def large_file(library):
    """A picture of the library becomes one of 30 MB, more than the system buffers."""
    file = library.dataset / "blue" / "2.png"
    data = file.read_bytes()
    file.write_bytes(data + bytes(30_000_000 - len(data)))
    yield data
    file.write_bytes(data)


def get(row):
    return (
        f"GET /api/images/{row} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
    )


def row_of_large_file(server):
    images = json.loads(send(server, "GET", "/api/images").body)["images"]
    return next(image["row"] for image in images if image["path"] == "blue/2.png")


def test_an_answer_that_is_not_read_is_dropped(library, large_file, monkeypatch):
    monkeypatch.setattr(protocol, "READ_SECONDS", 0.4)
    with serving(library) as server:
        row = row_of_large_file(server)
        with connect(server, get(row)) as held:
            reads = request_limits(server)._reads
            wait_until(lambda: reads.taken == 1)
            wait_until(lambda: reads.taken == 0, 30)
            assert 0 < len(read_all(held)) < 30_000_000
        assert healthy(server)


def test_an_original_is_sent_whole_to_a_client_that_pauses(library, large_file):
    with serving(library) as server, connect(server, get(row_of_large_file(server))) as slow:
        time.sleep(0.5)
        head, _, body = read_all(slow).partition(b"\r\n\r\n")
        assert b"content-length: 30000000" in head.lower()
        assert len(body) == 30_000_000
        assert body.startswith(large_file)


def resident_bytes():
    status = Path("/proc/self/status").read_text()
    return 1024 * int(re.search(r"VmRSS:\s+(\d+)", status)[1])


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_readers_that_stop_hold_no_originals_in_memory(library, large_file):
    with serving(library) as server, ExitStack() as held:
        row = row_of_large_file(server)
        send(server, "GET", f"/api/images/{row}")
        before = resident_bytes()
        for _ in range(30):
            held.enter_context(connect(server, get(row)))
        wait_until(lambda: request_limits(server)._reads.taken == 30)
        time.sleep(1)
        assert resident_bytes() - before < 100_000_000  # of 900 MB
        assert healthy(server)


# Work


@pytest.fixture
def endless(monkeypatch):
    """Searches that go on until they are stopped."""
    stopped = threading.Event()

    def search(*_, **__):
        try:
            while True:
                checkpoint()
                time.sleep(0.01)
        finally:
            stopped.set()

    monkeypatch.setattr(service, "search", search)
    return stopped


def test_work_stops_when_its_client_leaves(library, endless):
    with serving(library) as server:
        body = b'--B\r\nContent-Disposition: form-data; name="row"\r\n\r\n0\r\n--B--\r\n'
        with connect(server, upload_head(len(body)) + body):
            wait_until(lambda: request_limits(server).requests == 1)
            assert not endless.wait(0.2)
        assert endless.wait(5)
        wait_until(lambda: request_limits(server).requests == 0)


def test_work_stops_at_its_deadline(library, endless):
    with serving(library, work_seconds=0.5) as server:
        start = time.monotonic()
        answer = post(server, "/api/search", ("row", "0"))
        assert answer.status == 503
        assert "took over 0.5 seconds; ask for less" in problem_detail(answer)
        assert time.monotonic() - start < 5
        assert endless.is_set()


def test_requests_that_wait_for_a_thread_end_at_their_deadline(library, endless):
    """More than there are threads: none of them waits longer than its own time."""
    with serving(library, work_seconds=0.5) as server, ThreadPoolExecutor(12) as pool:
        start = time.monotonic()
        answers = list(pool.map(lambda _: post(server, "/api/search", ("row", "0")), range(12)))
        assert {answer.status for answer in answers} == {503}
        assert time.monotonic() - start < 8
        assert healthy(server)


def test_health_is_answered_while_conditions_are_compared(library, monkeypatch):
    names = [f"folder/{i}.jpg" for i in range(60_000)]
    globs = [f"*{i}*x*{i}" for i in range(300)]
    compare = filters._met

    def compare_many(cells, meets):
        compare(names, filters._matcher(globs))
        return compare(cells, meets)

    monkeypatch.setattr(filters, "_met", compare_many)
    with serving(library, work_seconds=1.0) as server, ThreadPoolExecutor(4) as pool:
        where = json.dumps("red/*")
        busy = [
            pool.submit(post, server, "/api/search", ("row", "0"), ("where", where))
            for _ in range(4)
        ]
        for _ in range(5):
            assert healthy(server)
        assert {each.result().status for each in busy} <= {200, 503}
        assert 503 in {each.result().status for each in busy}


def test_conditions_that_cost_too_much_are_refused(library, monkeypatch):
    monkeypatch.setattr("simsearch.web.where.MAX_COMPARISONS", 6 * 50)
    where = {"path": [f"*{i}" for i in range(50)]}
    with serving(library) as server:
        fields = ("row", "0"), ("where", json.dumps(where))
        assert post(server, "/api/search", *fields).status == 200
        where["folder"] = "red"
        fields = ("row", "0"), ("where", json.dumps(where))
        for path in ("search", "recommend"):
            own = fields if path == "search" else (("liked", "0"), fields[1])
            answer = post(server, f"/api/{path}", *own)
            assert answer.status == 422
            assert "compares 51 texts with 6 images; this server compares up to 50" in (
                problem_detail(answer)
            )


# Shares


def test_one_address_does_not_get_all():
    share = Share(10)
    for _ in range(8):
        assert share.fits("a")
        share.take("a")
    assert not share.fits("a")
    assert share.fits("b", 2)
    assert not share.fits("b", 3)
    for _ in range(8):
        share.take("a", -1)
    assert share.taken == 0
    assert share.fits("a", 8)
    assert not share.fits("a", 9)


def hold(server, address):
    """Begin an upload by way of a proxy."""
    head = upload_head(1000).replace(
        b"\r\n\r\n", f"\r\nX-Forwarded-For: {address}\r\n\r\n".encode()
    )
    return connect(server, head + b"--B")


def test_shares_are_of_the_address_that_a_proxy_forwards(library):
    """This machine is trusted, as a proxy on it would be."""
    with serving(library, max_waiting=10) as server, ExitStack() as held:
        for _ in range(8):
            held.enter_context(hold(server, "192.0.2.1"))
        wait_until(lambda: request_limits(server).requests == 8)
        refused = {"X_Forwarded_For": "192.0.2.1"}
        assert post(server, "/api/search", ("row", "0"), **refused).status == 503
        other = {"X_Forwarded_For": "192.0.2.2"}
        assert post(server, "/api/search", ("row", "0"), **other).status == 200


def test_proxies_are_trusted_by_name_alone(library):
    settings = Settings(str(library.outputs), trusted_proxies=["192.0.2.0/24"])
    app = SimpleNamespace(state=SimpleNamespace(service=SimpleNamespace(settings=settings)))
    config = protocol.uvicorn_config(app)
    assert config.forwarded_allow_ips == ["127.0.0.1", "::1", "192.0.2.0/24"]


def test_many_reads_are_refused_beyond_the_limit(library, monkeypatch):
    go = threading.Event()
    monkeypatch.setattr(service, "_describe", lambda *_, **__: go.wait(10) and {})
    with serving(library, max_connections=8) as server, ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(send, server, "GET", "/api/library") for _ in range(7)]
        wait_until(lambda: any(each.done() for each in answers))
        assert healthy(server)
        go.set()
        statuses = sorted(each.result().status for each in answers)
    assert statuses == [200] * 5 + [503] * 2  # of six reads, five for one address


def test_rate_of_a_body():
    rate = BodyRate(1000, 10.0)
    rate.record(0, 9.0)
    assert rate.left == pytest.approx(1.0)
    rate.record(3000, 0.5)
    assert rate.left == pytest.approx(3.5)
    rate.record(10**9, 0.0)
    assert rate.left == 10.0  # a burst is no credit for later


def test_a_slow_body_that_keeps_the_rate_is_read(library):
    with serving(library, seconds=0.5, min_rate=2000) as server:
        image = encode_image(size=(60, 60))
        body = b'--B\r\nContent-Disposition: form-data; name="image"; filename="x"\r\n\r\n'
        body += image + b"\r\n--B--\r\n"
        body = body.replace(b"\r\n--B--", bytes(8000) + b"\r\n--B--")
        head = upload_head(len(body)).replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
        with connect(server, head) as slow:
            for start in range(0, len(body), 800):
                slow.sendall(body[start : start + 800])
                time.sleep(0.1)
            assert b" 200 " in read_all(slow)


# Answers that depend on the version alone


def test_answers_of_a_version_are_made_once(library, monkeypatch):
    described = []
    describe = service._describe

    def count(state, **given):
        described.append(state)
        return describe(state, **given)

    monkeypatch.setattr(service, "_describe", count)
    with serving(library) as server, ThreadPoolExecutor(8) as pool:
        bodies = {
            each.body for each in pool.map(lambda _: send(server, "GET", "/api/library"), range(8))
        }
        assert len(bodies) == 1
        assert len(described) == 1
        pages = [send(server, "GET", "/api/images?limit=2").body for _ in range(2)]
        assert pages[0] == pages[1]
        assert send(server, "GET", "/api/images?where=5").status == 422
        manager = server.app.state.service.manager
        manager._key = None
        manager.refresh()  # unless its own watch was quicker
        assert json.loads(send(server, "GET", "/api/library").body)["images"] == 6
        assert len(described) == 2
