"""Decoder of image sources: a path, URL, bytes, PIL image or array becomes upright 8-bit RGB.

Pillow decodes; this module opens and checks. What is rare has modules of its own, loaded on use.
"""

from __future__ import annotations

import io
import os
import warnings
from contextvars import ContextVar
from functools import lru_cache
from typing import TYPE_CHECKING

from PIL import Image, ImageFile, ImageOps

from simsearch.errors import ImageError
from simsearch.images.address import is_uri

if TYPE_CHECKING:
    from typing import Any, TypeAlias

    from numpy.typing import NDArray

    from simsearch.images.decoder import Decoder

ImageSource: TypeAlias = "str | os.PathLike[str] | bytes | Image.Image | NDArray[Any]"
"""A path, an http(s) URL, another address that fsspec opens (`s3://bucket/1.jpg`), the bytes of an
image file, a PIL image, or an (H, W[, C]) array."""

ImageSources: TypeAlias = "ImageSource | tuple[ImageSource, ...]"
"""One image, or several that make one query."""

MAX_PIXELS = 178_956_970  # where Pillow itself suspects a decompression bomb (0.5 GB of RGB)
LARGE_PIXELS = 4_000_000  # from here on, decoding waits for its share of memory
PREVIEW_SIDE = 448  # pixels, of a sheet of several images
LONG_RATIO = 2.0  # of the sides, beyond which an image is long, and its centre not the whole
DECODER: ContextVar[Decoder | None] = ContextVar("DECODER", default=None)  # another process

# Pillow opens more than these, but some of the others start programs (EPS runs Ghostscript).
_FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "HEIF", "BMP", "DIB", "TIFF", "GIF", "MPO")
_CODED_APART = ("JPEG", "MPO", "AVIF", "HEIF", "TIFF")  # may hold more than their size tells


def describe(source: object) -> str:
    """Name a source in one line, for a message or a caption."""
    if isinstance(source, (str, os.PathLike)):
        return os.fspath(source)
    from simsearch.images.fallback import describe_in_memory

    return describe_in_memory(source)


def load_image(source: ImageSource, min_side: int | None = None) -> Image.Image:
    """Turn a source into an upright 8-bit RGB image.

    The EXIF orientation of a file, of bytes, and of a file that Pillow has opened is applied; any
    other PIL image is taken as it is, with a warning if it still carries one. An embedded ICC
    profile is converted to sRGB, alpha is laid over white (or over black, where white would hide
    the shape), 16-bit and float values are scaled to 8 bits by the range that they use or declare,
    and the first frame is taken.

    Parameters
    ----------
    source
        A path, an http(s) URL, another address that fsspec opens, the bytes of an image file, a
        PIL image, or an array: (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), of bool, uint8, uint16
        or float in [0, 1].
    min_side
        A JPEG may be decoded at a half, a quarter or an eighth of its size as long as no side
        falls under this many pixels. Much faster for camera photos. Other images of more than
        32 megapixels are averaged down to no less than twice this.

    Returns
    -------
    PIL.Image.Image
        Mode RGB.

    Raises
    ------
    ImageError
        If the source cannot be read as an image, or has more than `MAX_PIXELS` pixels; a JPEG
        that has more is decoded at the scale that fits.
    """
    if (decoder := DECODER.get()) and isinstance(source, (str, os.PathLike, bytes)):
        return decoder.load(source, min_side)
    register_formats()
    if _is_in_memory(source):
        from simsearch.images.orientation import warn_of_orientation

        warn_of_orientation(source)  # type: ignore[arg-type]
    try:
        return decode(source, min_side)
    except Exception as error:  # on damaged files, decoders raise nearly anything
        from simsearch.images.repair import decode_repaired, decoding_error

        if image := decode_repaired(source, min_side, error):
            return image
        raise ImageError(decoding_error(error), describe(source)) from error


def decode(source: ImageSource, min_side: int | None) -> Image.Image:
    """Decode as `load_image` does; raises what the decoder raises."""
    with open_image(source) as image:
        return decode_open(image, source, min_side)


def decode_open(image: Image.Image, source: ImageSource, min_side: int | None) -> Image.Image:
    """Decode an open image, of which `source` is the file."""
    pixels = image.width * image.height
    if image.format in _CODED_APART:
        from simsearch.images.coded_size import check_stream

        pixels = check_stream(image)
    if pixels > min(LARGE_PIXELS, MAX_PIXELS):
        from simsearch.images.large import load_large

        return to_rgb(_upright(load_large(image, source, min_side), source))
    if min_side:
        image.draft(None, (min_side, min_side))
    if has_16_bit_colour(image):
        from simsearch.images.depth import load_deep_colour

        return to_rgb(_upright(load_deep_colour(image, source), source))
    image.load()
    return to_rgb(_upright(image, source))


def has_16_bit_colour(image: Image.Image) -> bool:
    """Tell whether an image that is not decoded yet has colours of 16 bits a channel."""
    return ";16" in str(getattr(image, "tile", [])[:1]) and image.mode[0] not in "IF"


def load_preview(source: ImageSources, min_side: int | None = None) -> Image.Image:
    """Load an image for display, as `load_image` does; several are laid out on one sheet.

    The sheet shows the first four, cut to squares, two in each row.
    """
    images = source if isinstance(source, tuple) else (source,)
    if len(images) == 1:
        return load_image(images[0], min_side)
    from simsearch.images.contact_sheet import lay_out

    return lay_out(images, min_side or PREVIEW_SIDE)


@lru_cache(maxsize=1)
def register_formats() -> tuple[str, ...]:
    """Register every decoder, once and at first use; return the formats to try."""
    import pi_heif

    pi_heif.register_heif_opener()
    Image.init()
    # Not for the caller: MAX_PIXELS limits large images, and broken EXIF is ignored.
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def open_image(source: ImageSource) -> Image.Image:
    """Open any source with Pillow; nothing is decoded yet."""
    if not isinstance(source, (str, os.PathLike)) or is_uri(source):
        from simsearch.images.sources import open_source

        return open_source(source)
    path = os.path.expanduser(source)  # noqa: PTH111 (pathlib fails on a file named "~1.jpg")
    return open_file(path, os.path.getsize(path), path)  # noqa: PTH202


def open_file(file: str | io.BytesIO, size: int, name: str) -> Image.Image:
    """Open a file, or bytes, of an image; `name` tells the kind of what has no signature."""
    if not size:
        raise ImageError("the file is empty")
    try:
        image = Image.open(file, formats=register_formats())
    except (Image.DecompressionBombError, ValueError, OSError) as error:
        from simsearch.images.fallback import open_otherwise

        return open_otherwise(file, name, error)
    if image.format == "TIFF":  # raw files of cameras are, with a tiny preview first
        from simsearch.images.fallback import prefer_preview

        return prefer_preview(image, file, name)
    return image


def _is_in_memory(source: object) -> bool:
    return isinstance(source, Image.Image) and not isinstance(source, ImageFile.ImageFile)


def _upright(image: Image.Image, source: ImageSource) -> Image.Image:
    """Apply the EXIF orientation of a file in place: the image is this module's own."""
    if _is_in_memory(source):
        return image
    try:
        ImageOps.exif_transpose(image, in_place=True)
    except MemoryError:
        raise
    except Exception:  # broken EXIF: there is no orientation, or it has been applied already
        return image
    return image


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert to 8-bit sRGB without transparency."""
    if image.mode != "RGB" or image.has_transparency_data or image.info.get("icc_profile"):
        from simsearch.images.convert import convert

        return convert(image)
    image.info = {}  # or the EXIF would be applied again when the image is loaded again
    return image
