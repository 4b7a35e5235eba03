"""Decoder of image sources: a path, URL, bytes, PIL image or array becomes upright 8-bit RGB.

Pillow decodes; this module opens, checks and converts. No network and no tensor is known here.
"""

from __future__ import annotations

import io
import os
import warnings
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageCms, ImageFile, ImageOps, UnidentifiedImageError

from simsearch.errors import ImageError
from simsearch.images.address import is_uri, local_path, read_file

if TYPE_CHECKING:
    from typing import Any, TypeAlias

    from numpy.typing import NDArray


ImageSource: TypeAlias = "str | os.PathLike[str] | bytes | Image.Image | NDArray[Any]"
"""A path, an http(s) URL, another address that fsspec opens (`s3://bucket/1.jpg`), the bytes of an
image file, a PIL image, or an (H, W[, C]) array."""

ImageSources: TypeAlias = "ImageSource | tuple[ImageSource, ...]"
"""One image, or several that make one query."""

MAX_PIXELS = 178_956_970  # where Pillow itself suspects a decompression bomb (0.5 GB of RGB)
PREVIEW_SIDE = 448  # pixels, of a sheet of several images

# Pillow opens more than these, but some of the others start programs (EPS runs Ghostscript).
_FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "HEIF", "BMP", "DIB", "TIFF", "GIF", "MPO")


def describe(source: object) -> str:
    """Name a source in one line, for a message or a caption."""
    if isinstance(source, (str, os.PathLike)):
        return os.fspath(source)
    if isinstance(source, Image.Image):
        return getattr(source, "filename", "") or f"PIL image {source.width}×{source.height}"
    if isinstance(source, np.ndarray):
        return f"array {source.shape}"
    if isinstance(source, bytes):
        return f"{len(source):,} bytes"
    return repr(source)


def load_image(source: ImageSource, min_side: int | None = None) -> Image.Image:
    """Turn a source into an upright 8-bit RGB image.

    The EXIF orientation of a file, of bytes, and of a file that Pillow has opened is applied; any
    other PIL image is taken as it is, with a warning if it still carries one. An embedded ICC
    profile is converted to sRGB, alpha is laid over white, 16-bit and float values are scaled to
    8 bits, and the first frame is taken.

    Parameters
    ----------
    source
        A path, an http(s) URL, another address that fsspec opens, the bytes of an image file, a
        PIL image, or an array: (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), of bool, uint8, uint16
        or float in [0, 1].
    min_side
        A JPEG may be decoded at a half, a quarter or an eighth of its size as long as no side
        falls under this many pixels. Much faster for camera photos.

    Returns
    -------
    PIL.Image.Image
        Mode RGB.

    Raises
    ------
    ImageError
        If the source cannot be read as an image, or has more than `MAX_PIXELS` pixels.

    Examples
    --------
    >>> import numpy as np
    >>> load_image(np.zeros((4, 6), dtype=np.uint8)).size
    (6, 4)
    """
    _register_formats()
    in_memory = isinstance(source, Image.Image) and not isinstance(source, ImageFile.ImageFile)
    if in_memory:
        from simsearch.images.orientation import warn_of_orientation

        warn_of_orientation(source)  # type: ignore[arg-type]
    try:
        with open_image(source) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ImageError(
                    f"{image.width}×{image.height} pixels, over the limit of {MAX_PIXELS:,}"
                )
            if min_side:
                image.draft(None, (min_side, min_side))
            image.load()
            upright = image if in_memory else _upright(image)
            return _over_white(_to_srgb(_to_8_bit(upright)))
    except Exception as error:  # on damaged files, decoders raise nearly anything
        raise ImageError(decoding_error(error), describe(source)) from error


