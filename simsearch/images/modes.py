"""Conversion of every Pillow mode to 8-bit sRGB."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

    from simsearch.images.depth import Levels


def to_rgb(
    image: Image.Image, levels: Levels | None = None, ground: str | None = None
) -> Image.Image:
    """Convert a decoded image to 8-bit sRGB; see `load_image` for the rules.

    `levels` of deep values and the `ground` under transparency are found in the image itself
    unless they are given, as for a strip of a larger one.
    """
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
