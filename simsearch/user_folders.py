"""Folders of a user's own, for what is kept from run to run."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Literal

_ON_WINDOWS = "~/AppData/Local"
_BASES = {  # on a Mac; elsewhere, a variable and what it stands for by default
    "cache": ("~/Library/Caches", "XDG_CACHE_HOME", "~/.cache"),
    "state": ("~/Library/Application Support", "XDG_STATE_HOME", "~/.local/state"),
}


def user_folder(kind: Literal["cache", "state"]) -> Path:
    """Return where this user's files of a kind lie; the folder need not exist."""
    base, variable, other = _BASES[kind]
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or _ON_WINDOWS
    elif sys.platform != "darwin":
        base = os.environ.get(variable) or other
    return Path(os.path.expanduser(base)) / "simsearch"  # noqa: PTH111 (never raises)
