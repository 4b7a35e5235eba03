"""What a stopped run has left in its log, taken up again."""

from __future__ import annotations

import json
import zlib
from typing import IO, TYPE_CHECKING

from simsearch.files import check_plain
from simsearch.images.find import ImageFile
from simsearch.library.files import LOG
from simsearch.library.source import Source

if TYPE_CHECKING:
    from pathlib import Path


def unfinished_source(folder: Path) -> Source | None:
    """Return what embeds in a run that was stopped before it made a library; None without one."""
    try:
        check_plain(folder / LOG)
        with (folder / LOG).open("rb") as stream:
            return Source(**json.loads(stream.readline()))
    except (OSError, ValueError, TypeError, RecursionError):
        return None


def recover(index: IO[bytes], data: IO[bytes], dim: int, rows: dict[ImageFile, int]) -> None:
    """Fill `rows` with what is good of a log, behind its header, and cut off the rest."""
    end, count = index.tell(), 0
    for line in index:
        row = data.read(4 * dim)
        file = _read_line(line, row)
        if file is None:
            break
        rows[file] = count  # a file may be there twice
        end, count = end + len(line), count + 1
    for stream, size in ((index, end), (data, 4 * dim * count)):
        stream.seek(size)
        stream.truncate()


def _read_line(line: bytes, row: bytes) -> ImageFile | None:
    """Return the file of a line of the log; None if it was cut, or does not fit its row."""
    try:
        *file, checksum = json.loads(line)
        made = ImageFile(*file)
    except (ValueError, TypeError, RecursionError):
        return None
    kinds = tuple(map(type, made))
    return made if kinds == (str, int, int) and checksum == zlib.crc32(row) else None
