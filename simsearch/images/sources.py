"""Image sources that are no files of this machine: addresses, bytes, PIL images and arrays."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from simsearch.errors import ImageError
from simsearch.images.address import is_uri, local_path
from simsearch.images.decode import open_file

if TYPE_CHECKING:
    from simsearch.images.decode import ImageSource


def open_source(source: ImageSource) -> Image.Image:
    """Open any source with Pillow; nothing is decoded yet.

    Raises
    ------
    ImageError
        If it is no source of an image.
    """
    if isinstance(source, Image.Image):
        from simsearch.images.fallback import copy_of

        return copy_of(source)  # closed by load_image; the caller's own stays open
    if isinstance(source, np.ndarray):
        from simsearch.images.from_array import from_array

        return from_array(source)
    name = ""
    if isinstance(source, str) and is_uri(source := local_path(source)):
        from simsearch.images.read import read_file

        name, source = str(source).partition("::")[0], read_file(str(source))  # of an archive
    if isinstance(source, bytes):
        return open_file(io.BytesIO(source), len(source), name)
    if isinstance(source, (str, os.PathLike)):  # of a file:// address
        path = os.path.expanduser(source)  # noqa: PTH111
        return open_file(path, os.path.getsize(path), path)  # noqa: PTH202
    raise ImageError(
        f"{type(source).__name__} is not an image source; give a path, a URL, bytes, "
        "a PIL image or a numpy array, or a list of these for several"
    )
