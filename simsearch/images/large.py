"""Large images: within a budget of memory, at a reduced scale where that suffices, in strips."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from PIL import Image

from simsearch.errors import ImageError
from simsearch.images import decode
from simsearch.images.budget import decoding_budget
from simsearch.images.coded_size import coded_pixels
from simsearch.images.convert import convert

if TYPE_CHECKING:
    from simsearch.images.decode import ImageSource
    from simsearch.images.depth import Levels

REDUCED_PIXELS = 32_000_000  # from here on, what is no JPEG is averaged down after decoding
SPARE_SCALE = 2  # its shorter side stays so many times that which is asked for, at least
STRIP_PIXELS = 2**20
MAX_PROGRESSIVE_PIXELS = 400_000_000  # which libjpeg keeps whole: 2.4 GB
JPEG_SCALES = (1, 2, 4, 8)
ORIENTED_BY = {"exif", "xmp", "Raw profile type exif", "XML:com.adobe.xmp"}
BYTES_PER_PIXEL = {"PNG": 8, "JPEG": 8, "MPO": 8, "BMP": 8, "GIF": 8, "TIFF": 12}
OTHER_BYTES_PER_PIXEL = 12  # of decoders with a buffer of their own
PROGRESSIVE_BYTES_PER_PIXEL = 6  # of coefficients, at full size


def load_large(image: Image.Image, source: ImageSource, min_side: int | None = None) -> Image.Image:
    """Decode an open image to RGB, not yet upright, when there is memory for it.

    Parameters
    ----------
    image
        Opened, and not decoded.
    source
        What it was opened from.
    min_side
        As in `load_image`.

    Raises
    ------
    ImageError
        If it has more pixels than the limit, at the smallest scale at which it can be decoded.
    """
    is_jpeg = image.format in {"JPEG", "MPO"} and bool(getattr(image, "tile", None))
    full_pixels = image.width * image.height
    size = f"{image.width}×{image.height}"
    progressive = is_jpeg and bool(image.info.get("progressive"))
    if is_jpeg:
        _set_scale(image, min_side)
    pixels = image.width * image.height
    if pixels > decode.MAX_PIXELS:
        raise ImageError(f"{size} pixels, over the limit of {decode.MAX_PIXELS:,}")
    if progressive and full_pixels > MAX_PROGRESSIVE_PIXELS:
        raise ImageError(
            f"{size} pixels, over the limit of {MAX_PROGRESSIVE_PIXELS:,} of a progressive JPEG"
        )
    if not is_jpeg:
        pixels = coded_pixels(image)
    cost = pixels * BYTES_PER_PIXEL.get(image.format or "", OTHER_BYTES_PER_PIXEL)
    cost += progressive * full_pixels * PROGRESSIVE_BYTES_PER_PIXEL
    with decoding_budget().reserve(cost):
        return _reduce(_load(image, source), _factor(image, min_side))


def _set_scale(image: Image.Image, min_side: int | None) -> None:
    """Choose the scale of a JPEG: by `min_side`, and anyway one that fits the limit."""
    width, height = image.size
    fitting = (
        (math.ceil(width / scale), math.ceil(height / scale))
        for scale in JPEG_SCALES
        if math.ceil(width / scale) * math.ceil(height / scale) <= decode.MAX_PIXELS
    )
    limit = next(fitting, (1, 1))
    wanted = (min_side, min_side) if min_side else image.size
    image.draft(None, (min(limit[0], wanted[0]), min(limit[1], wanted[1])))


def _load(image: Image.Image, source: ImageSource) -> Image.Image:
    if decode.has_16_bit_colour(image):
        from simsearch.images.depth import load_deep_colour

        return load_deep_colour(image, source)
    if image.format == "WEBP":
        from simsearch.images.webp import load_webp

        if decoded := load_webp(image, source):
            return decoded
    image.load()
    return image


def _factor(image: Image.Image, min_side: int | None) -> int:
    """Return by how much an image is averaged down; 1 for not at all."""
    if not min_side or image.width * image.height <= REDUCED_PIXELS:
        return 1
    return max(1, min(image.size) // (SPARE_SCALE * min_side))


def _reduce(image: Image.Image, factor: int) -> Image.Image:
    """Convert to RGB and average over squares of `factor` pixels, a strip of rows at a time."""
    is_plain = image.mode == "RGB" and not image.has_transparency_data
    if is_plain and factor == 1 and not image.info.get("icc_profile"):
        return image
    levels, ground = _look(image)
    reduced = Image.new("RGB", (-(-image.width // factor), -(-image.height // factor)))
    rows = max(1, STRIP_PIXELS // image.width // factor) * factor
    for top in range(0, image.height, rows):
        strip = image.crop((0, top, image.width, min(top + rows, image.height)))
        rgb = convert(strip, levels, ground)
        reduced.paste(rgb.reduce(factor) if factor > 1 else rgb, (0, top // factor))
    # For the orientation; profile and transparency have had their effect.
    reduced.info = {key: image.info[key] for key in ORIENTED_BY & image.info.keys()}
    return reduced


def _look(image: Image.Image) -> tuple[Levels | None, str | None]:
    """Find the levels and the ground of a whole image, for all its strips."""
    if image.mode.startswith(("I", "F")):
        from simsearch.images.depth import TAGS_KEY, levels_of

        if tags := getattr(image, "tag_v2", None):
            image.info[TAGS_KEY] = dict(tags)
        return levels_of(_sampled(image)), None
    if image.has_transparency_data:
        from simsearch.images.alpha import find_ground

        return None, find_ground(_sampled(image).convert("RGBA"))
    return None, None


def _sampled(image: Image.Image) -> Image.Image:
    """Return so many rows and columns of an image that they fit one strip."""
    side = math.isqrt(STRIP_PIXELS)
    width, height = (min(length, side) for length in image.size)
    return image.resize((width, height), Image.Resampling.NEAREST)
