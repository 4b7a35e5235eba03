"""Image files read undecoded, from a path, a URL or another address."""

from __future__ import annotations

import os
from pathlib import Path

from simsearch.errors import ImageError
from simsearch.images.address import is_uri, is_url, local_path
from simsearch.images.decode import describe


def read_file(path: str) -> bytes:
    """Read an image file at a path, a URL or another address, undecoded.

    Raises
    ------
    ImageError
        If it cannot be read.
    MissingExtraError
        If fsspec, or the package that it needs for this scheme, is not installed.
    """
    if is_url(path):
        from simsearch.images.download import fetch

        return fetch(path)
    plain = local_path(path)
    if is_uri(plain):
        from simsearch.images.remote import read_uri

        return read_uri(path)
    try:
        return Path(plain).read_bytes()
    except OSError as error:
        raise ImageError(str(error.strerror).lower(), path) from error


def check_exists(path: str | os.PathLike[str]) -> None:
    """Fail on a mistyped path at once, not after a backbone has been loaded for it.

    Raises
    ------
    ImageError
        If there is no such file.
    """
    try:
        Path(path).expanduser().stat()
    except (OSError, ValueError) as error:
        reason = str(getattr(error, "strerror", None) or error).lower()
        raise ImageError(reason, describe(path)) from error
