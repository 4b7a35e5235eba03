"""The SSRF guard: only public addresses are fetched."""

import re
import socket
import time
from http.server import BaseHTTPRequestHandler

import local_server
import pytest
from security_cases import PUBLIC, Redirects, encode_image

from simsearch.errors import ImageError
from simsearch.web import uploads, url_fetch


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",
        "0.1.2.3",
        "10.0.0.1",
        "100.64.0.1",
        "100.100.100.200",
        "127.0.0.1",
        "127.255.255.254",
        "169.254.169.254",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.1",
        "192.0.2.1",
        "192.168.1.1",
        "198.18.0.1",
        "198.51.100.1",
        "203.0.113.1",
        "224.0.0.1",
        "239.255.255.255",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::127.0.0.1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::ffff:0:127.0.0.1",
        "::ffff:0:0:1",
        "::7f00:1",
        "64:ff9b::7f00:1",
        "64:ff9b::10.0.0.1",
        "64:ff9b::169.254.169.254",
        "64:ff9b:1::8.8.8.8",
        "100::1",
        "2001::1",
        "2001:0:7f00:1::",
        "2001:db8::1",
        "2001:10::1",
        "2002:7f00:1::",
        "2002:a00:1::",
        "2002:c0a8:101::1",
        "3fff::1",
        "5f00::1",
        "fc00::1",
        "fd12::1",
        "fe80::1",
        "fe80::1%eth0",
        "fec0::1",
        "ff02::1",
        "ff0e::1",
        "4000::1",
        "8000::1",
        "not-an-address",
        "127.1",
        "2130706433",
    ],
)
def test_private_addresses_are_not_public(address):
    assert not url_fetch.is_public(address)


@pytest.mark.parametrize(
    "address", [PUBLIC, "8.8.8.8", "2606:4700::1111", "64:ff9b::808:808", "::ffff:8.8.8.8"]
)
def test_public_addresses_are_public(address):
    assert url_fetch.is_public(address)


def test_public_url_is_fetched(site):
    assert url_fetch.fetch_public_url("http://public.example/a.png") == encode_image()
    assert url_fetch.fetch_public_url("http://public.example/?to=/b.png") == encode_image()
    assert Redirects.requested == ["/a.png", "/?to=/b.png", "/b.png"]


PRIVATE_URLS = [
    "http://127.0.0.1/",
    "http://localhost/",
    "http://2130706433/",
    "http://0x7f.1/",
    "http://0x7f000001/",
    "http://0177.0.0.1/",
    "http://127.1/",
    "http://0/",
    "http://[::1]/",
    "http://[::]/",
    "http://[::ffff:127.0.0.1]/",
    "http://[::ffff:7f00:1]/",
    "http://[64:ff9b::7f00:1]/",
    "http://[2002:7f00:1::]/",
    "http://[fe80::1%25eth0]/",
    "http://169.254.169.254/latest/meta-data/",
    "http://10.0.0.1/",
    "https://127.0.0.1/",
    "http://inside.example/",
    "http://both.example/",
    "http://unknown.example/",
    "http://public.example:22/",
    "http://public.example:8080/",
    "http://public.example:0/",
    "http://public.example:99999/",
    "http://user:secret@127.0.0.1/",
    "http://public.example@127.0.0.1/",
    "http://127.0.0.1#@public.example/",
    "http://127.0.0.1\\@public.example/",
    "http:///etc/passwd",
    "http://",
    "http://public.example\r\nHost: inside/",
    "http://public.example\x00.evil/",
    "http://ünï.example/",
    "http://" + "a" * 300 + "/",
    "file:///etc/passwd",
    "FILE:///etc/passwd",
    "file://localhost/etc/passwd",
    "ftp://public.example/a.png",
    "gopher://public.example/",
    "data:image/png;base64,AAAA",
    "jar:http://public.example!/",
    "/etc/passwd",
    "",
]


@pytest.mark.parametrize("url", PRIVATE_URLS)
def test_url_to_a_private_address_is_rejected(site, url):
    names, connected = site
    names["localhost"] = ["127.0.0.1", "::1"]
    names["inside.example"] = ["192.168.0.10"]
    names["both.example"] = [PUBLIC, "10.0.0.1"]
    with pytest.raises(ImageError):
        url_fetch.fetch_public_url(url)
    assert connected == []
    is_absolute = (
        re.fullmatch(r"\w+:[^#\r\0]*", url, re.ASCII) and ":///e" not in url and url.isascii()
    )
    if is_absolute:
        with pytest.raises(ImageError):
            url_fetch.fetch_public_url(f"http://public.example/?to={url}")
        assert set(connected) == {(PUBLIC, 80)}


