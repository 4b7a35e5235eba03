"""Long pictures, beyond 2:1: by windows along them, and by all of it, folded to a square.

New libraries have them so. All other pictures are embedded as ever, in the same space; a library
records which it has.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from simsearch.backbones.backbone import SUFFIX, with_windows
from simsearch.errors import BackboneError
from simsearch.files import iter_blocks
from simsearch.images.decode import LONG_RATIO
from simsearch.images.windows import MOST_ALONG

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from numpy.typing import NDArray

    from simsearch.backbones.backbone import Backbone
    from simsearch.backbones.preprocessing import Preprocessing

CENTRE, WINDOWS = "centre", "windows"
CHOICES = (CENTRE, WINDOWS)


def cut_long(transform: Preprocessing, image: Image.Image) -> NDArray[np.uint8]:
    """Cut a long RGB image into inputs: n windows, and all of it, (n + 1, crop, crop, 3) uint8."""
    resample, side = Image.Resampling[transform.interpolation], (transform.crop, transform.crop)
    cut = [image.resize(side, resample, tuple(box)) for box in windows_along(image.size)]
    folded = fold(image, transform.crop, resample)
    return np.stack([*(np.array(each) for each in cut), folded])


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


def folds_of(size: tuple[int, int]) -> int:
    """Return into how many pieces a long picture is folded, so that they make about a square."""
    return max(2, round(math.sqrt(max(size) / min(size))))


def fold(image: Image.Image, side: int, resample: Image.Resampling) -> NDArray[np.uint8]:
    """Lay equal pieces of a long picture below each other, or beside: (side, side, 3) uint8."""
    count, lying = folds_of(image.size), image.width >= image.height
    square = Image.new("RGB", (side, side))
    ends = np.linspace(0, side, count + 1).round().astype(int).tolist()
    for i, (start, end) in enumerate(pairwise(ends)):
        first, last = (max(image.size) * k / count for k in (i, i + 1))
        if lying:
            piece = image.resize((side, end - start), resample, (first, 0, last, image.height))
            square.paste(piece, (0, start))
        else:
            piece = image.resize((end - start, side), resample, (0, first, image.width, last))
            square.paste(piece, (start, 0))
    return np.array(square)


def way_of(fingerprint: str) -> str:
    """Return how long pictures are embedded by what has a fingerprint: "centre" or "windows"."""
    return WINDOWS if fingerprint.endswith(SUFFIX) else CENTRE


def unseen_of(library: object, sizes: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the sizes of those pictures of which a library embeds the centre alone."""
    source = getattr(library, "source", None)
    if source is None or way_of(source.fingerprint) == CENTRE:
        return sizes
    return [size for size in sizes if not is_long(size)]


def as_embedded(backbone: Backbone, long: str) -> Backbone:
    """Return a backbone that embeds long pictures by "centre" or "windows", as a user asks for it.

    Raises
    ------
    BackboneError
        If the way is unknown, or windows are wanted of a network that they do not suit.
    """
    if long not in CHOICES:
        raise BackboneError(f"long={long!r}: choose {' or '.join(CHOICES)}")
    same = with_windows(backbone, windows=long == WINDOWS)
    if way_of(same.fingerprint) != long:
        raise BackboneError(
            f'long="windows" needs a network with its own preprocessing that cuts out a centre, '
            f'which {backbone.name} has not: give long="centre"'
        )
    return same


def made_like(backbone: Backbone, fingerprint: str) -> Backbone:
    """Return a backbone that embeds long pictures as what has a fingerprint does, if it can."""
    return with_windows(backbone, windows=way_of(fingerprint) == WINDOWS)


def describe_difference(one: str, other: str) -> str:
    """Say how to mend fingerprints that differ in long pictures alone; "" for others."""
    if one == other or one.removesuffix(SUFFIX) != other.removesuffix(SUFFIX):
        return ""
    return (
        "; only long pictures differ, which one has by windows and the other by their centre: "
        'embed one of the datasets again with long="windows" or long="centre" (--long)'
    )


def embed_mixed(backbone: Backbone, inputs: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
    """Embed prepared pictures, some of which are several inputs.

    Parameters
    ----------
    inputs
        (S, S, 3) uint8 for a picture, or (n + 1, S, S, 3) for a long one.

    Returns
    -------
    numpy.ndarray
        (N, D) float32, unit norm. Of a long picture, the direction halfway between that of the mean
        of its windows and that of all of it, folded. A row is NaN where the network gave no finite
        direction for any of its inputs.
    """
    first = np.stack([each[-1] if each.ndim == 4 else each for each in inputs])
    embedded = backbone.embed(first)  # a batch as without long ones: all other rows are the same
    long = [i for i, each in enumerate(inputs) if each.ndim == 4]
    flat = np.concatenate([inputs[i][:-1] for i in long])
    blocks = iter_blocks(len(flat), max(8, len(inputs)))
    rows = np.concatenate([backbone.embed(flat[block]) for block in blocks])
    ends = np.cumsum([len(inputs[i]) - 1 for i in long])
    for i, own in zip(long, np.split(rows, ends[:-1]), strict=True):
        embedded[i] = halfway(own, embedded[i])
    return embedded


def halfway(windows: NDArray[np.float32], folded: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the direction between that of the mean of (n, D) rows and that of another: (D,)."""
    mean = windows.sum(axis=0, dtype=np.float64)
    both = mean / np.linalg.norm(mean) + folded
    direction: NDArray[np.float64] = both / np.linalg.norm(both)
    return direction
