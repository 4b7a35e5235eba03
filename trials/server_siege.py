"""Attacks on the server of `server.py`; each returns what it finds broken."""

from __future__ import annotations

import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from server_pictures import Pictures, form

Broken = list[str]


def connect(server: Any, data: bytes) -> socket.socket | None:
    with suppress(OSError):
        connection = socket.create_connection(("127.0.0.1", server.port), 10)
        connection.sendall(data)
        return connection
    return None


def head(method: str, path: str, length: int = 0) -> bytes:
    text = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n"
    if length:
        text += f"Content-Length: {length}\r\nContent-Type: multipart/form-data; boundary=B\r\n"
    return (text + "\r\n").encode()


def hold(server: Any, data: bytes, count: int, seconds: float, drip: bytes = b"") -> Broken:
    """Hold so many connections, and open each again that is closed."""
    held = [connect(server, data) for _ in range(count)]
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for i, connection in enumerate(held):
            try:
                if connection is None:
                    raise OSError
                if drip:
                    connection.send(drip)
            except OSError:
                held[i] = connect(server, data)
            if time.monotonic() > end:
                break
        time.sleep(0.2)
    for connection in held:
        if connection is not None:
            connection.close()
    return []


def endless_bodies(server: Any, _: Pictures, seconds: float) -> Broken:
    return hold(server, head("POST", "/api/search", 30_000_000) + b"--B\r\n", 1015, seconds, b"x")


def slow_heads(server: Any, _: Pictures, seconds: float) -> Broken:
    return hold(server, b"GET /api/health HTTP/1.1\r\nA: ", 1015, seconds, b"x")


def slow_readers(server: Any, pictures: Pictures, seconds: float) -> Broken:
    """Ask for large originals, and read nothing."""
    path = f"/api/images/{pictures.large_rows[0]}"
    return hold(server, head("GET", path), 150, seconds)


def post_at_once(server: Any, bodies: list[tuple[bytes, dict[str, str]]], path: str) -> list[Any]:
    with ThreadPoolExecutor(len(bodies)) as pool:
        return list(pool.map(lambda each: ask(server, "POST", path, *each), bodies))


def ask(server: Any, method: str, path: str, body: Any = None, headers: Any = None) -> int | str:
    try:
        status: int = server.request(method, path, body, headers)[0]
        return status
    except OSError as error:
        return type(error).__name__


def repeat(seconds: float, once: Any) -> Broken:
    end, broken = time.monotonic() + seconds, set[str]()
    while True:
        broken |= {f"status {each}" for each in once() if each not in {200, 422, 503}}
        if time.monotonic() > end:
            return sorted(broken)


def lying_files(server: Any, pictures: Pictures, seconds: float) -> Broken:
    bodies = [form(("image", "x.avif", pictures.lying))] * 6
    return repeat(seconds, lambda: post_at_once(server, bodies, "/api/search"))


def camera_uploads(server: Any, pictures: Pictures, seconds: float) -> Broken:
    bodies = [form(("image", "x.jpg", pictures.camera))] * 10
    return repeat(seconds, lambda: post_at_once(server, bodies, "/api/search"))


def camera_parts(server: Any, pictures: Pictures, seconds: float) -> Broken:
    bodies = [form(("image", "x.jpg", pictures.camera), ("regions", "true"))] * 6
    return repeat(seconds, lambda: post_at_once(server, bodies, "/api/search"))


def profiles(server: Any, pictures: Pictures, seconds: float) -> Broken:
    bodies = [form(("image", "x.jpg", each)) for each in pictures.profiles]
    return repeat(seconds, lambda: post_at_once(server, bodies, "/api/search"))


def large_thumbnails(server: Any, pictures: Pictures, _: float) -> Broken:
    """All at once, in three sizes; they are made once."""
    paths = [
        f"/api/images/{row}/thumbnail?size={size}"
        for row in pictures.large_rows
        for size in (128, 256, 512)
    ]
    with ThreadPoolExecutor(len(paths)) as pool:
        statuses = list(pool.map(lambda path: ask(server, "GET", path), paths))
    return [f"status {each}" for each in set(statuses) - {200, 503}]


def costly_conditions(server: Any, _: Pictures, seconds: float) -> Broken:
    """600 globs, from clients that leave at once; then none may be at work."""
    where = {"path": [f"*{i}*a*{i}*" for i in range(100)], "folder": [f"*{i}?" for i in range(100)]}
    body, headers = form(("row", 0), ("where", json.dumps(where)))
    data = b"POST /api/search HTTP/1.1\r\nHost: localhost\r\n" + (
        f"Content-Type: {headers['Content-Type']}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    )
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for _ in range(8):
            connection = connect(server, data + body)
            time.sleep(0.1)
            if connection is not None:
                connection.close()
    time.sleep(2)
    start = time.monotonic()
    status = ask(server, "POST", "/api/search", *form(("row", 0)))
    slow = time.monotonic() - start > 5
    return [f"a search after it: {status}"] * (status != 200) + ["work goes on"] * slow


def copies(server: Any, pictures: Pictures, seconds: float) -> Broken:
    """Look for copies, while uploads are searched with; it may go on after that."""
    status = ask(server, "POST", "/api/duplicates/search")
    bodies = [form(("image", "x.jpg", each)) for each in pictures.photos]
    broken = repeat(seconds, lambda: post_at_once(server, bodies, "/api/search"))
    state = json.loads(server.request("GET", "/api/duplicates?limit=20")[1])["state"]
    return broken + [f"status {status}, {state}"] * (status != 200 or state == "failed")


def vanishing_clients(server: Any, pictures: Pictures, seconds: float) -> Broken:
    """Send uploads, and leave before they are answered."""
    body, _ = form(("image", "x.jpg", pictures.photos[0]))
    data = head("POST", "/api/search", len(body)).replace(b"boundary=B", b"boundary=BoUnDaRy")
    end = time.monotonic() + seconds

    def leave() -> None:
        while time.monotonic() < end:
            connection = connect(server, data + body)
            if connection is not None:
                connection.close()

    threads = [threading.Thread(target=leave) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return []


ATTACKS = {
    "bodies that never end": endless_bodies,
    "heads that never end": slow_heads,
    "readers that do not read": slow_readers,
    "AVIF files that lie": lying_files,
    "ten uploads of 62 megapixels": camera_uploads,
    "parts of 62 megapixels": camera_parts,
    "large ICC profiles": profiles,
    "thumbnails of 144 megapixels": large_thumbnails,
    "costly conditions": costly_conditions,
    "clients that leave": vanishing_clients,
    "a search for copies": copies,
}
