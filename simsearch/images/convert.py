"""Conversion of images of every mode to 8-bit sRGB without transparency."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

    from simsearch.images.depth import Levels


def convert(
    image: Image.Image, levels: Levels | None = None, ground: str | None = None
) -> Image.Image:
    """Convert to 8-bit sRGB; levels and ground are found in the image, unless it is a strip."""
    if image.mode.startswith(("I", "F")):
        from simsearch.images.depth import to_8_bit

        image = to_8_bit(image, levels).convert("RGB")
    elif image.mode == "LAB":
        from simsearch.images.profile import lab_to_rgb

        image = lab_to_rgb(image)
    elif image.mode != "CMYK":  # which keeps its profile's meaning
        mode = "RGBA" if image.has_transparency_data else "RGB"
        image = image if image.mode == mode else image.convert(mode)
    if image.info.get("icc_profile"):
        from simsearch.images.profile import to_srgb

        image = to_srgb(image)
    if image.mode == "RGBA":
        from simsearch.images.alpha import flatten

        return flatten(image, ground)
    image = image if image.mode == "RGB" else image.convert("RGB")
    image.info = {}  # or profile and EXIF would be applied again when the image is loaded again
    return image
