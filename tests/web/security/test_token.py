"""Token authentication, host names and security headers."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import pytest
from security_cases import BEARER, TOKEN, problem_detail
from web_server import LOCAL, post, run_server, send, send_raw

from simsearch.errors import QueryError
from simsearch.web import app, middleware, server, service
from simsearch.web.settings import Settings

SECURITY_HEADERS = {
    "content-security-policy",
    "cross-origin-opener-policy",
    "cross-origin-resource-policy",
    "permissions-policy",
    "referrer-policy",
    "x-content-type-options",
    "x-frame-options",
}


def break_pages(monkeypatch):
    """Let a request for a page of images raise an unexpected error."""

    def broken(*_, **__):
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
    "head": (200, "HEAD", "/api/library"),
    "method": (405, "DELETE", "/api/library"),
    "static method": (405, "POST", "/static/login.html"),
    "preflight": (405, "OPTIONS", "/api/search"),
    "trace": (405, "TRACE", "/"),
    "no query": (422, "POST", "/api/search"),
    "500": (500, "GET", "/api/images"),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_every_response_has_security_headers_and_every_error_is_a_problem(
    open_server, library, name, monkeypatch
):
    break_pages(monkeypatch)
    status, method, path = REQUESTS[name]
    origin = {"origin": "https://evil.example", "access_control_request_method": "POST"}
    answer = send(open_server, method, path, **origin)
    assert answer.status == status
    assert answer.headers.keys() >= SECURITY_HEADERS
    assert not any(header.startswith("access-control") for header in answer.headers)
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; ")
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "server" not in answer.headers
    if status >= 400 and method != "HEAD":
        assert problem_detail(answer)
    for inside in (library.dataset.parent, Path(app.__file__).parent, Path(__file__).parent):
        assert str(inside).encode() not in answer.body
    assert b"Traceback" not in answer.body


def test_not_modified_response_has_security_headers(open_server):
    tag = send(open_server, "GET", "/api/images/0").headers["etag"]
    answer = send(open_server, "GET", "/api/images/0", if_none_match=tag)
    assert (answer.status, answer.body) == (304, b"")
    assert answer.headers.keys() >= SECURITY_HEADERS


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
def test_cross_site_requests_are_rejected_except_links(open_server, site, mode, path, status):
    answer = send(open_server, "GET", path, sec_fetch_site=site, sec_fetch_mode=mode)
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
def test_unknown_host_names_are_rejected(open_server, host, status):
    request = f"GET /api/library HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    assert send_raw(open_server, request.encode()).startswith(f"HTTP/1.1 {status} ".encode())


def test_missing_or_repeated_host_header_is_rejected(open_server):
    answer = send_raw(open_server, b"GET /api/library HTTP/1.0\r\n\r\n")
    assert re.match(rb"HTTP/1.1 4\d\d ", answer)
    two = b"GET / HTTP/1.1\r\nHost: evil.example\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
    assert re.match(rb"HTTP/1.1 4\d\d ", send_raw(open_server, two))


def test_every_route_needs_the_token_except_health_and_login(token_server):
    schema = json.loads(send(token_server, "GET", "/api/openapi.json", authorization=BEARER).body)
    places = [(method, path) for path, each in schema["paths"].items() for method in each]
    assert len(places) > 8
    places += [("get", path) for path in ("/", "/docs", "/metrics", "/api/openapi.json", "/x")]
    for method, path in places:
        answer = send(token_server, method.upper(), path.replace("{row}", "0"))
        assert answer.status == (200 if path == "/api/health" else 401), path
        assert TOKEN.encode() not in answer.body
        if path in {"/", "/docs"}:
            assert answer.body == (app.STATIC / "login.html").read_bytes()
        elif answer.status == 401:
            assert "Bearer" in problem_detail(answer)
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
def test_path_traversal_does_not_bypass_the_token(token_server, path):
    assert send(token_server, "GET", path).status in {401, 404}


@pytest.mark.parametrize(
    "authorization",
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
def test_wrong_token_is_rejected(token_server, authorization):
    assert send(token_server, "GET", "/api/library", authorization=authorization).status == 401
    assert send(token_server, "GET", "/api/library", authorization=BEARER).status == 200


@pytest.mark.parametrize(
    "value", ["", "x", "zz", TOKEN, "ff" * 24, '"' + TOKEN + '"', "%00", "\xe9"]
)
def test_wrong_cookie_is_rejected(token_server, value):
    name = post(token_server, "/login", ("token", TOKEN)).headers["set-cookie"].partition("=")[0]
    assert send(token_server, "GET", "/", cookie=f"{name}={value}").status == 401


def test_token_is_compared_in_constant_time(monkeypatch):
    compared = []
    compare = lambda *both: compared.append(both) or both[0] == both[1]  # noqa: E731
    monkeypatch.setattr("simsearch.web.middleware.hmac.compare_digest", compare)
    auth = middleware.TokenAuth(TOKEN)
    assert auth.is_valid(TOKEN)
    assert not auth.is_valid("é" + TOKEN)
    assert compared == [(TOKEN.encode(),) * 2, (("é" + TOKEN).encode(), TOKEN.encode())]


def cookie_of(answer):
    value, *attributes = answer.headers["set-cookie"].split("; ")
    return value, {each.lower() for each in attributes}


def test_token_in_the_address_is_replaced_by_a_cookie(token_server):
    address = "/?row=3&token=a-token%2Bof/24%3Dletters%26%25%23&b=%E9%0d%0aX:1"
    answer = send(token_server, "GET", address)
    assert answer.status == 303
    assert answer.headers["location"] == "/?row=3&b=%EF%BF%BD%0D%0AX%3A1"
    cookie, attributes = cookie_of(answer)
    assert attributes >= {"httponly", "samesite=lax", "path=/"}
    assert TOKEN not in cookie
    assert send(token_server, "GET", "/", cookie=cookie).status == 200
    assert send(token_server, "GET", "/api/library", cookie=cookie).status == 200
    again = send(token_server, "GET", address, cookie=cookie)  # from a bookmark
    assert (again.status, again.headers["location"]) == (303, answer.headers["location"])
    assert send(token_server, "GET", "/?token=wrong").status == 401
    assert send(token_server, "GET", "/?token=").status == 401


def test_token_in_the_address_is_accepted_at_the_root_only(token_server):
    query = "?token=a-token%2Bof/24%3Dletters%26%25%23"
    for path in ("/api/library", "/docs", "/metrics", "/api/images/0"):
        assert send(token_server, "GET", path + query).status == 401


def test_cookies_of_other_servers_on_this_host_are_ignored(token_server, library):
    cookie, _ = cookie_of(post(token_server, "/login", ("token", f" {TOKEN} ")))
    foreign = '_xsrf=2|a|b|c; settings={"a": [1, "b"]}; @@=; =; x'
    for both in (f"{foreign}; {cookie}", f"{cookie}; {foreign}"):
        assert send(token_server, "GET", "/", cookie=both).status == 200
    with run_server(Settings(str(library.outputs), token=TOKEN[::-1])) as second:
        other, _ = cookie_of(post(second, "/login", ("token", TOKEN[::-1])))
        assert other.partition("=")[0] != cookie.partition("=")[0]
        for one in (token_server, second):
            assert send(one, "GET", "/", cookie=f"{cookie}; {other}").status == 200
        assert send(second, "GET", "/", cookie=cookie).status == 401


def test_cookie_set_over_https_is_secure(token_server):
    answer = post(token_server, "/login", ("token", TOKEN), x_forwarded_proto="https")
    assert "secure" in cookie_of(answer)[1]


@pytest.mark.parametrize("token", ["", "short", "a b" * 8, "schlüssel-schlüssel", "x" * 20 + "\n"])
def test_short_and_unsendable_tokens_are_rejected(library, token):
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
    monkeypatch.setattr(server, "freeze_objects", lambda: asked.append("frozen"))
    server.serve(library.outputs, port=0, **options)
    settings, frozen = asked
    assert frozen == "frozen"  # once it is all there
    return settings, capsys.readouterr().out


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.0.0.2", "::1"])
def test_loopback_needs_no_token_and_checks_host_names(monkeypatch, capsys, library, host):
    settings, said = greeted(monkeypatch, capsys, library, host=host)
    assert settings.token is None
    assert LOCAL < settings.hosts | {"one more"} <= LOCAL | {host, "one more"}
    assert re.search(rf"http://\[?{host}\]?:\d+/\n", said)


@pytest.mark.parametrize("host", ["0.0.0.0", ""])
def test_other_addresses_get_a_generated_token_which_is_printed(monkeypatch, capsys, library, host):
    settings, said = greeted(monkeypatch, capsys, library, host=host)
    assert len(settings.token) >= 32
    assert said.count(settings.token) == 2
    other, _ = greeted(monkeypatch, capsys, library, host=host)
    assert other.token != settings.token


def test_printed_address_logs_in_with_the_token_that_was_made(
    monkeypatch, capsys, library, token_server
):
    settings, said = greeted(monkeypatch, capsys, library, host="0.0.0.0")
    path = re.search(r"http://[^/]+(/\S*)", said)[1]
    assert send(token_server, "GET", path).status == 401
    assert quote(settings.token, safe="") == settings.token
    path = path.replace(settings.token, quote(TOKEN, safe=""))
    assert send(token_server, "GET", path).status == 303


def test_token_that_was_given_is_not_printed(monkeypatch, capsys, library):
    settings, said = greeted(monkeypatch, capsys, library, host="0.0.0.0", token=TOKEN)
    assert settings.token == TOKEN
    assert TOKEN not in said
    assert "asks for the token" in said


SERVE = """
import sys
from simsearch.cli.main import main
from simsearch.web.service import Service
def broken(*_, **__):
    raise RuntimeError("broken on purpose")
Service.page = broken
sys.exit(main(["serve", sys.argv[1], "--port", "0"]))
"""


def test_token_is_never_logged(library, tmp_path):
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
                assert send(place, "GET", "/api/images", **bearer).status == status
                send(place, "GET", f"/?token={each}")
                send(place, "GET", f"/api/images?token={each}", **bearer)
                send(place, "GET", "/", cookie=f"simsearch_0={each}; token={each}")
                post(place, "/login", ("token", each))
                post(place, "/login", ("tokens", each))
                post(place, "/api/search", ("row", each), **bearer)
                send_raw(place, f"GET /?token={each} HTTP/9.9\r\n\x00{each}\r\n\r\n".encode(), 0.2)
                send_raw(
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
    assert token not in "".join(greeting)


def test_help_does_not_tell_the_token():
    env = os.environ | {"SIMSEARCH_TOKEN": TOKEN}
    command = [sys.executable, "-m", "simsearch.cli", "serve", "--help"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert TOKEN not in done.stdout + done.stderr
