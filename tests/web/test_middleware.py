"""The web server under attack: who gets in, what comes out, how much of it, and from where.

Every request goes to a real server on this machine, mostly as bytes that no browser would send.
"""

import io
import json
import math
import os
import re
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import ClassVar

import hostile
import local_server
import pillow_heif
import pytest
from hostile import LOCAL, ask, form, limits, post, raw, read_all, running, wait_until
from PIL import Image, ImageFile
from starlette.datastructures import Headers

import simsearch as ss
from simsearch.errors import ImageError, QueryError
from simsearch.web import app, middleware, schemas, server, service, thumbnails, url_fetch
from simsearch.web.settings import Settings

TOKEN = "a-token+of/24=letters&%#"
BEARER = f"Bearer {TOKEN}"
HARD = {
    "content-security-policy",
    "cross-origin-opener-policy",
    "cross-origin-resource-policy",
    "permissions-policy",
    "referrer-policy",
    "x-content-type-options",
    "x-frame-options",
}


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return hostile.make_library(tmp_path_factory.mktemp("hostile"))


@pytest.fixture(scope="module")
def open_server(library):
    """As on this machine alone, with small limits."""
    settings = Settings(
        str(library.outputs),
        metadata=str(library.table),
        hosts=LOCAL,
        max_bytes=300_000,
        max_pixels=1_000_000,
        max_waiting=3,
        max_waiting_bytes=5_000_000,
        seconds=1.0,
    )
    with running(settings) as found:
        yield found


@pytest.fixture(scope="module")
def locked(library):
    """As for others, who need the token."""
    settings = Settings(str(library.outputs), token=TOKEN, max_waiting=3, seconds=1.0)
    with running(settings) as found:
        yield found


@pytest.fixture(autouse=True)
def nothing_is_left(request):
    """After each test, whatever it did, no request is counted as being there."""
    yield
    for name in {"open_server", "locked"} & set(request.fixturenames):
        counted = limits(request.getfixturevalue(name))
        wait_until(lambda counted=counted: (counted._requests, counted._bytes) == (0, 0))


def picture(kind="PNG", size=(40, 30), color="red", **options):
    data = io.BytesIO()
    Image.new("RGB", size, color).save(data, kind, **options)
    return data.getvalue()


def detail(answer):
    """Check that an answer is a problem, and return what it says."""
    assert answer.headers["content-type"] == "application/problem+json"
    said = json.loads(answer.body)
    assert said.keys() == {"type", "title", "status", "detail"}
    assert said["status"] == answer.status
    assert len(said["detail"]) <= 1000
    return said["detail"]


# Every answer


def breaking(monkeypatch):
    def broken(*_):
        raise RuntimeError(f"secret {Path(__file__)}")

    monkeypatch.setattr(service.Service, "page", broken)


REQUESTS = {
    "page": (200, "GET", "/"),
    "docs": (200, "GET", "/docs"),
    "static": (200, "GET", "/static/login.html"),
    "schema": (200, "GET", "/api/openapi.json"),
    "library": (200, "GET", "/api/library"),
    "metrics": (200, "GET", "/metrics"),
    "picture": (200, "GET", "/api/images/0"),
    "another format": (200, "GET", "/api/images/5"),
    "thumbnail": (200, "GET", "/api/images/0/thumbnail"),
    "no row": (404, "GET", "/api/images/6"),
    "no row, negative": (404, "GET", "/api/images/-1"),
    "no number": (422, "GET", "/api/images/x"),
    "no such version": (409, "GET", "/api/images/0?v=x"),
    "nothing there": (404, "GET", "/nothing"),
    "nothing static": (404, "GET", "/static/nothing"),
    "slash": (404, "GET", "/api/library/"),
    "head": (405, "HEAD", "/api/library"),
    "method": (405, "DELETE", "/api/library"),
    "static method": (405, "POST", "/static/login.html"),
    "preflight": (405, "OPTIONS", "/api/search"),
    "trace": (405, "TRACE", "/"),
    "no query": (422, "POST", "/api/search"),
    "500": (500, "GET", "/api/images"),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_every_answer_is_hardened_and_every_error_a_problem(
    open_server, library, name, monkeypatch
):
    breaking(monkeypatch)
    status, method, path = REQUESTS[name]
    origin = {"origin": "https://evil.example", "access_control_request_method": "POST"}
    answer = ask(open_server, method, path, **origin)
    assert answer.status == status
    assert answer.headers.keys() >= HARD
    assert not any(header.startswith("access-control") for header in answer.headers)
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; ")
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "server" not in answer.headers
    if status >= 400 and method != "HEAD":
        assert detail(answer)
    for inside in (library.dataset.parent, Path(app.__file__).parent, Path(__file__).parent):
        assert str(inside).encode() not in answer.body
    assert b"Traceback" not in answer.body


def test_a_picture_that_the_browser_has_is_not_sent_again(open_server):
    tag = ask(open_server, "GET", "/api/images/0").headers["etag"]
    answer = ask(open_server, "GET", "/api/images/0", if_none_match=tag)
    assert (answer.status, answer.body) == (304, b"")
    assert answer.headers.keys() >= HARD


@pytest.mark.parametrize(
    ("site", "mode", "path", "status"),
    [
        ("cross-site", "no-cors", "/api/images/0", 403),
        ("same-site", "no-cors", "/api/images/0", 403),
        ("cross-site", "navigate", "/api/images/0", 403),
        ("cross-site", "cors", "/", 403),
        ("cross-site", "navigate", "/static/login.html", 403),
        ("cross-site", "navigate", "/", 200),  # a link
        ("same-origin", "cors", "/api/images/0", 200),
        ("none", "navigate", "/api/images/0", 200),  # typed in
    ],
)
def test_another_site_may_link_to_the_page_and_no_more(open_server, site, mode, path, status):
    answer = ask(open_server, "GET", path, sec_fetch_site=site, sec_fetch_mode=mode)
    assert answer.status == status


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1", 200),
        ("localhost:8000", 200),
        ("LOCALHOST", 200),
        ("[::1]:8000", 200),
        ("evil.example", 421),
        ("localhost.evil.example", 421),
        ("evil.example:127.0.0.1", 421),
        ("localhost.", 421),
        ("localhost@evil.example", 421),
        ("127.0.0.1.evil.example:80", 421),
        ("[::2]", 421),
        ("127.0.0.2", 421),
        ("", 421),
    ],
)
def test_the_server_is_called_by_its_own_names_alone(open_server, host, status):
    request = f"GET /api/library HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    assert raw(open_server, request.encode()).startswith(f"HTTP/1.1 {status} ".encode())


def test_a_request_to_no_host_is_refused(open_server):
    answer = raw(open_server, b"GET /api/library HTTP/1.0\r\n\r\n")
    assert re.match(rb"HTTP/1.1 4\d\d ", answer)
    two = b"GET / HTTP/1.1\r\nHost: evil.example\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
    assert re.match(rb"HTTP/1.1 4\d\d ", raw(open_server, two))


# The token


