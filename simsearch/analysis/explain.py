"""Where in an image its likeness to a query lies, by the backbone's last feature map.

No training and no gradients: a cosine with an average is an average of cosines, one for each cell
of the map ("class activation mapping", Zhou et al., 2016, with the query in place of a class).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from simsearch.backbones.preprocessing import Preprocessing
from simsearch.errors import ImageError, QueryError
from simsearch.images.decode import load_image

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from numpy.typing import NDArray

    from simsearch.backbones.backbone import Backbone
    from simsearch.backbones.heads import Head
    from simsearch.images.decode import ImageSource
    from simsearch.library.types import Browsable


BATCH_IMAGES = 8  # images whose maps are held at once

# Of the colour map of a heat map, which colour-blind readers can follow: its range, whose dark end
# would hide the picture, and how much of it covers a picture at the hottest.
MIN_HEAT, MAX_HEAT, MAX_OPACITY = 0.4, 0.95, 0.85


def heat_map(
    library: Browsable, image: ImageSource | int, embedding: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Show what each part of an image contributes to its cosine with an embedding.

    Parameters
    ----------
    library
        Whose backbone and head see the image.
    image
        Anything that `load_image` takes, or a row number of the library.
    embedding
        (D,) of this library, such as the `embedding` of `Matches`, or `library.embeddings[row]`.

    Returns
    -------
    numpy.ndarray
        (H, W) float32, for each pixel of the upright image: the cosine that there would be if all
        of the image contributed as much as this part of it. Its mean over what the network saw is
        the cosine, up to smoothing; outside of the centre crop, which it did not see, it is 0.
        Through a head the cells pass one by one, and the mean is near the cosine only.

    Raises
    ------
    QueryError
        If the embedding or the row number does not fit the library.
    ImageError
        If the image cannot be read.
    BackboneError
        If the library's backbone cannot be loaded, or pools no map.

    Examples
    --------
    >>> matches = search(library, "photo.jpg")  # doctest: +SKIP
    >>> heat_map(library, matches[0].row, matches.embedding)  # doctest: +SKIP
    """
    if isinstance(image, (int, np.integer)):
        if not library.has_row(int(image)):
            raise QueryError(f"row {image}: the library has rows 0 to {len(library) - 1}")
        image = str(library.paths[image])
    opened = load_image(image)
    (cells,) = contributions(library, [opened], embedding)
    return resize_heat(library, cells, opened.size)  # type: ignore[arg-type]  # it has been opened


def contributions(
    library: Browsable, images: Sequence[ImageSource], embedding: NDArray[np.float32]
) -> list[NDArray[np.float32] | None]:
    """Split the cosine of each image with an embedding among the cells of its feature map.

    Parameters
    ----------
    library
        Whose backbone and head see the images.
    images
        Anything that `load_image` takes.
    embedding
        (D,) of this library.

    Returns
    -------
    list of numpy.ndarray or None
        (h, w) float32 for each image; None for one that cannot be read. The cells add up to the
        cosine; with a head, or a backbone with layers after its last map, roughly.

    Raises
    ------
    QueryError
        If the embedding does not fit the library.
    BackboneError
        If the library's backbone cannot be loaded, or pools no map.
    """
    if np.shape(embedding) != (library.dim,):
        raise QueryError(
            f"an embedding of shape {np.shape(embedding)} is none of this library: ({library.dim},)"
        )
    found: list[NDArray[np.float32] | None] = []
    for i in range(0, len(images), BATCH_IMAGES):
        prepared = [_prepared(image, library.backbone) for image in images[i : i + BATCH_IMAGES]]
        readable = [one for one in prepared if one is not None]
        if readable:
            cells = library.backbone.feature_map(np.stack(readable))
            cells = _pass(library.head, cells) if library.head else cells
            shares = iter(_split(cells, embedding))
        found += [None if one is None else next(shares) for one in prepared]
    return found


def _prepared(image: ImageSource, backbone: Backbone) -> NDArray[Any] | None:
    try:
        return backbone.prepare(load_image(image, backbone.min_side))
    except ImageError:
        return None


def _pass(head: Head, cells: NDArray[np.float32]) -> NDArray[np.float32]:
    """Pass cells through a head, each as an image that is like it all over; it keeps its norm.

    A head that does more than turn and mirror does not do to the average what it does to each.
    """
    norms = np.linalg.norm(cells, axis=3)
    passed = np.zeros((*norms.shape, head.dim), np.float32)
    some = norms > 0
    passed[some] = np.nan_to_num(head(cells[some] / norms[some, None])) * norms[some, None]
    return passed


def _split(cells: NDArray[np.float32], embedding: NDArray[np.float32]) -> NDArray[np.float32]:
    """Split the cosine of the mean of cells among them: (B, h, w, D) to (B, h, w)."""
    norms = np.linalg.norm(cells.sum(axis=(1, 2)), axis=1)
    shares: NDArray[np.float32] = cells @ embedding / norms[:, None, None]
    return shares


def resize_heat(
    library: Browsable, cells: NDArray[np.float32], size: tuple[int, int]
) -> NDArray[np.float32]:
    """Lay contributions over an image of (width, height), or a smaller copy: (H, W) float32.

    Where they lie follows from the backbone's centre crop; a transform of the user's own is taken
    to span the image.
    """
    width, height = size
    transform = library.backbone.transform
    seen = (
        transform.crop_box(size) if isinstance(transform, Preprocessing) else (0, 0, width, height)
    )
    left, top, right, bottom = (
        min(max(0, round(edge)), limit) for edge, limit in zip(seen, size * 2, strict=True)
    )
    area = max(1, right - left), max(1, bottom - top)
    whole = np.zeros((height, width), np.float32)
    smooth = Image.fromarray(cells * cells.size).resize(area, Image.Resampling.BICUBIC)
    whole[top : top + area[1], left : left + area[0]] = np.asarray(smooth)
    return whole


def heat_colors(heat: NDArray[np.float32], top: float) -> NDArray[np.float64]:
    """Colour a heat map, to be laid over a picture: the hotter, the brighter and the denser.

    Parameters
    ----------
    heat
        (H, W), as `resize_heat` gives it.
    top
        The heat that is shown at the brightest.

    Returns
    -------
    numpy.ndarray
        (H, W, 4), red, green, blue and opacity in [0, 1]; where there is no heat, nothing.
    """
    from matplotlib import colormaps

    level = np.clip(heat / max(top, 1e-9), 0, 1)
    color: NDArray[np.float64] = colormaps["inferno"](MIN_HEAT + (MAX_HEAT - MIN_HEAT) * level)
    color[..., 3] = MAX_OPACITY * level**1.5  # a little heat everywhere is no veil
    return color
