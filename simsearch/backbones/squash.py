"""Preprocessing that squeezes a picture into a square, whatever its shape."""

from __future__ import annotations

from dataclasses import dataclass

from simsearch.backbones.preprocessing import Preprocessing


@dataclass(frozen=True)
class SquashPreprocessing(Preprocessing):
    """Resize both sides to `resize`, crop the centre, normalise: timm's crop mode "squash".

    The pixels are those of torchvision's `Resize((resize, resize))` and `CenterCrop` of a PIL
    image, up to rounding.
    """

    def crop_box(self, size: tuple[int, int]) -> tuple[float, float, float, float]:
        """Return the part of a (width, height) image that is kept: left, top, right, bottom."""
        first = round((self.resize - self.crop) / 2.0) / self.resize
        last = first + self.crop / self.resize
        width, height = size
        return first * width, first * height, last * width, last * height