def test_nothing_but_the_way_in_is_open_without_the_token(locked):
    schema = json.loads(ask(locked, "GET", "/api/openapi.json", authorization=BEARER).body)
    places = [(method, path) for path, each in schema["paths"].items() for method in each]
    assert len(places) > 8
    places += [("get", path) for path in ("/", "/docs", "/metrics", "/api/openapi.json", "/x")]
    for method, path in places:
        answer = ask(locked, method.upper(), path.replace("{row}", "0"))
        assert answer.status == (200 if path == "/api/health" else 401), path
        assert TOKEN.encode() not in answer.body
        if path in {"/", "/docs"}:
            assert answer.body == (app.STATIC / "login.html").read_bytes()
        elif answer.status == 401:
            assert "Bearer" in detail(answer)
            assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    "path",
    [
        "/static/../api/library",
        "/static/..%2fapi/library",
        "/static/%2e%2e/api/library",
        "/api/health/../library",
        "//api/library",
        "/api/health%2f..%2flibrary",
        "/login/../api/library",
        "/static//../metrics",
    ],
)
def test_no_way_around_leads_past_the_token(locked, path):
    assert ask(locked, "GET", path).status in {401, 404}


@pytest.mark.parametrize(
    "shown",
    [
        "",
        "Bearer",
        "Bearer ",
        TOKEN,
        f"Basic {TOKEN}",
        f"Bearer {TOKEN[:-1]}",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN.upper()}",
        f"Bearer {TOKEN},{TOKEN}",
        "Bearer " + TOKEN.encode().hex(),
        "Bearer \xff\xfe",
        "Bearer " + "x" * 50_000,
    ],
)
def test_a_wrong_token_does_not_open(locked, shown):
    assert ask(locked, "GET", "/api/library", authorization=shown).status == 401
    assert ask(locked, "GET", "/api/library", authorization=BEARER).status == 200


@pytest.mark.parametrize(
    "value", ["", "x", "zz", TOKEN, "ff" * 24, '"' + TOKEN + '"', "%00", "\xe9"]
)
def test_a_wrong_cookie_does_not_open(locked, value):
    name = post(locked, "/login", ("token", TOKEN)).headers["set-cookie"].partition("=")[0]
    assert ask(locked, "GET", "/", cookie=f"{name}={value}").status == 401


def test_the_token_is_compared_in_constant_time(monkeypatch):
    compared = []
    compare = lambda *both: compared.append(both) or both[0] == both[1]  # noqa: E731
    monkeypatch.setattr("simsearch.web.middleware.hmac.compare_digest", compare)
    lock = app.TokenAuth(TOKEN, "")
    assert lock.is_valid(TOKEN)
    assert not lock.is_valid("é" + TOKEN)
    assert compared == [(TOKEN.encode(),) * 2, (("é" + TOKEN).encode(), TOKEN.encode())]


def cookie_of(answer):
    value, *attributes = answer.headers["set-cookie"].split("; ")
    return value, {each.lower() for each in attributes}


def test_a_browser_shows_the_token_once_and_it_leaves_the_address(locked):
    shown = "/?row=3&token=a-token%2Bof/24%3Dletters%26%25%23&b=%E9%0d%0aX:1"
    answer = ask(locked, "GET", shown)
    assert answer.status == 303
    assert answer.headers["location"] == "/?row=3&b=%EF%BF%BD%0D%0AX%3A1"
    cookie, attributes = cookie_of(answer)
    assert attributes >= {"httponly", "samesite=lax", "path=/"}
    assert TOKEN not in cookie
    assert ask(locked, "GET", "/", cookie=cookie).status == 200
    assert ask(locked, "GET", "/api/library", cookie=cookie).status == 200
    again = ask(locked, "GET", shown, cookie=cookie)  # a bookmark: the cookie is there already
    assert (again.status, again.headers["location"]) == (303, answer.headers["location"])
    assert ask(locked, "GET", "/?token=wrong").status == 401
    assert ask(locked, "GET", "/?token=").status == 401


def test_the_token_opens_at_no_other_address(locked):
    query = "?token=a-token%2Bof/24%3Dletters%26%25%23"
    for path in ("/api/library", "/docs", "/metrics", "/api/images/0"):
        assert ask(locked, "GET", path + query).status == 401


def test_cookies_of_other_servers_on_this_host_do_not_lock_out(locked, library):
    cookie, _ = cookie_of(post(locked, "/login", ("token", f" {TOKEN} ")))
    foreign = '_xsrf=2|a|b|c; settings={"a": [1, "b"]}; @@=; =; x'
    for both in (f"{foreign}; {cookie}", f"{cookie}; {foreign}"):
        assert ask(locked, "GET", "/", cookie=both).status == 200
    with running(Settings(str(library.outputs), token=TOKEN[::-1])) as second:
        other, _ = cookie_of(post(second, "/login", ("token", TOKEN[::-1])))
        assert other.partition("=")[0] != cookie.partition("=")[0]
        for one in (locked, second):
            assert ask(one, "GET", "/", cookie=f"{cookie}; {other}").status == 200
        assert ask(second, "GET", "/", cookie=cookie).status == 401


def test_a_cookie_that_was_given_over_https_stays_there(locked):
    answer = post(locked, "/login", ("token", TOKEN), x_forwarded_proto="https")
    assert "secure" in cookie_of(answer)[1]


@pytest.mark.parametrize("token", ["", "short", "a b" * 8, "schlüssel-schlüssel", "x" * 20 + "\n"])
def test_a_token_that_cannot_be_sent_or_can_be_guessed_is_refused(library, token):
    with pytest.raises(QueryError, match="token") as caught:
        Settings(str(library.outputs), token=token)
    assert not token or token not in str(caught.value)


def greeted(monkeypatch, capsys, library, **options):
    """Start a server that ends at once; return its settings and what it printed."""
    asked = []
    create = app.create_app
    monkeypatch.setattr(
        app, "create_app", lambda settings: asked.append(settings) or create(settings)
    )
    monkeypatch.setattr("uvicorn.Server.run", lambda _, sockets: sockets[0].close())
    server.serve(library.outputs, port=0, **options)
    return asked[0], capsys.readouterr().out


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.0.0.2", "::1"])
def test_this_machine_alone_needs_no_token_but_a_name(monkeypatch, capsys, library, host):
    settings, said = greeted(monkeypatch, capsys, library, host=host)
    assert settings.token is None
    assert LOCAL < settings.hosts | {"one more"} <= LOCAL | {host, "one more"}
    assert re.search(rf"http://\[?{host}\]?:\d+/\n", said)


@pytest.mark.parametrize("host", ["0.0.0.0", ""])
def test_anywhere_else_a_token_is_made_and_printed(monkeypatch, capsys, library, host):
    settings, said = greeted(monkeypatch, capsys, library, host=host)
    assert len(settings.token) >= 32
    assert said.count(settings.token) == 2
    other, _ = greeted(monkeypatch, capsys, library, host=host)
    assert other.token != settings.token


