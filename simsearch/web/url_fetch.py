"""URL fetch with an SSRF guard: images from public addresses only.

The address of each connection is checked, so that neither a redirect nor a name that changes its
address between two look-ups (DNS rebinding) reaches a private network.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import threading
import time
import urllib.request
from contextlib import suppress
from functools import partial
from typing import Any

from simsearch.errors import ImageError
from simsearch.images.download import DOWNLOAD_SECONDS, download

WEB_PORTS = frozenset({80, 443})
GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")  # RFC 4291
NAT64_PREFIX = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052
# RFC 9637, which older Pythons do not know.
DOCUMENTATION_PREFIX = ipaddress.IPv6Network("3fff::/20")


def fetch_public_url(url: str, seconds: float = DOWNLOAD_SECONDS) -> bytes:
    """Fetch an image's bytes from a public address, as `download` does.

    Parameters
    ----------
    url
        Of http or https.
    seconds
        For the whole download, redirects included.

    Raises
    ------
    ImageError
        If the address is private or unknown, or no file arrives within the limits.
    """
    connector = DeadlineConnector(seconds)
    try:
        return download(url, urllib.request.ProxyHandler({}), _PublicOnlyHandler(connector))
    finally:
        connector.close()
        if connector.expired:
            raise ImageError(f"it takes over {seconds:g} seconds", url)


def is_public(address: str) -> bool:
    """Tell whether an IP address is public, with any IPv4 address that it embeds.

    Examples
    --------
    >>> [is_public(each) for each in ("93.184.215.14", "10.0.0.1", "::ffff:127.0.0.1")]
    [True, False, False]
    """
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if ip.version == 6 and (
        ip in DOCUMENTATION_PREFIX or not (ip in GLOBAL_UNICAST or ip in NAT64_PREFIX)
    ):
        return ip.ipv4_mapped is not None and is_public(str(ip.ipv4_mapped))
    return all(each.is_global and not each.is_multicast for each in (ip, *_embedded_ipv4(ip)))


def _embedded_ipv4(
    ip: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> list[ipaddress.IPv4Address]:
    """Return the IPv4 addresses that a gateway or the kernel may translate an IPv6 one to."""
    if isinstance(ip, ipaddress.IPv4Address):
        return []
    translated = [ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)] if ip in NAT64_PREFIX else []
    found = [ip.sixtofour, *(ip.teredo or ()), *translated]
    return [each for each in found if each is not None]


class DeadlineConnector:
    """Connects to public hosts, and shuts down all connections at a deadline.

    A socket's own timeout restarts at every byte, so that a slow server could hold it for ever.
    """

    def __init__(self, seconds: float) -> None:
        self.expired = False
        self._deadline = time.monotonic() + seconds
        self._sockets: list[socket.socket] = []
        self._timer = threading.Timer(max(0, seconds), self._expire)
        self._timer.daemon = True
        self._timer.start()

    def connect(self, host: str, port: int) -> socket.socket:
        """Connect to a host, if all of its addresses are public."""
        if port not in WEB_PORTS:
            raise OSError(f"port {port} is not one of the web's; use 80 or 443")
        addresses = _look_up(host, port)
        if not addresses or not all(map(is_public, addresses)):
            raise OSError(f"{host} is not a public address")
        for address in addresses[:-1]:
            with suppress(OSError):  # try the next one
                return self._open_socket(address, port)
        return self._open_socket(addresses[-1], port)

    def close(self) -> None:
        """Close all connections."""
        self._timer.cancel()
        for each in self._sockets:
            each.close()

    def _open_socket(self, address: str, port: int) -> socket.socket:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        connected = socket.create_connection((address, port), left)
        self._sockets.append(connected.dup())  # also works when TLS has replaced the socket
        if self.expired:
            self._expire()
        return connected

    def _expire(self) -> None:
        self.expired = True
        for each in self._sockets:
            with suppress(OSError):  # already closed
                each.shutdown(socket.SHUT_RDWR)


def _look_up(host: str, port: int) -> list[str]:
    """Look up a name; an unknown name gives no address, like a private one."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror:
        return []
    return list(dict.fromkeys(str(each[4][0]) for each in found))


class _PlainConnection(http.client.HTTPConnection):
    def __init__(self, connector: DeadlineConnector, host: str, **options: Any) -> None:  # noqa: ANN401
        super().__init__(host, **options)
        self._connector = connector

    def connect(self) -> None:
        self.sock = self._connector.connect(self.host, self.port)


class _SecureConnection(_PlainConnection):
    default_port = http.client.HTTPS_PORT

    def connect(self) -> None:
        super().connect()
        context = ssl.create_default_context()
        self.sock = context.wrap_socket(self.sock, server_hostname=self.host)


class _PublicOnlyHandler(urllib.request.HTTPSHandler, urllib.request.HTTPHandler):
    def __init__(self, connector: DeadlineConnector) -> None:
        super().__init__()
        self._connector = connector

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(partial(_PlainConnection, self._connector), req)

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(partial(_SecureConnection, self._connector), req)
