"""Images from addresses that strangers give: public ones only, wherever they lead.

What is checked is the address that is connected to, at each connection: neither a redirect nor a
name that changes its address between two look-ups leads inside.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import urllib.request
from contextlib import suppress

from simsearch.images import download

_PORTS = frozenset({80, 443})


def fetch(url: str) -> bytes:
    """Fetch an image's bytes from a public address, as `download` does.

    Raises
    ------
    ImageError
        If the address is private or unknown, or the server answers no file within the limits.
    """
    return download(url, urllib.request.ProxyHandler({}), _Http(), _Https())


def is_public(address: str) -> bool:
    """Tell whether an IP address is one of the open Internet, whatever it is wrapped in.

    Examples
    --------
    >>> [is_public(each) for each in ("93.184.215.14", "10.0.0.1", "::ffff:127.0.0.1")]
    [True, False, False]
    """
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    return all(each.is_global and not each.is_multicast for each in (ip, *_wrapped(ip)))


def _wrapped(
    ip: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> list[ipaddress.IPv4Address]:
    """Unpack the IPv4 addresses that an IPv6 one may stand for, at a gateway or in the kernel."""
    if isinstance(ip, ipaddress.IPv4Address):
        return []
    low = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    translated = ip in ipaddress.ip_network("64:ff9b::/96")  # RFC 6052
    compatible = int(ip) >> 32 == 0
    found = [ip.ipv4_mapped, ip.sixtofour, *(ip.teredo or ())]
    found += [low] if translated or compatible else []
    return [each for each in found if each is not None]


def _connect(host: str, port: int, timeout: float | None) -> socket.socket:
    """Connect to a host, if all of its addresses are public."""
    if port not in _PORTS:
        raise OSError(f"port {port} is not one of the web's; use 80 or 443")
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = list(dict.fromkeys(str(each[4][0]) for each in found))
    if not addresses or not all(map(is_public, addresses)):
        raise OSError(f"{host} is not a public address")
    for address in addresses[:-1]:
        with suppress(OSError):  # the next one may answer
            return socket.create_connection((address, port), timeout)
    return socket.create_connection((addresses[-1], port), timeout)


class _PlainConnection(http.client.HTTPConnection):
    def connect(self) -> None:
        self.sock = _connect(self.host, self.port, self.timeout)


class _SecureConnection(http.client.HTTPSConnection):
    def connect(self) -> None:
        plain = _connect(self.host, self.port, self.timeout)
        self.sock = ssl.create_default_context().wrap_socket(plain, server_hostname=self.host)


class _Http(urllib.request.HTTPHandler):
    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_PlainConnection, req)


class _Https(urllib.request.HTTPSHandler):
    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_SecureConnection, req)
