"""Signatures of picture files: the whole picture, as large as its file says, and its frames."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from simsearch.errors import SimsearchError
from simsearch.images.address import is_uri, local_path
from simsearch.images.decode import DECODER, load_image, open_image
from simsearch.images.read import read_file
from simsearch.images.signature import signature

if TYPE_CHECKING:
    from PIL import Image

    from simsearch.images.decode import ImageSource

DECODED_SIDE = 256  # pixels: least side of a JPEG that is decoded for its signature
LAYERED = {"MPO", "PSD", "ICO", "ICNS"}  # formats whose further frames are no further pictures


class Signed(NamedTuple):
    """What is known of a picture file: its signature, and its number of frames or pages."""

    signature: np.void
    frames: int


def read_signature(path: str) -> Signed | None:
    """Read a picture's signature and its number of frames; None if it cannot be read."""
    if decoder := DECODER.get():
        return decoder.signature(path)
    try:
        source = read_file(path) if is_uri(local_path(path)) else path
        return sign(source, load_image(source, DECODED_SIDE))
    except SimsearchError:
        return None


def sign(source: ImageSource, picture: Image.Image) -> Signed:
    """Make the signature of a picture that was decoded, perhaps at a part of its size."""
    frames, size = 1, picture.size
    try:
        with open_image(source) as image:
            size = upright_size(image, picture)
            frames = 1 if image.format in LAYERED else int(getattr(image, "n_frames", 1))
    except Exception:  # on damaged files, decoders raise nearly anything; the picture was repaired
        return Signed(signature(picture), 1)
    return Signed(signature(picture, size), max(frames, 1))


def upright_size(image: Image.Image, picture: Image.Image) -> tuple[int, int]:
    """Size of the picture in its file, of which `picture` may be a part of the size."""
    if picture.width * picture.height >= image.width * image.height:
        return picture.size
    lies = image.width / image.height, image.height / image.width
    ratio = picture.width / picture.height
    turned = abs(np.log(lies[1] / ratio)) < abs(np.log(lies[0] / ratio))
    return (image.height, image.width) if turned else (image.width, image.height)
