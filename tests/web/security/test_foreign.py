"""A server and a library that somebody else made: no file and no address of its choice is read."""

import http.server
import json
import os
import shutil
import socketserver
import threading
from typing import ClassVar

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

import simsearch as ss
from simsearch.errors import LibraryError
from simsearch.images.download import GUARD, is_guarded, public_urls_only
from simsearch.images.read import read_file
from simsearch.web import thumbnail_cache
from simsearch.web.app import create_app
from simsearch.web.settings import Settings
from simsearch.web.thumbnail_cache import ThumbnailCache
from simsearch.web.thumbnails import Thumbnails

SECRET = (7, 77, 177)


def make_library(folder, paths, root=None):
    """Write a library of random rows, which bears this user's mark."""
    rng = np.random.default_rng(0)
    library = ss.ImageLibrary(rng.standard_normal((len(paths), 8)), list(map(str, paths)))
    library.root = root
    library.save(folder)
    return library


@pytest.fixture
def theirs(tmp_path, monkeypatch):
    """A project of a stranger, with rows that lead out of it, and a picture that is secret."""
    Image.new("RGB", (64, 64), SECRET).save(tmp_path / "secret.png")
    place = tmp_path / "theirs"
    (place / "dataset").mkdir(parents=True)
    Image.new("RGB", (64, 64), "white").save(place / "dataset/a.png")
    (place / "dataset/link.png").symlink_to(tmp_path / "secret.png")
    paths = ["dataset/a.png", "dataset/link.png", tmp_path / "secret.png", "../secret.png"]
    make_library(place / "outputs", paths)
    facts = json.loads((place / "outputs/manifest.json").read_text())
    facts |= {"root": "dataset", "absolute_root": str(tmp_path)}
    (place / "outputs/manifest.json").write_text(json.dumps(facts))
    for cache in (place / "outputs/.thumbnails", place / "outputs/.thumbnails/00"):
        cache.mkdir()
    monkeypatch.chdir(place)
    return place


def test_serving_a_foreign_library_asks_where_its_pictures_are(theirs):
    with pytest.raises(LibraryError, match=r"--root DATASET.*simsearch trust outputs"):
        create_app(Settings("outputs"))


def test_a_foreign_library_serves_only_what_lies_below_the_root(theirs):
    with TestClient(create_app(Settings("outputs", root="dataset"))) as client:
        assert client.get("/api/images/0").status_code == 200
        for row in (1, 2, 3):
            for name in ("", "/thumbnail"):
                answer = client.get(f"/api/images/{row}{name}")
                assert answer.status_code >= 400, (row, name)
                assert answer.headers["content-type"].startswith("application/")


def test_thumbnails_are_not_read_from_the_library(theirs, monkeypatch):
    """They lie in the user's cache, which others cannot write."""
    with TestClient(create_app(Settings("outputs", root="dataset"))) as client:
        assert client.get("/api/images/0/thumbnail").status_code == 200
        folder = client.app.state.service.thumbnails.folder
    assert str(folder).startswith(os.environ["XDG_CACHE_HOME"])
    assert [each.name for each in (theirs / "outputs/.thumbnails").rglob("*.jpg")] == []


class Web(http.server.BaseHTTPRequestHandler):
    """A server on this machine that has one picture."""

    asked: ClassVar[list[str]] = []

    def do_GET(self):
        self.asked.append(self.path)
        self.send_response(200)
        self.end_headers()
        Image.new("RGB", (64, 64), SECRET).save(self.wfile, "PNG")

    def log_message(self, *_):
        pass


@pytest.fixture
def internal():
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Web) as server:
        Web.asked.clear()
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_rows_at_private_addresses_are_not_fetched_by_a_server(tmp_path, internal):
    paths = [f"{internal}/a.png", f"zip://a.png::{internal}/all.zip"]
    make_library(tmp_path / "outputs", paths)
    with TestClient(create_app(Settings(str(tmp_path / "outputs")))) as client:
        for row in range(2):
            for name in ("", "/thumbnail"):
                assert client.get(f"/api/images/{row}{name}").status_code >= 400
            client.post("/api/search", data={"row": str(row), "box": "0,0,0.5,0.5"})
            client.post("/api/explain", data={"row": "0", "match": "1"})
    assert Web.asked == []
    assert read_file(paths[0])  # this process serves no more


