"""Limits on requests: number, bytes and time; invalid options."""

import json
import re
import socket
import threading
import time
from contextlib import suppress

import pytest
from security_cases import BEARER, TOKEN, chunked_request, encode_image, problem_detail
from web_server import (
    multipart_form,
    post,
    read_all,
    request_limits,
    run_server,
    send,
    send_raw,
    wait_until,
)

from simsearch.errors import QueryError
from simsearch.web import service
from simsearch.web.settings import Settings
from simsearch.web.where import read_where


def begin_upload(server, path="/api/search", length=1000):
    """Begin an upload without finishing it; return the connection."""
    connection = socket.create_connection(("127.0.0.1", server.port), 5)
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n"
    connection.sendall(head.encode() + b"Content-Type: multipart/form-data; boundary=B\r\n\r\n")
    connection.sendall(multipart_form(("image", "x", b"x"))[0].partition(b"\r\n--B--")[0])
    return connection


def test_slow_upload_times_out_and_blocks_nobody(open_server):
    with begin_upload(open_server, length=100_000) as slow:
        wait_until(lambda: request_limits(open_server).requests == 1)
        start = time.monotonic()
        stop = threading.Event()

        def send_slowly():
            while not stop.wait(0.1):
                try:
                    slow.sendall(b"x")
                except OSError:
                    return

        sender = threading.Thread(target=send_slowly)
        sender.start()
        assert post(open_server, "/api/search", ("row", "0")).status == 200
        head, _, body = read_all(slow).partition(b"\r\n\r\n")  # until it is closed
        stop.set()
        sender.join()
        assert head.startswith(b"HTTP/1.1 408 ")
        assert json.loads(body)["status"] == 408
        assert 0.5 < time.monotonic() - start < 4


def test_too_many_waiting_requests_get_503_until_clients_leave(open_server):
    waiting = [begin_upload(open_server) for _ in range(3)]
    wait_until(lambda: request_limits(open_server).requests == 3)
    answer = post(open_server, "/api/search", ("row", "0"))
    assert answer.status == 503
    assert answer.headers["retry-after"] == "1"
    assert "waiting" in problem_detail(answer)
    assert send(open_server, "GET", "/api/library").status == 200
    for each in waiting:
        each.close()
    wait_until(lambda: request_limits(open_server).requests == 0)
    assert post(open_server, "/api/search", ("row", "0")).status == 200


def test_announced_bytes_of_waiting_requests_are_counted(open_server):
    waiting = [begin_upload(open_server, length=1_300_000) for _ in range(2)]
    wait_until(lambda: request_limits(open_server).bytes == 2_600_000)
    with begin_upload(open_server, length=1_300_000) as third:
        wait_until(lambda: request_limits(open_server).bytes == 3_900_000)
        third.shutdown(socket.SHUT_RDWR)
    for each in waiting:
        each.close()


def test_too_many_waiting_bytes_get_503(library):
    settings = Settings(str(library.outputs), max_bytes=100_000, max_waiting_bytes=1_500_000)
    with run_server(settings) as server, begin_upload(server, length=1_000_000):
        assert send(server, "GET", "/api/health").status == 200
        wait_until(lambda: request_limits(server).bytes == 1_000_000)
        assert post(server, "/api/search", ("image", "x", bytes(600_000))).status == 503
        assert post(server, "/api/search", ("row", "0")).status == 200


def test_slow_log_ins_block_nobody(token_server):
    """Clients without the token must not use up the requests of those with it."""
    slow = [begin_upload(token_server, "/login") for _ in range(6)]
    time.sleep(0.2)
    assert post(token_server, "/api/search", ("row", "0"), authorization=BEARER).status == 200
    assert post(token_server, "/login", ("token", TOKEN)).status == 303
    assert all(read_all(each).startswith(b"HTTP/1.1 408 ") for each in slow)
    for each in slow:
        each.close()


@pytest.mark.parametrize("path", ["/api/search", "/api/library", "/metrics", "/x"])
def test_upload_without_token_is_rejected_before_its_body(token_server, path):
    with begin_upload(token_server, path, 30_000_000) as connection:
        assert connection.recv(12) == b"HTTP/1.1 401"
        assert request_limits(token_server).requests == 0


def test_log_in_body_is_limited(token_server):
    assert post(token_server, "/login", ("token", "x" * 5000)).status == 413
    many = chunked_request(
        "/login", [b"x" * 1000] * 8, content_type="application/x-www-form-urlencoded"
    )
    assert send_raw(token_server, many).startswith(b"HTTP/1.1 413 ")
    for fields in ([], [("token", "")], [("tok", TOKEN)], [("token", "x", b"y")]):
        assert post(token_server, "/login", *fields).status in {401, 422}


