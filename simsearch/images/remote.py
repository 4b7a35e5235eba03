"""Bytes from elsewhere: http(s) downloads, and whatever fsspec opens, from S3 to a zip archive.

Addresses and bytes only: nothing here decodes. fsspec is imported when an address is opened.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

from simsearch.errors import DatasetError, ImageError, MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any


_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_HERE = {"file", "local"}

# Where file systems say which version of a file they hold: digests first, since a copy keeps them.
_VERSIONS = (
    *("ETag", "etag", "md5Hash", "content_md5", "checksum", "crc32c", "CRC", "sha"),
    *("mtime", "LastModified", "last_modified", "modificationTime", "modification_time"),
    *("updated", "modified", "created"),
)
MAX_DOWNLOAD_BYTES = 32 * 2**20
DOWNLOAD_SECONDS = 20.0


def is_url(source: object) -> bool:
    """Tell whether a source is an http or https address."""
    return isinstance(source, str) and source.lower().startswith(("http://", "https://"))


def read_file(path: str) -> bytes:
    """Read the file of an image, at a path or at an address, undecoded.

    Raises
    ------
    ImageError
        If it cannot be read.
    """
    if is_url(path):
        return download(path)
    plain = local_path(path)
    if is_uri(plain):
        return read_bytes(path)
    try:
        return Path(plain).read_bytes()
    except OSError as error:
        raise ImageError(str(error.strerror).lower(), path) from error


def download(url: str, *handlers: urllib.request.BaseHandler) -> bytes:
    """Fetch a URL's bytes, within `MAX_DOWNLOAD_BYTES` and `DOWNLOAD_SECONDS`.

    Parameters
    ----------
    url
        Of http or https.
    handlers
        What connects, in place of urllib's own.

    Raises
    ------
    ImageError
        If the server cannot be reached, answers an error, sends too much or takes too long.
    """
    deadline = time.monotonic() + DOWNLOAD_SECONDS
    chunks: list[bytes] = []
    received = 0
    try:
        request = urllib.request.Request(url, headers={"User-Agent": "simsearch"})  # noqa: S310
        opener = urllib.request.build_opener(_WebOnly, *handlers)
        with opener.open(request, timeout=DOWNLOAD_SECONDS) as response:
            while chunk := response.read1(2**16):
                chunks.append(chunk)
                received += len(chunk)
                if received > MAX_DOWNLOAD_BYTES:
                    raise ImageError(f"over {MAX_DOWNLOAD_BYTES:,} bytes", url)
                if time.monotonic() > deadline:
                    raise ImageError(f"it takes over {DOWNLOAD_SECONDS:g} seconds", url)
    except urllib.error.HTTPError as error:
        error.close()  # it holds the connection
        raise ImageError(f"{error.code} {error.reason}", url) from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise ImageError(str(getattr(error, "reason", None) or error), url) from error
    return b"".join(chunks)


class _WebOnly(urllib.request.BaseHandler):
    """Look at every request, since urllib would follow a redirect to ftp, too."""

    def default_open(self, request: urllib.request.Request) -> None:
        if not is_url(request.full_url):
            raise urllib.error.URLError(f"{request.full_url} is neither http nor https")


def is_uri(source: object) -> bool:
    """Tell whether a source is an address with a scheme, such as `s3://bucket/photos`."""
    return isinstance(source, str) and bool(_SCHEME.match(source))


def local_path(path: str | os.PathLike[str]) -> str | os.PathLike[str]:
    """Return the path that a `file://` address means; anything else as it is."""
    scheme = _SCHEME.match(path) if isinstance(path, str) else None
    if not isinstance(path, str) or not scheme or scheme[1].lower() not in _HERE:
        return path
    plain = path[scheme.end() :]
    return plain.lstrip("/") if os.name == "nt" else plain  # file:///C:/photos


def read_bytes(uri: str) -> bytes:
    """Read the file at an address.

    Raises
    ------
    ImageError
        If there is no such file.
    MissingExtraError
        If fsspec is missing, or what it needs for this scheme.
    """
    system, path = _open(uri)
    try:
        data: bytes = system.cat_file(path)
    except FileNotFoundError as error:
        raise ImageError("no such file", uri) from error
    return data


def list_files(root: str, wanted: Callable[[str], bool]) -> Iterator[tuple[str, int, int]]:
    """List the files below an address: name relative to it, size in bytes, mark of the version.

    Hidden files and folders are left out. The mark is a digest of the checksum that the storage
    keeps or, without one, of the time of the last change; it tells versions apart and no more.

    Parameters
    ----------
    root
        A folder, a bucket or an archive.
    wanted
        Tells by the name whether a file is meant.

    Raises
    ------
    DatasetError
        If there is no such folder, or it cannot be listed.
    MissingExtraError
        As `read_bytes`.
    """
    try:
        _open(root)[0].clear_instance_cache()  # which would still hold an archive as it was
        system, top = _open(root)
        system.invalidate_cache()
        found = system.find(top, detail=True)
        if not found and not system.isdir(top):
            raise DatasetError(f"no such folder: {root!r}; give the one that holds the images")
        prefix = f"{top.rstrip('/')}/" if top else ""
        for path, facts in found.items():
            name = path.removeprefix(prefix).lstrip("/")
            if wanted(name) and not any(part.startswith(".") for part in name.split("/")):
                known = facts if facts.get("size") is not None else system.info(path)
                size = known.get("size")
                yield name, -1 if size is None else int(size), _version(known)
    except (DatasetError, MissingExtraError):
        raise
    except Exception as error:  # every file system raises its own
        raise DatasetError(f"cannot list {root!r}: {error or type(error).__name__}") from error


def _version(facts: Mapping[str, Any]) -> int:
    """Fold what tells versions of a file apart into 63 bits."""
    told = next((facts[key] for key in _VERSIONS if facts.get(key) is not None), "")
    return int.from_bytes(hashlib.sha256(str(told).encode()).digest()[:8], "big") >> 1


def _open(uri: str) -> tuple[Any, str]:
    """Return fsspec's file system for an address, and the path in it."""
    try:
        from fsspec.core import url_to_fs
    except ImportError as error:
        raise MissingExtraError(f'{uri} needs: pip install "simsearch[cluster]"') from error
    try:
        system, path = url_to_fs(uri)
    except ImportError as error:  # whose message names the package of this scheme
        raise MissingExtraError(f"cannot open {uri}: {error}") from error
    return system, path
