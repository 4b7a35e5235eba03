"""Fixtures and helpers of the security tests: servers, requests, a pretended Internet."""

import io
import json
import socket
from http.server import BaseHTTPRequestHandler
from typing import ClassVar

import local_server
import pytest
import web_server
from PIL import Image
from web_server import LOCAL, request_limits, run_server, wait_until

from simsearch.web.settings import Settings

TOKEN = "a-token+of/24=letters&%#"
BEARER = f"Bearer {TOKEN}"


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return web_server.make_library(tmp_path_factory.mktemp("security"))


@pytest.fixture(scope="module")
def open_server(library):
    """A server without a token, with small limits."""
    settings = Settings(
        str(library.outputs),
        metadata=str(library.table),
        hosts=LOCAL,
        max_bytes=300_000,
        max_pixels=1_000_000,
        max_waiting=3,
        max_waiting_bytes=5_000_000,
        seconds=1.0,
    )
    with run_server(settings) as found:
        yield found


@pytest.fixture(scope="module")
def token_server(library):
    """A server that needs the token, with small limits."""
    settings = Settings(str(library.outputs), token=TOKEN, max_waiting=3, seconds=1.0)
    with run_server(settings) as found:
        yield found


@pytest.fixture(autouse=True)
def no_request_is_left_counted(request):
    """After each test, check that no request is counted as being answered or waiting."""
    yield
    for name in {"open_server", "token_server"} & set(request.fixturenames):
        counted = request_limits(request.getfixturevalue(name))
        wait_until(lambda counted=counted: (counted.requests, counted.bytes) == (0, 0))


def encode_image(kind="PNG", size=(40, 30), color="red", **options):
    data = io.BytesIO()
    Image.new("RGB", size, color).save(data, kind, **options)
    return data.getvalue()


def problem_detail(answer):
    """Check that an answer is a problem; return its detail."""
    assert answer.headers["content-type"] == "application/problem+json"
    problem = json.loads(answer.body)
    assert problem.keys() == {"type", "title", "status", "detail"}
    assert problem["status"] == answer.status
    assert len(problem["detail"]) <= 1000
    return problem["detail"]


def chunked_request(path, chunks, **headers):
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
    head += "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    body = b"".join(f"{len(each):x}\r\n".encode() + each + b"\r\n" for each in chunks)
    return head.encode() + b"\r\n" + body + b"0\r\n\r\n"


PUBLIC = "93.184.215.14"


@pytest.fixture
def internet(monkeypatch):
    """A pretended Internet: host names with addresses; connections go to a server of this test.

    Only the look-up of names and the connection itself are replaced.
    """
    names, connected = {"public.example": [PUBLIC]}, []
    connect = socket.create_connection

    def look_up(host, port, *args, **kwargs):
        if host in names:
            found = names[host].pop(0) if isinstance(names[host][0], list) else names[host]
            return [each for ip in found for each in look_up_number(ip, port)]
        return look_up_number(host, port)  # numbers are read without a query

    def look_up_number(host, port):
        return web_server.LOOK_UP(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)

    def connect_to_test(address, timeout=None):
        connected.append(address)
        assert address[0] == PUBLIC, "connects to a private address"
        return connect(("127.0.0.1", names["port"]), timeout)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setattr(socket, "create_connection", connect_to_test)
    return names, connected


class Redirects(BaseHTTPRequestHandler):
    """Sends an image, or redirects to the URL in the path."""

    requested: ClassVar = []

    def do_GET(self):
        self.requested.append(self.path)
        where = self.path.partition("?to=")[2]
        self.send_response(302 if where else 200)
        if where:
            self.send_header("Location", where)
        data = b"" if where else encode_image()
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture
def site(internet):
    names, connected = internet
    Redirects.requested = []
    with local_server.serve(Redirects) as address:
        names["port"] = int(address.rpartition(":")[2])
        yield names, connected
