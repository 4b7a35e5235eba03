"""Headers of image files: format and size, without decoding."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from simsearch.errors import ImageError
from simsearch.images.decode import describe, open_image
from simsearch.images.repair import decoding_error

if TYPE_CHECKING:
    from simsearch.images.decode import ImageSource


class Header(NamedTuple):
    """Format and size of an image, as its file states them."""

    format: str  # Pillow's name, such as "JPEG"
    width: int  # pixels
    height: int


def measure(source: ImageSource) -> tuple[Header, int]:
    """Read a header, and how many pixels a decoder holds of it: files may state fewer.

    Raises
    ------
    ImageError
        If the source is not an image.
    """
    from simsearch.images.coded_size import coded_pixels

    try:
        with open_image(source) as image:
            return Header(image.format or "", *image.size), coded_pixels(image)
    except Exception as error:
        raise ImageError(decoding_error(error), describe(source)) from error


def read_header(source: ImageSource) -> Header:
    """Read the format and size of an image, without decoding it.

    Raises
    ------
    ImageError
        If the source is not an image.
    """
    try:
        with open_image(source) as image:
            return Header(image.format or "", *image.size)
    except Exception as error:
        raise ImageError(decoding_error(error), describe(source)) from error
