"""Long pictures, beyond 2:1, as windows along them, whose rows are averaged.

All other pictures are embedded as ever, in the same space; a library records which it has.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from simsearch.backbones.preprocessing import Preprocessing
from simsearch.errors import BackboneError
from simsearch.files import iter_blocks
from simsearch.images.windows import LONG_RATIO, MOST_ALONG

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from numpy.typing import NDArray

    from simsearch.backbones.backbone import Backbone

CENTRE, WINDOWS = "centre", "windows"
CHOICES = (CENTRE, WINDOWS)
SUFFIX = f"-{WINDOWS}"  # of the fingerprint of a backbone that embeds long pictures so


@dataclass(frozen=True)
class WindowsPreprocessing(Preprocessing):
    """The preprocessing of a network, but for long pictures, which become several inputs."""

    def __call__(self, image: Image.Image) -> NDArray[np.uint8]:
        """Return (crop, crop, 3) uint8; of a long picture, (n, crop, crop, 3)."""
        if not is_long(image.size):
            return super().__call__(image)
        resample, side = Image.Resampling[self.interpolation], (self.crop, self.crop)
        cut = [image.resize(side, resample, tuple(box)) for box in windows_along(image.size)]
        return np.stack([np.array(each) for each in cut])


def is_long(size: tuple[int, int]) -> bool:
    """Tell whether a picture of (width, height) is so long that its centre is not the whole."""
    return max(size) > LONG_RATIO * min(size)


def windows_along(size: tuple[int, int]) -> NDArray[np.float64]:
    """Lay squares along a picture of (width, height), evenly from end to end.

    Returns
    -------
    numpy.ndarray
        (n, 4) float64: left, top, right, bottom in pixels. There are as few as leave nothing out,
        and 64 at most, which then leave gaps.

    Examples
    --------
    >>> windows_along((250, 100)).tolist()[1]
    [75.0, 0.0, 175.0, 100.0]
    """
    short, long = min(size), max(size)
    count = min(math.ceil(long / short), MOST_ALONG)
    starts = np.linspace(0, long - short, count)
    edges = np.stack([starts, 0 * starts, starts + short, 0 * starts + short], axis=1)
    return edges if size[0] >= size[1] else edges[:, [1, 0, 3, 2]]


def way_of(fingerprint: str) -> str:
    """Return how long pictures are embedded by what has a fingerprint: "centre" or "windows"."""
    return WINDOWS if fingerprint.endswith(SUFFIX) else CENTRE


def as_embedded(backbone: Backbone, long: str) -> Backbone:
    """Return a backbone that embeds long pictures by "centre" or "windows"; it shares its network.

    Raises
    ------
    BackboneError
        If the way is unknown, or windows are wanted of a transform of the user's own.
    """
    if long not in CHOICES:
        raise BackboneError(f"long={long!r}: choose {' or '.join(CHOICES)}")
    transform, plain = backbone.transform, backbone.fingerprint.removesuffix(SUFFIX)
    if long == CENTRE and way_of(backbone.fingerprint) == CENTRE:
        return backbone
    if type(transform) not in (Preprocessing, WindowsPreprocessing):
        raise BackboneError(
            f'long="windows" needs a network with its own preprocessing that cuts out a centre, '
            f'which {backbone.name} has not: give long="centre"'
        )
    kind = WindowsPreprocessing if long == WINDOWS else Preprocessing
    same: Backbone = object.__new__(type(backbone))
    vars(same).update(vars(backbone), transform=kind(**vars(transform)))
    same.fingerprint = plain + SUFFIX if long == WINDOWS else plain
    return same


def embed_mixed(backbone: Backbone, inputs: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
    """Embed prepared pictures, some of which are several inputs.

    Parameters
    ----------
    inputs
        (S, S, 3) uint8 for a picture, or (n, S, S, 3) for a long one.

    Returns
    -------
    numpy.ndarray
        (N, D) float32, unit norm: of a long picture, the direction of the mean row. A row is NaN
        where the network gave no finite direction for any of its inputs.
    """
    several = [each if each.ndim == 4 else each[None] for each in inputs]
    counts = [len(each) for each in several]
    flat = np.concatenate(several)
    rows = np.concatenate(
        [backbone.embed(flat[block]) for block in iter_blocks(len(flat), max(8, len(inputs)))]
    )
    sums = np.add.reduceat(rows, np.cumsum([0, *counts[:-1]]), axis=0, dtype=np.float64)
    single = np.array(counts) == 1
    with np.errstate(invalid="ignore", divide="ignore"):
        means = (sums / np.linalg.norm(sums, axis=1, keepdims=True)).astype(np.float32)
    means[single] = sums[single].astype(np.float32)  # as they are, to the bit
    embedded: NDArray[np.float32] = means
    return embedded
