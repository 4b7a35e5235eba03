"""Uploads that are too large, too many, or no image at all."""

import io
import math
import re
import socket
import struct
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from PIL import Image, ImageFile
from scan_bombs import repeat_scans
from security_cases import chunked_request, encode_image, problem_detail
from starlette.datastructures import Headers
from web_server import multipart_form, post, read_all, run_server, send, send_raw, wait_until

from simsearch.web import middleware, service
from simsearch.web.settings import Settings


def png(width, height, data=b""):
    """Make a PNG whose header states this size."""

    def chunk(kind, content):
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


def resized(kind, old, new, layout):
    """Make an image file whose header states another size than it has."""
    data = encode_image(kind, old)
    size = struct.pack(layout, *old)
    assert size in data
    return data.replace(size, struct.pack(layout, *new))


BOMBS = {
    "png": png(60_000, 60_000),
    "png of zeros": png(2_000, 2_000, zlib.compress(bytes(3 * 2_000 * 2_000 + 2_000), 9)),
    "gif": resized("GIF", (321, 123), (60_000, 60_000), "<HH"),
    "bmp": resized("BMP", (321, 123), (30_000, 30_000), "<ii"),
    "jpeg": resized("JPEG", (123, 123), (60_000, 60_000), ">HH"),
    "webp": encode_image("WEBP", (2_000, 2_000)),
    "avif": resized("AVIF", (321, 123), (20_000, 20_000), ">II"),
    "heif": resized("HEIF", (322, 124), (20_000, 20_000), ">II"),
    "tiff": encode_image("TIFF", (2_000, 2_000), compression="tiff_deflate"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_image_with_too_many_pixels_is_not_decoded(open_server, name, monkeypatch):
    decoded = []

    def load(image):
        decoded.append(image)

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    for field, path in (("image", "search"), ("liked_image", "recommend")):
        answer = post(open_server, f"/api/{path}", (field, f"x.{name}", BOMBS[name]))
        assert answer.status == 422
        assert "cannot be read" in problem_detail(answer)
    answer = post(
        open_server, "/api/search", ("image", "a", encode_image()), ("image", "b", BOMBS[name])
    )
    assert answer.status == 422
    assert decoded == []


def test_jpeg_with_too_many_scans_is_rejected(open_server):
    assert "scans" in problem_detail(
        post(open_server, "/api/search", ("image", "x", repeat_scans(500)))
    )
    assert post(open_server, "/api/search", ("image", "x", repeat_scans(20))).status == 200


def test_animation_is_read_as_its_first_frame(open_server):
    data = io.BytesIO()
    frames = [Image.new("RGB", (30, 30), (i % 256, i // 2, 0)) for i in range(400)]
    frames[0].save(data, "GIF", save_all=True, append_images=frames[1:], duration=20)
    assert post(open_server, "/api/search", ("image", "x", data.getvalue())).status == 200


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00" * 100,
        b"<html><script>alert(1)</script></html>",
        b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(%pipe%id) (w) file\n",
        b"%PDF-1.7\n",
        b"GIF89a",
        b"\xff\xd8\xff\xe0",
        encode_image()[:50],
        encode_image("JPEG")[:200],
        encode_image("PPM"),
        encode_image("TIFF")[:20],
        encode_image("WEBP")[:40],
        encode_image("ICO"),
        encode_image("TGA"),
        encode_image("PCX"),
    ],
)
def test_file_that_is_no_image_is_rejected_whatever_its_name(open_server, content):
    for name in ("a.jpg", "a.svg", "a.eps"):
        answer = post(open_server, "/api/search", ("image", name, content))
        assert answer.status == 422
        assert "cannot be read" in problem_detail(answer)


def test_uploads_wait_for_the_pixel_budget(library, monkeypatch):
    """Large uploads wait for each other; searches by row do not wait."""
    decoding, totals, go = [], [], threading.Event()

    def slow(_, query, **__):
        pixels = 0 if isinstance(query, int) else 10_000
        decoding.append(pixels)
        totals.append(sum(decoding))
        assert pixels == 0 or go.wait(10)
        decoding.remove(pixels)
        return []

    with run_server(Settings(str(library.outputs), max_decoding=25_000)) as server:
        monkeypatch.setattr(service, "search", slow)
        with ThreadPoolExecutor(6) as pool:
            upload = ("image", "x", encode_image(size=(100, 100)))
            answers = [pool.submit(post, server, "/api/search", upload) for _ in range(6)]
            wait_until(lambda: sum(decoding) == 20_000)
            assert post(server, "/api/search", ("row", "0")).status == 200
            go.set()
            assert [each.result().status for each in answers] == [200] * 6
        assert max(totals) == 20_000
        whole = (
            "image",
            "x",
            encode_image(size=(400, 400)),
        )  # over the budget: decoded alone
        assert post(server, "/api/search", whole).status == 200


@pytest.mark.parametrize(
    ("length", "status"),
    [("400000000", 413), ("9" * 19, 413), ("9" * 5000, 4), ("-1", 4), ("x", 4)],
)
def test_upload_with_too_large_content_length_is_not_read(open_server, length, status):
    request = f"POST /api/search HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n"
    start = time.monotonic()
    answer = send_raw(open_server, request.encode(), 0.7)
    assert re.match(rf"HTTP/1.1 {status}".encode(), answer)
    assert time.monotonic() - start < 5


def test_content_length_of_any_number_of_digits():
    """Python's int() reads no number of over 4300 digits."""
    headers = Headers({"content-length": "9" * 5000})
    assert middleware._content_length(headers, 7) == math.inf
    assert middleware._content_length(Headers({"content-length": "-1"}), 7) == 7
    assert middleware._content_length(Headers({"content-length": "12"}), 7) == 12


def test_chunked_upload_is_cut_at_the_limit(open_server):
    body, headers = multipart_form(("image", "x", bytes(10)))
    start = body[: body.index(bytes(10))]
    blocks = [start] + [bytes(2**16)] * 40  # over the upload's own limit and the form's
    with socket.create_connection(("127.0.0.1", open_server.port), 5) as connection:
        with suppress(OSError):  # the server closes the connection
            connection.sendall(chunked_request("/api/search", blocks, **headers))
        assert read_all(connection).startswith(b"HTTP/1.1 413 ")
    good, headers = multipart_form(("row", "0"))
    answer = send_raw(
        open_server,
        chunked_request("/api/search", [good[:9], good[9:]], connection="close", **headers),
    )
    assert answer.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ([("row", "0")] * 33, 422),
        ([("row", "0")] * 1001, 400),
        ([("image", "x", b"")] * 33, 422),
        ([("image", "x", b"")] * 1001, 400),
        ([("image", "x", encode_image())] * 33, 422),
        ([("row", "1" * 2**20)], 422),
        ([("x" * 3000, "1")], 422),
        ([("row", "0"), ("where", "x" * (2**20 + 1))], 400),
        ([("row", "0"), ("extra", "1")], 422),
        ([(f"x{i}", "1") for i in range(900)], 422),
    ],
)
def test_form_with_too_many_or_too_long_fields_is_rejected(open_server, fields, status):
    answer = post(open_server, "/api/search", *fields)
    assert answer.status == status
    assert problem_detail(answer)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("multipart/form-data", b"--B--\r\n"),
        ("multipart/form-data; boundary=", b"--B--\r\n"),
        ("multipart/form-data; boundary=B", b""),
        ("multipart/form-data; boundary=B", b"--B"),
        ("multipart/form-data; boundary=B", b"--C\r\n\r\n"),
        ("multipart/form-data; boundary=B", b"--B\r\n\r\nx\r\n--B--\r\n"),
        ("multipart/form-data; boundary=B", b"--B\r\nContent-Disposition: x\r\n\r\nx\r\n--B--\r\n"),
        (
            "multipart/form-data; boundary=B",
            b"--B\r\n" + b"a: b\r\n" * 10_000 + b"\r\nx\r\n--B--\r\n",
        ),
        (
            "multipart/form-data; boundary=B",
            b"--B\r\na: " + b"x" * 300_000 + b"\r\n\r\n\r\n--B--\r\n",
        ),
        ("multipart/form-data; boundary=B", b"--B\r\n\xff\x00: b\r\n\r\nx\r\n--B--\r\n"),
        ("multipart/form-data; boundary=" + "B" * 300, b"--B--\r\n"),
        ("application/x-www-form-urlencoded", b"%ff=%00&" * 10_000),
        ("application/x-www-form-urlencoded", b"&;=" * 100_000),
        ("application/json", b'{"row": 0'),
        ("application/json", b"[0]"),
        ("application/json", b"[" * 100_000),
        ("text/plain", b"row=0"),
        ("\xff", b"row=0"),
        ("", b"row=0"),
    ],
)
def test_malformed_form_is_rejected(open_server, kind, body):
    answer = send(open_server, "POST", "/api/search", body, content_type=kind)
    assert answer.status in {400, 422}
    assert problem_detail(answer)


@pytest.mark.parametrize(
    "charset", ["punycode", "utf-7", "unicode_escape", "undefined", "zip", "idna"]
)
def test_form_with_unusual_charset_is_survived(open_server, charset):
    for name, value in (("row", "0"), ("\\ud800", "\\ud800"), ("a" * 3000, "a" * 100_000)):
        body, headers = multipart_form((name, value), charset=f"; charset={charset}")
        answer = send(open_server, "POST", "/api/search", body, **headers)
        assert answer.status in {200, 400, 422}
