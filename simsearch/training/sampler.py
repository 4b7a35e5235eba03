"""The balanced sampler: batches of as many images from each of several classes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

from simsearch.training.config import TrainConfig

MIN_STEPS = 20  # of an epoch at least, so that few images are learned from as thoroughly as many


MIN_IMAGES_PER_CLASS = 4  # images at least that a batch holds of each of its classes


class BalancedSampler:
    """Balanced batches: as many images of each class, drawn again where there are too few."""

    def __init__(
        self,
        names: NDArray[np.str_],
        rows: NDArray[np.intp],
        config: TrainConfig,
        least: int = MIN_STEPS,
    ) -> None:
        self.rng = np.random.default_rng(config.seed)
        self.members = [rows[names[rows] == name] for name in np.unique(names[rows])]
        self.classes = max(2, min(len(self.members), config.batch_size // MIN_IMAGES_PER_CLASS))
        self.each = max(2, config.batch_size // self.classes)
        self.count = max(least, round(len(rows) / (self.classes * self.each)))

    def __iter__(self) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
        """Yield one epoch of (B,) rows with their class numbers."""
        for _ in range(self.count):
            codes = self.rng.choice(len(self.members), self.classes, replace=False)
            rows = [
                self.rng.choice(self.members[code], self.each, len(self.members[code]) < self.each)
                for code in codes
            ]
            yield np.concatenate(rows), np.repeat(codes, self.each)
