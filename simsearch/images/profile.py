"""Colours that an ICC profile, or CIE Lab, describes, converted to sRGB."""

from __future__ import annotations

import io
from functools import lru_cache

from PIL import Image, ImageCms

CACHED_PROFILES, MAX_CACHED_BYTES = 8, 2**22  # of printers, the largest have some megabytes


def to_srgb(image: Image.Image) -> Image.Image:
    """Convert an image by its embedded profile; one that is sRGB, or broken, changes nothing."""
    profile = image.info["icc_profile"]
    build = _srgb_transform if len(profile) <= MAX_CACHED_BYTES else _srgb_transform.__wrapped__
    transform = build(profile, image.mode)
    return image if transform is None else ImageCms.applyTransform(image, transform) or image


def lab_to_rgb(image: Image.Image) -> Image.Image:
    """Convert CIE Lab (of white D50, as files hold it) to sRGB."""
    converted = ImageCms.applyTransform(image, _lab_transform())
    if converted is None:
        raise ValueError("the colours of CIE Lab cannot be converted")
    converted.info = {key: value for key, value in image.info.items() if key != "icc_profile"}
    return converted


@lru_cache(maxsize=CACHED_PROFILES)  # a camera writes the same profile into every file
def _srgb_transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Build the transform to sRGB; None for a profile that is sRGB already, or broken."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if "srgb" in ImageCms.getProfileDescription(source).lower():
            return None
        target = ImageCms.createProfile("sRGB")
        return ImageCms.buildTransform(source, target, mode, "RGBA" if mode == "RGBA" else "RGB")
    except (ImageCms.PyCMSError, OSError):
        return None


@lru_cache(maxsize=1)
def _lab_transform() -> ImageCms.ImageCmsTransform:
    source, target = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    return ImageCms.buildTransform(source, target, "LAB", "RGB")
