"""JPEGs of many scans, of which each costs a decoder as much as the whole image."""

from __future__ import annotations

import re
from typing import IO, TYPE_CHECKING

from simsearch.errors import ImageError

if TYPE_CHECKING:
    from PIL import Image

MAX_JPEG_SCANS = 100  # a progressive JPEG has about ten
# Markers of a JPEG that start a segment; the segment's length follows.
SEGMENT_MARKER = re.compile(rb"\xff+([^\x00\x01\xd0-\xd8\xff])")
SCAN_MARKER, END_MARKER = b"\xda", b"\xd9"


def check_scans(image: Image.Image) -> None:
    """Refuse an open JPEG of so many scans that a small file would occupy a decoder for hours.

    Raises
    ------
    ImageError
        If it has more than `MAX_JPEG_SCANS`.
    """
    stream = getattr(image, "fp", None)
    if stream is None:  # it is decoded already
        return
    if image.format == "JPEG" and _has_one_scan(image, stream):  # in an MPO, Pillow has read on
        return
    place = stream.tell()
    stream.seek(0)
    count = count_scans(stream.read())
    stream.seek(place)
    if count > MAX_JPEG_SCANS:
        raise ImageError(f"a JPEG of {count:,} scans, over the limit of {MAX_JPEG_SCANS}")


def _has_one_scan(image: Image.Image, stream: IO[bytes]) -> bool:
    """Tell whether the first scan, after whose head Pillow stops, holds the whole image."""
    channels = getattr(image, "layers", 0)
    length = 6 + 2 * channels
    stream.seek(max(0, stream.tell() - length))
    head = stream.read(length)
    return "progressive" not in image.info and head[:3] == bytes((0, length, channels))


def count_scans(data: bytes) -> int:
    """Count the scans of the first image of a JPEG file; each may have only a hundred bytes."""
    count, position = 0, 2
    while (marker := SEGMENT_MARKER.search(data, position)) and marker[1] != END_MARKER:
        position = marker.end() + int.from_bytes(data[marker.end() : marker.end() + 2], "big")
        count += marker[1] == SCAN_MARKER
    return count