def test_the_printed_address_lets_in_whatever_is_in_the_token(monkeypatch, capsys, library, locked):
    _, said = greeted(monkeypatch, capsys, library, token=TOKEN)
    path = re.search(r"http://127.0.0.1:\d+(/\S*)", said)[1]
    assert ask(locked, "GET", path).status == 303


SERVE = """
import sys
from simsearch.cli.main import main
from simsearch.web.service import Service
def broken(*_):
    raise RuntimeError("broken on purpose")
Service.page = broken
sys.exit(main(["serve", sys.argv[1], "--port", "0"]))
"""


def test_the_token_is_never_logged(library, tmp_path):
    token = "an-uncommon-token-1234567890"
    wrong = "some-other-words-0987654321"
    env = os.environ | {"SIMSEARCH_TOKEN": token, "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-c", SERVE, str(library.outputs)]
    with (
        (tmp_path / "log").open("w") as log,
        subprocess.Popen(
            command, env=env, stdout=subprocess.PIPE, stderr=log, text=True
        ) as serving,
    ):
        try:
            greeting = [serving.stdout.readline() for _ in range(3)]
            place = type("", (), {"port": int(re.search(r":(\d+)/", greeting[0])[1])})
            for each, status in ((token, 500), (wrong, 401)):
                bearer = {"authorization": f"Bearer {each}"}
                assert ask(place, "GET", "/api/images", **bearer).status == status
                ask(place, "GET", f"/?token={each}")
                ask(place, "GET", f"/api/images?token={each}", **bearer)
                ask(place, "GET", "/", cookie=f"simsearch_0={each}; token={each}")
                post(place, "/login", ("token", each))
                post(place, "/login", ("tokens", each))
                post(place, "/api/search", ("row", each), **bearer)
                raw(place, f"GET /?token={each} HTTP/9.9\r\n\x00{each}\r\n\r\n".encode(), 0.2)
                raw(
                    place,
                    f"GET /?token={each} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
                    f"Connection: Upgrade, close\r\nAuthorization: {each}\r\n\r\n".encode(),
                    0.2,
                )
        finally:
            serving.terminate()
        rest = serving.stdout.read()
    logged = rest + (tmp_path / "log").read_text()
    assert "broken on purpose" in logged  # so a log there is
    for secret in (token, wrong, token.encode().hex()):
        assert secret not in logged
    assert "".join(greeting).count(token) == 2


