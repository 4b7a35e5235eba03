"""Previews in the raw files of cameras, by rawpy (LibRaw); a raw picture is not developed."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageOps

from simsearch.errors import ImageError

# Degrees counter-clockwise by which a preview is turned, by LibRaw's code.
TURNS = {3: Image.Transpose.ROTATE_180, 5: Image.Transpose.ROTATE_90, 6: Image.Transpose.ROTATE_270}
ORIENTATION = 0x0112  # EXIF tag


def open_preview(file: str | io.BytesIO) -> Image.Image:
    """Open the largest preview in a raw file, upright.

    Raises
    ------
    ImageError
        If LibRaw cannot read the file, or it has no preview.
    """
    import rawpy

    if isinstance(file, io.BytesIO):
        file.seek(0)
    try:
        with rawpy.imread(file) as raw:
            thumbnail = raw.extract_thumb()
            turn = TURNS.get(raw.sizes.flip)
    except (rawpy.LibRawError, OSError) as error:
        said = error.args[0] if error.args else type(error).__name__
        reason = said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
        raise ImageError(f"no preview in this raw file: {reason}") from error
    if thumbnail.format == rawpy.ThumbFormat.JPEG:
        image: Image.Image = Image.open(io.BytesIO(bytes(thumbnail.data)), formats=["JPEG"])
        if image.getexif().get(ORIENTATION, 1) != 1:
            return ImageOps.exif_transpose(image)
    else:
        image = Image.fromarray(np.asarray(thumbnail.data))
    return image.transpose(turn) if turn is not None else image
