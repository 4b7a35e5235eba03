"""Addresses that a browser opens: HEAD, unknown ones, and the way through the log-in."""

import http.client

import numpy as np
import pytest
import web_server
from fastapi.testclient import TestClient

import simsearch as ss
from simsearch.web.app import create_app
from simsearch.web.settings import Settings

TOKEN = "a-token-of-twenty-or-so"
BROWSER = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


@pytest.fixture
def outputs(tmp_path):
    ss.ImageLibrary(np.eye(2, dtype=np.float32), ["a.jpg", "b.jpg"]).save(tmp_path)
    return str(tmp_path)


@pytest.fixture
def client(outputs):
    with TestClient(create_app(Settings(outputs))) as client:
        yield client


@pytest.fixture
def locked(outputs):
    with TestClient(create_app(Settings(outputs, token=TOKEN)), follow_redirects=False) as client:
        yield client


@pytest.mark.parametrize("path", ["/", "/docs", "/duplicates", "/static/main.js", "/api/health"])
def test_head_is_answered_as_get_without_the_body(client, path):
    head, get = client.head(path), client.get(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(get.content))
    assert head.headers["content-type"] == get.headers["content-type"]


def test_head_of_a_real_server_leaves_the_connection_open(outputs):
    with web_server.run_server(Settings(outputs)) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
        for method in ("HEAD", "GET", "HEAD", "GET"):
            connection.request(method, "/api/health")
            response = connection.getresponse()
            assert (response.status, bool(response.read())) == (200, method == "GET")
        connection.close()


def test_head_of_what_takes_a_body_alone_is_refused(client):
    assert client.head("/api/search").status_code == 405


def test_unknown_address_is_a_page_for_people_and_a_problem_for_programs(client):
    page = client.get("/nowhere", headers=BROWSER)
    assert page.status_code == 404
    assert page.headers["content-type"].startswith("text/html")
    assert "There is no page at this address" in page.text
    assert client.get("/nowhere").json()["status"] == 404
    assert client.get("/api/nowhere", headers=BROWSER).json()["status"] == 404


@pytest.mark.parametrize(
    ("method", "path", "detail"),
    [
        ("POST", "/api/serach", "there is nothing at '/api/serach'; did you mean '/api/search'?"),
        ("GET", "/openapi.json", "there is nothing at '/openapi.json'; did you mean '/api/openapi"),
        ("GET", "/static/no.js", "there is nothing at '/static/no.js'"),
        ("GET", "/x" * 500, f"there is nothing at '{'/x' * 39}/"),
        ("GET", "/api/search", "/api/search does not take GET: use POST"),
        ("DELETE", "/api/library", "/api/library does not take DELETE: use GET"),
        ("POST", "/static/main.js", "/static/main.js does not take POST: use GET"),
    ],
)
def test_wrong_address_or_method_is_told_with_the_right_one(client, method, path, detail):
    answer = client.request(method, path)
    assert answer.json()["status"] == answer.status_code
    assert answer.json()["detail"].startswith(detail)
    assert len(answer.json()["detail"]) < 200


@pytest.mark.parametrize(
    ("opened", "place"),
    [
        ("/?row=1&folder=a%26b", "/?row=1&folder=a%26b"),
        ("/duplicates", "/duplicates"),
        ("//evil.example/", "/"),
        ("https://evil.example/", "/"),
        ("/\\evil.example", "/"),
        ("/?row=1\r\nSet-Cookie: a=b", "/?row=1%0D%0ASet-Cookie:%20a=b"),
        ("javascript:alert(1)", "/"),
        ("/api/library", "/"),
    ],
)
def test_log_in_leads_to_the_page_that_was_asked_for_and_to_no_other_site(locked, opened, place):
    answer = locked.post("/login", params={"next": opened}, data={"token": TOKEN})
    assert answer.status_code == 303
    assert answer.headers["location"] == place
    assert "Set-Cookie: a" not in str(answer.headers)


def test_log_in_page_stands_at_every_address_that_a_browser_opens(locked):
    for path in ("/?row=1", "/duplicates", "/nowhere"):
        answer = locked.get(path, headers=BROWSER)
        assert answer.status_code == 401
        assert "Enter the token" in answer.text
    assert "Enter the token" in locked.get("/login?next=/docs", headers=BROWSER).text
    assert locked.get("/api/library", headers=BROWSER).json()["status"] == 401


def test_library_without_a_backbone_says_that_it_takes_no_new_pictures(client):
    described = client.get("/api/library").json()
    assert (described["embeds"], described["explains"]) == (False, False)