def test_help_does_not_tell_the_token():
    env = os.environ | {"SIMSEARCH_TOKEN": TOKEN}
    command = [sys.executable, "-m", "simsearch.cli", "serve", "--help"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert TOKEN not in done.stdout + done.stderr


# The disk


SECRET = "root:x:0:0:what is nobody's business"
PLACES = [
    "/etc/passwd",
    "/../etc/passwd",
    "/../../../../../../../../etc/passwd",
    "/static/../../../../../../../../etc/passwd",
    "/static/%2e%2e/%2e%2e/settings.py",
    "/static/..%2f..%2fsettings.py",
    "/static/..%252fsettings.py",
    "/static/..%5csettings.py",
    "/static//etc/passwd",
    "/static/%2fetc%2fpasswd",
    "/static/../settings.py",
    "/static/../static/../settings.py",
    "/static/x%00.html",
    "/static/" + "x" * 5000,
    "/static/" + "%c0%ae%c0%ae/" * 3 + "settings.py",
    "/static/%ff%fe",
    "/static/.",
    "/static/",
    "/static/con",
    "/api/images/..%2f..%2fetc%2fpasswd",
    "/api/images/../../etc/passwd",
    "/api/images/0/../../../etc/passwd",
    "/api/images/%00",
    "/api/images/0%00",
    "/api/images/file:%2f%2f%2fetc%2fpasswd",
    "/api/images/0/thumbnail?size=..%2f..%2fx",
    "/api/images/0/thumbnail?size=1024",
    "/api/images/0/thumbnail?size=" + "9" * 5000,
    "/api/images/0?v=..%2f..%2fetc%2fpasswd",
]


@pytest.mark.parametrize("path", PLACES)
def test_no_address_leads_to_another_file(open_server, path):
    request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    head, _, body = raw(open_server, request.encode()).partition(b"\r\n\r\n")
    assert re.match(rb"HTTP/1.1 4(00|04|09|22) ", head), head
    assert b"root:" not in body
    assert b"class Settings" not in body


def test_a_link_in_the_static_folder_leads_nowhere(library, tmp_path, monkeypatch):
    static = shutil.copytree(app.STATIC, tmp_path / "static")
    (tmp_path / "secret.txt").write_text(SECRET)
    (static / "link.txt").symlink_to(tmp_path / "secret.txt")
    (static / "folder").symlink_to(tmp_path)
    monkeypatch.setattr(app, "STATIC", static)
    with running(Settings(str(library.outputs))) as found:
        assert ask(found, "GET", "/static/login.html").status == 200
        for path in ("/static/link.txt", "/static/folder/secret.txt", "/static/folder"):
            assert ask(found, "GET", path).status == 404


PATHS = [
    "../../etc/passwd",
    "/etc/passwd",
    "~/.ssh/id_rsa",
    "file:///etc/passwd",
    "0\x00",
    "0.png",
    "red/0.png",
    "\\\\host\\share",
    "0 or 1=1",
    "1e3",
    "0x1",
    "true",
    "[0]",
    "٣" * 4301,
]


@pytest.mark.parametrize("text", PATHS)
def test_a_row_is_a_number_and_nothing_else(open_server, text):
    for path, name in (("search", "row"), ("recommend", "liked"), ("explain", "match")):
        answer = post(open_server, f"/api/{path}", (name, text), ("row", "0"))
        assert answer.status == 422, answer.body


def test_text_where_a_file_belongs_is_refused(open_server):
    for path, name in (("search", "image"), ("recommend", "liked_image"), ("search", "url")):
        assert post(open_server, f"/api/{path}", (name, "/etc/passwd")).status == 422
    answer = post(open_server, "/api/search", ("url", "http://127.0.0.1/"))
    assert "fetches no addresses" in detail(answer)


def test_the_name_of_an_upload_is_not_looked_at(open_server, tmp_path):
    plain = post(open_server, "/api/search", ("image", "x.png", picture()))
    expected = json.loads(plain.body)["answers"]
    for name in (
        "../../../etc/passwd",
        "/etc/passwd",
        "red/0.png",
        "a\x00b",
        "",
        "x" * 3000,
        "-rf",
    ):
        answer = post(open_server, "/api/search", ("image", name, picture()))
        if answer.status != 422:  # without a name it is text
            assert json.loads(answer.body)["answers"] == expected
        assert name == "" or answer.status == 200


STORM = """
import json, os, sys, sysconfig, tempfile, threading
sys.path[:0] = sys.argv[3:]
import hostile, test_middleware as attack
from simsearch.web import app
from simsearch.web.settings import Settings

outputs, dataset = sys.argv[1:3]
opened = []
def storm(server):
    for path in attack.PLACES:
        request = f"GET {path} HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n"
        hostile.raw(server, request.encode())
    for text in attack.PATHS:
        for name in ("row", "image", "url", "where", "box"):
            hostile.post(server, "/api/search", (name, text), ("row", "1"))
        hostile.post(server, "/api/search", ("where", json.dumps(text)), ("row", "1"))
        hostile.post(server, "/api/search", ("image", text, attack.picture()))
        hostile.post(server, "/api/search", ("image", text, text.encode()))
        hostile.post(server, "/api/recommend", ("exclude", text), ("liked", "1"))
    for row in range(-1, 7):
        for rest in ("", "/thumbnail", "/thumbnail?size=512", "/facts"):
            hostile.ask(server, "GET", f"/api/images/{row}{rest}")
        hostile.post(server, "/api/explain", ("row", "0"), ("match", row))

with hostile.running(Settings(outputs, urls=True)) as server:
    storm(server)  # once for what is imported at first use
    sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
    storm(server)
    print(json.dumps([len(opened), sorted(set(opened))]))
    sys.stdout.flush()
"""


def test_a_storm_of_requests_opens_nothing_else(library, tmp_path):
    """By the interpreter's own account of each file that is opened, Pillow's and numpy's too."""
    env = os.environ | {"TMPDIR": str(tmp_path)}
    command = [sys.executable, "-c", STORM, str(library.outputs), str(library.dataset)]
    command += [str(Path(file).parent) for file in (__file__, hostile.__file__)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    count, files = json.loads(done.stdout.splitlines()[-1])
    assert count > 20  # the pictures, at least
    inside = [library.outputs, library.dataset, app.STATIC, tmp_path]
    outside = [file for file in files if not any(Path(file).is_relative_to(x) for x in inside)]
    assert [
        file for file in outside if not file.isdecimal()
    ] == []  # a number is a file open already
    assert {file.name for file in library.outputs.iterdir()} - {".thumbnails"} == {
        ".lock",
        "embeddings.npy",
        "file_stats.npy",
        "image_paths.npy",
        "manifest.json",
        "skipped.csv",
    } & {file.name for file in library.outputs.iterdir()}


@pytest.fixture
def moving(library, tmp_path):
    """A copy of the library, whose pictures may go."""
    dataset = shutil.copytree(library.dataset, tmp_path / "dataset")
    outputs = shutil.copytree(library.outputs, tmp_path / "outputs")
    return Settings(str(outputs), root=str(dataset), hosts=LOCAL), dataset


@pytest.mark.parametrize("fate", ["gone", "html", "svg", "cut", "folder"])
def test_what_has_become_of_a_picture_is_told_without_its_place(moving, fate):
    settings, dataset = moving
    file = dataset / "red" / "0.png"
    content = file.read_bytes()
    row = 2
    with running(settings) as found:
        file.unlink()
        script = b"<html><script>alert(1)</script></html>"
        if fate == "folder":
            file.mkdir()
        elif fate != "gone":
            svg = b'<svg xmlns="http://www.w3.org/2000/svg"><script>1</script></svg>'
            file.write_bytes({"html": script, "svg": svg, "cut": content[:60]}[fate])
        asked = [
            ask(found, "GET", f"/api/images/{row}"),
            ask(found, "GET", f"/api/images/{row}/thumbnail"),
            post(found, "/api/search", ("row", row), ("box", "0,0,0.5,1")),
            post(found, "/api/search", ("row", row), ("regions", "1")),
            post(found, "/api/explain", ("row", "0"), ("match", row)),
        ]
        assert json.loads(ask(found, "GET", f"/api/images/{row}/facts").body)["path"] == "red/0.png"
        for i, answer in enumerate(asked):
            assert answer.headers["content-type"] in {"application/problem+json", "image/png"}
            assert str(dataset.parent).encode() not in answer.body
            assert answer.status == 422 or (fate == "cut" and i == 0)
            assert b"script" not in answer.body
        assert post(found, "/api/search", ("row", row)).status == 200  # its row still finds


@pytest.mark.parametrize("fields", [[("box", "0,0,0.5,1")], [("regions", "1")], [], [("row", "1")]])
def test_a_query_is_named_as_its_picture_is(open_server, library, fields):
    answer = post(open_server, "/api/search", ("row", "2"), *fields)
    assert str(library.dataset.parent).encode() not in answer.body
    assert json.loads(answer.body)["answers"][0]["query"].startswith("red/0.png")


def test_a_library_of_unknown_root_does_not_tell_where_it_lies(library, tmp_path):
    loaded = ss.ImageLibrary.load(library.outputs)
    ss.ImageLibrary(loaded.embeddings, loaded.paths).save(tmp_path / "outputs")
    with running(Settings(str(tmp_path / "outputs"))) as found:
        page = ask(found, "GET", "/api/images")
        assert [each["path"] for each in json.loads(page.body)["images"]] == loaded.names
        asked = [page, ask(found, "GET", "/api/library")]
        asked.append(post(found, "/api/search", ("row", "0")))
        asked.append(post(found, "/api/search", ("image", "x", picture())))  # no backbone
        asked.append(post(found, "/api/explain", ("row", "0"), ("match", "1")))
        assert [answer.status for answer in asked] == [200, 200, 200, 501, 501]
        for answer in asked:
            assert str(library.dataset.parent).encode() not in answer.body
            assert str(tmp_path).encode() not in answer.body


def test_a_file_name_that_is_not_utf8_is_served(library, tmp_path):
    name = b"red/\xff\xe9.png".decode("utf-8", "surrogateescape")
    file = tmp_path / name
    file.parent.mkdir()
    file.write_bytes(picture())
    ss.ImageLibrary([[1.0, 0.0], [0.6, 0.8]], [file, file]).save(tmp_path / "outputs")
    with running(Settings(str(tmp_path / "outputs"))) as found:
        shown = json.loads(ask(found, "GET", "/api/images").body)["images"]
        assert [each["path"] for each in shown] == ["??.png"] * 2
        for path in ("/api/library", "/api/images/0", "/api/images/0/thumbnail"):
            assert ask(found, "GET", path).status == 200
        assert post(found, "/api/search", ("row", "0")).status == 200


# Uploads


def png(width, height, data=b""):
    """A PNG whose header says such a size."""

    def chunk(kind, content):
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


def resized(kind, old, new, layout):
    """An image file whose header says another size than it has."""
    data = picture(kind, old)
    found = struct.pack(layout, *old)
    assert found in data
    return data.replace(found, struct.pack(layout, *new))


pillow_heif.register_heif_opener()
BOMBS = {
    "png": png(60_000, 60_000),
    "png of zeros": png(2_000, 2_000, zlib.compress(bytes(3 * 2_000 * 2_000 + 2_000), 9)),
    "gif": resized("GIF", (321, 123), (60_000, 60_000), "<HH"),
    "bmp": resized("BMP", (321, 123), (30_000, 30_000), "<ii"),
    "jpeg": resized("JPEG", (123, 123), (60_000, 60_000), ">HH"),
    "webp": picture("WEBP", (2_000, 2_000)),
    "avif": resized("AVIF", (321, 123), (20_000, 20_000), ">II"),
    "heif": resized("HEIF", (322, 124), (20_000, 20_000), ">II"),
    "tiff": picture("TIFF", (2_000, 2_000), compression="tiff_deflate"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_an_image_of_too_many_pixels_is_never_decoded(open_server, name, monkeypatch):
    decoded = []

    def load(image):
        decoded.append(image)

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    for field, path in (("image", "search"), ("liked_image", "recommend")):
        answer = post(open_server, f"/api/{path}", (field, f"x.{name}", BOMBS[name]))
        assert answer.status == 422
        assert "cannot be read" in detail(answer)
    answer = post(
        open_server, "/api/search", ("image", "a", picture()), ("image", "b", BOMBS[name])
    )
    assert answer.status == 422
    assert decoded == []


def endless(count):
    """A progressive JPEG with its last scan so many times."""
    data = picture("JPEG", (64, 64), progressive=True)
    last = data.rfind(b"\xff\xda")
    return data[:-2] + data[last:-2] * count + data[-2:]


def test_a_jpeg_of_endless_scans_is_refused(open_server):
    assert thumbnails.count_scans(endless(0)) == endless(0).count(b"\xff\xda") > 5
    assert thumbnails.count_scans(endless(500)) == thumbnails.count_scans(endless(0)) + 500
    assert "scans" in detail(post(open_server, "/api/search", ("image", "x", endless(500))))
    assert post(open_server, "/api/search", ("image", "x", endless(20))).status == 200


def test_scans_are_those_of_the_picture_alone():
    """A preview in the header, or a film behind the picture, is none of it."""
    scan = b"\xff\xda" * 500
    exif = Image.Exif()
    exif[0x010E] = "x"
    data = picture("JPEG", (64, 64), exif=exif.tobytes() + scan)
    assert (
        thumbnails.count_scans(data + scan)
        == thumbnails.count_scans(picture("JPEG", (64, 64)))
        == 1
    )
    for broken in (b"", b"\xff", b"\xff\xd8", b"\xff\xd8\xff\xda", data[:30], b"\xff" * 1000):
        thumbnails.count_scans(broken)


def test_a_small_picture_of_many_frames_is_its_first(open_server):
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
        picture()[:50],
        picture("JPEG")[:200],
        picture("PPM"),
        picture("TIFF")[:20],
        picture("WEBP")[:40],
        picture("ICO"),
        picture("TGA"),
        picture("PCX"),
    ],
)
def test_what_is_no_picture_is_refused_whatever_its_name(open_server, content):
    for name in ("a.jpg", "a.svg", "a.eps"):
        answer = post(open_server, "/api/search", ("image", name, content))
        assert answer.status == 422
        assert "cannot be read" in detail(answer)


def test_pixels_are_decoded_within_a_room(library, monkeypatch):
    """Many large uploads at once wait for each other; searches for rows pass them by."""
    inside, max_images, going = [], [], threading.Event()

    def slow(_, query, **__):
        pixels = 0 if isinstance(query, int) else 10_000
        inside.append(pixels)
        max_images.append(sum(inside))
        assert pixels == 0 or going.wait(10)
        inside.remove(pixels)
        return []

    with running(Settings(str(library.outputs), max_decoding=25_000)) as found:
        monkeypatch.setattr(service, "search", slow)
        with ThreadPoolExecutor(6) as pool:
            upload = ("image", "x", picture(size=(100, 100)))
            answers = [pool.submit(post, found, "/api/search", upload) for _ in range(6)]
            wait_until(lambda: sum(inside) == 20_000)
            assert post(found, "/api/search", ("row", "0")).status == 200
            going.set()
            assert [each.result().status for each in answers] == [200] * 6
        assert max(max_images) == 20_000
        whole = ("image", "x", picture(size=(400, 400)))  # more than the room: alone, not never
        assert post(found, "/api/search", whole).status == 200


@pytest.mark.parametrize(
    ("length", "status"),
    [("400000000", 413), ("9" * 19, 413), ("9" * 5000, 4), ("-1", 4), ("x", 4)],
)
def test_an_upload_that_says_it_is_too_large_is_not_read(open_server, length, status):
    request = f"POST /api/search HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n"
    start = time.monotonic()
    answer = raw(open_server, request.encode(), 0.7)
    assert re.match(rf"HTTP/1.1 {status}".encode(), answer)
    assert time.monotonic() - start < 5


def test_a_length_that_python_would_not_read_is_too_large():
    """Whatever parser stands in front."""
    headers = Headers({"content-length": "9" * 5000})
    assert middleware._content_length(headers, 7) == math.inf
    assert middleware._content_length(Headers({"content-length": "-1"}), 7) == 7
    assert middleware._content_length(Headers({"content-length": "12"}), 7) == 12


def chunked(path, chunks, **headers):
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
    head += "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    body = b"".join(f"{len(each):x}\r\n".encode() + each + b"\r\n" for each in chunks)
    return head.encode() + b"\r\n" + body + b"0\r\n\r\n"


def test_an_upload_that_does_not_say_its_length_is_cut_where_it_is_too_large(open_server):
    body, headers = form(("image", "x", bytes(10)))
    start = body[: body.index(bytes(10))]
    blocks = [start] + [bytes(2**16)] * 40  # over the upload's own limit and the form's
    with socket.create_connection(("127.0.0.1", open_server.port), 5) as connection:
        with suppress(OSError):  # it is cut
            connection.sendall(chunked("/api/search", blocks, **headers))
        assert read_all(connection).startswith(b"HTTP/1.1 413 ")
    good, headers = form(("row", "0"))
    answer = raw(
        open_server, chunked("/api/search", [good[:9], good[9:]], connection="close", **headers)
    )
    assert answer.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ([("row", "0")] * 33, 422),
        ([("row", "0")] * 1001, 400),
        ([("image", "x", b"")] * 33, 422),
        ([("image", "x", b"")] * 1001, 400),
        ([("image", "x", picture())] * 33, 422),
        ([("row", "1" * 2**20)], 422),
        ([("x" * 3000, "1")], 422),
        ([("row", "0"), ("where", "x" * (2**20 + 1))], 400),
        ([("row", "0"), ("extra", "1")], 422),
        ([(f"x{i}", "1") for i in range(900)], 422),
    ],
)
def test_a_form_of_too_much_is_refused(open_server, fields, status):
    answer = post(open_server, "/api/search", *fields)
    assert answer.status == status
    assert detail(answer)


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
        ("application/json", b'{"row": 0}'),
        ("application/json", b"[" * 100_000),
        ("text/plain", b"row=0"),
        ("\xff", b"row=0"),
        ("", b"row=0"),
    ],
)
def test_a_form_that_is_none_is_a_problem(open_server, kind, body):
    answer = ask(open_server, "POST", "/api/search", body, content_type=kind)
    assert answer.status in {400, 422}
    assert detail(answer)