def test_rows_below_an_address_that_is_given_are_fetched(tmp_path, internal):
    make_library(tmp_path / "outputs", [f"{internal}/a.png"], internal)
    with TestClient(create_app(Settings(str(tmp_path / "outputs"), root=internal))) as client:
        assert client.get("/api/images/0").status_code == 200
    assert Web.asked == ["/a.png"]


@pytest.mark.parametrize(
    ("address", "guarded"),
    [
        ("http://127.0.0.1/a", True),
        ("HTTPS://example.org/a", True),
        ("zip://a::http://127.0.0.1/b.zip", True),
        ("http://nas.example/photos/a.png", False),
        ("http://nas.example/photoshop/a.png", True),
        ("zip://a::http://nas.example/photos/b.zip", True),
        ("s3://bucket/a.png", False),
        ("photos/a.png", False),
    ],
)
def test_what_a_server_may_fetch(address, guarded):
    with public_urls_only("http://nas.example/photos"):
        assert is_guarded(address) == guarded
    assert not is_guarded(address)
    assert GUARD not in os.environ


class TestThumbnailCache:
    def test_what_was_used_longest_ago_goes_first(self, tmp_path, monkeypatch):
        monkeypatch.setattr(thumbnail_cache, "MAX_BYTES", 1000)
        cache = ThumbnailCache(tmp_path / "cache")
        for i in range(6):
            file = cache.file(f"{i}.png", 128)
            cache.store(file, bytes(200))
            os.utime(file, (10**9 * 2 + i, 10**9 * 2 + i))
        cache.read(cache.file("0.png", 128), b"\0")  # in use; its clock is behind the others
        os.utime(cache.file("0.png", 128), (10**9 * 2 + 9, 10**9 * 2 + 9))
        cache.sweep()
        left = [i for i in range(6) if cache.file(f"{i}.png", 128).exists()]
        assert left == [0, 3, 4, 5]

    def test_what_nobody_uses_and_half_files_go(self, tmp_path):
        cache = ThumbnailCache(tmp_path / "cache")
        old, part, new = (cache.file(f"{i}.png", 128) for i in range(3))
        for file in (old, part, new):
            cache.store(file, b"data")
        part = part.rename(f"{part}.1-2.part")
        os.utime(old, (1, 1))
        os.utime(part, (1, 1))
        ThumbnailCache(tmp_path / "cache")
        assert [old.exists(), part.exists(), new.exists()] == [False, False, True]

    def test_the_copy_of_a_picture_that_is_gone_goes_with_it(self, tmp_path):
        Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
        thumbnails = Thumbnails(tmp_path / "cache")
        assert thumbnails.get(str(tmp_path / "a.png"), 128).data
        (tmp_path / "a.png").unlink()
        with pytest.raises(ss.ImageError):
            thumbnails.get(str(tmp_path / "a.png"), 128)
        assert list(tmp_path.glob("cache/*/*")) == []

    @pytest.mark.skipif(os.name == "nt", reason="no such modes")
    def test_a_folder_that_others_may_write_is_not_used(self, tmp_path):
        (tmp_path / "cache").mkdir()
        (tmp_path / "cache").chmod(0o777)
        cache = ThumbnailCache(tmp_path / "cache")
        assert cache.folder != tmp_path / "cache"
        cache.store(cache.file("a.png", 128), b"data")
        cache.close()
        assert not cache.folder.exists()

    def test_one_file_for_a_picture_from_wherever_it_is_asked(self, tmp_path, monkeypatch):
        cache = ThumbnailCache(tmp_path / "cache")
        monkeypatch.chdir(tmp_path)
        here = cache.file("a.png", 128)
        assert here == cache.file(str(tmp_path / "a.png"), 128)
        (tmp_path / "other").mkdir()
        monkeypatch.chdir(tmp_path / "other")
        assert cache.file("a.png", 128) != here
        shutil.rmtree(tmp_path / "cache")
        assert cache.read(here, b"") is None
