"""Downloads from a real web server on this machine: limits, errors, redirects."""

import socket
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from local_server import serve
from pictures import (
    difference,
    encoded,
    photo,
    smooth,
)
from PIL import Image

from simsearch.errors import ImageError
from simsearch.images import download as download_module
from simsearch.images.address import is_url
from simsearch.images.decode import load_image
from simsearch.images.download import download


class Site(BaseHTTPRequestHandler):
    """Each page is a method; `ftp` is the port of a server that must not be called."""

    ftp = 0

    def do_GET(self):
        getattr(self, self.path.strip("/").partition(".")[0], self.missing)()

    def answer(self, body=b"", code=200, **headers):
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def good(self):
        self.answer(encoded(Image.fromarray(smooth()), "PNG"))

    def moved(self):
        self.answer(code=302, Location="/good.png")

    def missing(self):
        self.answer(code=404)

    def text(self):
        self.answer(b"<html>an error page</html>", Content_Type="image/jpeg")

    def empty(self):
        self.answer()

    def half(self):
        body = photo("PNG")
        self.answer(body[: len(body) // 2], Content_Length=len(body))

    def rubbish(self):
        self.wfile.write(b"this is no HTTP\r\n\r\n")

    def drip(self):
        self.answer()
        self.trickle(b".", 0.05)

    def silence(self):
        self.answer(b"a few bytes")
        self.trickle(b"", 0.05)

    def trickle(self, chunk, pause):
        try:
            for _ in range(200):
                self.wfile.write(chunk)
                time.sleep(pause)
        except OSError:
            pass  # the client has left

    def to_ftp(self):
        self.answer(code=302, Location=f"ftp://127.0.0.1:{self.ftp}/1.jpg")

    def to_file(self):
        self.answer(code=302, Location="file:///etc/passwd")

    def round(self):
        self.answer(code=302, Location="/round")

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def site():
    with serve(Site) as address:
        yield address


@pytest.mark.parametrize("page", ["good.png", "good", "moved"])
def test_url_is_downloaded(site, page):
    assert difference(load_image(f"{site}/{page}"), smooth()) == 0
    assert download(f"{site}/{page}") == encoded(Image.fromarray(smooth()), "PNG")


@pytest.mark.parametrize(
    ("page", "reason"),
    [
        ("nowhere.jpg", "404 Not Found"),
        ("text.jpg", "not a supported image format"),
        ("empty.jpg", "the file is empty"),
        ("half.png", "truncated"),
        ("rubbish", "this is no HTTP"),
        ("to_file", "file:///etc/passwd' is not allowed"),
        ("round", "infinite loop"),
        ("a b.jpg", "404"),
    ],
)
def test_url_without_an_image(site, page, reason):
    with pytest.raises(ImageError, match=reason) as error:
        load_image(f"{site}/{page}")
    assert str(error.value) == f"cannot read {site}/{page}: {error.value.reason}"


@pytest.mark.parametrize(
    "url", ["http://nowhere.example/1.jpg", "http://", "http://[::1/1.jpg", "https://127.0.0.1:x/"]
)
def test_url_without_a_server(url):
    with pytest.raises(ImageError) as error:
        download(url)
    assert str(error.value).startswith(f"cannot read {url}: ")


def test_download_refuses_file_urls(tmp_path):
    (tmp_path / "secret").write_text("mine")
    with pytest.raises(ImageError, match="neither http nor https"):
        download((tmp_path / "secret").as_uri())


def test_redirect_to_ftp_is_not_followed(site, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        monkeypatch.setattr(Site, "ftp", server.getsockname()[1])
        with pytest.raises(ImageError, match=r"ftp://.* is neither http nor https"):
            load_image(f"{site}/to_ftp")
        with pytest.raises(BlockingIOError):
            server.accept()


def test_download_limit(site, monkeypatch):
    size = len(encoded(Image.fromarray(smooth()), "PNG"))
    monkeypatch.setattr(download_module, "MAX_DOWNLOAD_BYTES", size)
    assert len(download(f"{site}/good.png")) == size
    monkeypatch.setattr(download_module, "MAX_DOWNLOAD_BYTES", size - 1)
    with pytest.raises(ImageError, match=rf"good\.png: over {size - 1:,} bytes"):
        load_image(f"{site}/good.png")


@pytest.mark.parametrize(
    ("page", "reason"), [("drip", "over 0.3 seconds|timed out"), ("silence", "timed out")]
)
def test_download_times_out_on_a_slow_server(site, page, reason, monkeypatch):
    monkeypatch.setattr(download_module, "DOWNLOAD_SECONDS", 0.3)
    start = time.monotonic()
    with pytest.raises(ImageError, match=reason):
        load_image(f"{site}/{page}")
    assert time.monotonic() - start < 5


@pytest.mark.parametrize(
    ("source", "answer"),
    [
        ("http://a/b.jpg", True),
        ("HTTPS://a/b.jpg", True),
        ("ftp://a/b.jpg", False),
        ("http/b.jpg", False),
        (Path("http://a"), False),
        (b"http://a", False),
    ],
)
def test_is_url(source, answer):
    assert is_url(source) is answer
