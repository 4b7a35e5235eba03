"""Thumbnails from a disk cache, originals for a browser, and heat maps."""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from PIL import Image

from simsearch.analysis.explain import contributions, heat_colors, resize_heat
from simsearch.errors import ImageError
from simsearch.images.address import is_uri
from simsearch.images.decode import load_image
from simsearch.images.header import read_header
from simsearch.images.read import read_file
from simsearch.web.thumbnail_cache import ThumbnailCache

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from simsearch.library.types import Browsable

Size = Literal[128, 256, 512]
"""Longer side of a thumbnail, in pixels."""

HEAT_MAP_PIXELS: Size = 512  # as the thumbnail under it

BROWSER_MEDIA_TYPES = {  # by Pillow's formats; every current browser shows them
    "JPEG": "image/jpeg",
    "MPO": "image/jpeg",
    "PNG": "image/png",
    "WEBP": "image/webp",
    "GIF": "image/gif",
    "AVIF": "image/avif",
}
THUMBNAIL_QUALITY, ORIGINAL_QUALITY = 82, 95  # of JPEG, in percent


class Picture(NamedTuple):
    """An encoded image and its HTTP headers."""

    data: bytes
    media_type: str
    etag: str


class Thumbnails:
    """Small copies of images, made once and cached on disk.

    A copy states when its original was modified, in the JPEG's comment, and is made again when
    that differs. So there is one file per image and size.

    Parameters
    ----------
    folder
        Of the cache; see `ThumbnailCache`.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._cache = ThumbnailCache(folder)
        self.folder, self.close = self._cache.folder, self._cache.close

    def get(self, path: str, size: Size) -> Picture:
        """Return the thumbnail of an image.

        Parameters
        ----------
        path
            Of the image; never from a request.
        size
            Longer side in pixels, at most.

        Raises
        ------
        ImageError
            If the image cannot be read.
        """
        modified = _modified_ns(path)
        file = self._cache.file(path, size)
        if not modified and not is_uri(path):
            self._cache.drop(file)
        comment = f"original modified at {modified} ns".encode()
        data = self._cache.read(file, comment)
        if data is None:
            data = _encode_jpeg(_make_thumbnail(path, size), THUMBNAIL_QUALITY, comment)
            self._cache.store(file, data)
        return Picture(data, "image/jpeg", _etag(path, modified, size))


def read_original(path: str) -> Picture:
    """Read an image's file; one that browsers do not show is turned into a JPEG.

    Raises
    ------
    ImageError
        If the file is missing, or is no image.
    """
    etag = _etag(path, _modified_ns(path))
    data = read_file(path)
    media_type = BROWSER_MEDIA_TYPES.get(read_header(data).format)
    if media_type:
        return Picture(data, media_type, etag)
    return Picture(_encode_jpeg(load_image(path), ORIGINAL_QUALITY), "image/jpeg", etag)


def draw_heat_map(library: Browsable, row: int, embedding: NDArray[np.float32]) -> Picture:
    """Draw which parts of a row's image are similar to an embedding, to lay over its thumbnail.

    Raises
    ------
    ImageError
        If the image cannot be read.
    BackboneError
        If the backbone has no feature map.
    """
    path = str(library.paths[row])
    thumbnail = _make_thumbnail(path, HEAT_MAP_PIXELS)
    (cells,) = contributions(library, [path], embedding)
    if cells is None:
        raise ImageError("the file is gone", path)
    heat = resize_heat(library, cells, thumbnail.size)
    colors = heat_colors(heat, float(cells.max() * cells.size))  # (H, W, 4) in [0, 1]
    data = io.BytesIO()
    Image.fromarray((255 * colors).round().astype(np.uint8), "RGBA").save(data, "PNG")
    return Picture(data.getvalue(), "image/png", "")


def _modified_ns(path: str) -> int:
    """Return the modification time of a file in ns; 0 for an address, or a missing file."""
    try:
        return Path(path).stat().st_mtime_ns
    except OSError:
        return 0


def _etag(*parts: object) -> str:
    return f'"{hashlib.sha256(repr(parts).encode("utf-8", "surrogateescape")).hexdigest()[:20]}"'


def _make_thumbnail(path: str, size: int) -> Image.Image:
    image = load_image(path, size)
    image.thumbnail((size, size), Image.Resampling.LANCZOS)
    return image


def _encode_jpeg(image: Image.Image, quality: int, comment: bytes = b"") -> bytes:
    data = io.BytesIO()
    image.save(data, "JPEG", quality=quality, progressive=True, optimize=True, comment=comment)
    return data.getvalue()
