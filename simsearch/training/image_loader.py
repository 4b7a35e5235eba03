"""Images for fine-tuning: decoded in threads, augmented by seed, in batches.

What is drawn at random follows from the seed, the epoch, and the place in the batch alone, however
many threads decode. Threads, not the worker processes of a `DataLoader`: a user's transform need
not be picklable, and what cannot be read is collected in one place.
"""

from __future__ import annotations

import math
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from itertools import islice, repeat
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image, ImageEnhance

from simsearch.backbones.backbone import with_windows
from simsearch.backbones.precision import usable_cores
from simsearch.backbones.preprocessing import Preprocessing
from simsearch.embedding.batching import MAX_WORKERS
from simsearch.errors import ImageError
from simsearch.images.decode import load_image

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator
    from typing import Any

    from numpy.typing import NDArray

    from simsearch.backbones.backbone import Backbone

CROP_AREA, CROP_RATIO = (0.35, 1.0), (3 / 4, 4 / 3)  # share of the image's, width / height
JITTER = 0.2  # by which brightness, contrast and colour vary
BATCHES_AHEAD = 2  # that are decoded while one is learned from


def augment(image: Image.Image, rng: np.random.Generator, side: int | None = None) -> Image.Image:
    """Crop an image at random, flip it or not, and jitter its brightness, contrast and colour.

    Not by torchvision's transforms: those draw from one generator that all threads share, so that
    the result would depend on which thread comes first. The crops are those of [1]_.

    Parameters
    ----------
    image
        RGB.
    rng
        Random numbers for this image alone.
    side
        Pixels of the square that the crop is resized to; None for no resizing.

    References
    ----------
    .. [1] C. Szegedy, W. Liu, Y. Jia, et al. Going Deeper with Convolutions. CVPR 2015.
    """
    area = image.width * image.height * rng.uniform(*CROP_AREA)
    ratio = math.exp(rng.uniform(*np.log(CROP_RATIO)))
    width = min(image.width, max(1, round(math.sqrt(area * ratio))))
    height = min(image.height, max(1, round(math.sqrt(area / ratio))))
    left = int(rng.integers(image.width - width, endpoint=True))
    top = int(rng.integers(image.height - height, endpoint=True))
    box = (left, top, left + width, top + height)
    size = (side, side) if side else (width, height)
    image = image.resize(size, Image.Resampling.BILINEAR, box)
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        image = enhance(image).enhance(rng.uniform(1 - JITTER, 1 + JITTER))
    return image


class ImageBatch(NamedTuple):
    """Images to be loaded.

    Attributes
    ----------
    rows, codes
        (B,) int, rows of the library, and class numbers or whatever goes with them.
    seeds
        Seeds of the augmentation; None for images as they are.
    """

    rows: NDArray[np.intp]
    codes: NDArray[np.intp]
    seeds: tuple[int, ...] | None


class ImageLoader:
    """The images of a library, decoded in threads ahead of the network.

    Attributes
    ----------
    unreadable : dict of int to str
        Row and reason of each image that cannot be read; it is left out of its batches.
    """

    def __init__(self, paths: NDArray[np.str_], backbone: Backbone) -> None:
        self.paths, self.backbone = paths, with_windows(backbone, windows=False)
        self.unreadable: dict[int, str] = {}
        transform = backbone.transform
        self._side = transform.crop if isinstance(transform, Preprocessing) else None
        # Large enough that the smallest crop has as many pixels as the network takes.
        self._min_side = round(self._side / math.sqrt(CROP_AREA[0])) if self._side else None

    def load(self, batches: Iterable[ImageBatch]) -> Generator[tuple[NDArray[Any], ImageBatch]]:
        """Yield prepared images, and their batch without those that cannot be read."""
        batches = iter(batches)
        waiting: deque[tuple[ImageBatch, Iterator[NDArray[Any] | None]]] = deque()
        threads = ThreadPoolExecutor(min(usable_cores(), MAX_WORKERS), "simsearch-finetune")
        try:
            while True:
                for batch in islice(batches, BATCHES_AHEAD + 1 - len(waiting)):
                    places = range(len(batch.rows))
                    waiting.append((batch, threads.map(self._load, repeat(batch), places)))
                if not waiting:
                    return
                batch, loaded = waiting.popleft()
                images = {i: image for i, image in enumerate(loaded) if image is not None}
                kept = [*images]
                if kept:
                    rest = batch._replace(rows=batch.rows[kept], codes=batch.codes[kept])
                    yield np.stack([*images.values()]), rest
        finally:
            threads.shutdown(cancel_futures=True)

    def _load(self, batch: ImageBatch, i: int) -> NDArray[Any] | None:
        """Prepare an image, augmented if the batch has seeds; None if it cannot be read."""
        row = int(batch.rows[i])
        if row in self.unreadable:
            return None
        min_side = self._min_side if batch.seeds else self.backbone.min_side
        try:
            image = load_image(str(self.paths[row]), min_side)
        except ImageError as error:
            self.unreadable[row] = error.reason
            return None
        if batch.seeds:
            image = augment(image, np.random.default_rng([*batch.seeds, i]), self._side)
            if self._side:
                return np.array(image)
        return self.backbone.prepare(image)