def test_disconnected_clients_are_not_counted(open_server):
    body, headers = multipart_form(("image", "x.png", encode_image(size=(300, 300))))
    head = "POST /api/search HTTP/1.1\r\nHost: localhost\r\n"
    head += f"Content-Type: {headers['content_type']}\r\nContent-Length: {len(body)}\r\n\r\n"
    for part in (1, len(body) // 2, len(body)):
        with socket.create_connection(("127.0.0.1", open_server.port), 5) as connection:
            connection.sendall(head.encode() + body[:part])
    wait_until(lambda: request_limits(open_server).requests == 0)
    wait_until(lambda: b"requests_in_progress 1.0" in send(open_server, "GET", "/metrics").body)


def test_failed_requests_are_not_counted(open_server, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("on purpose")

    monkeypatch.setattr(service, "search", broken)
    answers = [post(open_server, "/api/search", ("row", "0")) for _ in range(5)]
    assert [answer.status for answer in answers] == [500] * 5  # and no 503


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n\r\n\r\n",
        b"\x00" * 1000,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100),  # TLS
        b"GET /\r\n\r\n",
        b"GET / HTTP/1.1\nHost: localhost\n\n",
        b"GET /" + b"x" * 300_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nA\x00B: c\r\n\r\n",
        b"GET /\x00\xff HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET http://evil.example/api/library HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        b"CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\n\r\n",
        b"POST /api/search HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
        b"POST /api/search HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n"
        b"Content-Length: 5\r\n\r\nabcde",
        b"POST /api/search HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /metrics HTTP/1.1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET * HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /%zz%%% HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
)
def test_server_survives_malformed_requests(open_server, data):
    try:
        answer = send_raw(open_server, data, 0.3)
    except OSError:  # it was closed while there was more to send
        answer = b""
    assert answer == b"" or re.match(rb"HTTP/1.1 (4\d\d|404) ", answer) or b" 200 OK" not in answer
    assert b"Traceback" not in answer
    assert send(open_server, "GET", "/api/health").status == 200


