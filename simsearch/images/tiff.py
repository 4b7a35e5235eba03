"""TIFF files of kinds that Pillow does not know or misreads: many channels, 64 bits, int8.

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
from simsearch.images.depth import BITS, FORMAT, MIN_IS_WHITE, find_levels, scale

if TYPE_CHECKING:
    from numpy.typing import NDArray


PLANAR_CONFIG, SEPARATE = 284, 2
SIGNED = 2  # of the tag of the sample format
SEPARATED = 5  # of the photometric tag: cyan, magenta, yellow and black


def read_as_written(image: Any) -> bool:  # noqa: ANN401
    """Tell whether Pillow reads a TIFF right, once its tiles are set right.

    libtiff gives numbers in the order of this machine, where Pillow takes them for that of the
    file. Pillow reads signed bytes as unsigned ones, and half of the bytes of planes of 16 bits.
    """
    image.tile = [
        tile._replace(
            args=(tile.args[0].replace(";32B", ";32N").replace(";16B", ";16N"), *tile.args[1:])
        )
        if tile.codec_name == "libtiff" and image.mode in {"I", "F"}
        else tile
        for tile in image.tile
    ]
    bits = (image.tag_v2.get(BITS) or (1,))[0]
    if bits == 8 and (image.tag_v2.get(FORMAT) or (1,))[0] == SIGNED:
        return False
    if image.tag_v2.get(PLANAR_CONFIG) != SEPARATE:
        return True
    is_raw = image.tile[:1] and image.tile[0].codec_name == "raw"
    return image.mode not in {"LA", "PA"} and not (bits > 8 and is_raw)


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
            photometric = page.photometric
            orientation = page.tags.valueof(274)
    except ImageError:
        raise
    except Exception as error:  # tifffile raises nearly anything on damaged files
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ImageError(f"a kind of TIFF that is not read: {reason}") from error
    if photometric == SEPARATED and channels.shape[2] >= 4:
        image = Image.fromarray(_to_8_bit(channels[..., :4]), "CMYK").convert("RGB")
    else:
        colours = channels[..., :3] if channels.shape[2] >= 3 else channels[..., 0]
        image = Image.fromarray(_to_8_bit(colours, inverted=photometric == MIN_IS_WHITE))
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


def _to_8_bit(colours: NDArray[Any], *, inverted: bool = False) -> NDArray[np.uint8]:
    if np.iscomplexobj(colours):
        colours = np.abs(colours)
    if colours.dtype == np.bool_:
        colours = colours.astype(np.uint8)
        return scale(colours, find_levels(colours)._replace(high=1, inverted=inverted))
    if colours.dtype == np.uint8:
        return np.ascontiguousarray(255 - colours if inverted else colours)
    return scale(colours, find_levels(colours)._replace(inverted=inverted))
