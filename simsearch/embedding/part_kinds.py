"""Kinds of parts: how a picture is cut, and how the cuts become rows."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from simsearch.backbones.windows import embed_windows
from simsearch.errors import ImageError, QueryError
from simsearch.images.address import is_uri, local_path
from simsearch.images.decode import load_image
from simsearch.images.header import read_header
from simsearch.images.windows import grid_windows
from simsearch.library.boxes import PictureBoxes, read_boxes

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image

    from simsearch.backbones.backbone import Backbone
    from simsearch.library.boxes import BoxTable
    from simsearch.library.library import ImageLibrary

KINDS = ("grid", "regions")  # that choose their boxes themselves


class EmbeddedParts(NamedTuple):
    """The parts of one picture."""

    size: tuple[int, int]  # of the upright picture
    boxes: NDArray[np.float64]  # (n, 4) in its pixels
    rows: NDArray[np.float32]  # (n, D), unit norm; NaN where the network gave no direction
    labels: list[str]


class PartKind(Protocol):
    """A way to cut and embed pictures."""

    name: str
    version: int  # of the rows that it makes
    passes: int  # forward passes for a picture, about

    def check(self, backbone: Backbone) -> None:
        """Raise a BackboneError if it cannot embed parts with this backbone."""

    def checksum(self, row: int) -> int:
        """Return a number for the boxes given for a row; 0 where the kind chooses them."""

    def embed(self, row: int, path: str, backbone: Backbone) -> EmbeddedParts:
        """Embed the parts of a picture; an ImageError if it cannot be read."""


class GridParts:
    """Windows of a grid, each embedded as a picture of its own: 2×2 and 3×3, and so on."""

    name, version, passes = "grid", 1, 13
    levels = (2, 3)

    def check(self, backbone: Backbone) -> None:
        """Accept any backbone."""

    def checksum(self, row: int) -> int:  # noqa: ARG002
        """Return 0: no box is given."""
        return 0

    def embed(self, row: int, path: str, backbone: Backbone) -> EmbeddedParts:  # noqa: ARG002
        """Embed the windows of a picture."""
        side = backbone.min_side
        image, size = load_with_size(path, side and side * max(self.levels) // 2)
        levels = (1, *self.levels) if is_long(size) else self.levels
        boxes = grid_windows(size, levels).round()
        return _embed_boxes(backbone, image, size, boxes)


class BoxParts:
    """Boxes of one's own."""

    name, version, passes = "boxes", 1, 4

    def __init__(self, boxes: dict[int, PictureBoxes]) -> None:
        self._boxes = boxes

    def check(self, backbone: Backbone) -> None:
        """Accept any backbone."""

    def checksum(self, row: int) -> int:
        """Return a number for the boxes of a row."""
        return self._boxes[row].checksum if row in self._boxes else 1

    def embed(self, row: int, path: str, backbone: Backbone) -> EmbeddedParts:
        """Embed the boxes of a picture; those outside of it are left out."""
        image, size = load_with_size(path, None)
        given = self._boxes.get(row) or PictureBoxes(np.empty((0, 4)), [])
        boxes = given.in_pixels(size)
        inside = np.all(boxes[:, 2:] > boxes[:, :2], axis=1)
        labels = [label for label, fits in zip(given.labels, inside.tolist(), strict=True) if fits]
        return _embed_boxes(backbone, image, size, boxes[inside])._replace(labels=labels)


def make_kind(parts: str | BoxTable, library: ImageLibrary) -> PartKind:
    """Return the kind of a name, or of a table of boxes.

    Raises
    ------
    QueryError
        If there is neither such a kind nor such a file, or the table cannot be read.
    """
    if isinstance(parts, str) and parts in KINDS:
        if parts == GridParts.name:
            return GridParts()
        from simsearch.embedding.part_regions import RegionParts

        return RegionParts()
    if isinstance(parts, (str, os.PathLike)) and not os.path.isfile(os.path.expanduser(parts)):  # noqa: PTH111, PTH113
        raise QueryError(
            f"parts={os.fspath(parts)!r}: give {' or '.join(KINDS)}, or a table of boxes of your "
            "own: path, left, top, right, bottom"
        )
    return BoxParts(read_boxes(parts, library))


def is_long(size: tuple[int, int]) -> bool:
    """Tell whether a picture of (width, height) is so long that its centre is not the whole."""
    return len(grid_windows(size, (1,))) > 1


def load_with_size(path: str, min_side: int | None) -> tuple[Image.Image, tuple[int, int]]:
    """Load a picture, perhaps smaller than it is, with the (width, height) that it has upright."""
    if is_uri(local_path(path)):  # fetched once
        image = load_image(path)
        return image, image.size
    image = load_image(path, min_side)
    try:
        header = read_header(path)
    except ImageError:  # of a file that was repaired
        return (image := load_image(path)), image.size
    size = (header.width, header.height)
    turned = (image.width < image.height) != (size[0] < size[1]) and size[0] != size[1]
    return image, size[::-1] if turned else size


def _embed_boxes(
    backbone: Backbone, image: Image.Image, size: tuple[int, int], boxes: NDArray[np.float64]
) -> EmbeddedParts:
    """Embed boxes, in pixels of the whole size, of an image that may be smaller."""
    scale = np.array([image.width / size[0], image.height / size[1]] * 2)
    rows = embed_windows(backbone, image, boxes * scale)
    return EmbeddedParts(size, boxes, rows, [""] * len(boxes))
