"""Thumbnails from a disk cache, originals for a browser, and heat maps."""

from __future__ import annotations

import hashlib
import io
import os
import re
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image

from simsearch.analysis.explain import contributions, heat_colors, resize_heat
from simsearch.errors import ImageError
from simsearch.images.address import read_file
from simsearch.images.decode import load_image, read_header
from simsearch.retrieval.matches import Matches

Size = Literal[128, 256, 512]
"""Longer side of a thumbnail, in pixels."""

BROWSER_MEDIA_TYPES = {  # by every browser of today
    "JPEG": "image/jpeg",
    "MPO": "image/jpeg",
    "PNG": "image/png",
    "WEBP": "image/webp",
    "GIF": "image/gif",
    "AVIF": "image/avif",
}
SEGMENT_MARKER = re.compile(
    rb"\xff+([^\x00\x01\xd0-\xd8\xff])"
)  # of a JPEG's segment, and its length follows
_SCAN, _END = b"\xda", b"\xd9"
JPEG_QUALITY = 82  # of JPEG, from 1 to 95


class Picture(NamedTuple):
    """An encoded image, as it is sent."""

    data: bytes
    media_type: str
    etag: str


class Thumbnails:
    """Small copies of images, made once and kept on disk.

    A copy carries the time of its original, and is made anew when the two differ; so the folder
    holds no more than one file for each image and size.

    Parameters
    ----------
    folder
        Where to keep them; where that cannot be written, they go to the system's temporary folder.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = _writable_folder(Path(folder).expanduser())

    def get(self, path: str, size: Size) -> Picture:
        """Return the thumbnail of an image.

        Parameters
        ----------
        path
            Of the image; never from a request.
        size
            Its longer side, at most.

        Raises
        ------
        ImageError
            If the image cannot be read.
        """
        changed = _modified_ns(path)
        name = hashlib.sha256(os.fsencode(path)).hexdigest()
        file = self.folder / name[:2] / f"{name[2:32]}-{size}.jpg"
        data = _read_current(file, changed)
        if data is None:
            data = _encode_jpeg(_thumbnail(path, size), JPEG_QUALITY)
            _store(file, data, changed)
        return Picture(data, "image/jpeg", _etag(path, changed, size))


def count_scans(data: bytes) -> int:
    """Count the scans of a JPEG; decoding each costs as much as the whole image.

    A scan may have a hundred bytes, so that a small file could keep a decoder busy for hours.
    """
    count, place = 0, 2
    while (marker := SEGMENT_MARKER.search(data, place)) and marker[1] != _END:
        place = marker.end() + int.from_bytes(data[marker.end() : marker.end() + 2], "big")
        count += marker[1] == _SCAN
    return count


def read_original(path: str) -> Picture:
    """Read an image's file; one that browsers do not show is turned into a JPEG.

    Raises
    ------
    ImageError
        If it is not there, or no image.
    """
    changed = _modified_ns(path)
    data = read_file(path)
    shown = BROWSER_MEDIA_TYPES.get(read_header(data).format)
    if shown:
        return Picture(data, shown, _etag(path, changed))
    return Picture(_encode_jpeg(load_image(data), 95), "image/jpeg", _etag(path, changed))


def draw_heat_map(answer: Matches, row: int, size: Size) -> Picture:
    """Draw the heat map of a row, to be laid over its thumbnail.

    Raises
    ------
    ImageError
        If the image cannot be read.
    BackboneError
        If the backbone has no map.
    """
    library = answer.library
    path = str(library.paths[row])  # type: ignore[union-attr]  # every answer knows its library
    thumbnail = _thumbnail(path, size)
    (cells,) = contributions(library, [path], answer.embedding)  # type: ignore[arg-type]
    if cells is None:
        raise ImageError("the file is gone", path)
    shown = resize_heat(library, cells, thumbnail.size)  # type: ignore[arg-type]
    colors = heat_colors(shown, float(cells.max() * cells.size))
    data = io.BytesIO()
    Image.fromarray((255 * colors).round().astype(np.uint8), "RGBA").save(data, "PNG")
    return Picture(data.getvalue(), "image/png", "")


def _modified_ns(path: str) -> int:
    """When a file was changed last, in ns; 0 for what is no file here."""
    try:
        return Path(path).stat().st_mtime_ns
    except OSError:
        return 0


def _etag(*parts: object) -> str:
    return f'"{hashlib.sha256(repr(parts).encode("utf-8", "surrogateescape")).hexdigest()[:20]}"'


def _read_current(file: Path, changed: int) -> bytes | None:
    try:
        with file.open("rb") as stream:
            if os.fstat(stream.fileno()).st_mtime_ns == changed:
                return stream.read()
    except OSError:
        pass  # not there yet
    return None


def _thumbnail(path: str, size: int) -> Image.Image:
    image = load_image(path, size)
    image.thumbnail((size, size), Image.Resampling.LANCZOS)
    return image


def _encode_jpeg(image: Image.Image, quality: int) -> bytes:
    data = io.BytesIO()
    image.save(data, "JPEG", quality=quality, progressive=True, optimize=True)
    return data.getvalue()


def _store(file: Path, data: bytes, changed: int) -> None:
    """Store a thumbnail atomically; on a full disk it is made again at the next request."""
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, part = tempfile.mkstemp(dir=file.parent)
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(data)
            os.utime(part, ns=(changed, changed))
            os.replace(part, file)  # noqa: PTH105
        except BaseException:
            os.unlink(part)  # noqa: PTH108
            raise


def _writable_folder(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError:
        return Path(tempfile.mkdtemp(prefix="simsearch-thumbnails-"))
