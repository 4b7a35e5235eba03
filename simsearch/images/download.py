"""HTTP download of one image file, limited in bytes and in seconds."""

from __future__ import annotations

import http.client
import os
import re
import time
import urllib.request
from contextlib import contextmanager
from typing import TYPE_CHECKING

from simsearch import registry
from simsearch.errors import ImageError
from simsearch.images.address import is_url
from simsearch.images.odd_address import quote_url

if TYPE_CHECKING:
    from collections.abc import Iterator

GUARD = "SIMSEARCH_PUBLIC_URLS_ONLY"  # in the environment; its value is what may be fetched besides
MAX_DOWNLOAD_BYTES = 32 * 2**20
DOWNLOAD_SECONDS = 20.0


def fetch(url: str) -> bytes:
    """Fetch a URL's bytes: in a server, from public addresses alone; see `public_urls_only`.

    Raises
    ------
    ImageError
        As `download`; or if the address may not be fetched.
    """
    if is_guarded(url):
        found: bytes = registry.resolve("download", "public")(url)
        return found
    return download(url)


def is_guarded(address: str) -> bool:
    """Tell whether an address may lead a server to a private network."""
    guard = os.environ.get(GUARD)
    if guard is None or "://" not in address or re.search(r"https?://", address, re.I) is None:
        return False
    return not (guard and address.startswith(guard))


@contextmanager
def public_urls_only(root: str | None) -> Iterator[None]:
    """Let this process and its children fetch from public addresses alone, and below `root`.

    The paths of a library may have been written by somebody who cannot reach what a server can.
    """
    before = os.environ.get(GUARD)
    os.environ[GUARD] = f"{root.rstrip('/')}/" if root and is_url(root) else ""
    try:
        yield
    finally:
        os.environ.pop(GUARD)
        if before is not None:
            os.environ[GUARD] = before


def download(url: str, *handlers: urllib.request.BaseHandler) -> bytes:
    """Fetch a URL's bytes, within `MAX_DOWNLOAD_BYTES` and `DOWNLOAD_SECONDS`.

    Parameters
    ----------
    url
        Of http or https.
    handlers
        Connection handlers that replace urllib's own.

    Raises
    ------
    ImageError
        If the server cannot be reached, answers an error, sends too much or takes too long.
    """
    deadline = time.monotonic() + DOWNLOAD_SECONDS
    data = bytearray()
    try:
        request = urllib.request.Request(quote_url(url), headers={"User-Agent": "simsearch"})  # noqa: S310
        opener = urllib.request.build_opener(_HttpOnly, *handlers)
        with opener.open(request, timeout=DOWNLOAD_SECONDS) as response:
            while chunk := response.read1(2**16):
                data += chunk
                if len(data) > MAX_DOWNLOAD_BYTES:
                    raise ImageError(f"over {MAX_DOWNLOAD_BYTES:,} bytes", url)
                if time.monotonic() > deadline:
                    raise ImageError(f"it takes over {DOWNLOAD_SECONDS:g} seconds", url)
    except urllib.error.HTTPError as error:
        error.close()  # it holds the connection
        raise ImageError(f"{error.code} {error.reason}", url) from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise ImageError(str(getattr(error, "reason", None) or error), url) from error
    return bytes(data)


class _HttpOnly(urllib.request.BaseHandler):
    """Checks every request, since urllib would follow a redirect to ftp."""

    handler_order = 100  # before what opens connections

    def http_request(self, request: urllib.request.Request) -> urllib.request.Request:
        """Quote the URL of a redirect, whose bytes urllib has read as Latin-1."""
        request.full_url = quote_url(request.full_url, encoding="latin-1")
        return request

    https_request = http_request

    def default_open(self, request: urllib.request.Request) -> None:
        if not is_url(request.full_url):
            raise urllib.error.URLError(f"{request.full_url} is neither http nor https")
