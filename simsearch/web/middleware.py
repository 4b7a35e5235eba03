"""HTTP middleware: token authentication, request limits, security headers.

Plain ASGI, so that a request is rejected before a byte of its body is read.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import math
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias
from urllib.parse import parse_qs, urlencode

import anyio
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import cookie_parser
from starlette.responses import RedirectResponse, Response

from simsearch.web.problems import problem
from simsearch.web.settings import Settings

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Scope: TypeAlias = MutableMapping[str, Any]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
        "connect-src 'self'; manifest-src 'self'; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",  # an address may name what is searched for
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
OPEN_PATHS = {"/api/health", "/login"}  # to everybody, as is what lies in /static/
PAGE_PATHS = {"/", "/docs"}
FORM_OVERHEAD_BYTES = 2**20  # bytes that a form may add to its images
LOGIN_BYTES = 2**12  # bytes of a log-in
CLOSE_HEADER = {"Connection": "close"}  # or the server would read the rest, whatever it is
COOKIE_SECONDS = 30 * 24 * 3600  # seconds that a browser stays logged in


logger = logging.getLogger("simsearch.web")


class SecurityHeadersMiddleware:
    """Adds security headers: a browser runs nothing but this server's own files.

    An unexpected error is answered with status 500 and without internal details.
    """

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and its answer back with more headers."""
        started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers[name] = value
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


class TokenAuth:
    """The server's token, and the cookie that stands for it.

    A browser sends the token once, in the address (`/?token=...`) or the log-in form, and gets a
    cookie; programs send it as `Authorization: Bearer ...`.
    """

    def __init__(self, token: str | None, page: str) -> None:
        self.page = page  # HTML, where to show the token
        self._token = None if token is None else token.encode()
        # Cookies do not know ports: two servers on one machine must not overwrite each other's.
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
        # Unlike the standard library's, this parser passes over what other servers have left.
        cookie = cookie_parser(headers.get("cookie", "")).get(self._cookie, "")
        try:
            return self.is_valid(bytes.fromhex(cookie).decode())
        except ValueError:
            return False

    def log_in_redirect(self, place: str, *, secure: bool) -> Response:
        """Redirect a browser to a place, with the cookie set."""
        response = RedirectResponse(place, 303)
        if self._token is not None:
            response.set_cookie(
                self._cookie,
                self._token.hex(),
                max_age=COOKIE_SECONDS,
                httponly=True,
                samesite="lax",
                secure=secure,
            )
        return response


class TokenAuthMiddleware:
    """Rejects requests without the token, from other sites, or to a wrong host name."""

    def __init__(self, app: App, lock: TokenAuth, hosts: frozenset[str] | None) -> None:
        self.app, self._lock, self._hosts = app, lock, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it here."""
        response = self._answer(scope) if scope["type"] == "http" else None
        await (response or self.app)(scope, receive, send)

    def _answer(self, scope: Scope) -> Response | None:
        headers, path = Headers(scope=scope), scope["path"]
        if self._hosts is not None and _host(headers) not in self._hosts:
            return problem(
                421,
                f"this server is not called {_host(headers)!r}; start it with --host to be "
                "reached by another name",
            )
        if headers.get("sec-fetch-site") in {"cross-site", "same-site"} and not _is_navigation(
            headers, path
        ):
            return problem(403, "another site may link here, and no more")
        if entered := self._log_in_by_address(scope):
            return entered
        if path in OPEN_PATHS or path.startswith("/static/") or self._lock.is_authorised(headers):
            return None
        return self._unauthorised(path)

    def _log_in_by_address(self, scope: Scope) -> Response | None:
        """Log in by a token in the address, and redirect to the address without it."""
        given = parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        tokens = given.pop("token", [])
        if scope["path"] != "/" or not tokens or not self._lock.is_valid(tokens[0]):
            return None
        rest = urlencode(given, doseq=True)
        return self._lock.log_in_redirect(
            f"/?{rest}" if rest else "/", secure=scope["scheme"] == "https"
        )

    def _unauthorised(self, path: str) -> Response:
        if path in PAGE_PATHS:
            return Response(self._lock.page, 401, media_type="text/html")
        response = problem(401, "a token is needed: send it as 'Authorization: Bearer TOKEN'")
        response.headers["WWW-Authenticate"] = "Bearer"
        return response


class RequestLimitsMiddleware:
    """Rejects uploads that are too large, too slow, or too many at once.

    Counts the requests with a body; nothing of a body is read before there is room for all of it.
    A log-in is small and not counted: strangers send it, and must not fill the room of the others.
    """

    def __init__(self, app: App, settings: Settings, rejected: Callable[[], object]) -> None:
        self.app, self._settings, self._rejected = app, settings, rejected
        self._requests = self._bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it here."""
        if scope["type"] != "http" or scope["method"] in {"GET", "HEAD", "OPTIONS"}:
            return await self.app(scope, receive, send)
        counted = scope["path"] != "/login"
        max_images = self._settings.max_bytes + FORM_OVERHEAD_BYTES if counted else LOGIN_BYTES
        size = _content_length(Headers(scope=scope), max_images)
        if size > max_images:
            response = problem(413, self._too_large(counted))
            response.headers.update(CLOSE_HEADER)
            return await response(scope, receive, send)
        if counted and (
            self._requests >= self._settings.max_waiting
            or self._bytes + size > self._settings.max_waiting_bytes
        ):
            self._rejected()
            response = problem(503, "too many requests are waiting; ask again in a moment")
            response.headers["Retry-After"] = "1"
            return await response(scope, receive, send)
        self._requests += counted
        self._bytes += counted * int(size)
        try:
            return await self.app(
                scope, self._limit_body(receive, max_images, counted=counted), send
            )
        finally:
            self._requests -= counted
            self._bytes -= counted * int(size)

    def _too_large(self, counted: bool) -> str:
        return f"an upload may have {self._settings.max_bytes if counted else LOGIN_BYTES:,} bytes"

    def _limit_body(self, receive: Receive, max_images: int, *, counted: bool) -> Receive:
        """Receive a body within its limits of bytes and time."""
        received, deadline = 0, anyio.current_time() + self._settings.seconds
        complete = False

        async def limited_receive() -> Message:
            nonlocal received, complete
            if complete:  # what is left is to hear that the client has gone
                return await receive()
            try:
                with anyio.fail_after(max(0, deadline - anyio.current_time())):
                    message = await receive()
            except TimeoutError:
                raise HTTPException(
                    408, f"the upload took over {self._settings.seconds:g} seconds", CLOSE_HEADER
                ) from None
            received += len(message.get("body", b""))
            complete = not message.get("more_body", False)
            if received > max_images:
                raise HTTPException(413, self._too_large(counted), CLOSE_HEADER)
            return message

        return limited_receive


def _content_length(headers: Headers, otherwise: int) -> float:
    """Return the announced length of a body in bytes, or a default without one."""
    length = headers.get("content-length", "")
    if not length.isdecimal():
        return otherwise
    return int(length) if len(length) < 20 else math.inf  # Python reads no number of any length


def _host(headers: Headers) -> str:
    """Return the host name of a request, without the port."""
    host = headers.get("host", "").lower()
    return host.partition("]")[0] + "]" if host.startswith("[") else host.partition(":")[0]


def _is_navigation(headers: Headers, path: str) -> bool:
    """Tell whether a request is a browser's navigation to a page."""
    return headers.get("sec-fetch-mode") == "navigate" and path in {*PAGE_PATHS, "/login"}
