"""Transparent images, laid over the ground that shows their shape."""

from __future__ import annotations

import numpy as np
from PIL import Image

SAMPLE_SIDE = 1024  # pixels; a larger image is judged by so many rows and columns of it
MIN_CONTRAST = 16  # of 255: what is visible differs so much from white, on the average, or more


def flatten(image: Image.Image, ground: str | None = None) -> Image.Image:
    """Lay an RGBA image over a ground, by default the one that `find_ground` chooses."""
    if image.getchannel("A").getextrema() == (255, 255):
        flat = image.convert("RGB")
        flat.info = {}
        return flat
    flat = Image.new("RGB", image.size, ground or find_ground(image))
    flat.paste(image, mask=image)
    return flat


def find_ground(image: Image.Image) -> str:
    """Choose "white", or "black" where white would hide what is visible.

    The measure is the difference from white of each pixel's darkest channel, weighted by alpha,
    as a mean over all that is visible.
    """
    sides = [min(side, SAMPLE_SIDE) for side in image.size]
    sample = image.resize((sides[0], sides[1]), Image.Resampling.NEAREST)
    pixels = np.asarray(sample)
    alpha = pixels[..., 3].astype(np.float64)
    difference = 255.0 - pixels[..., :3].min(axis=2)
    visible = alpha.sum()
    contrast = (difference * alpha).sum() / visible if visible else 255
    return "white" if contrast >= MIN_CONTRAST else "black"