@pytest.mark.parametrize(
    "charset", ["punycode", "utf-7", "unicode_escape", "undefined", "zip", "idna"]
)
def test_an_odd_alphabet_of_a_form_breaks_nothing(open_server, charset):
    for name, value in (("row", "0"), ("\\ud800", "\\ud800"), ("a" * 3000, "a" * 100_000)):
        body, headers = form((name, value), charset=f"; charset={charset}")
        answer = ask(open_server, "POST", "/api/search", body, **headers)
        assert answer.status in {200, 400, 422}


# Too much, too slow


def opened(place, path="/api/search", length=1000):
    """Begin an upload and let it wait; a connection."""
    connection = socket.create_connection(("127.0.0.1", place.port), 5)
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n"
    connection.sendall(head.encode() + b"Content-Type: multipart/form-data; boundary=B\r\n\r\n")
    connection.sendall(form(("image", "x", b"x"))[0].partition(b"\r\n--B--")[0])
    return connection


def test_a_slow_upload_is_cut_off_and_holds_up_nobody(open_server):
    with opened(open_server, length=100_000) as slow:
        wait_until(lambda: limits(open_server)._requests == 1)
        start = time.monotonic()
        stop = threading.Event()

        def drip():
            while not stop.wait(0.1):
                try:
                    slow.sendall(b"x")
                except OSError:
                    return

        dripping = threading.Thread(target=drip)
        dripping.start()
        assert post(open_server, "/api/search", ("row", "0")).status == 200
        head, _, body = read_all(slow).partition(b"\r\n\r\n")  # until it is closed
        stop.set()
        dripping.join()
        assert head.startswith(b"HTTP/1.1 408 ")
        assert json.loads(body)["status"] == 408
        assert 0.5 < time.monotonic() - start < 4


