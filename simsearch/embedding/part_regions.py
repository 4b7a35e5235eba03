"""Pooled regions: parts of one larger feature map instead of one forward pass for each."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from simsearch.backbones.preprocessing import Preprocessing
from simsearch.backbones.windows import STRIDE, resize_window
from simsearch.embedding.part_kinds import EmbeddedParts, load_with_size
from simsearch.errors import BackboneError
from simsearch.images.windows import grid_windows

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image

    from simsearch.backbones.backbone import Backbone

MAP_SCALE = 2.0  # side of the larger input, in inputs: four forward passes' worth
LEVELS = (2, 3)  # windows along the shorter side


class RegionParts:
    """Means over windows of the last feature map of a picture at twice the side."""

    name, version, passes = "regions", 1, 4

    def check(self, backbone: Backbone) -> None:
        """Raise if the network pools no map, or takes one size of input.

        Raises
        ------
        BackboneError
            If so.
        """
        if not isinstance(backbone.transform, Preprocessing):
            raise BackboneError(
                'parts="regions" needs a network with its own preprocessing, which can be run on '
                'larger pictures: give parts="grid" for a transform of your own'
            )
        try:
            side = 2 * backbone.transform.crop
            backbone.feature_map(np.zeros((1, side, side, 3), np.uint8))
        except Exception as error:  # of networks that take one size, each in its own way
            raise BackboneError(
                f'{backbone.name} gives no feature map of larger pictures: give parts="grid"'
            ) from error

    def checksum(self, row: int) -> int:  # noqa: ARG002
        """Return 0: no box is given."""
        return 0

    def embed(self, row: int, path: str, backbone: Backbone) -> EmbeddedParts:  # noqa: ARG002
        """Embed the regions of a picture; a long one is taken in pieces."""
        side = backbone.min_side
        image, size = load_with_size(path, side and int(side * MAP_SCALE))
        pieces = grid_windows(size, (1,))
        levels = LEVELS if len(pieces) == 1 else (1, *LEVELS)
        scale = np.array([image.width / size[0], image.height / size[1]] * 2)
        found = [embed_regions(backbone, image, piece, scale, levels) for piece in pieces.round()]
        boxes, rows = (np.concatenate(each) for each in zip(*found, strict=True))
        return EmbeddedParts(size, boxes, rows, [""] * len(boxes))


def embed_regions(
    backbone: Backbone,
    image: Image.Image,
    piece: NDArray[np.float64],
    scale: NDArray[np.float64],
    levels: tuple[int, ...],
) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Embed regions of a piece of a picture.

    Parameters
    ----------
    image
        Perhaps smaller than the picture.
    piece
        (4,) in pixels of the picture.
    scale
        (4,) from these pixels to those of the image.
    levels
        Of the windows.

    Returns
    -------
    boxes : numpy.ndarray
        (n, 4) in pixels of the picture.
    rows : numpy.ndarray
        (n, D) float32, unit norm.
    """
    transform = backbone.transform
    width, height = piece[2:] - piece[:2]
    target = map_size(width / height, transform.crop)  # type: ignore[union-attr]
    inputs = resize_window(transform, image, (piece * scale).tolist(), target)  # type: ignore[arg-type]
    cells = backbone.feature_map(inputs[None])[0]
    shape = np.array([cells.shape[1], cells.shape[0]] * 2)
    windows = grid_windows((cells.shape[1], cells.shape[0]), levels).round().astype(int)
    windows[:, 2:] = np.maximum(windows[:, 2:], windows[:, :2] + 1)
    rows = pool_windows(cells, windows)
    corner = np.concatenate([piece[:2], piece[:2]])
    return windows / shape * np.array([width, height] * 2) + corner, rows


def map_size(ratio: float, crop: int) -> tuple[int, int]:
    """Return (width, height) of an input of this shape, of four times the area of the usual."""
    side, root = crop * MAP_SCALE, math.sqrt(ratio)
    width, height = (
        max(crop, round(each / STRIDE) * STRIDE) for each in (side * root, side / root)
    )
    return width, height


def pool_windows(cells: NDArray[np.float32], windows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Average cells (h, w, D) over windows (n, 4) of them: (n, D) float32, unit norm."""
    sums = np.zeros((cells.shape[0] + 1, cells.shape[1] + 1, cells.shape[2]))
    sums[1:, 1:] = cells.astype(np.float64).cumsum(axis=0).cumsum(axis=1)
    left, top, right, bottom = windows.T
    pooled = sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]
    with np.errstate(invalid="ignore", divide="ignore"):
        units: NDArray[np.float32] = (
            pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
        ).astype(np.float32)
    return units
