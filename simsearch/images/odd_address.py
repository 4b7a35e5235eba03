"""Addresses that need more than their scheme removed: `file:` and `data:` URIs, odd URLs."""

from __future__ import annotations

import os
import re
import urllib.parse
import urllib.request
from pathlib import Path

from simsearch.errors import ImageError
from simsearch.images.address import is_uri, is_url, local_path
from simsearch.images.read import read_file

_BARE_FILE = re.compile(r"file:(?=/(?!/))", re.IGNORECASE)  # file:/photos/1.jpg
_STRAY_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_PATH_CHARACTERS = "/%:@!$&'()*+,;=~"  # that stay as they are (RFC 3986)


def path_of_file_uri(plain: str) -> str:
    """Return the path that a `file://` URI means: on this host, with %XX decoded.

    Parameters
    ----------
    plain
        What follows `file://`; no file has exactly this path.
    """
    here = re.sub(r"^localhost(?=/)", "", plain, flags=re.IGNORECASE)
    if Path(here).exists():
        return here
    return os.fsdecode(urllib.parse.unquote_to_bytes(os.fsencode(here)))


def open_address(source: str) -> str | bytes:
    """Return the path of a `file:` URI, the bytes at any other address, and a path as it is.

    Raises
    ------
    ImageError
        If what is there cannot be read, or the scheme is unknown.
    MissingExtraError
        If fsspec, or the package that it needs for this scheme, is not installed.
    """
    if source[:5].lower() == "data:":
        return _read_data_uri(source)
    if is_url(source):
        return read_file(source)
    path = os.fspath(local_path(_BARE_FILE.sub("file://", source)))
    return read_file(path) if is_uri(path) else path


def _read_data_uri(uri: str) -> bytes:
    try:
        with urllib.request.urlopen(uri) as response:  # noqa: S310 (the scheme is data)
            data: bytes = response.read()
    except (OSError, ValueError) as error:
        raise ImageError(f"not a data: URI ({error})", f"{uri[:40]}...") from error
    return data


def quote_url(url: str, encoding: str = "utf-8") -> str:
    """Write a URL in ASCII: the host by IDNA, the rest with %XX, and what is quoted as it is.

    Examples
    --------
    >>> quote_url("http://bücher.example/schöne bilder/1%20.jpg?größe=8")
    'http://xn--bcher-kva.example/sch%C3%B6ne%20bilder/1%20.jpg?gr%C3%B6%C3%9Fe=8'

    Raises
    ------
    ValueError
        If it has no valid host or port.
    """
    parts = urllib.parse.urlsplit(url)
    user, at, place = parts.netloc.rpartition("@")
    host, colon, port = place.partition(":")
    if not place.isascii():
        place = host.encode("idna").decode("ascii") + colon + port
    path, query, fragment = (
        urllib.parse.quote(_STRAY_PERCENT.sub("%25", text), safe=safe, encoding=encoding)
        for text, safe in (
            (parts.path, _PATH_CHARACTERS),
            (parts.query, f"{_PATH_CHARACTERS}?"),
            (parts.fragment, f"{_PATH_CHARACTERS}?"),
        )
    )
    return urllib.parse.urlunsplit((parts.scheme, user + at + place, path, query, fragment))
