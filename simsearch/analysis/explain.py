"""Class activation maps (Zhou et al., 2016) with a query in place of a class: which parts match.

No training and no gradients: the cosine with an average is the average of the cosines of its
parts, the cells of the backbone's last feature map.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from simsearch.backbones.preprocessing import Preprocessing
from simsearch.errors import ArrayError, ImageError, QueryError
from simsearch.files import iter_blocks
from simsearch.images.arrays import check_pictures
from simsearch.images.decode import describe, load_image
from simsearch.retrieval.arrays import read_numbers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from simsearch.backbones.backbone import Backbone
    from simsearch.backbones.heads import Head
    from simsearch.images.decode import ImageSource
    from simsearch.library.types import Browsable
    from simsearch.plotting.grid import Picture
    from simsearch.retrieval.matches import Matches


BATCH_IMAGES = 8  # images whose maps are held at once

# A colour map that colour-blind readers can follow, without its dark end, which would hide the
# picture; and its opacity where the heat is highest.
COLOR_MAP, COLOR_MAP_RANGE, MAX_OPACITY = "inferno", (0.4, 0.95), 0.85
LUMA_WEIGHTS = np.array([0.299, 0.587, 0.114])  # of red, green and blue in a grey (ITU-R BT.601)


def heat_map(
    library: Browsable, image: ImageSource | int, embedding: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Compute what each part of an image contributes to its cosine with an embedding.

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
        (H, W) float32, for each pixel of the upright image: the cosine if the whole image
        contributed as much as this part. Its mean over the centre crop is the cosine, up to
        smoothing; outside, where the network sees nothing, it is 0. With a head, which cells pass
        one by one, the mean is only close to the cosine.

    Raises
    ------
    QueryError
        If the embedding or the row number does not fit the library, or an array may be an
        embedding, not a picture.
    ImageError
        If the image cannot be read.
    BackboneError
        If the library's backbone cannot be loaded, or pools no map.

    Examples
    --------
    >>> matches = search(library, "photo.jpg")  # doctest: +SKIP
    >>> heat_map(library, matches[0].row, matches.embedding)  # doctest: +SKIP
    """
    if isinstance(image, (int, np.integer)) and not isinstance(image, bool):
        if not library.has_row(int(image)):
            raise QueryError(f"row {image}: the library has rows 0 to {len(library) - 1}")
        image = str(library.paths[image])
    check_pictures([image], library.dim)
    opened = load_image(image)  # type: ignore[arg-type]  # a bool is refused there
    (cells,) = contributions(library, [opened], embedding)
    return resize_heat(library, cells, opened.size)  # type: ignore[arg-type]  # it is readable


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
        (h, w) float32 for each image; None for one that cannot be read. The sum of the cells is
        the cosine; with a head, or a backbone with layers after its last map, approximately.

    Raises
    ------
    QueryError
        If the embedding does not fit the library.
    BackboneError
        If the library's backbone cannot be loaded, or pools no map.
    """
    vector = _unit_vector(library, embedding)
    found: list[NDArray[np.float32] | None] = []
    for block in iter_blocks(len(images), BATCH_IMAGES):
        batch = [_prepare(image, library.backbone) for image in images[block]]
        single = [pixels for pixels in batch if pixels is not None and pixels.ndim == 3]
        if single:
            cells = mapped_cells(library, np.stack(single))
            norms = np.linalg.norm(cells.sum(axis=(1, 2)), axis=1)  # (B,)
            shares = iter(cells @ vector / norms[:, None, None])  # (B, h, w)
        for image, pixels in zip(images[block], batch, strict=True):
            if pixels is None:
                found.append(None)
            elif pixels.ndim == 3:
                found.append(next(shares))
            else:  # of a long picture
                from simsearch.analysis.explain_long import share_of_windows

                found.append(share_of_windows(library, image, vector))
    return found


def mapped_cells(library: Browsable, batch: NDArray[Any]) -> NDArray[np.float32]:
    """Embed each cell of prepared images, through the head as well: (B, h, w, D)."""
    cells = library.backbone.feature_map(batch)
    return _apply_head(library.head, cells) if library.head else cells


def _unit_vector(library: Browsable, embedding: Any) -> NDArray[np.float32]:  # noqa: ANN401
    """Read one embedding as `search` reads it: (D,) float32 of unit norm."""
    try:
        vector = read_numbers(embedding, library.dim)
    except ArrayError as error:
        raise _no_embedding(library, embedding) from error
    if not isinstance(vector, np.ndarray) or vector.shape != (library.dim,):
        raise _no_embedding(library, embedding)
    return vector


def _no_embedding(library: Browsable, embedding: object) -> QueryError:
    what = f"of shape {np.shape(embedding)}" if hasattr(embedding, "shape") else describe(embedding)
    return QueryError(
        f"an embedding {what} does not fit this library's ({library.dim},), finite and not zero; "
        "give the `embedding` of its matches, or one of its rows"
    )


def _prepare(image: ImageSource, backbone: Backbone) -> NDArray[Any] | None:
    """Make the network's input of an image; None if it cannot be read."""
    try:
        return backbone.read(image)
    except ImageError:
        return None


