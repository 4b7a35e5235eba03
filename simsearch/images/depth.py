"""Values of more than 8 bits (16-bit, 32-bit, signed, float), scaled to 8 bits.

The rule: what a TIFF declares; otherwise, for values from 0 on, the smallest usual range that
holds them (8, 9, ... bits for whole numbers; 1, 255 or 65535 for fractions), so that a photo of 16
bits keeps its exposure; and the range of the values themselves, where there are negative ones, or
where they fill less than a sixteenth of that range. A few outliers do not count for it.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from simsearch.images.decode import ImageSource

MIN_FILLED = 1 / 16  # of the usual range; values that fill less are scaled by their own
OUTLIER_PERCENT, OUTLIER_SPREAD = 0.1, 4  # so few values that make the range so many times wider
SAMPLE_VALUES = 2**20  # for percentiles
BLOCK_VALUES = 2**20  # scaled together
COLOUR_CHANNELS = {"RGB": 3, "RGBA": 3, "RGBX": 3, "CMYK": 4}
TAGS_KEY = "tiff tags"  # where `large` keeps them in the info of a strip
# Numbers of TIFF tags.
BITS, PHOTOMETRIC, FORMAT, NO_DATA = 258, 262, 339, 42113
MINIMUM, MAXIMUM, S_MINIMUM, S_MAXIMUM = 280, 281, 340, 341
UNSIGNED, MIN_IS_WHITE = 1, 0


class Levels(NamedTuple):
    """The values that become 0 and 255."""

    low: float
    high: float
    no_data: float | None = None  # this value is missing, and becomes black
    inverted: bool = False  # low values are bright


def to_8_bit(image: Image.Image, levels: Levels | None = None) -> Image.Image:
    """Scale an image of mode I or F, of any kind, to mode L."""
    return Image.fromarray(scale(_values(image), levels or levels_of(image)))


def levels_of(image: Image.Image) -> Levels:
    """Find the levels of an image of mode I or F, with what its file declares."""
    tags = _tags(image)
    values = _values(image)
    no_data = _number(tags.get(NO_DATA))
    if no_data is None and tags.get(BITS) == (16,) and values.dtype == np.int32:
        no_data = -(2.0**15)  # the lowest value of its type
    inverted = tags.get(PHOTOMETRIC) == MIN_IS_WHITE
    declared = _declared_range(tags, image.mode)
    valid = _valid(_sample(values), no_data)
    if declared and valid.size and declared[0] <= valid.min() and valid.max() <= declared[1]:
        return Levels(*declared, no_data, inverted)
    return find_levels(values, no_data)._replace(inverted=inverted)


def find_levels(values: NDArray[Any], no_data: float | None = None) -> Levels:
    """Find the levels of values that declare nothing.

    Parameters
    ----------
    values
        (H, W) or (H, W, C), of any integer or float type.
    no_data
        The value that stands for a missing one. NaN and infinities are missing anyway, and so is
        the lowest value of a signed type.
    """
    if no_data is None and values.dtype.kind in "if" and values.size:
        limits = np.iinfo(values.dtype) if values.dtype.kind == "i" else np.finfo(values.dtype)
        no_data = float(limits.min) if (values == limits.min).any() else None
    valid = _valid(values, no_data)
    if not valid.size:
        return Levels(0, 1, no_data)
    low, high = float(valid.min()), float(valid.max())
    usual = _usual_range(high, values.dtype.kind)
    bottom, top = np.percentile(
        _sample(valid), [OUTLIER_PERCENT, 100 - OUTLIER_PERCENT], method="nearest"
    ).tolist()
    if bottom < top and (top - bottom) * OUTLIER_SPREAD < high - low:
        low, high = bottom, top
    if valid.min() >= 0 and (high == low or high - low >= MIN_FILLED * usual):
        return Levels(0, usual, no_data)
    return Levels(low, high if high > low else 0, no_data)


def scale(values: NDArray[Any], levels: Levels) -> NDArray[np.uint8]:
    """Scale values to uint8 of the same shape; missing ones become 0."""
    scaled = np.empty(values.shape, np.uint8)
    rows = max(1, BLOCK_VALUES // max(1, values[0].size))
    for start in range(0, len(values), rows):
        block = values[start : start + rows].astype(np.float64)
        missing = np.isnan(block)
        if levels.no_data is not None:
            missing |= block == levels.no_data
        block[missing] = levels.low
        grey = _stretch(block, levels).round().clip(0, 255)
        scaled[start : start + rows] = np.where(missing, 0, 255 - grey if levels.inverted else grey)
    return scaled


def _stretch(block: NDArray[np.float64], levels: Levels) -> NDArray[np.float64]:
    """Map the levels to 0 and 255, even where their distance is no finite number."""
    low, high = np.float64(levels.low), np.float64(levels.high)
    with np.errstate(all="ignore"):
        if np.isinf(high - low):
            block, low, high = block / 2, low / 2, high / 2
        stretched: NDArray[np.float64] = np.nan_to_num((block - low) * (255 / (high - low)))
    return stretched


def load_deep_colour(image: Image.Image, source: ImageSource) -> Image.Image:
    """Load colours of 16 bits a channel, of which Pillow keeps the upper 8.

    Where these are nearly all that the values do not use, the lower 8 are read as well.
    """
    rawmode = _rawmode(image)
    twin = _low_rawmode(image.mode, rawmode)
    image.load()
    count = COLOUR_CHANNELS.get(image.mode, 1)
    extrema = np.array([band.getextrema() for band in image.split()[:count]])
    low, high = int(extrema.min()), int(extrema.max())
    if twin is None or (high >= 128 and high - low >= 255 * MIN_FILLED):
        return image
    values = _read_16_bits(image, source, *twin)
    levels = find_levels(values[..., :count])
    bands = np.array(image).reshape(image.height, image.width, -1)
    bands[..., :count] = scale(values[..., :count], levels)
    deep = Image.frombytes(image.mode, image.size, bands.tobytes())
    deep.info = image.info
    return deep


def _read_16_bits(
    image: Image.Image, source: ImageSource, mode: str, rawmode: str
) -> NDArray[np.uint16]:
    """Read the file of an image again for its lower bytes; return (H, W, C) of both."""
    from simsearch.images.decode import open_image

    other: Any
    with open_image(source) as other:
        other._mode = mode  # Pillow has no public way to unpack in another way
        other.tile = [tile._replace(args=_with_rawmode(tile.args, rawmode)) for tile in other.tile]
        other.load()
        low = np.asarray(other)
    if mode == "I":  # grey and alpha, as one number of 32 bits
        grey = (low.view(np.uint32) >> 16).astype(np.uint16)
        return np.repeat(grey[..., None], 3, axis=2)
    values: NDArray[np.uint16] = (np.asarray(image).astype(np.uint16) << 8) + low
    return values


def _low_rawmode(mode: str, rawmode: str) -> tuple[str, str] | None:
    """Return mode and rawmode that read the lower bytes; None if there is no such way."""
    if (mode, rawmode) == ("RGBA", "LA;16B"):
        return "I", "I;32B"
    kind, _, order = rawmode.partition(";16")
    if kind not in {mode, "RGBX"}:
        return None
    opposite = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}.get(order)
    return (mode, f"{kind};16{opposite}") if opposite else None


def _rawmode(image: Any) -> str:  # noqa: ANN401
    args = image.tile[0].args
    return args if isinstance(args, str) else str(args[0])


def _with_rawmode(args: Any, rawmode: str) -> Any:  # noqa: ANN401
    return rawmode if isinstance(args, str) else (rawmode, *args[1:])


def _values(image: Image.Image) -> NDArray[Any]:
    """Return the values of an image; those that the file calls unsigned, as such."""
    values = np.asarray(image)
    tags = _tags(image)
    if image.mode == "I" and tags.get(BITS) == (32,) and tags.get(FORMAT, (1,)) == (UNSIGNED,):
        return values.view(np.uint32)
    return values


def _tags(image: Image.Image) -> Any:  # noqa: ANN401
    return getattr(image, "tag_v2", None) or image.info.get(TAGS_KEY, {})


def _declared_range(tags: Any, mode: str) -> tuple[float, float] | None:  # noqa: ANN401
    """Return the range of values that a TIFF declares, unless it is all that its type can hold."""
    bits = (tags.get(BITS) or (0,))[0]
    low, high = (_number(tags.get(tag)) for tag in (S_MINIMUM, S_MAXIMUM))
    if low is None or high is None:
        low, high = (_number(tags.get(tag)) for tag in (MINIMUM, MAXIMUM))
    if high is None and mode != "F" and 8 < bits < 16:
        high = 2.0**bits - 1
    low = low or 0.0
    if high is None or high <= low or (bits >= 16 and high - low >= 2.0**bits - 1):
        return None
    return low, high


def _number(value: object) -> float | None:
    """Return the number that a tag holds, alone or for each channel."""
    try:
        return float(value[0] if isinstance(value, (tuple, list)) else value)  # type: ignore[arg-type]
    except (TypeError, ValueError, IndexError):
        return None


def _valid(values: NDArray[Any], no_data: float | None) -> NDArray[Any]:
    """Return the values that are finite and there, flat."""
    if values.dtype.kind == "f":
        values = values[np.isfinite(values)]
    return values.ravel() if no_data is None else values[values != no_data].ravel()


def _sample(values: NDArray[Any]) -> NDArray[Any]:
    flat = values.ravel()
    return flat[:: max(1, flat.size // SAMPLE_VALUES)]


def _usual_range(high: float, kind: str) -> float:
    """Return the top of the smallest usual range from 0 that holds `high`."""
    if kind == "f":
        return next((top for top in (1.0, 255.0, 65535.0) if high <= top), high)
    return 2.0 ** max(8, int(max(high, 0)).bit_length()) - 1
