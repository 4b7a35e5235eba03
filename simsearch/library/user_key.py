"""The mark of a user on what they write into libraries: a MAC by the key in their state folder."""

from __future__ import annotations

import hmac
import json
import logging
import os
import secrets
from functools import lru_cache
from typing import TYPE_CHECKING

from filelock import FileLock

from simsearch.files import atomic_write, user_folder

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Any

logger = logging.getLogger("simsearch")
MAC, KEY_BYTES, LOCK_SECONDS = "mac", 32, 10


def signed(record: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return what a library's file `name` records with the user's mark; without it, if no key."""
    plain = {key: value for key, value in record.items() if key != MAC}
    mac = keyed_digest(f"{name}\n{json.dumps(plain, sort_keys=True)}".encode())
    return plain | {MAC: mac.hex()} if mac else plain


def keyed_digest(data: bytes) -> bytes:
    """Return a digest that only this user can compute: 32 bytes; b"" without a key."""
    key = user_key(user_folder("state"))
    return hmac.digest(key, data, "sha256") if key else b""


@lru_cache(maxsize=4)
def user_key(folder: Path) -> bytes | None:
    """Read the key in a folder, or make one; None, said once, where it cannot be kept."""
    file = folder / "key"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not file.exists():
            with FileLock(folder / ".lock", timeout=LOCK_SECONDS):
                _make_key(file)
        key, status = file.read_bytes(), file.stat()
        theirs = status.st_mode & 0o077 or folder.stat().st_mode & 0o022
        if (os.name != "nt" and (theirs or status.st_uid != os.getuid())) or len(key) != KEY_BYTES:
            raise OSError("it is damaged, or other users may read it or write there")
    except OSError as error:
        logger.warning(
            "No key can be kept in %s (%s), so that libraries do not count as yours; "
            "XDG_STATE_HOME may name another folder",
            *(folder, error.strerror or error),
        )
        return None
    return key


def _make_key(file: Path) -> None:
    if not file.exists():  # another process may have been first
        with atomic_write(file) as stream:
            os.chmod(stream.name, 0o600)  # noqa: PTH101
            stream.write(secrets.token_bytes(KEY_BYTES))
