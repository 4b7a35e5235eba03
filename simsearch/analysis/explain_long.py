"""Heat maps of long pictures, which the network sees as windows along them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from simsearch.analysis.explain import mapped_cells
from simsearch.backbones.long_pictures import windows_along
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
        window; where windows overlap, their shares are added up.
    """
    picture = load_image(image, library.backbone.min_side)
    cells = mapped_cells(library, library.backbone.prepare(picture))  # (n, side, side, D)
    units = cells / np.linalg.norm(cells.sum(axis=(1, 2)), axis=1)[:, None, None, None]
    shares = units @ vector / np.linalg.norm(units.sum(axis=(0, 1, 2)))
    lying, side = picture.width >= picture.height, cells.shape[1]
    boxes = windows_along(picture.size)[:, 0 if lying else 1] * side / min(picture.size)
    starts = boxes.round().astype(int)
    whole = np.zeros((side, starts[-1] + side), np.float32)
    for start, share in zip(starts.tolist(), shares, strict=True):
        whole[:, start : start + side] += share if lying else share.T
    return whole if lying else whole.T
