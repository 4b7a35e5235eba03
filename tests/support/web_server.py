"""A real web server on a thread, with a small library, and raw requests to it."""

import http.client
import socket
import threading
import time
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
from PIL import Image

import simsearch as ss
from simsearch.web.app import create_app
from simsearch.web.middleware import RequestLimitsMiddleware
from simsearch.web.protocol import uvicorn_config
from simsearch.web.server import make_server

LOCAL = frozenset({"localhost", "127.0.0.1", "[::1]"})
LOOK_UP = socket.getaddrinfo  # before a fixture replaces it
TABLE = (  # numbers, text, tags, dates, booleans, missing cells
    "path,price,stock,title,tags,day,sold,empty\n"
    "red/0.png,1.5,3,Été,red;round,2024-02-29,True,\n"
    "red/1.png,inf,,(a|b)*,red,,False,\n"
    "blue/2.png,-7,9007199254740993,[x],blue | old,1999-12-31,,\n"
    "blue/3.png,,0,,,not a day,True,\n"
)


def make_library(folder):
    """Embed six images in two folders; return paths of dataset, outputs and table."""
    for i in range(6):
        pixels = np.random.default_rng(i).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        file = folder / "dataset" / ("red", "blue")[i // 2 % 2] / f"{i}.{'tif' if i > 4 else 'png'}"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).resize((160, 120)).save(file)
    ss.embed_dataset(folder / "dataset", folder / "outputs", "efficientnet_lite0")
    (folder / "table.csv").write_text(TABLE, encoding="utf-8")
    return SimpleNamespace(
        dataset=folder / "dataset", outputs=folder / "outputs", table=folder / "table.csv"
    )


@contextmanager
def run_server(settings):
    """Serve on a thread, as `simsearch serve` does; yield app, port and settings."""
    app = create_app(settings)
    server = make_server(app, uvicorn_config(app), None)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        wait_until(lambda: server.started)
        yield SimpleNamespace(app=app, port=listening.getsockname()[1], settings=settings)
        server.should_exit = True
        thread.join(10)
        assert not thread.is_alive()


def wait_until(condition, seconds=10.0):
    """Wait until a condition holds, which another thread changes."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.01)


def send(server, method, path, body=None, **headers):
    """Send a request; return status, headers by lower-case name, and body."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    try:
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        found = {name.lower(): value for name, value in response.getheaders()}
        return SimpleNamespace(status=response.status, headers=found, body=response.read())
    finally:
        connection.close()


def multipart_form(*fields, boundary="B", charset=""):
    """Make a multipart form of (name, value) or (name, file name, bytes): body and headers."""
    parts = []
    for name, value, *data in fields:
        shown = f'form-data; name="{name}"' + (f'; filename="{value}"' if data else "")
        content = data[0] if data else str(value).encode("utf-8", "surrogatepass")
        head = f"--{boundary}\r\nContent-Disposition: {shown}\r\n\r\n".encode()
        parts.append(head + content + b"\r\n")
    body = b"".join(parts) + f"--{boundary}--\r\n".encode()
    return body, {"content_type": f"multipart/form-data; boundary={boundary}{charset}"}


def post(server, path, *fields, **headers):
    """Send a multipart form."""
    body, own = multipart_form(*fields)
    return send(server, "POST", path, body, **own | headers)


def send_raw(server, data, seconds=5.0):
    """Send bytes as they are; return all bytes until the server closes the connection."""
    with socket.create_connection(("127.0.0.1", server.port), seconds) as connection:
        connection.sendall(data)
        return read_all(connection)


def read_all(connection):
    """Read until the other side closes, or the timeout."""
    received = b""
    try:
        while chunk := connection.recv(2**16):
            received += chunk
    except (TimeoutError, ConnectionResetError):
        pass
    return received


def request_limits(server):
    """Return the middleware of an app that counts requests."""
    layer = server.app.middleware_stack
    while not isinstance(layer, RequestLimitsMiddleware):
        layer = layer.app
    return layer
