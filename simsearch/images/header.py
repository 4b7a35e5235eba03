"""Headers of image files: format and size, without decoding."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from simsearch.errors import ImageError
from simsearch.images.decode import DECODER, describe, open_image
from simsearch.images.repair import decoding_error

if TYPE_CHECKING:
    from collections.abc import Callable

    from PIL import Image

    from simsearch.images.decode import ImageSource

_T = TypeVar("_T")


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

    return _read(source, lambda image: (_header(image), coded_pixels(image)))


def read_shape(source: ImageSource) -> tuple[int, int]:
    """Read the width and height of an image once it is upright, without decoding it.

    Raises
    ------
    ImageError
        If the source is not an image.
    """
    from simsearch.images.orientation import upright_size

    return _read(source, upright_size)


def read_header(source: ImageSource) -> Header:
    """Read the format and size of an image, without decoding it.

    Raises
    ------
    ImageError
        If the source is not an image.
    """
    if (decoder := DECODER.get()) and isinstance(source, (str, os.PathLike, bytes)):
        return decoder.measure(source)[0]
    return _read(source, _header)


def _header(image: Image.Image) -> Header:
    return Header(image.format or "", *image.size)


def _read(source: ImageSource, facts: Callable[[Image.Image], _T]) -> _T:
    """Return what is read of an image that is opened, and not decoded."""
    try:
        with open_image(source) as image:
            return facts(image)
    except Exception as error:
        raise ImageError(decoding_error(error), describe(source)) from error
