"""The seal of a stored FAISS index: FAISS parses without care, so that only one's own is opened."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from simsearch.errors import LibraryError
from simsearch.files import check_plain, sha256_file
from simsearch.library.ownership import is_signed
from simsearch.library.refusals import if_yours
from simsearch.library.user_key import signed
from simsearch.plain_json import dumps

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Any

RECORD_FILE = "index.json"
NAMES = ("index.faiss", "index.2.faiss")  # taken in turns


def check_mark(record: Mapping[str, Any], folder: str | os.PathLike[str]) -> None:
    """Refuse an index that does not bear this user's mark.

    Raises
    ------
    LibraryError
        If it does not.
    """
    if not is_signed(record, RECORD_FILE):
        raise LibraryError(
            f"the index in {os.fspath(folder)!r} does not bear your mark, so build it again with "
            f"simsearch.build_index(library): {if_yours(folder)}"
        )


def rows_file(name: str) -> str:
    """Return the name of what describes the rows of an index of a name."""
    return name.replace(".faiss", ".rows.npz")


def identity(file: Path) -> dict[str, int]:
    """Return what nobody can give to another file: inode and time of the last change of any kind.

    On Windows, which has no such time, nothing.
    """
    status = file.stat()
    return {} if os.name == "nt" else {"inode": status.st_ino, "ctime_ns": status.st_ctime_ns}


def matches_seal(file: Path, seal: Mapping[str, Any]) -> bool:
    """Tell whether a file is the one that was sealed; any other, such as a copy, is read whole."""
    check_plain(file)
    known = identity(file)
    if known and all(seal.get(name) == value for name, value in known.items()):
        return True
    return bool(file.stat().st_size == seal["size"] and sha256_file(file) == seal["sha256"])


def signed_text(record: Mapping[str, Any]) -> str:
    """Return the record of an index as text, with this user's mark."""
    return json.dumps(signed(json.loads(dumps(record)), RECORD_FILE), indent=2)
