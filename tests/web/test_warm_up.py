"""What the page shows first is made ready before anybody asks for it."""

import time

import anyio
import pytest
from fastapi.testclient import TestClient

from simsearch.web import warm_up
from simsearch.web.app import create_app
from simsearch.web.metrics import Metrics
from simsearch.web.settings import Settings
from simsearch.web.thumbnails import Thumbnails


@pytest.fixture
def made(monkeypatch):
    """Paths of the thumbnails that are asked for, in order."""
    paths = []
    get = Thumbnails.get

    def recorded(self, path, size):
        assert size == warm_up.SHOWN_SIZE
        paths.append(path)
        return get(self, path, size)

    monkeypatch.setattr(Thumbnails, "get", recorded)
    return paths


def app_with(outputs, cache, **settings):
    return create_app(Settings(str(outputs), cache=str(cache), max_batch=8, **settings))


def wait_for(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_thumbnails_of_the_first_pictures_are_made_in_their_order(
    outputs, library, made, tmp_path, monkeypatch
):
    monkeypatch.setattr(warm_up, "SHOWN", 3)
    cache = tmp_path / "cache"
    with TestClient(app_with(outputs, cache, warm_up=True)):
        wait_for(lambda: len(list(cache.glob("*/*-512.jpg"))) == 3)
    assert made == [str(library.paths[row]) for row in library.page(0, 3)]


def test_picture_that_is_gone_leaves_the_others(outputs, library, made, tmp_path, monkeypatch):
    first, second = library.page(0, 2)
    monkeypatch.setattr(warm_up, "SHOWN", 2)
    get = Thumbnails.get

    def broken(self, path, size):
        return get(self, f"{path}.gone" if path == str(library.paths[first]) else path, size)

    monkeypatch.setattr(Thumbnails, "get", broken)
    cache = tmp_path / "cache"
    with TestClient(app_with(outputs, cache, warm_up=True)) as client:
        wait_for(lambda: len(list(cache.glob("*/*-512.jpg"))) == 1)
        assert client.get("/api/health").status_code == 200
    assert made[-1] == str(library.paths[second])


def test_server_without_it_makes_none(outputs, made, tmp_path):
    with TestClient(app_with(outputs, tmp_path / "cache")) as client:
        client.get("/api/images?shapes=true")
    assert not made


def test_it_waits_until_nobody_has_asked_for_a_while():
    metrics = Metrics()
    metrics.last_request = time.monotonic() + 0.1  # of a request that is answered meanwhile
    anyio.run(warm_up._idle, metrics)
    assert time.monotonic() >= metrics.last_request + warm_up.IDLE_SECONDS
