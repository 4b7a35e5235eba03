"""Addresses as queries and sources: `file:` and `data:` URIs, unknown schemes, odd URLs."""

import base64
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from dataset_cases import paint
from hypothesis import given
from hypothesis import strategies as st
from local_server import serve
from tiny import tiny_backbone

import simsearch as ss
from simsearch.images.address import local_path
from simsearch.images.download import download
from simsearch.images.odd_address import quote_url


@pytest.fixture
def library(tmp_path, monkeypatch):
    """Four pictures, one of them with a space, an umlaut and a percent sign in its name."""
    monkeypatch.chdir(tmp_path)
    for i, name in enumerate(("1.png", "2.png", "3.png", "größe 100%41.png")):
        paint(Path("photos") / name, i)
    return ss.embed_dataset("photos", "out", tiny_backbone(), progress=False)


@pytest.mark.parametrize("name", ["1.png", "größe 100%41.png"])
@pytest.mark.parametrize("form", ["uri", "bare", "localhost", "unquoted", "upper"])
def test_file_uri_as_a_query_is_the_local_file(library, name, form):
    path = Path("photos", name).absolute()
    uri = {
        "uri": path.as_uri(),
        "bare": path.as_uri().replace("file://", "file:"),
        "localhost": path.as_uri().replace("file://", "file://localhost"),
        "unquoted": f"file://{path}",
        "upper": path.as_uri().replace("file", "FILE", 1),
    }[form]
    answer = ss.search(library, uri, k=3)
    assert answer.paths == ss.search(library, path, k=3).paths
    assert f"photos/{name}" not in answer.paths  # a row does not find itself


def test_data_uri_as_a_query_is_its_picture(library):
    data = Path("photos/2.png").read_bytes()
    uri = f"data:image/png;base64,{base64.b64encode(data).decode()}"
    assert ss.search(library, uri, k=1)[0].path == "photos/2.png"
    with pytest.raises(ss.ImageError):
        ss.search(library, "data:nonsense")


@pytest.mark.parametrize("query", ["foo://bar/1.jpg", "htps://example.org/1.jpg"])
def test_unknown_scheme_is_said(library, query):
    with pytest.raises(ss.SimsearchError, match=r"foo|htps") as error:
        ss.search(library, query)
    assert "rotocol" in str(error.value)


def test_missing_file_of_a_uri_is_said(library):
    with pytest.raises(ss.ImageError, match=r"no such file.*"):
        ss.search(library, "file:///nowhere/1.png")


def test_dataset_at_a_quoted_file_uri_is_embedded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for i, name in enumerate(("a%20b.png", "a b.png")):
        paint(tmp_path / "my photos" / name, i)
    library = ss.embed_dataset(
        (tmp_path / "my photos").as_uri(), "out", tiny_backbone(), progress=False
    )
    assert library.names == ["a b.png", "a%20b.png"]
    for i in range(2):
        assert ss.search(library, i, k=1)[0].row == 1 - i


class Site(BaseHTTPRequestHandler):
    """Answers with the path that was asked for; `/moved` redirects to a URL that is not quoted."""

    def do_GET(self):
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/größe a.jpg".encode().decode("latin-1"))
            self.end_headers()
            return
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.path.encode())

    def log_message(self, *args):
        pass


def test_url_with_spaces_and_umlauts_is_downloaded():
    with serve(Site) as address:
        asked = {
            "/a b.jpg": "/a%20b.jpg",
            "/größe.jpg?für=ä b": "/gr%C3%B6%C3%9Fe.jpg?f%C3%BCr=%C3%A4%20b",
            "/a%20b%2Fc.jpg": "/a%20b%2Fc.jpg",
            "/100%.jpg": "/100%25.jpg",
            "/moved": "/gr%C3%B6%C3%9Fe%20a.jpg",
        }
        for path, expected in asked.items():
            assert download(address + path).decode() == expected


@given(st.text(st.characters(exclude_categories=["Cc", "Cs"], exclude_characters="/?#%[]\\")))
def test_quoted_path_is_ascii_and_means_the_same(name):
    quoted = quote_url(f"http://example.org/{name}")
    assert quoted.isascii()
    assert " " not in quoted
    assert unquote(urlsplit(quoted).path) == f"/{name}"
    assert quote_url(quoted) == quoted


@pytest.mark.parametrize("url", ["http://bücher.example/1.jpg", "https://xn--bcher-kva.example/a"])
def test_host_is_written_by_idna(url):
    assert urlsplit(quote_url(url)).hostname == "xn--bcher-kva.example"


def test_host_that_is_none_is_an_image_error():
    with pytest.raises(ss.ImageError):
        download(f"http://{'ü' * 80}.example/1.jpg")


def test_local_path_of_a_plain_path_is_unchanged(tmp_path):
    assert local_path("a%20b.png") == "a%20b.png"
    (tmp_path / "a%20b").mkdir()
    assert local_path(f"file://{tmp_path}/a%20b") == f"{tmp_path}/a%20b"  # there is one
    assert local_path(f"file://{tmp_path}/c%20d") == f"{tmp_path}/c d"
