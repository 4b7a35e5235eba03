"""Embeddings of images that are at hand, without a library."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from simsearch.backbones.backbone import Backbone, load_backbone
from simsearch.embedding.batching import embed_batches
from simsearch.images.arrays import check_pictures

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from simsearch.images.decode import ImageSource


def embed_images(
    images: ImageSource | Sequence[ImageSource],
    backbone: str | Backbone | torch.nn.Module = "auto",
    batch_size: int | None = None,
    workers: int | None = None,
) -> NDArray[np.float32]:
    """Embed images that are at hand, without a library.

    Of images beyond 2:1 their centre is embedded; give `library.backbone` to embed them as a
    library does.

    Parameters
    ----------
    images
        One source or several: paths, http(s) URLs, bytes, PIL images or arrays.
    backbone
        A loaded backbone, or what `load_backbone` takes.
    batch_size, workers
        Chosen for the device if not given.

    Returns
    -------
    numpy.ndarray
        (N, D) float32, C order, rows of unit L2 norm.

    Raises
    ------
    ImageError
        If an image cannot be read.
    ArrayError
        If an array may be embeddings, not a picture.

    Examples
    --------
    >>> from PIL import Image
    >>> embed_images([Image.new("RGB", (300, 200), "red")], "efficientnet_lite0").shape
    (1, 1280)
    """
    backbone = load_backbone(backbone)
    sources: list[Any] = list(images) if isinstance(images, (list, tuple)) else [images]
    check_pictures(sources, backbone.dim)
    if len(sources) == 1:  # all cores on one image, and no pool to start
        return backbone.encode(sources)
    embeddings = np.empty((len(sources), backbone.dim), np.float32)
    for batch in embed_batches(sources, backbone, batch_size, workers):
        if batch.failures:
            raise batch.failures[0][1]
        embeddings[batch.positions] = batch.embeddings
    return embeddings