def _apply_head(head: Head, cells: NDArray[np.float32]) -> NDArray[np.float32]:
    """Pass cells (B, h, w, D) through a head one by one; each keeps its norm.

    Unless the head only rotates and mirrors, the mean of the results is not that of the mean.
    """
    norms = np.linalg.norm(cells, axis=3)
    passed = np.zeros((*norms.shape, head.dim), np.float32)
    valid = norms > 0
    passed[valid] = np.nan_to_num(head(cells[valid] / norms[valid, None])) * norms[valid, None]
    return passed


def resize_heat(
    library: Browsable, cells: NDArray[np.float32], size: tuple[int, int]
) -> NDArray[np.float32]:
    """Resize contributions to an image of (width, height), or a smaller copy: (H, W) float32.

    They cover the backbone's centre crop; the whole image with a transform of the user's own, and
    of a long picture that is seen whole.
    """
    width, height = size
    transform = library.backbone.transform
    centre = isinstance(transform, Preprocessing) and cells.shape[0] == cells.shape[1]
    crop = transform.crop_box(size) if centre else (0, 0, *size)  # type: ignore[union-attr]
    left, top, right, bottom = np.clip(np.round(crop), 0, size * 2).astype(int).tolist()
    area = max(1, right - left), max(1, bottom - top)
    heat = np.zeros((height, width), np.float32)
    smooth = Image.fromarray(cells * cells.size).resize(area, Image.Resampling.BICUBIC)
    heat[top : top + area[1], left : left + area[0]] = np.asarray(smooth)
    return heat


def heat_colors(heat: NDArray[np.float32], top: float) -> NDArray[np.float64]:
    """Colour a heat map for an overlay: the hotter, the brighter and the more opaque.

    Parameters
    ----------
    heat
        (H, W), from `resize_heat`.
    top
        The heat that gets the brightest colour.

    Returns
    -------
    numpy.ndarray
        (H, W, 4), red, green, blue and opacity in [0, 1]; transparent where there is no heat.
    """
    from matplotlib import colormaps

    level = np.clip(heat / max(top, 1e-9), 0, 1)
    low, high = COLOR_MAP_RANGE
    color: NDArray[np.float64] = colormaps[COLOR_MAP](low + (high - low) * level)
    color[..., 3] = MAX_OPACITY * level**1.5  # a little heat everywhere stays transparent
    return color


def overlay_heat_maps(answer: Matches, pictures: Sequence[Picture | str]) -> list[Picture | str]:
    """Turn the thumbnails of matches grey, and overlay their heat maps on one scale.

    Raises
    ------
    QueryError
        If the matches do not say which embedding they were found with.
    BackboneError
        If the library's backbone cannot be loaded, or pools no map.
    """
    library, embedding = answer.library, answer.embedding
    if library is None or embedding is None:
        raise QueryError(
            f"the matches for {answer.query} cannot be explained: they were not found with one "
            "embedding; give what simsearch.search returns, for one query or combined to a mean, "
            "or explain=False"
        )
    shares = contributions(library, answer.paths, embedding)
    top = max((share.max() * share.size for share in shares if share is not None), default=0)
    return [
        picture
        if isinstance(picture, str) or share is None
        else _blend(picture, resize_heat(library, share, picture.pixels.shape[1::-1]), top)
        for picture, share in zip(pictures, shares, strict=True)
    ]


def _blend(picture: Picture, heat: NDArray[np.float32], top: float) -> Picture:
    """Blend heat colours over a grey picture."""
    color = heat_colors(heat, top)
    grey = (picture.pixels @ LUMA_WEIGHTS)[..., None]
    tinted = grey + color[..., 3:] * (255 * color[..., :3] - grey)
    return picture._replace(pixels=tinted.round().astype(np.uint8))
