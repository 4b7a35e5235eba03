"""Training images: decoded on threads, cropped, mirrored and varied in colour [1]_.

All random numbers follow from the seed, the epoch and the place in the batch, however many threads
decode.

.. [1] C. Szegedy, W. Liu, Y. Jia, et al. Going Deeper with Convolutions. CVPR 2015.
"""

from __future__ import annotations

import math
import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image, ImageEnhance

from simsearch.backbones.preprocessing import Preprocessing
from simsearch.errors import ImageError, TrainingError
from simsearch.images.decode import load_image

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
    from concurrent.futures import Future
    from typing import Any, TypeAlias

    import torch
    from numpy.typing import NDArray

    from simsearch.backbones.backbone import Backbone

    Loss: TypeAlias = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    Plan: TypeAlias = Callable[[int], Iterable[tuple[NDArray[np.intp], NDArray[np.intp]]]]


CROP_AREA, CROP_RATIO = (0.35, 1.0), (3 / 4, 4 / 3)  # of a random crop


COLOR_JITTER = 0.2  # by which brightness, contrast and colour vary


MAX_WORKERS = 16  # beyond that, threads wait for the interpreter's lock


BATCHES_AHEAD = 2  # batches that are decoded while one is learned from


def augment(image: Image.Image, rng: np.random.Generator, side: int | None = None) -> Image.Image:
    """Cut a random part, mirror it or not, and vary brightness, contrast and colour a little.

    Not by torchvision's transforms: those draw from one generator that all threads share, so that
    the outcome would depend on which thread comes first.

    Parameters
    ----------
    image
        RGB.
    rng
        Of this image alone.
    side
        Resize the part to a square of this many pixels; None leaves it as it was cut.
    """
    area = image.width * image.height * rng.uniform(*CROP_AREA)
    ratio = math.exp(rng.uniform(math.log(CROP_RATIO[0]), math.log(CROP_RATIO[1])))
    width = min(image.width, max(1, round(math.sqrt(area * ratio))))
    height = min(image.height, max(1, round(math.sqrt(area / ratio))))
    left = int(rng.integers(image.width - width, endpoint=True))
    top = int(rng.integers(image.height - height, endpoint=True))
    box = (left, top, left + width, top + height)
    size = (side, side) if side else (width, height)
    image = image.resize(size, Image.Resampling.BILINEAR, box)
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    for change in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        image = change(image).enhance(rng.uniform(1 - COLOR_JITTER, 1 + COLOR_JITTER))
    return image


class DecodeTask(NamedTuple):
    """A batch to be decoded."""

    rows: NDArray[np.intp]
    codes: NDArray[np.intp]
    seeds: tuple[int, ...] | None  # of the augmentation; None for the images as they are


class TrainingImages:
    """The images of a library, decoded in threads, ahead of the network.

    Attributes
    ----------
    unreadable : dict of int to str
        Row and reason of each image that could not be read; it is left out of its batches.
    """

    def __init__(self, paths: NDArray[np.str_], backbone: Backbone) -> None:
        self.paths, self.backbone = paths, backbone
        self.unreadable: dict[int, str] = {}
        transform = backbone.transform
        self._side = transform.crop if isinstance(transform, Preprocessing) else None
        # So many pixels of the whole that the smallest crop still has enough.
        self._detail = round(self._side / math.sqrt(CROP_AREA[0])) if self._side else None

    def batches(self, tasks: Iterable[DecodeTask]) -> Generator[tuple[NDArray[Any], DecodeTask]]:
        """Yield prepared images, and the task less those that could not be read."""
        waiting: deque[tuple[DecodeTask, list[Future[NDArray[Any] | None]]]] = deque()
        threads = ThreadPoolExecutor(min(os.cpu_count() or 1, MAX_WORKERS), "simsearch-finetune")
        try:
            for task in tasks:
                waiting.append(
                    (task, [threads.submit(self._load, task, i) for i in range(len(task.rows))])
                )
                if len(waiting) > BATCHES_AHEAD:
                    yield from self._collect(*waiting.popleft())
            while waiting:
                yield from self._collect(*waiting.popleft())
        finally:
            threads.shutdown(cancel_futures=True)

    def _collect(
        self, task: DecodeTask, loading: Sequence[Future[NDArray[Any] | None]]
    ) -> Iterator[tuple[NDArray[Any], DecodeTask]]:
        images = [future.result() for future in loading]
        good = [i for i, image in enumerate(images) if image is not None]
        if good:
            stacked = np.stack([image for image in images if image is not None])
            yield stacked, task._replace(rows=task.rows[good], codes=task.codes[good])

    def _load(self, task: DecodeTask, i: int) -> NDArray[Any] | None:
        row = int(task.rows[i])
        if row in self.unreadable:
            return None
        plain = task.seeds is None
        try:
            image = load_image(
                str(self.paths[row]), self.backbone.min_side if plain else self._detail
            )
        except ImageError as error:
            self.unreadable[row] = error.reason
            return None
        if task.seeds is None:
            return self.backbone.prepare(image)
        image = augment(image, np.random.default_rng([*task.seeds, i]), self._side)
        return np.array(image) if self._side else self.backbone.prepare(image)

    def none(self) -> TrainingError:
        """Say that not a single image can be read."""
        row, reason = next(iter(self.unreadable.items()))
        return TrainingError(
            f"none of the images can be read: {self.paths[row]}: {reason}; "
            'ImageLibrary.load(outputs, root="new/place") opens a library that has moved'
        )
