"""A server below a path, behind a proxy or with several libraries: addresses lead back to it."""

import re

import numpy as np
import pytest
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from starlette.routing import Mount

import simsearch as ss
from simsearch.errors import QueryError
from simsearch.web.app import create_app
from simsearch.web.decoder_pool import DecoderPool
from simsearch.web.metrics import Metrics
from simsearch.web.middleware import SECURITY_HEADERS, TokenAuth
from simsearch.web.pages import login_routes, page_routes
from simsearch.web.root_path import local_path, read_root_path
from simsearch.web.server import read_libraries
from simsearch.web.settings import Settings
from simsearch.web.several import RESERVED, check_names, create_libraries_app

TOKEN = "a-token-of-twenty-or-so"
BROWSER = {"accept": "text/html,*/*;q=0.8"}


def make_library(folder, colors):
    (folder / "dataset").mkdir(parents=True)
    files = []
    for i, color in enumerate(colors):
        files.append(folder / "dataset" / f"{i}.png")
        Image.new("RGB", (40, 30), color).save(files[-1])
    rows = np.eye(len(colors), 8, dtype=np.float32)
    ss.ImageLibrary(rows, [file.as_posix() for file in files]).save(folder / "outputs")
    return str(folder / "outputs")


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    return make_library(tmp_path_factory.mktemp("one"), ["red", "green", "blue"])


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    return make_library(tmp_path_factory.mktemp("two"), ["black", "white"])


@pytest.fixture(params=["/photos", ""], ids=["proxy keeps the prefix", "proxy takes it off"])
def prefix(request):
    return request.param


@pytest.fixture
def client(outputs):
    with TestClient(create_app(Settings(outputs, root_path="photos/"))) as client:
        yield client


def test_addresses_in_answers_begin_with_the_root_path_and_lead_back(client, prefix):
    answer = client.post(f"{prefix}/api/search", data={"row": 1}).json()["answers"][0]
    listed = client.get(f"{prefix}/api/images").json()["images"]
    for image in [*answer["matches"], *listed]:
        assert image["image"].startswith("/photos/api/images/")
        for address in (image["image"], image["thumbnail"]):
            assert client.get(address).status_code == 200
            assert client.get(address.removeprefix("/photos")).status_code == 200


def test_pages_and_their_files_are_relative(client, prefix):
    for page in ("/", "/docs", "/duplicates"):
        text = client.get(f"{prefix}{page}", headers=BROWSER).text
        found = re.findall(r' (?:src|href|action)="([^"#][^"]*)"', text)
        assert found
        for address in found:
            assert not address.startswith("/")
            assert client.get(f"{prefix}/{address.removeprefix('./')}").status_code == 200


def test_schema_names_the_root_path(client, prefix):
    assert client.get(f"{prefix}/api/openapi.json").json()["servers"] == [{"url": "/photos"}]


def test_page_that_stands_at_any_address_finds_its_files(client, prefix):
    page = client.get(f"{prefix}/no/such/page", headers=BROWSER)
    assert page.status_code == 404
    addresses = re.findall(r' (?:src|href)="([^"]+)"', page.text)
    assert addresses
    for address in addresses:
        assert address.startswith("/photos/")
        assert client.get(address).status_code == 200


def test_log_in_stays_below_the_root_path(outputs, prefix):
    app = create_app(Settings(outputs, token=TOKEN, root_path="/photos"))
    with TestClient(app, follow_redirects=False) as client:
        page = client.get(f"{prefix}/?row=1", headers=BROWSER)
        assert page.status_code == 401
        assert 'action="/photos/login"' in page.text
        assert client.get("/photos/static/style.css").status_code == 200
        answer = client.post(
            f"{prefix}/login", params={"next": "/photos/?row=1"}, data={"token": TOKEN}
        )
        assert answer.headers["location"] == "/photos/?row=1"
        assert "path=/photos/;" in answer.headers["set-cookie"].lower()
        link = client.get(f"{prefix}/?token={TOKEN}&row=2")
        assert link.headers["location"] == "/photos/?row=2"
        assert client.get(f"{prefix}/api/health").status_code == 200


@pytest.mark.parametrize("path", ["/a b", "//x/../y", "/x?y", "https://photos.example/", "/é"])
def test_root_path_that_is_none_is_refused(outputs, path):
    with pytest.raises(QueryError, match="root_path"):
        Settings(outputs, root_path=path)


@settings(deadline=None)
@given(st.lists(st.text("abc.-_", min_size=1), max_size=3), st.text("abc/", max_size=8))
def test_local_path_takes_off_the_root_path_alone(parts, rest):
    try:
        root = read_root_path("/".join(parts))
    except QueryError:
        return
    path = f"/{rest}"
    assert local_path({"root_path": root, "path": root + path}) == path
    assert local_path({"root_path": "", "path": path}) == path


