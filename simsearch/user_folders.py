"""This user's own folders, for what is kept from run to run."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Literal

_BASES = {  # on Windows, on a Mac, and the variable and folder of other systems
    "cache": ("~/AppData/Local", "~/Library/Caches", "XDG_CACHE_HOME", "~/.cache"),
    "state": (
        "~/AppData/Local",
        "~/Library/Application Support",
        "XDG_STATE_HOME",
        "~/.local/state",
    ),
}


def user_folder(kind: Literal["cache", "state"]) -> Path:
    """Return where this user's files of a kind lie; the folder need not exist."""
    windows, mac, variable, other = _BASES[kind]
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or windows
    else:
        base = mac if sys.platform == "darwin" else os.environ.get(variable) or other
    return Path(os.path.expanduser(base)) / "simsearch"  # noqa: PTH111 (never raises)


def is_private(folder: Path) -> bool:
    """Tell whether a folder is this user's, and no other may write into it."""
    try:
        status = folder.stat()
    except OSError:
        return False
    if not hasattr(os, "getuid"):  # Windows: the user's profile is theirs
        return True
    return status.st_uid == os.getuid() and not status.st_mode & 0o022
