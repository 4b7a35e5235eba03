"""Several images on one sheet, for display."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PIL import Image, ImageOps

from simsearch.images import decode

if TYPE_CHECKING:
    from simsearch.images.decode import ImageSource


def lay_out(images: tuple[ImageSource, ...], width: int) -> Image.Image:
    """Lay the first four images on a sheet of this width, cut to squares, two in each row."""
    side = width // 2
    sheet = Image.new("RGB", (2 * side, side if len(images) == 2 else 2 * side), "white")
    for i, image in enumerate(images[:4]):
        tile = ImageOps.fit(decode.load_image(image, side), (side - 1, side - 1))
        sheet.paste(tile, (i % 2 * (side + 1), i // 2 * (side + 1)))
    return sheet
