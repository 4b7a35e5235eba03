"""Thumbnails from a disk cache, originals for a browser, and heat maps."""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from PIL import Image

from simsearch.analysis.explain import contributions, heat_colors, resize_heat
from simsearch.errors import ImageError
from simsearch.images.address import is_uri, local_path
from simsearch.images.decode import DECODER, load_image
from simsearch.images.header import read_header
from simsearch.images.read import read_file
from simsearch.images.remote import file_state
from simsearch.web.decoder_pool import Background, DecoderPool
from simsearch.web.jpeg import encode_jpeg, make_thumbnail
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
COMMENT = "original modified at"  # of a thumbnail; before the time or version
FADE_SHARE = 0.16  # of a heat map's side, over which it fades out
THUMBNAIL_QUALITY, ORIGINAL_QUALITY = 82, 95  # of JPEG, in percent


class Picture(NamedTuple):
    """An encoded image and its HTTP headers."""

    data: bytes
    media_type: str
    etag: str


class Original(NamedTuple):
    """An open file and its HTTP headers; it is sent from the disk, a chunk at a time."""

    stream: IO[bytes]
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
        modified, far = _modified(path), is_uri(local_path(path))
        file = self._cache.file(path, size)
        if not modified and not far:
            self._cache.drop(file)
        comment = f"{COMMENT} {modified} ns".encode()
        unknown = not modified and far  # a storage that does not answer: any copy will do
        data = self._cache.read(file, COMMENT.encode() if unknown else comment)
        if data is None:
            data = _encode_thumbnail(path, size, comment)
            self._cache.store(file, data)
        return Picture(data, "image/jpeg", _etag(path, modified, size))


def open_original(path: str) -> Original:
    """Open an image's file; one that browsers do not show is turned into a JPEG.

    Raises
    ------
    ImageError
        If the file is missing, or is no image.
    """
    etag = _etag(path, _modified(path))
    plain = local_path(path)
    if not is_uri(plain):
        media_type = BROWSER_MEDIA_TYPES.get(_format(path))
        if media_type:
            return Original(_open(plain), media_type, etag)
        return Original(_spool(_make_jpeg(path)), "image/jpeg", etag)
    data = read_file(path)
    media_type = BROWSER_MEDIA_TYPES.get(_format(data))
    return Original(
        _spool(data if media_type else _make_jpeg(data)), media_type or "image/jpeg", etag
    )


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
    thumbnail = make_thumbnail(path, HEAT_MAP_PIXELS)
    (cells,) = contributions(library, [path], embedding)
    if cells is None:
        raise ImageError("the file is gone", path)
    heat = resize_heat(library, cells, thumbnail.size)
    colors = heat_colors(heat, float(cells.max() * cells.size))  # (H, W, 4) in [0, 1]
    colors[..., 3] *= soft_edges(heat != 0)
    data = io.BytesIO()
    Image.fromarray((255 * colors).round().astype(np.uint8), "RGBA").save(data, "PNG")
    return Picture(data.getvalue(), "image/png", "")


def soft_edges(covered: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Fade a covered rectangle out towards those of its edges that lie within the picture.

    Parameters
    ----------
    covered
        (H, W), with at least one pixel that is covered.

    Returns
    -------
    numpy.ndarray
        (H, W), in [0, 1].
    """
    across, down = (_fade(np.asarray(covered.any(axis))) for axis in (0, 1))
    fade: NDArray[np.float64] = np.outer(down, across)
    return fade


def _fade(covered: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the factors along one side: from 0 to 1 over `FADE_SHARE` of what is covered."""
    places = np.flatnonzero(covered)
    if not len(places):
        return np.ones(len(covered))
    first, last = places[0], places[-1]
    width = max(2.0, FADE_SHARE * (last - first + 1))
    at = np.arange(len(covered))
    left = np.clip((at - first + 0.5) / width, 0, 1) if first > 0 else np.ones(len(at))
    right = np.clip((last - at + 0.5) / width, 0, 1) if last < len(at) - 1 else np.ones(len(at))
    edge = np.minimum(left, right)
    fade: NDArray[np.float64] = edge**2 * (3 - 2 * edge)
    return fade


def _modified(path: str) -> int:
    """Return the modification time of a file in ns, or the version of an address; 0 if unknown."""
    plain = local_path(path)
    if isinstance(plain, str) and is_uri(plain):
        state = file_state(plain)
        return state[1] if state else 0
    try:
        return Path(plain).stat().st_mtime_ns
    except OSError:
        return 0


def _etag(*parts: object) -> str:
    return f'"{hashlib.sha256(repr(parts).encode("utf-8", "surrogateescape")).hexdigest()[:20]}"'


def _format(source: str | bytes) -> str:
    decoder = DECODER.get()
    if isinstance(decoder, DecoderPool):
        return decoder.measure(source)[0].format
    return read_header(source).format


def _open(path: str | os.PathLike[str]) -> IO[bytes]:
    try:
        return Path(path).open("rb")
    except OSError as error:
        raise ImageError(str(error.strerror).lower(), os.fspath(path)) from error


def _spool(data: bytes) -> IO[bytes]:
    """Put bytes into a file without a name: a slow client would hold them in memory."""
    stream = tempfile.TemporaryFile()  # noqa: SIM115 (closed when it has been sent)
    stream.write(data)
    stream.seek(0)
    return stream


def _encode_thumbnail(path: str, size: int, comment: bytes) -> bytes:
    decoder = DECODER.get()
    if isinstance(decoder, (DecoderPool, Background)):
        data: bytes = decoder.thumbnail(path, size, THUMBNAIL_QUALITY, comment)
        return data
    return encode_jpeg(make_thumbnail(path, size), THUMBNAIL_QUALITY, comment)


def _make_jpeg(source: str | bytes) -> bytes:
    decoder = DECODER.get()
    if isinstance(decoder, DecoderPool):
        return decoder.jpeg(source, ORIGINAL_QUALITY)
    return encode_jpeg(load_image(source), ORIGINAL_QUALITY)