def load_preview(source: ImageSources, min_side: int | None = None) -> Image.Image:
    """Load an image for display, as `load_image` does; several are laid out on one sheet.

    The sheet shows the first four, cut to squares, two in each row.
    """
    images = source if isinstance(source, tuple) else (source,)
    if len(images) == 1:
        return load_image(images[0], min_side)
    side = (min_side or PREVIEW_SIDE) // 2
    sheet = Image.new("RGB", (2 * side, side if len(images) == 2 else 2 * side), "white")
    for i, image in enumerate(images[:4]):
        tile = ImageOps.fit(load_image(image, side), (side - 1, side - 1))
        sheet.paste(tile, (i % 2 * (side + 1), i // 2 * (side + 1)))
    return sheet


def decoding_error(error: Exception) -> str:
    """Say in a few words why an image cannot be decoded."""
    if isinstance(error, ImageError):
        return error.reason
    if isinstance(error, Image.DecompressionBombError):
        return f"more pixels than the limit of {MAX_PIXELS:,}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return " ".join(str(error).split()) or type(error).__name__


@lru_cache(maxsize=1)
def _register_formats() -> tuple[str, ...]:
    """Register every decoder, once and at first use; return the formats to try."""
    import pillow_heif

    pillow_heif.register_heif_opener()
    Image.init()
    # Not for the caller: MAX_PIXELS limits large images, and broken EXIF is ignored.
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def open_image(source: ImageSource) -> Image.Image:
    """Open any source with Pillow; nothing is decoded yet."""
    if isinstance(source, Image.Image):
        return source.copy()  # closed by load_image; the caller's own stays open
    if isinstance(source, np.ndarray):
        return _from_array(source)
    if isinstance(source, str) and is_uri(source := local_path(source)):
        source = read_file(str(source))
    if isinstance(source, bytes):
        return _open_file(io.BytesIO(source), len(source))
    if isinstance(source, (str, os.PathLike)):
        path = os.path.expanduser(source)  # noqa: PTH111 (pathlib fails on a file named "~1.jpg")
        return _open_file(path, os.path.getsize(path))  # noqa: PTH202
    raise ImageError(
        f"{type(source).__name__} is not an image source; give a path, a URL, bytes, "
        "a PIL image or a numpy array"
    )


def _open_file(file: str | io.BytesIO, size: int) -> Image.Image:
    try:
        return Image.open(file, formats=_register_formats())
    except UnidentifiedImageError:
        raise ImageError("not a supported image format" if size else "the file is empty") from None


def _from_array(array: NDArray[Any]) -> Image.Image:
    from simsearch.images.arrays import pixel_fault

    if reason := pixel_fault(array):
        raise ImageError(reason)
    array = array[:, :, 0] if array.shape[2:] == (1,) else array
    if array.dtype == np.bool_:
        array = array * np.uint8(255)
    elif array.dtype.kind == "f":
        array = (array * 255).round()
    elif array.dtype != np.uint8:
        array = (array / 257).round()
    return Image.fromarray(np.ascontiguousarray(array, dtype=np.uint8))


def _upright(image: Image.Image) -> Image.Image:
    """Apply the EXIF orientation in place: the image is this module's own."""
    try:
        ImageOps.exif_transpose(image, in_place=True)
    except MemoryError:
        raise
    except Exception:  # broken EXIF: there is no orientation, or it has been applied already
        return image
    return image


def _to_8_bit(image: Image.Image) -> Image.Image:
    """Bring every mode to RGB, RGBA, or CMYK (which keeps its profile's meaning)."""
    if image.mode.startswith(("I", "F")):
        return _scaled(np.asarray(image), image.mode).convert("RGB")
    if image.mode == "CMYK":
        return image
    mode = "RGBA" if image.has_transparency_data else "RGB"
    return image if image.mode == mode else image.convert(mode)


def _scaled(values: NDArray[Any], mode: str) -> Image.Image:
    """Scale deep grey levels to 8 bits; I and F carry no range, so the usual one that fits."""
    top = np.nanmax(values, initial=0)
    if "16" in mode or top > 255:
        levels = values / 257
    else:
        levels = values * 255.0 if mode == "F" and top <= 1 else values
    return Image.fromarray(np.nan_to_num(levels).round().clip(0, 255).astype(np.uint8))


def _to_srgb(image: Image.Image) -> Image.Image:
    profile = image.info.get("icc_profile")
    transform = _srgb_transform(profile, image.mode) if profile else None
    return image if transform is None else ImageCms.applyTransform(image, transform) or image


@lru_cache(maxsize=32)  # a camera writes the same profile into every file
def _srgb_transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Build the transform to sRGB; None for a profile that is sRGB already, or broken."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if "srgb" in ImageCms.getProfileDescription(source).lower():
            return None
        target = ImageCms.createProfile("sRGB")
        return ImageCms.buildTransform(source, target, mode, "RGBA" if mode == "RGBA" else "RGB")
    except (ImageCms.PyCMSError, OSError):
        return None


def _over_white(image: Image.Image) -> Image.Image:
    if image.mode == "RGBA":
        white = Image.new("RGB", image.size, "white")
        white.paste(image, mask=image)
        return white
    image = image if image.mode == "RGB" else image.convert("RGB")
    image.info = {}  # or profile and EXIF would be applied again when the image is loaded again
    return image