def test_a_full_room_is_said_and_is_empty_again_when_they_have_gone(open_server):
    waiting = [opened(open_server) for _ in range(3)]
    wait_until(lambda: limits(open_server)._requests == 3)
    answer = post(open_server, "/api/search", ("row", "0"))
    assert answer.status == 503
    assert answer.headers["retry-after"] == "1"
    assert "waiting" in detail(answer)
    assert ask(open_server, "GET", "/api/library").status == 200
    for each in waiting:
        each.close()
    wait_until(lambda: limits(open_server)._requests == 0)
    assert post(open_server, "/api/search", ("row", "0")).status == 200


def test_bytes_have_a_room_of_their_own(open_server):
    """Three that do not say how much they send may send all that one may: there is room for it."""
    waiting = [opened(open_server, length=1_300_000) for _ in range(2)]
    wait_until(lambda: limits(open_server)._bytes == 2_600_000)
    with opened(open_server, length=1_300_000) as third:
        wait_until(lambda: limits(open_server)._bytes == 3_900_000)
        third.shutdown(socket.SHUT_RDWR)
    for each in waiting:
        each.close()


def test_bytes_that_do_not_fit_are_turned_away(library):
    settings = Settings(str(library.outputs), max_bytes=100_000, max_waiting_bytes=1_500_000)
    with running(settings) as found, opened(found, length=1_000_000):
        assert ask(found, "GET", "/api/health").status == 200
        wait_until(lambda: limits(found)._bytes == 1_000_000)
        assert post(found, "/api/search", ("image", "x", bytes(600_000))).status == 503
        assert post(found, "/api/search", ("row", "0")).status == 200


def test_strangers_who_log_in_slowly_hold_up_nobody(locked):
    """They have no token, so they must not take the places of those who have."""
    slow = [opened(locked, "/login") for _ in range(6)]
    time.sleep(0.2)
    assert post(locked, "/api/search", ("row", "0"), authorization=BEARER).status == 200
    assert post(locked, "/login", ("token", TOKEN)).status == 303
    assert all(read_all(each).startswith(b"HTTP/1.1 408 ") for each in slow)
    for each in slow:
        each.close()


@pytest.mark.parametrize("path", ["/api/search", "/api/library", "/metrics", "/x"])
def test_a_stranger_uploads_nothing(locked, path):
    with opened(locked, path, 30_000_000) as connection:
        assert connection.recv(12) == b"HTTP/1.1 401"
        assert limits(locked)._requests == 0


def test_a_log_in_is_short(locked):
    assert post(locked, "/login", ("token", "x" * 5000)).status == 413
    many = chunked("/login", [b"x" * 1000] * 8, content_type="application/x-www-form-urlencoded")
    assert raw(locked, many).startswith(b"HTTP/1.1 413 ")
    for fields in ([], [("token", "")], [("tok", TOKEN)], [("token", "x", b"y")]):
        assert post(locked, "/login", *fields).status in {401, 422}


def test_who_leaves_before_the_answer_leaves_nothing_behind(open_server):
    body, headers = form(("image", "x.png", picture(size=(300, 300))))
    head = "POST /api/search HTTP/1.1\r\nHost: localhost\r\n"
    head += f"Content-Type: {headers['content_type']}\r\nContent-Length: {len(body)}\r\n\r\n"
    for part in (1, len(body) // 2, len(body)):
        with socket.create_connection(("127.0.0.1", open_server.port), 5) as connection:
            connection.sendall(head.encode() + body[:part])
    wait_until(lambda: limits(open_server)._requests == 0)
    wait_until(lambda: b"requests_in_progress 1.0" in ask(open_server, "GET", "/metrics").body)


def test_errors_leave_nothing_behind(open_server, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("on purpose")

    monkeypatch.setattr(service, "search", broken)
    answers = [post(open_server, "/api/search", ("row", "0")) for _ in range(5)]
    assert [answer.status for answer in answers] == [500] * 5  # and no 503


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n\r\n\r\n",
        b"\x00" * 1000,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100),  # TLS
        b"GET /\r\n\r\n",
        b"GET / HTTP/1.1\nHost: localhost\n\n",
        b"GET /" + b"x" * 300_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nA\x00B: c\r\n\r\n",
        b"GET /\x00\xff HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET http://evil.example/api/library HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        b"CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\n\r\n",
        b"POST /api/search HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
        b"POST /api/search HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n"
        b"Content-Length: 5\r\n\r\nabcde",
        b"POST /api/search HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /metrics HTTP/1.1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET * HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /%zz%%% HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
)
def test_bytes_that_are_no_request_are_survived(open_server, data):
    try:
        answer = raw(open_server, data, 0.3)
    except OSError:  # it was closed while there was more to send
        answer = b""
    assert answer == b"" or re.match(rb"HTTP/1.1 (4\d\d|404) ", answer) or b" 200 OK" not in answer
    assert b"Traceback" not in answer
    assert ask(open_server, "GET", "/api/health").status == 200


