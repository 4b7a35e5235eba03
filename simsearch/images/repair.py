"""Image files with damage that does not matter: extras of a PNG, the last bytes of a JPEG.

And the reasons why others cannot be decoded.
"""

from __future__ import annotations

import io
import logging
import os
import re
import struct
import zlib
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from simsearch.errors import ImageError
from simsearch.images import decode
from simsearch.images.address import is_uri, local_path
from simsearch.images.read import read_file

if TYPE_CHECKING:
    from collections.abc import Iterator

    from simsearch.images.decode import ImageSource

logger = logging.getLogger("simsearch")

PNG_START, JPEG_START, JPEG_END = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"\xff\xd9"
TIFF_STARTS = {b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"}
PNG_TEXT, PNG_PROFILE = {b"tEXt", b"zTXt", b"iTXt"}, b"iCCP"
MAX_PROFILE_BYTES = 2**26
MIN_ROWS = 0.9  # of a JPEG that is cut short; with fewer it is an error
FILL = 128  # what libjpeg puts in place of what is missing
COEFFICIENTS = 64  # of a block
MARKER = re.compile(rb"\xff+([^\x00\x01\xd0-\xd8\xff])")  # of a segment; its length follows
SCAN, PROGRESSIVE = 0xDA, 0xC2
FRAMES = {0xC0, 0xC1, PROGRESSIVE}


def decode_repaired(
    source: ImageSource, min_side: int | None, error: Exception
) -> Image.Image | None:
    """Decode a file without what is damaged; None if the error stands."""
    if isinstance(error, (ImageError, MemoryError)):
        return None
    try:
        data = _read(source)
        if data.startswith(PNG_START):
            return decode.decode_open(open_clean_png(data), data, min_side)
        if data[:4] in TIFF_STARTS and isinstance(error, ValueError):
            from simsearch.images.tiff import open_tiff

            return decode.decode_open(open_tiff(io.BytesIO(data)), data, min_side)
        if data.startswith(JPEG_START) and "truncated" in str(error):
            return _decode_cut_jpeg(data, source, min_side)
    except Exception as second:  # the first error says what is wrong with the file
        logger.debug("%s cannot be repaired: %s", decode.describe(source), second)
    return None


def decoding_error(error: Exception) -> str:
    """Say in a few words why an image cannot be decoded."""
    if isinstance(error, ImageError):
        return error.reason
    if isinstance(error, Image.DecompressionBombError):
        return f"more pixels than the limit of {decode.MAX_PIXELS:,}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return " ".join(str(error).split()) or type(error).__name__


def open_clean_png(data: bytes) -> Image.Image:
    """Open a PNG without its text, and without extras whose checksum is wrong."""
    profile = None
    kept = [PNG_START]
    for kind, body, chunk in _png_chunks(data):
        extra = bool(kind[0] & 0x20)
        damaged = zlib.crc32(kind + body).to_bytes(4, "big") != chunk[-4:]
        if kind == PNG_PROFILE and not damaged:
            profile = _decompress(body.partition(b"\0")[2][1:])
        if not (extra and (damaged or kind in PNG_TEXT or kind == PNG_PROFILE)):
            kept.append(chunk)
    image = Image.open(io.BytesIO(b"".join(kept)), formats=["PNG"])
    if profile:
        image.info["icc_profile"] = profile
    return image


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Yield kind, body and the whole of each chunk; of the last, what is there."""
    position = len(PNG_START)
    while position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        chunk = data[position : position + length + 12]
        yield kind, chunk[8 : 8 + length], chunk
        position += length + 12


def _decompress(data: bytes) -> bytes | None:
    """Decompress a colour profile; None if it is damaged or too large."""
    try:
        stream = zlib.decompressobj()
        profile = stream.decompress(data, MAX_PROFILE_BYTES)
    except zlib.error:
        return None
    return profile if stream.eof else None


def _decode_cut_jpeg(data: bytes, source: ImageSource, min_side: int | None) -> Image.Image | None:
    """Decode a JPEG whose last bytes are missing, if nearly all of the image is there."""
    whole = data + JPEG_END
    rows = _share_of_rows(whole) if _has_all_but_the_end(data) else 0
    if rows < MIN_ROWS:
        return None
    image = decode.decode(whole, min_side)
    logger.warning(
        "%s: the end of the file is missing; %.1f %% of the rows can be decoded, and are used",
        *(decode.describe(source), 100 * rows),
    )
    return image


def _share_of_rows(data: bytes) -> float:
    """Return how much of a JPEG's height is not filled in."""
    with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
        image.draft(None, (1, 1))
        rows = np.asarray(image).reshape(image.height, -1)
    there = np.flatnonzero((rows != FILL).any(axis=1))
    return (int(there[-1]) + 1) / len(rows) if len(there) else 0.0


def _has_all_but_the_end(data: bytes) -> bool:
    """Tell whether only the end of a JPEG's last scan is missing.

    In a progressive one, all coefficients must have come once before that scan; in another, the
    scan must be of all channels.
    """
    frame, channels, scans = 0, frozenset[int](), []
    for marker, segment in _jpeg_segments(data):
        if marker in FRAMES:
            frame, channels = marker, frozenset(segment[6::3][: segment[5]])
        elif marker == SCAN:
            count = segment[0]
            low, high, pass_bits = segment[1 + 2 * count : 4 + 2 * count]
            scans.append((set(segment[1 : 1 + 2 * count : 2]), low, high, pass_bits >> 4 == 0))
    if not scans:
        return False
    if frame != PROGRESSIVE:
        return scans[0][0] == channels
    first = [(scan, low, high) for scan, low, high, is_first in scans[:-1] if is_first]
    return all(
        sum(high - low + 1 for scan, low, high in first if channel in scan) == COEFFICIENTS
        for channel in channels
    )


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield marker and content of each segment of a JPEG."""
    position = 2
    while marker := MARKER.search(data, position):
        end = marker.end() + int.from_bytes(data[marker.end() : marker.end() + 2], "big")
        yield marker[1][0], data[marker.end() + 2 : end]
        position = end


def _read(source: ImageSource) -> bytes:
    """Return the bytes of a source that is a file; none of another."""
    if isinstance(source, bytes):
        return source
    if isinstance(source, str) and is_uri(source := local_path(source)):
        return read_file(str(source))
    if isinstance(source, (str, os.PathLike)):
        return read_file(os.path.expanduser(source))  # noqa: PTH111 (a file may be named "~1.jpg")
    return b""