def test_several_libraries_are_served_each_below_its_name(outputs, others, prefix):
    libraries = {
        name: Settings(folder, name=name, libraries=["first", "second"], root_path="/photos")
        for name, folder in {"first": outputs, "second": others}.items()
    }
    with TestClient(create_libraries_app(libraries), follow_redirects=False) as client:
        listed = client.get(f"{prefix}/api/libraries").json()
        assert [(each["name"], each["images"]) for each in listed] == [("first", 3), ("second", 2)]
        for each in listed:
            assert client.get(each["address"], headers=BROWSER).status_code == 200
            assert all(client.get(cover).status_code == 200 for cover in each["covers"])
        described = client.get(f"{prefix}/second/api/library").json()
        assert (described["name"], described["libraries"]) == ("second", ["first", "second"])
        found = client.post(f"{prefix}/second/api/search", data={"row": 0}).json()["answers"][0]
        assert {match["path"] for match in found["matches"]} == {"1.png"}
        assert found["matches"][0]["image"].startswith("/photos/second/api/images/1?v=")
        moved = client.get(f"{prefix}/first?row=1")
        assert (moved.status_code, moved.headers["location"]) == (308, "/photos/first/?row=1")
        assert client.get(f"{prefix}/third/api/library").status_code == 404
        assert client.get(f"{prefix}/", headers=BROWSER).status_code == 200
        assert client.get(f"{prefix}/api/health").json()["libraries"] == ["first", "second"]


def test_one_log_in_opens_all_libraries(outputs, others):
    libraries = {
        name: Settings(folder, token=TOKEN, name=name)
        for name, folder in {"first": outputs, "second": others}.items()
    }
    app = create_libraries_app(libraries)
    with TestClient(app, follow_redirects=False, base_url="https://testserver") as client:
        for path in ("/", "/api/libraries", "/first/", "/second/api/library"):
            assert client.get(path).status_code == 401
        answer = client.post(
            "/first/login", params={"next": "/first/?row=1"}, data={"token": TOKEN}
        )
        assert answer.headers["location"] == "/first/?row=1"
        for path in ("/", "/api/libraries", "/first/", "/second/api/library"):
            assert client.get(path).status_code == 200


def test_several_libraries_share_one_pool_of_decoders(outputs, others, monkeypatch):
    made = []

    def count(*given):
        made.append(DecoderPool(*given))
        return made[-1]

    monkeypatch.setattr("simsearch.web.service.DecoderPool", count)
    libraries = {"a": Settings(outputs, name="a"), "b": Settings(others, name="b")}
    with TestClient(create_libraries_app(libraries)) as client:
        assert client.get("/a/api/health").json()["images"] == 3
        assert client.get("/b/api/images/1/thumbnail").status_code == 200
    assert len(made) == 1


def test_no_library_has_the_name_of_another_address(outputs):
    app = create_app(Settings(outputs))
    routes = [*page_routes(Metrics()).routes, *login_routes(TokenAuth(None), "").routes]
    mounted = [each.path for each in app.routes if isinstance(each, Mount)]
    paths = {*app.openapi()["paths"], *mounted, *(each.path for each in routes)}
    firsts = {path.split("/")[1] for path in paths} - {""}
    assert firsts >= {"api", "static", "login", "docs", "metrics"}
    assert firsts <= RESERVED


@pytest.mark.parametrize("several", [False, True], ids=["one", "several"])
def test_answers_carry_the_guards_of_a_server(outputs, several):
    settings = Settings(outputs, name="a" * several, hosts=frozenset({"127.0.0.1"}))
    app = create_libraries_app({"a": settings}) if several else create_app(settings)
    with TestClient(app, base_url="http://127.0.0.1") as client:
        for path in ("/", "/api/health", "/no/such/page"):
            answer = client.get(path)
            for name, value in SECURITY_HEADERS.items():
                assert answer.headers[name] == value
            assert client.head(path).content == b""
            assert client.get(path, headers={"host": "evil.example"}).status_code == 421


@pytest.mark.parametrize("names", [["a", "a"], ["api"], ["a b"], ["..", "b"], ["photos", "b"]])
def test_name_that_no_address_can_have_is_refused(names):
    with pytest.raises(QueryError, match="NAME=FOLDER"):
        check_names(names, "/photos")


def test_names_of_libraries_are_read_from_the_command_line(tmp_path):
    plain = tmp_path / "a=b"
    plain.mkdir()
    assert read_libraries([str(plain)]) == {"": str(plain)}  # a folder's own name
    assert read_libraries(["shop=outputs", "art=x#y"]) == {"shop": "outputs", "art": "x#y"}
    assert read_libraries(["https://host/?a=b#shop"]) == {"": "https://host/?a=b#shop"}
    for wrong in (["outputs", "art=x"], ["a=x", "a=y"], []):
        with pytest.raises(QueryError):
            read_libraries(wrong)
