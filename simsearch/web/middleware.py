"""HTTP middleware: security headers, host and origin checks, token authentication, request limits.

Plain ASGI, so that a request is rejected before a byte of its body is read.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import math
from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlencode

import anyio
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import cookie_parser
from starlette.responses import RedirectResponse, Response

from simsearch.web.limits import METHODS_WITHOUT_BODY, BodyRate, Share, Work
from simsearch.web.problems import problem, rooted_page, wants_page
from simsearch.web.root_path import ROOT, local_path

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from simsearch.web.settings import Settings

SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
        "connect-src 'self'; manifest-src 'self'; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",  # an address may contain a query
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
PAGE_PATHS = {"/", "/docs", "/duplicates", "/map"}
LOGIN_PATH = "/login"
HEALTH_PATH = "/api/health"
OPEN_PATHS = {HEALTH_PATH, LOGIN_PATH}  # without the token, as is everything in /static/
FORM_OVERHEAD_BYTES = 2**20  # what a form may add to its images
LOGIN_BYTES = 2**12
PROMPT_BYTES = 2**14  # of a part of a body that waits for no other
CLOSE_HEADER = {"Connection": "close"}  # the server would read the rest of the body otherwise
COOKIE_SECONDS = 30 * 24 * 3600

logger = logging.getLogger("simsearch.web")


class SecurityHeadersMiddleware:
    """Adds security headers: a browser runs nothing but this server's own files.

    An unexpected error is answered with status 500, without internal details.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on a request, and return its response with more headers."""
        started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                headers.update(SECURITY_HEADERS)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        try:
            await self.app(scope, receive, send_with_headers)
        except Exception as error:
            if started or scope["type"] != "http":
                raise
            logger.error("a request failed", exc_info=error)
            response = problem(500, "something went wrong here; the server's log says what")
            await response(scope, receive, send_with_headers)


class HeadMiddleware:
    """Answers HEAD as GET, without the body."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on a request, HEAD as GET."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            return await self.app(scope, receive, send)

        async def send_head(message: Message) -> None:
            if message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        return await self.app({**scope, "method": "GET"}, receive, send_head)


class TokenAuth:
    """The server's token, and the cookie that stands for it.

    A browser sends the token once, in the address (`/?token=...`) or the log-in form, and gets a
    cookie; programs send it as `Authorization: Bearer ...`.
    """

    def __init__(self, token: str | None, root_path: str = "") -> None:
        self._token = None if token is None else token.encode()
        self._cookie_path = f"{root_path}/"  # other programs behind the proxy do not get it
        # Cookies are shared by all ports of a host: each server's needs a name of its own.
        self._cookie = f"simsearch_{hashlib.sha256(self._token or b'').hexdigest()[:8]}"

    def is_valid(self, token: str) -> bool:
        """Compare a token with the server's in constant time."""
        return self._token is None or hmac.compare_digest(
            token.encode("utf-8", "replace"), self._token
        )

    def is_authorised(self, headers: Headers) -> bool:
        """Tell whether a request carries the token or its cookie."""
        kind, _, token = headers.get("authorization", "").partition(" ")
        if self._token is None or (kind.lower() == "bearer" and self.is_valid(token.strip())):
            return True
        # Unlike the standard library's, this parser skips malformed cookies of other servers.
        cookie = cookie_parser(headers.get("cookie", "")).get(self._cookie, "")
        try:
            return self.is_valid(bytes.fromhex(cookie).decode())
        except ValueError:
            return False

    def log_in_redirect(self, path: str, *, secure: bool) -> Response:
        """Redirect a browser and set its cookie."""
        response = RedirectResponse(ROOT.get() + path, 303)
        if self._token is not None:
            response.set_cookie(
                self._cookie,
                self._token.hex(),
                max_age=COOKIE_SECONDS,
                path=self._cookie_path,
                httponly=True,
                samesite="lax",
                secure=secure,
            )
        return response


