"""Addresses of image files: paths, URLs and what fsspec opens, told apart."""

from __future__ import annotations

import os
import re
from pathlib import Path

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_LOCAL_SCHEMES = {"file", "local"}


def is_url(source: object) -> bool:
    """Tell whether a source is an http or https address."""
    return isinstance(source, str) and source.lower().startswith(("http://", "https://"))


def is_uri(source: object) -> bool:
    """Tell whether a source is an address with a scheme, such as `s3://bucket/photos`."""
    return isinstance(source, str) and bool(_SCHEME.match(source))


def local_path(path: str | os.PathLike[str]) -> str | os.PathLike[str]:
    """Return the path that a `file://` address means; anything else as it is."""
    scheme = _SCHEME.match(path) if isinstance(path, str) else None
    if not isinstance(path, str) or not scheme or scheme[1].lower() not in _LOCAL_SCHEMES:
        return path
    plain = path[scheme.end() :]
    plain = plain.lstrip("/") if os.name == "nt" else plain  # file:///C:/photos
    if ("%" in plain or plain.lower().startswith("localhost/")) and not Path(plain).exists():
        from simsearch.images.odd_address import path_of_file_uri

        return path_of_file_uri(plain)
    return plain
