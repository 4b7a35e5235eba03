"""The mark of this user on what they write into libraries: a MAC by a key in their state folder.

What bears it was written by this user; a file without it may be from anybody.
"""

from __future__ import annotations

import hmac
import json
import logging
import os
import secrets
from functools import lru_cache
from hashlib import sha256
from typing import TYPE_CHECKING

from simsearch.user_folders import is_private, user_folder

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Any

    from numpy.typing import NDArray

logger = logging.getLogger("simsearch")

MAC, KEY_BYTES = "mac", 32


def signed(record: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return what a library's file `name` records with this user's mark; without it, if no key."""
    plain = {key: value for key, value in record.items() if key != MAC}
    mac = keyed_digest(f"{name}\n{json.dumps(plain, sort_keys=True)}".encode())
    return plain | {MAC: mac.hex()} if mac else plain


def is_signed(record: Mapping[str, Any], name: str) -> bool:
    """Tell whether a record bears this user's mark, and is as it was then."""
    try:
        expected = str(signed(record, name).get(MAC, "")).encode()
        return bool(expected) and hmac.compare_digest(str(record[MAC]).encode(), expected)
    except (ValueError, KeyError, RecursionError):  # crafted, or without a mark
        return False


def digest_of_paths(paths: NDArray[Any]) -> str:
    """Return the digest of a library's paths, which says what may be opened: 64 hex digits."""
    return sha256(paths.dtype.str.encode() + paths.tobytes()).hexdigest()


def keyed_digest(data: bytes) -> bytes:
    """Return a digest that only this user can compute: 32 bytes; b"" without a key."""
    key = user_key(user_folder("state"))
    return hmac.digest(key, data, "sha256") if key else b""


@lru_cache(maxsize=4)
def user_key(folder: Path) -> bytes | None:
    """Read the key in a folder, or make one; None, said once, where it cannot be kept."""
    try:
        if not (folder / "key").exists():
            _make_key(folder)
        return _read_key(folder / "key")
    except OSError as error:
        logger.warning(
            "No key can be kept in %s (%s): every library counts as made by somebody else, as "
            "docs/trust.md says; XDG_STATE_HOME may name another folder",
            *(folder, error.strerror or error),
        )
        return None


def _read_key(file: Path) -> bytes:
    key, status = file.read_bytes(), file.stat()
    if not is_private(file.parent) or (hasattr(os, "getuid") and status.st_mode & 0o077):
        raise PermissionError("other users may read it or write there")
    if len(key) != KEY_BYTES:
        raise OSError("it is damaged: delete it")
    return key


def _make_key(folder: Path) -> None:
    """Make a key; of several processes that do so at once, the first one's counts."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    part = folder / f"key.{secrets.token_hex(8)}.part"
    try:
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
            stream.write(secrets.token_bytes(KEY_BYTES))
            stream.flush()
            os.fsync(stream.fileno())
        try:
            os.link(part, folder / "key")
        except FileExistsError:  # another process was first
            return
        except OSError:  # a file system without such links
            if not (folder / "key").exists():
                part.replace(folder / "key")
    finally:
        part.unlink(missing_ok=True)
