"""Files at addresses that fsspec opens (S3, zip archives, memory): read and listed, not decoded.

fsspec is imported when an address is opened.
"""

from __future__ import annotations

import hashlib
from functools import partial
from typing import TYPE_CHECKING

from simsearch.errors import DatasetError, ImageError, MissingExtraError
from simsearch.images.address import is_url
from simsearch.images.download import is_guarded
from simsearch.images.find import ImageFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any

    from simsearch.images.find import Listing
    from simsearch.images.selection import Rule

# Keys under which file systems state the version of a file: digests first, since a copy keeps them.
_CHECKSUM_KEYS = ("ETag", "etag", "md5Hash", "content_md5", "checksum", "crc32c", "CRC", "sha")
_VERSION_KEYS = (
    *_CHECKSUM_KEYS,
    *("mtime", "LastModified", "last_modified", "modificationTime", "modification_time"),
    *("updated", "modified", "created"),
)
EXTRAS = {
    **dict.fromkeys(("s3", "s3a"), "s3"),
    **dict.fromkeys(("gs", "gcs"), "gcs"),
    **dict.fromkeys(("az", "abfs", "abfss", "adl"), "azure"),
}
CREDENTIALS = {  # where the tools of a storage look for them, by its extra
    "gcs": "GOOGLE_APPLICATION_CREDENTIALS",
    "azure": "AZURE_STORAGE_CONNECTION_STRING, or AZURE_STORAGE_ACCOUNT_NAME and "
    "AZURE_STORAGE_ACCOUNT_KEY",
}
CREDENTIALS_OF_OTHERS = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"


def read_uri(uri: str) -> bytes:
    """Read the file at an address, undecoded.

    Raises
    ------
    ImageError
        If it cannot be read.
    MissingExtraError
        If fsspec, or the package that it needs for this scheme, is not installed.
    """
    try:
        system, path = open_system(uri)
        data: bytes = system.cat_file(path)
    except MissingExtraError:
        raise
    except FileNotFoundError as error:
        raise ImageError("no such file", uri) from error
    except Exception as error:  # every file system raises its own
        raise ImageError(str(error) or type(error).__name__, uri) from error
    return data


def list_files(
    root: str, wanted: Callable[[str], bool], *, hidden: bool = False
) -> Iterator[tuple[str, int, int]]:
    """List the files below an address: name relative to it, size in bytes, version number.

    The version number is a digest of the checksum that the storage keeps or, without one, of the
    time of the last change; it tells versions apart and no more.

    Parameters
    ----------
    root
        A folder, a bucket or an archive.
    wanted
        Predicate on the name of a file.
    hidden
        List hidden files, and those of hidden folders.

    Raises
    ------
    DatasetError
        If there is no such folder, or it cannot be listed.
    MissingExtraError
        As `read_uri`.
    """
    try:
        system, top, found = _find(root)
        prefix = f"{top.rstrip('/')}/" if top else ""
        for path, facts in found.items():
            name = path.removeprefix(prefix).lstrip("/")
            parts = () if hidden else name.split("/")
            if not any(part.startswith(".") for part in parts) and wanted(name):
                info = facts if facts.get("size") is not None else system.info(path)
                size = info.get("size")
                yield name, -1 if size is None else int(size), _version(info)
    except (DatasetError, MissingExtraError):
        raise
    except Exception as error:  # every file system raises its own
        raise DatasetError(f"cannot list {root!r}: {refusal(error, root)}") from error


def refusal(error: Exception, uri: str) -> str:
    """Say in one line why a storage refused, and what to do about missing credentials."""
    reason = f"{error or type(error).__name__}".partition("\n")[0]
    if isinstance(error, FileNotFoundError) and len(reason.split()) == 1:  # a bare address
        return f"no such bucket or folder ({reason})"
    if "credential" not in reason.lower():
        return reason
    names = CREDENTIALS.get(_extra(uri), CREDENTIALS_OF_OTHERS)
    return f"{reason}; set them as the storage's own tools read them, such as {names}"


def _extra(uri: str) -> str:
    return EXTRAS.get(uri.rpartition("::")[2].partition("://")[0], "")


def file_state(uri: str) -> tuple[int, int] | None:
    """Ask for size and version number of a file, as `list_files` tells them.

    None where the storage does not answer or keeps no checksums, and of a web page.
    """
    if is_url(uri):
        return None
    try:
        system, path = open_system(uri)
        system.invalidate_cache()  # which may hold the listing of an earlier version
        info = system.info(path)
    except Exception:  # every file system raises its own
        return None
    if not any(info.get(key) is not None for key in _CHECKSUM_KEYS):
        return None  # times may be told otherwise than in a listing
    return int(info.get("size") or 0), _version(info)


def fill(listing: Listing, root: str, rule: Rule) -> None:
    """Add what is below an address to a listing; the rule is asked about each folder once.

    Raises
    ------
    DatasetError
        If there is no such folder, or it cannot be listed.
    MissingExtraError
        As `read_uri`.
    """
    folders = {"": True}

    def allows(name: str, folder: bool) -> bool:
        if kind := rule(name, folder):
            listing.left_out[kind] += 1
        return not kind

    def is_open(folder: str) -> bool:
        if folder not in folders:
            folders[folder] = is_open(folder.rpartition("/")[0]) and allows(folder, True)
        return folders[folder]

    def wanted(name: str) -> bool:
        return is_open(name.rpartition("/")[0]) and allows(name, False)

    for name, size, version in list_files(root, wanted, hidden=True):
        listing.add(ImageFile(name, size, version), partial(_read_head, root, name))


def _read_head(root: str, name: str, size: int) -> bytes:
    """Read the first bytes of a file; `OSError`, as of a file on a disk, if it cannot be read."""
    try:
        system, top = open_system(root)
        path = f"{top.rstrip('/')}/{name}" if top else name
        head: bytes = system.cat_file(path, start=0, end=size)
    except Exception as error:  # every file system raises its own
        raise OSError(str(error) or type(error).__name__) from error
    return head[:size]


def _find(root: str) -> tuple[Any, str, dict[str, Any]]:
    """Return the file system of an address, the folder's path in it, and the files below."""
    open_system(root)[0].clear_instance_cache()  # which would still hold an archive as it was
    system, top = open_system(root)
    system.invalidate_cache()
    found = system.find(top, detail=True)
    if not found and not system.isdir(top):
        raise DatasetError(f"no such folder: {root!r}; give the one that holds the images")
    return system, top, found


def _version(info: Mapping[str, Any]) -> int:
    """Digest the first version key that a file system states for a file, to 63 bits."""
    version = next((info[key] for key in _VERSION_KEYS if info.get(key) is not None), "")
    return int.from_bytes(hashlib.sha256(str(version).encode()).digest()[:8], "big") >> 1


def open_system(uri: str) -> tuple[Any, str]:
    """Return fsspec's file system for an address, and the path in it.

    Raises
    ------
    ImageError
        In a server that may not fetch it.
    MissingExtraError
        If fsspec, or the package that it needs for this scheme, is not installed.
    """
    if is_guarded(uri):
        raise ImageError("a server fetches no archives from the web; give --root with it", uri)
    try:
        from fsspec.core import url_to_fs
    except ImportError as error:
        raise MissingExtraError(f'{uri} needs: pip install "simsearch[cluster]"') from error
    try:
        system, path = url_to_fs(uri)
    except ImportError as error:  # whose message names the package of this scheme
        extra = _extra(uri)
        mend = f': pip install "simsearch[{extra}]"' if extra else ""
        raise MissingExtraError(f"cannot open {uri}: {error}{mend}") from error
    return system, path
