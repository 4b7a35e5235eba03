"""Atomic text files."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def write_text(file: Path, text: str) -> None:
    """Write a small file beside its place and rename it over, so that nobody sees half of it."""
    part = file.with_name(f"{file.name}.part")
    with part.open("w", encoding="utf-8", errors="surrogateescape", newline="") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    part.replace(file)