class CheckMiddleware:
    """Passes on a request, or answers it instead, before a byte of its body is read.

    Parameters
    ----------
    app
        What handles the request.
    check
        Returns the answer to a request that is rejected, from its scope and headers, or None.
    """

    def __init__(self, app: ASGIApp, check: Callable[[Scope, Headers], Response | None]) -> None:
        self.app, self._check = app, check

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on a request, or reject it."""
        is_http = scope["type"] == "http"
        response = self._check(scope, Headers(scope=scope)) if is_http else None
        await (response or self.app)(scope, receive, send)


def check_token(
    auth: TokenAuth, login_page: str, scope: Scope, headers: Headers
) -> Response | None:
    """Reject requests without the token; pages are answered with the log-in form.

    A token in the address logs in, and is answered with the address without it.
    """
    path = local_path(scope)
    query = parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    tokens = query.pop("token", [])
    if path == "/" and tokens and auth.is_valid(tokens[0]):
        rest = urlencode(query, doseq=True)
        return auth.log_in_redirect(f"/?{rest}" if rest else "/", secure=scope["scheme"] == "https")
    if path in OPEN_PATHS or path.startswith("/static/") or auth.is_authorised(headers):
        return None
    if path in PAGE_PATHS or wants_page(path, headers):
        return rooted_page(login_page, 401)
    response = problem(401, "a token is needed: send it as 'Authorization: Bearer TOKEN'")
    response.headers["WWW-Authenticate"] = "Bearer"
    return response


def check_host_and_origin(
    hosts: frozenset[str] | None, scope: Scope, headers: Headers
) -> Response | None:
    """Reject requests to unknown host names (DNS rebinding) and from other sites (CSRF).

    `hosts` are in lower case and without ports; None accepts any.
    """
    host = headers.get("host", "").lower()
    host = host.partition("]")[0] + "]" if host.startswith("[") else host.partition(":")[0]
    if hosts is not None and host not in hosts:
        return problem(
            421,
            f"this server is not called {host!r}; start it with --host to be "
            "reached by another name",
        )
    is_navigation = headers.get("sec-fetch-mode") == "navigate" and local_path(scope) in {
        *PAGE_PATHS,
        LOGIN_PATH,
    }
    if headers.get("sec-fetch-site") in {"cross-site", "same-site"} and not is_navigation:
        return problem(403, "another site may link to this page, but not use it")
    return None


class RequestLimitsMiddleware:
    """Rejects requests that are too large, too slow, or too many at once.

    No byte of a body is read before its whole length fits the limits. Log-ins have a small limit
    of their own and are not counted, so that clients without the token cannot block the others;
    nor are looks whether the server answers. One address gets a part of each limit alone.

    Parameters
    ----------
    app
        What handles the request.
    settings
        The limits.
    count_rejected
        Called for each request that is rejected because too many are waiting.
    """

    def __init__(
        self, app: ASGIApp, settings: Settings, count_rejected: Callable[[], object]
    ) -> None:
        self.app, self._settings, self._count_rejected = app, settings, count_rejected
        self._reads = Share(settings.max_connections * 3 // 4)
        self._requests = Share(settings.max_waiting)
        self._bytes = Share(settings.max_waiting_bytes)
        self._turns = anyio.Lock()  # of bodies, which take time to read

    @property
    def requests(self) -> int:
        """Requests with a body that are answered or waiting."""
        return self._requests.taken

    @property
    def bytes(self) -> int:
        """Length of their bodies together."""
        return self._bytes.taken

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on a request with a limited body, or reject it."""
        if scope["type"] != "http" or local_path(scope) == HEALTH_PATH:
            return await self.app(scope, receive, send)
        if scope["method"] in METHODS_WITHOUT_BODY:
            return await self._answer(scope, receive, send, [(self._reads, 1)])
        is_login = local_path(scope) == LOGIN_PATH
        allowed = LOGIN_BYTES if is_login else self._settings.max_bytes
        limit = allowed if is_login else allowed + FORM_OVERHEAD_BYTES
        too_large = f"an upload may have {allowed:,} bytes"
        size = _content_length(Headers(scope=scope), limit)
        if size > limit:
            response = problem(413, too_large)
            response.headers.update(CLOSE_HEADER)
            return await response(scope, receive, send)
        limited = self._limit_body(receive, limit, too_large)
        if is_login:
            return await self.app(scope, limited, send)
        return await self._answer(
            scope, limited, send, [(self._requests, 1), (self._bytes, int(size))]
        )

    async def _answer(
        self, scope: Scope, receive: Receive, send: Send, parts: list[tuple[Share, int]]
    ) -> None:
        """Pass on a request that takes parts of shares, if there is enough of each."""
        address = scope["client"][0] if scope.get("client") else ""
        if not all(share.fits(address, size) for share, size in parts):
            self._count_rejected()
            response = problem(503, "too many requests are waiting; ask again in a moment")
            response.headers["Retry-After"] = "1"
            return await response(scope, receive, send)
        for share, size in parts:
            share.take(address, size)
        try:
            await Work(self._settings.work_seconds).run(self.app, scope, receive, send)
        finally:
            for share, size in parts:
                share.take(address, -size)

    def _limit_body(self, receive: Receive, limit: int, too_large: str) -> Receive:
        """Return a `receive` that raises after `limit` bytes, or for a body that is too slow."""
        settings = self._settings
        received, rate = 0, BodyRate(settings.min_rate, settings.seconds)
        complete = False

        async def limited_receive() -> Message:
            nonlocal received, complete
            if complete:  # only the client's disconnection is left to receive
                return await receive()
            start = anyio.current_time()
            try:
                with anyio.fail_after(max(0, rate.left)):
                    message = await receive()
            except TimeoutError:
                raise HTTPException(
                    408,
                    f"the upload has fallen {settings.seconds:g} seconds behind "
                    f"{settings.min_rate:,} bytes per second",
                    CLOSE_HEADER,
                ) from None
            size = len(message.get("body", b""))
            rate.record(size, anyio.current_time() - start)
            received += size
            complete = not message.get("more_body", False)
            if received > limit:
                raise HTTPException(413, too_large, CLOSE_HEADER)
            if size > PROMPT_BYTES:
                async with self._turns:  # between two of them, small requests are answered
                    await anyio.sleep(0)
            return message

        return limited_receive


def _content_length(headers: Headers, default: int) -> float:
    """Return the announced length of a body in bytes, or `default` if there is none."""
    length = headers.get("content-length", "")
    if not length.isdecimal():
        return default
    return int(length) if len(length) < 20 else math.inf  # int() rejects over 4300 digits