HEADS = {
    "address": (b"GET /", b"x" * 2**16),
    "header": (b"GET / HTTP/1.1\r\nA: ", b"x" * 2**16),
    "headers": (b"GET / HTTP/1.1\r\n", b"A: b\r\n" * 10_000),
    "trailer": (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: ", b"x" * 2**16),
    "chunk": (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;a=", b"x" * 2**16),
}


@pytest.mark.parametrize("name", HEADS)
def test_a_head_that_does_not_end_is_given_up(open_server, name):
    start, more = HEADS[name]
    sent = 0
    with (
        socket.create_connection(("127.0.0.1", open_server.port), 5) as connection,
        suppress(ConnectionResetError, BrokenPipeError),
    ):
        connection.sendall(start)
        while sent < 300:  # blocks of 64 KB, most of which wait on their way
            connection.sendall(more)
            sent += 1
            time.sleep(0.001)
    assert sent < 300
    assert ask(open_server, "GET", "/api/health").status == 200


def test_a_head_that_comes_too_slowly_is_given_up(open_server, monkeypatch):
    monkeypatch.setattr("simsearch.web.protocol.HEAD_SECONDS", 0.3)
    for start in (b"", b"GET / HT", b"GET /api/health HTTP/1.1\r\nHost: localhost\r\n\r\nGET"):
        with socket.create_connection(("127.0.0.1", open_server.port), 5) as connection:
            connection.sendall(start)
            begun = time.monotonic()
            answer = read_all(connection)
            assert answer.endswith(b"The request has no end.")
            assert answer.count(b"HTTP/1.1 200") == (len(start) > 10)
            assert time.monotonic() - begun < 4


def test_an_answer_that_takes_longer_than_a_head_may_is_given(open_server, monkeypatch):
    monkeypatch.setattr("simsearch.web.protocol.HEAD_SECONDS", 0.2)
    search = service.search
    monkeypatch.setattr(service, "search", lambda *a, **b: time.sleep(0.5) or search(*a, **b))
    assert post(open_server, "/api/search", ("row", "0")).status == 200
    body, headers = form(("image", "x", picture()))
    with socket.create_connection(("127.0.0.1", open_server.port), 5) as connection:
        head = f"POST /api/search HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
        head += f"Connection: close\r\nContent-Type: {headers['content_type']}\r\n\r\n"
        connection.sendall(head.encode() + body[:50])
        time.sleep(0.4)
        connection.sendall(body[50:])
        assert read_all(connection).startswith(b"HTTP/1.1 200 ")


# Questions


WHERE = [
    " ",
    "null",
    "1",
    "[]",
    "{",
    "NaN",
    "[" * 50_000,
    '{"path":' * 5000,
    json.dumps("*" * 501),
    json.dumps("*" * 60_000),
    json.dumps("[" * 70_000),
    json.dumps({"path": ["a"] * 101}),
    json.dumps({str(i): "a" for i in range(101)}),
    json.dumps({"path": None}),
    json.dumps({"path": {"min": 1, "other": 2}}),
    json.dumps({"price": {"min": "x"}}),
    json.dumps({"price": {"min": [1]}}),
    json.dumps({"price": [[1]]}),
    json.dumps({"title": {"min": 1}}),
    json.dumps({"none": 1}),
    json.dumps({"\ud800": 1}),
    json.dumps({"x" * 60_000: 1}),
    '{"price": NaN}',
    '{"price": Infinity}',
    '{"price": {"min": -Infinity}}',
    '{"price": 1e999}',
    '{"price": ' + "9" * 4000 + "}",
    '{"price": ' + "9" * 5000 + "}",
    '{"price": 9007199254740992}',
]


@pytest.mark.parametrize("where", WHERE)
def test_a_condition_that_makes_no_sense_is_refused_soon(open_server, where):
    start = time.monotonic()
    answer = post(open_server, "/api/search", ("row", "0"), ("where", where))
    assert answer.status == 422
    assert detail(answer)
    assert time.monotonic() - start < 2


@pytest.mark.parametrize(
    "where",
    [
        json.dumps("*a" * 250),
        json.dumps("?*" * 250),
        json.dumps("[!-~]*" * 80),
        json.dumps("[a&&b||c~~d--e]["),
        json.dumps("\ud800\x00\n"),
        json.dumps({"path": ["*a" * 250] * 100}),
        json.dumps({"tags": ["*" * 500] * 100, "title": ["(a|b)*"], "folder": ["\\", "[]", "[!]"]}),
        json.dumps({"price": True, "sold": 1, "title": False, "empty": 0, "day": 1.5}),
        json.dumps({"price": {"min": -1e15, "max": None}, "empty": {"min": "a", "max": "b"}}),
        json.dumps({"stock": {"min": "nan", "max": "inf"}}),
        json.dumps({"stock": []}),
    ],
)
def test_a_condition_that_is_hard_to_meet_is_answered_soon(open_server, where):
    start = time.monotonic()
    answer = post(open_server, "/api/search", ("row", "0"), ("where", where))
    assert answer.status in {200, 422}, answer.body
    assert time.monotonic() - start < 3


def test_a_condition_as_deep_as_python_goes_is_refused():
    """Where reading it just succeeds, and what is done with it then may not."""
    for depth in range(900, 1100):
        for text in ("[" * depth + "]" * depth, '{"a":' * depth + "1" + "}" * depth):
            with pytest.raises(QueryError):
                schemas.conditions(f'{{"path": {text}}}')


@pytest.mark.parametrize(
    "field",
    [
        ("k", "0"),
        ("k", "-9" * 20),
        ("k", "201"),
        ("k", "1.5"),
        ("k", "9" * 5000),
        ("threshold", "nan"),
        ("threshold", "-inf"),
        ("threshold", "1e400"),
        ("threshold", "AUTO"),
        ("diversity", "nan"),
        ("diversity", "1.1"),
        ("unique", "nan"),
        ("unique", "-2"),
        ("box", "nan,0,1,1"),
        ("box", "0,0,inf,1"),
        ("box", "0,0,1"),
        ("box", "1,1,0,0"),
        ("box", "0,0,1e308,1e308"),
        ("box", "0,0,5e-324,1"),
        ("box", ",,,"),
        ("box", "1," * 100_000),
        ("weights", "nan"),
        ("weights", "1e308"),
        ("weights", "0"),
        ("weights", "1,2"),
        ("weights", "1," * 100_000 + "1"),
        ("combine", "sum"),
        ("regions", "2"),
        ("version", "x"),
        ("exclude_query", "\x00"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused(open_server, field):
    answer = post(open_server, "/api/search", ("row", "0"), field)
    assert answer.status == (409 if field[0] == "version" else 422), answer.body
    assert detail(answer)


@pytest.mark.parametrize("value", ["nan", "inf", "-1", "1e400", "1e308", "x"])
def test_a_dislike_that_makes_no_sense_is_refused(open_server, value):
    fields = ("liked", "0"), ("disliked", "1"), ("disliked", "2"), ("dislike", value)
    assert post(open_server, "/api/recommend", *fields).status == 422


@pytest.mark.parametrize(
    "query",
    [
        "offset=-1",
        "offset=" + "9" * 30,
        "offset=nan",
        "limit=0",
        "limit=501",
        "limit=1e9",
        "where=%ff",
        "where=%00",
        "where=" + "%5B" * 15_000,
    ],
)
def test_a_page_that_makes_no_sense_is_refused(open_server, query):
    assert ask(open_server, "GET", f"/api/images?{query}").status == 422


def test_a_page_beyond_the_end_is_empty(open_server):
    page = json.loads(ask(open_server, "GET", f"/api/images?offset={2**53}").body)
    assert (page["total"], page["images"]) == (6, [])


def test_a_table_with_infinite_cells_is_described(open_server):
    columns = json.loads(ask(open_server, "GET", "/api/library").body)["columns"]
    assert {"name": "price", "kind": "number", "min": -7.0, "max": 1.5} in columns


# Addresses


PUBLIC = "93.184.215.14"


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
def test_no_private_address_counts_as_public(address):
    assert not url_fetch.is_public(address)


@pytest.mark.parametrize(
    "address", [PUBLIC, "8.8.8.8", "2606:4700::1111", "64:ff9b::808:808", "::ffff:8.8.8.8"]
)
def test_a_public_address_counts_as_public(address):
    assert url_fetch.is_public(address)


@pytest.fixture
def internet(monkeypatch):
    """A pretended Internet: names with addresses, of which one leads to a server of this test.

    What is checked stays as it is; only the look-up and the last step, to connect, are replaced.
    """
    names, connected = {"public.example": [PUBLIC]}, []
    connect = socket.create_connection

    def look_up(host, port, *args, **kwargs):
        if host in names:
            found = names[host].pop(0) if isinstance(names[host][0], list) else names[host]
            return [each for ip in found for each in LOOK_UP_NUMBER(ip, port)]
        return LOOK_UP_NUMBER(host, port)  # as the system reads numbers; it asks nobody

    def LOOK_UP_NUMBER(host, port):  # noqa: N802
        return hostile.LOOK_UP(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)

    def lead(address, timeout=None):
        connected.append(address)
        assert address[0] == PUBLIC, "it connects inside"
        return connect(("127.0.0.1", names["port"]), timeout)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setattr(socket, "create_connection", lead)
    return names, connected


class Site(BaseHTTPRequestHandler):
    """Answers a picture, or leads on to where its path says."""

    asked: ClassVar = []

    def do_GET(self):
        self.asked.append(self.path)
        where = self.path.partition("?to=")[2]
        self.send_response(302 if where else 200)
        if where:
            self.send_header("Location", where)
        data = b"" if where else picture()
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture
def site(internet):
    names, connected = internet
    Site.asked = []
    with local_server.serve(Site) as address:
        names["port"] = int(address.rpartition(":")[2])
        yield names, connected


def test_a_public_address_is_fetched(site):
    assert url_fetch.fetch_public_url("http://public.example/a.png") == picture()
    assert url_fetch.fetch_public_url("http://public.example/?to=/b.png") == picture()
    assert Site.asked == ["/a.png", "/?to=/b.png", "/b.png"]


INSIDE = [
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


@pytest.mark.parametrize("url", INSIDE)
def test_no_address_leads_inside(site, url):
    names, connected = site
    names["localhost"] = ["127.0.0.1", "::1"]
    names["inside.example"] = ["192.168.0.10"]
    names["both.example"] = [PUBLIC, "10.0.0.1"]
    with pytest.raises(ImageError):
        url_fetch.fetch_public_url(url)
    assert connected == []
    if (
        re.fullmatch(r"\w+:[^#\r\0]*", url, re.ASCII) and ":///e" not in url and url.isascii()
    ):  # an absolute one
        with pytest.raises(ImageError):
            url_fetch.fetch_public_url(f"http://public.example/?to={url}")
        assert set(connected) == {(PUBLIC, 80)}


def test_a_name_that_changes_its_address_leads_where_it_was_checked(site):
    names, connected = site
    names["rebound.example"] = [[PUBLIC], ["127.0.0.1"]]
    assert url_fetch.fetch_public_url("http://rebound.example/") == picture()
    assert connected == [(PUBLIC, 80)]
    with pytest.raises(ImageError, match="not a public address"):
        url_fetch.fetch_public_url("http://rebound.example/")
    assert connected == [(PUBLIC, 80)]


def test_private_and_unknown_names_are_not_told_apart(site):
    names, _ = site
    names["inside.example"] = ["192.168.0.10"]
    said = []
    for host in ("inside.example", "unknown.example"):
        with pytest.raises(ImageError) as caught:
            url_fetch.fetch_public_url(f"http://{host}/")
        said.append(caught.value.reason.replace(host, "it"))
    assert said == ["it is not a public address"] * 2


def test_an_endless_redirect_ends(site):
    with pytest.raises(ImageError, match="302"):
        url_fetch.fetch_public_url("http://public.example/?to=/?to=/?to=" + "/?to=" * 20)
    assert len(Site.asked) < 15


def test_a_proxy_of_the_environment_is_not_used(site, monkeypatch):
    _, connected = site
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert url_fetch.fetch_public_url("http://public.example/a.png") == picture()
    assert connected == [(PUBLIC, 80)]
    assert Site.asked == ["/a.png"]  # and not the whole address, as a proxy is asked


class Dripping(BaseHTTPRequestHandler):
    """Says a little from time to time, and never ends."""

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
def test_a_server_that_drips_is_left(internet, path):
    names, _ = internet
    with local_server.serve(Dripping) as address:
        names["port"] = int(address.rpartition(":")[2])
        start = time.monotonic()
        with pytest.raises(ImageError, match=r"over 0\.5 seconds"):
            url_fetch.fetch_public_url(f"http://public.example{path}", 0.5)
        assert 0.4 < time.monotonic() - start < 3


def test_a_server_that_never_speaks_tls_is_left(internet):
    names, _ = internet
    with socket.create_server(("127.0.0.1", 0)) as silent:
        names["port"] = silent.getsockname()[1]
        start = time.monotonic()
        with pytest.raises(ImageError, match=r"over 0\.5 seconds"):
            url_fetch.fetch_public_url("https://public.example/", 0.5)
        assert time.monotonic() - start < 3


def test_addresses_share_the_limits_of_an_upload(site, library):
    settings = Settings(str(library.outputs), urls=True, max_bytes=len(picture()) * 3)
    made = service.Service.__new__(service.Service)
    made.settings = settings
    url = "http://public.example/a.png"
    assert made._fetch_all([url] * 3) == [picture()] * 3
    with pytest.raises(ImageError, match="bytes"):
        made._fetch_all([url] * 9)
    assert len(Site.asked) == 3 + 4


def test_addresses_share_the_time_of_one(library, monkeypatch):
    given = []
    monkeypatch.setattr(service, "fetch_public_url", lambda _, seconds: given.append(seconds) or b"x")
    monkeypatch.setattr(service.time, "monotonic", iter([0.0, 5.0, 12.0, 30.0]).__next__)
    made = service.Service.__new__(service.Service)
    made.settings = Settings(str(library.outputs))
    assert made._fetch_all(["a", "b", "c"]) == [b"x"] * 3
    assert given == [15.0, 8.0, -10.0]


def test_time_that_is_up_fetches_nothing(site):
    _, connected = site
    with pytest.raises(ImageError, match="seconds"):
        url_fetch.fetch_public_url("http://public.example/", -1.0)
    assert connected == []
