"""Preprocessing of an upright RGB image into the input of a network, and its fingerprint record."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from simsearch.images.decode import LONG_RATIO

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    import torch
    from numpy.typing import NDArray

    Transform: TypeAlias = Callable[[Image.Image], "torch.Tensor"]

FINGERPRINT_FIELDS = ("resize", "crop", "mean", "std", "interpolation")  # version 1 of the record


@dataclass(frozen=True)
class Preprocessing:
    """Resize the shorter side, crop the centre, normalise, as in the network's own evaluation.

    The pixels are those of torchvision's `Resize` and `CenterCrop` of a PIL image, up to rounding,
    but only those that the crop keeps are computed: a panorama costs no more than a square.
    """

    resize: int  # pixels of the shorter side
    crop: int  # side of the central square, in pixels
    mean: tuple[float, ...]  # per channel, of values in [0, 1]
    std: tuple[float, ...]
    interpolation: str = "BILINEAR"
    windows: bool = False  # for long images, see `cut_long`; a fingerprint tells by its suffix

    def __call__(self, image: Image.Image) -> NDArray[np.uint8]:
        """Return the crop of an RGB image, (crop, crop, 3) uint8; several of a long one."""
        if self.windows and max(image.size) > LONG_RATIO * min(image.size):
            from simsearch.backbones.long_pictures import cut_long

            return cut_long(self, image)
        resample = Image.Resampling[self.interpolation]
        return np.array(image.resize((self.crop,) * 2, resample, box=self.crop_box(image.size)))

    def crop_box(self, size: tuple[int, int]) -> tuple[float, float, float, float]:
        """Return the part of a (width, height) image that is kept: left, top, right, bottom."""
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


def fingerprint_record(preprocessing: Preprocessing) -> str:
    """Return the text that stands for a preprocessing in a fingerprint, version 1.

    `Preprocessing(resize=256, crop=224, mean=(...), std=(...), interpolation='BILINEAR')`: the
    class, and the fields of version 1 in their order, each as Python writes it. A field that is
    added later follows where it differs from its default, so that fingerprints that exist stay
    valid. Never change what this returns for fields that exist: every saved library holds it.
    """
    later = [
        field.name
        for field in fields(preprocessing)
        if field.name not in FINGERPRINT_FIELDS
        and getattr(preprocessing, field.name) != field.default
    ]
    names = [*FINGERPRINT_FIELDS, *later]
    values = ", ".join(f"{name}={getattr(preprocessing, name)!r}" for name in names)
    return f"{type(preprocessing).__qualname__}({values})"


def normalise(batch: torch.Tensor, transform: Preprocessing | Transform) -> torch.Tensor:
    """Normalise (B, S, S, 3) uint8 to (B, 3, S, S), which then lies channels-last in memory.

    What a user's own transform gives is returned as it is.
    """
    if not isinstance(transform, Preprocessing):
        return batch
    pixels = batch.float()
    mean, std = (pixels.new_tensor(values) * 255 for values in (transform.mean, transform.std))
    return ((pixels - mean) / std).permute(0, 3, 1, 2)
