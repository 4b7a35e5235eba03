"""Heat maps of long pictures, which the network sees as windows along them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from simsearch.analysis.explain import mapped_cells
from simsearch.backbones.long_pictures import folds_of, windows_along
from simsearch.images.decode import load_image

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from simsearch.images.decode import ImageSource
    from simsearch.library.types import Browsable


def share_of_windows(
    library: Browsable, image: ImageSource, vector: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Split the cosine of a long picture among cells along it.

    Returns
    -------
    numpy.ndarray
        (h, w) float32 over the whole picture, as many cells high (or wide) as the map of one
        window; where windows overlap, their shares are added up, and the
        half of the row that all of it, folded, makes is laid along it, too.
    """
    picture = load_image(image, library.backbone.min_side)
    cells = mapped_cells(library, library.backbone.prepare(picture))  # (n + 1, side, side, D)
    units = cells / np.linalg.norm(cells.sum(axis=(1, 2)), axis=1)[:, None, None, None]
    mean, folded = units[:-1].sum(axis=(0, 1, 2)), units[-1].sum(axis=(0, 1))
    norm = np.linalg.norm(mean)
    both = np.linalg.norm(mean / norm + folded)
    shares = units @ vector / both  # the windows' are still to be divided
    lying, side = picture.width >= picture.height, cells.shape[1]
    boxes = windows_along(picture.size)[:, 0 if lying else 1] * side / min(picture.size)
    starts = boxes.round().astype(int)
    whole = unfold(shares[-1] if lying else shares[-1].T, picture.size, starts[-1] + side)
    for start, share in zip(starts.tolist(), shares[:-1] / norm, strict=True):
        whole[:, start : start + side] += share if lying else share.T
    return whole if lying else whole.T


def unfold(share: NDArray[np.float32], size: tuple[int, int], length: int) -> NDArray[np.float32]:
    """Lay the (side, side) shares of a folded picture along it: (side, length)."""
    count, side = folds_of(size), len(share)
    pieces = np.repeat(share, count, axis=0).reshape(count, side, side) / count
    along = np.concatenate(list(pieces), axis=1)  # (side, count * side)
    spread = np.repeat(along, length, axis=1).reshape(side, length, count * side)
    whole: NDArray[np.float32] = spread.sum(axis=2, dtype=np.float32) / np.float32(length)
    return whole
