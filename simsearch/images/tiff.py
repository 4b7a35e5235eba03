"""TIFF files of kinds that Pillow does not know: many channels, 64 bits, float colours.

The first page is taken; of its channels the first three as red, green and blue, or the first
alone where there are fewer. Values are scaled as `depth` describes.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from simsearch.errors import ImageError
from simsearch.images import decode
from simsearch.images.depth import MIN_IS_WHITE, find_levels, scale

if TYPE_CHECKING:
    from numpy.typing import NDArray


def open_tiff(file: str | io.BytesIO) -> Image.Image:
    """Read the first page of a TIFF.

    Raises
    ------
    ImageError
        If it cannot be read, or has too many pixels.
    """
    import tifffile

    try:
        if isinstance(file, io.BytesIO):
            file.seek(0)
        with tifffile.TiffFile(file) as tiff:
            page = tiff.pages.first
            _check_size(page.imagewidth, page.imagelength)
            channels = _channels_last(page.asarray(), page.imagelength, page.imagewidth)
            inverted = page.photometric == MIN_IS_WHITE
            orientation = page.tags.valueof(274)
    except ImageError:
        raise
    except Exception as error:  # tifffile raises nearly anything on damaged files
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ImageError(f"a kind of TIFF that is not read: {reason}") from error
    image = Image.fromarray(_to_8_bit(channels, inverted=inverted))
    exif = Image.Exif()
    exif[274] = orientation if isinstance(orientation, int) else 1
    image.info["exif"] = exif.tobytes()
    image.format = "TIFF"
    return image


def _check_size(width: int, height: int) -> None:
    if width * height > decode.MAX_PIXELS:
        raise ImageError(f"{width}×{height} pixels, over the limit of {decode.MAX_PIXELS:,}")


def _channels_last(values: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    """Bring values to (H, W, C), whether the file has its channels first or last."""
    planes = values.reshape(-1, *values.shape[-3:]) if values.ndim > 3 else values[None]
    page: NDArray[Any] = planes[0]
    if page.ndim == 2:
        return page[..., None]
    if page.shape[:2] == (height, width):
        return page
    return np.moveaxis(page, 0, -1)


def _to_8_bit(channels: NDArray[Any], *, inverted: bool) -> NDArray[np.uint8]:
    colours = channels[..., :3] if channels.shape[2] >= 3 else channels[..., 0]
    if np.iscomplexobj(colours):
        colours = np.abs(colours)
    if colours.dtype == np.bool_:
        colours = colours.astype(np.uint8)
        return scale(colours, find_levels(colours)._replace(high=1, inverted=inverted))
    if colours.dtype == np.uint8:
        return np.ascontiguousarray(255 - colours if inverted else colours)
    return scale(colours, find_levels(colours)._replace(inverted=inverted))
