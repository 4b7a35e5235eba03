"""Preprocessing: what turns an upright RGB image into the input of a network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    import torch
    from numpy.typing import NDArray

    Transform: TypeAlias = Callable[[Image.Image], "torch.Tensor"]


@dataclass(frozen=True)
class Preprocessing:
    """Resize the shorter side, cut the centre, normalise: what a network was trained to see.

    The pixels are those of torchvision's `Resize` and `CenterCrop` of a PIL image, up to rounding,
    but only those that the crop keeps are computed: a panorama costs no more than a square.
    """

    resize: int  # pixels of the shorter side
    crop: int  # pixels of the square that is cut from the centre
    mean: tuple[float, ...]  # per channel, of values in [0, 1]
    std: tuple[float, ...]
    interpolation: str = "BILINEAR"

    def __call__(self, image: Image.Image) -> NDArray[np.uint8]:
        """Return the crop of an RGB image: (crop, crop, 3) uint8."""
        resample = Image.Resampling[self.interpolation]
        return np.array(image.resize((self.crop,) * 2, resample, box=self.seen(image.size)))

    def seen(self, size: tuple[int, int]) -> tuple[float, float, float, float]:
        """Return what the network sees of an image of (width, height): left, top, right, bottom."""
        short = min(size)
        width, height = (
            self.resize if side == short else int(self.resize * side / short) for side in size
        )
        left, top = (round((side - self.crop) / 2.0) for side in (width, height))
        scale_x, scale_y = size[0] / width, size[1] / height
        return (
            left * scale_x,
            top * scale_y,
            (left + self.crop) * scale_x,
            (top + self.crop) * scale_y,
        )


def normalise(batch: torch.Tensor, transform: Preprocessing | Transform) -> torch.Tensor:
    """Normalise (B, S, S, 3) uint8 to (B, 3, S, S), which then lies channels-last in memory."""
    if not isinstance(transform, Preprocessing):
        return batch
    pixels = batch.float()
    mean, std = (pixels.new_tensor(values) * 255 for values in (transform.mean, transform.std))
    return ((pixels - mean) / std).permute(0, 3, 1, 2)