def test_dns_rebinding_is_rejected(site):
    names, connected = site
    names["rebinding.example"] = [[PUBLIC], ["127.0.0.1"]]
    assert url_fetch.fetch_public_url("http://rebinding.example/") == encode_image()
    assert connected == [(PUBLIC, 80)]
    with pytest.raises(ImageError, match="not a public address"):
        url_fetch.fetch_public_url("http://rebinding.example/")
    assert connected == [(PUBLIC, 80)]


def test_private_and_unknown_names_give_the_same_error(site):
    names, _ = site
    names["inside.example"] = ["192.168.0.10"]
    reasons = []
    for host in ("inside.example", "unknown.example"):
        with pytest.raises(ImageError) as caught:
            url_fetch.fetch_public_url(f"http://{host}/")
        reasons.append(caught.value.reason.replace(host, "it"))
    assert reasons == ["it is not a public address"] * 2


def test_endless_redirects_end(site):
    with pytest.raises(ImageError, match="302"):
        url_fetch.fetch_public_url("http://public.example/?to=/?to=/?to=" + "/?to=" * 20)
    assert len(Redirects.requested) < 15


def test_proxy_of_the_environment_is_not_used(site, monkeypatch):
    _, connected = site
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert url_fetch.fetch_public_url("http://public.example/a.png") == encode_image()
    assert connected == [(PUBLIC, 80)]
    assert Redirects.requested == ["/a.png"]  # a proxy would get the whole URL


class SlowHandler(BaseHTTPRequestHandler):
    """Sends a byte from time to time, and never ends."""

    def do_GET(self):
        if self.path == "/body":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        try:
            while True:
                self.wfile.write(b"X" if self.path == "/body" else b"H")
                time.sleep(0.05)
        except OSError:
            pass

    def log_message(self, *_):
        pass


@pytest.mark.parametrize("path", ["/body", "/header"])
def test_url_fetch_times_out_on_a_slow_server(internet, path):
    names, _ = internet
    with local_server.serve(SlowHandler) as address:
        names["port"] = int(address.rpartition(":")[2])
        start = time.monotonic()
        with pytest.raises(ImageError, match=r"over 0\.5 seconds"):
            url_fetch.fetch_public_url(f"http://public.example{path}", 0.5)
        assert 0.4 < time.monotonic() - start < 3


def test_url_fetch_times_out_during_tls_handshake(internet):
    names, _ = internet
    with socket.create_server(("127.0.0.1", 0)) as silent:
        names["port"] = silent.getsockname()[1]
        start = time.monotonic()
        with pytest.raises(ImageError, match=r"over 0\.5 seconds"):
            url_fetch.fetch_public_url("https://public.example/", 0.5)
        assert time.monotonic() - start < 3


def test_urls_of_a_request_share_the_byte_limit(site):
    url, max_bytes = "http://public.example/a.png", 3 * len(encode_image())
    assert uploads.fetch_images([url] * 3, max_bytes) == [encode_image()] * 3
    with pytest.raises(ImageError, match="bytes"):
        uploads.fetch_images([url] * 9, max_bytes)
    assert len(Redirects.requested) == 3 + 4


def test_urls_of_a_request_share_the_timeout(monkeypatch):
    seconds = []
    fetch = lambda _, left: seconds.append(left) or b"x"  # noqa: E731
    monkeypatch.setattr(uploads, "fetch_public_url", fetch)
    monkeypatch.setattr(uploads.time, "monotonic", iter([0.0, 5.0, 12.0, 30.0]).__next__)
    assert uploads.fetch_images(["a", "b", "c"], 100) == [b"x"] * 3
    assert seconds == [15.0, 8.0, -10.0]


def test_url_fetch_without_time_left_connects_nowhere(site):
    _, connected = site
    with pytest.raises(ImageError, match="seconds"):
        url_fetch.fetch_public_url("http://public.example/", -1.0)
    assert connected == []