HEADS = {
    "address": (b"GET /", b"x" * 2**16),
    "header": (b"GET / HTTP/1.1\r\nA: ", b"x" * 2**16),
    "headers": (b"GET / HTTP/1.1\r\n", b"A: b\r\n" * 10_000),
    "trailer": (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: ", b"x" * 2**16),
    "chunk": (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;a=", b"x" * 2**16),
}


@pytest.mark.parametrize("name", HEADS)
def test_endless_request_head_is_rejected(open_server, name):
    start, more = HEADS[name]
    sent = 0
    with (
        socket.create_connection(("127.0.0.1", open_server.port), 5) as connection,
        suppress(ConnectionResetError, BrokenPipeError),
    ):
        connection.sendall(start)
        while sent < 300:  # blocks of 64 KB, most of which wait on their way
            connection.sendall(more)
            sent += 1
            time.sleep(0.001)
    assert sent < 300
    assert send(open_server, "GET", "/api/health").status == 200


def test_slow_request_head_times_out(open_server, monkeypatch):
    monkeypatch.setattr("simsearch.web.protocol.HEAD_SECONDS", 0.3)
    for start in (b"GET / HT", b"GET /api/health HTTP/1.1\r\nHost: localhost\r\n\r\nGET"):
        with socket.create_connection(("127.0.0.1", open_server.port), 5) as connection:
            connection.sendall(start)
            begun = time.monotonic()
            answer = read_all(connection)
            assert answer.endswith(b"The request has no end.")
            assert answer.count(b"HTTP/1.1 200") == (len(start) > 10)
            assert time.monotonic() - begun < 4


def test_head_timeout_does_not_apply_to_body_and_response(open_server, monkeypatch):
    monkeypatch.setattr("simsearch.web.protocol.HEAD_SECONDS", 0.2)
    search = service.search
    monkeypatch.setattr(service, "search", lambda *a, **b: time.sleep(0.5) or search(*a, **b))
    assert post(open_server, "/api/search", ("row", "0")).status == 200
    body, headers = multipart_form(("image", "x", encode_image()))
    with socket.create_connection(("127.0.0.1", open_server.port), 5) as connection:
        head = f"POST /api/search HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
        head += f"Connection: close\r\nContent-Type: {headers['content_type']}\r\n\r\n"
        connection.sendall(head.encode() + body[:50])
        time.sleep(0.4)
        connection.sendall(body[50:])
        assert read_all(connection).startswith(b"HTTP/1.1 200 ")


WHERE = [
    " ",
    "null",
    "1",
    "[]",
    "{",
    "NaN",
    "[" * 50_000,
    '{"path":' * 5000,
    json.dumps("*" * 501),
    json.dumps("*" * 60_000),
    json.dumps("[" * 70_000),
    json.dumps({"path": ["a"] * 101}),
    json.dumps({str(i): "a" for i in range(101)}),
    json.dumps({"path": None}),
    json.dumps({"path": {"min": 1, "other": 2}}),
    json.dumps({"price": {"min": "x"}}),
    json.dumps({"price": {"min": [1]}}),
    json.dumps({"price": [[1]]}),
    json.dumps({"title": {"min": 1}}),
    json.dumps({"none": 1}),
    json.dumps({"\ud800": 1}),
    json.dumps({"x" * 60_000: 1}),
    '{"price": NaN}',
    '{"price": Infinity}',
    '{"price": {"min": -Infinity}}',
    '{"price": 1e999}',
    '{"price": ' + "9" * 4000 + "}",
    '{"price": ' + "9" * 5000 + "}",
    '{"price": 9007199254740992}',
]


@pytest.mark.parametrize("where", WHERE)
def test_invalid_where_is_rejected_quickly(open_server, where):
    start = time.monotonic()
    answer = post(open_server, "/api/search", ("row", "0"), ("where", where))
    assert answer.status == 422
    assert problem_detail(answer)
    assert time.monotonic() - start < 2


@pytest.mark.parametrize(
    "where",
    [
        json.dumps("*a" * 250),
        json.dumps("?*" * 250),
        json.dumps("[!-~]*" * 80),
        json.dumps("[a&&b||c~~d--e]["),
        json.dumps("\ud800\x00\n"),
        json.dumps({"path": ["*a" * 250] * 100}),
        json.dumps({"tags": ["*" * 500] * 100, "title": ["(a|b)*"], "folder": ["\\", "[]", "[!]"]}),
        json.dumps({"price": True, "sold": 1, "title": False, "empty": 0, "day": 1.5}),
        json.dumps({"price": {"min": -1e15, "max": None}, "empty": {"min": "a", "max": "b"}}),
        json.dumps({"stock": {"min": "nan", "max": "inf"}}),
        json.dumps({"stock": []}),
    ],
)
def test_expensive_where_is_answered_quickly(open_server, where):
    start = time.monotonic()
    answer = post(open_server, "/api/search", ("row", "0"), ("where", where))
    assert answer.status in {200, 422}, answer.body
    assert time.monotonic() - start < 3


def test_where_at_the_recursion_limit_is_rejected():
    """Where parsing just succeeds, and further steps may not."""
    for depth in range(900, 1100):
        for text in ("[" * depth + "]" * depth, '{"a":' * depth + "1" + "}" * depth):
            with pytest.raises(QueryError):
                read_where(f'{{"path": {text}}}')


@pytest.mark.parametrize(
    "field",
    [
        ("k", "0"),
        ("k", "-9" * 20),
        ("k", "201"),
        ("k", "1.5"),
        ("k", "9" * 5000),
        ("threshold", "nan"),
        ("threshold", "-inf"),
        ("threshold", "1e400"),
        ("threshold", "AUTO"),
        ("diversity", "nan"),
        ("diversity", "1.1"),
        ("unique", "nan"),
        ("unique", "-2"),
        ("box", "nan,0,1,1"),
        ("box", "0,0,inf,1"),
        ("box", "0,0,1"),
        ("box", "1,1,0,0"),
        ("box", "0,0,1e308,1e308"),
        ("box", "0,0,5e-324,1"),
        ("box", ",,,"),
        ("box", "1," * 100_000),
        ("weights", "nan"),
        ("weights", "1e308"),
        ("weights", "0"),
        ("weights", "1,2"),
        ("weights", "1," * 100_000 + "1"),
        ("combine", "sum"),
        ("regions", "2"),
        ("version", "x"),
        ("exclude_query", "\x00"),
    ],
)
def test_invalid_option_is_rejected(open_server, field):
    answer = post(open_server, "/api/search", ("row", "0"), field)
    assert answer.status == (409 if field[0] == "version" else 422), answer.body
    assert problem_detail(answer)


@pytest.mark.parametrize("value", ["nan", "inf", "-1", "1e400", "1e308", "x"])
def test_invalid_dislike_is_rejected(open_server, value):
    fields = ("liked", "0"), ("disliked", "1"), ("disliked", "2"), ("dislike", value)
    assert post(open_server, "/api/recommend", *fields).status == 422


@pytest.mark.parametrize(
    "query",
    [
        "offset=-1",
        "offset=" + "9" * 30,
        "offset=nan",
        "limit=0",
        "limit=501",
        "limit=1e9",
        "where=%ff",
        "where=%00",
        "where=" + "%5B" * 15_000,
    ],
)
def test_invalid_page_is_rejected(open_server, query):
    assert send(open_server, "GET", f"/api/images?{query}").status == 422


def test_page_beyond_the_end_is_empty(open_server):
    page = json.loads(send(open_server, "GET", f"/api/images?offset={2**53}").body)
    assert (page["total"], page["images"]) == (6, [])


def test_a_column_with_an_infinite_cell_is_text(open_server):
    columns = json.loads(send(open_server, "GET", "/api/library").body)["columns"]
    (price,) = (column for column in columns if column["name"] == "price")
    assert (price["kind"], price["values"]) == ("text", ["-7", "1.5", "inf"])


@pytest.mark.parametrize("text", ['{"a": 1, "a": 2}', '{"a": {"min": 1, "min": 2}}'])
def test_a_column_that_stands_twice_in_where_is_refused(text):
    with pytest.raises(QueryError, match="stands twice; give its values as one list"):
        read_where(text)
