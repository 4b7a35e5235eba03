"""Losses, triplet miners and the balanced sampler, from pytorch-metric-learning.

The triplet loss with semi-hard mining is FaceNet's [1]_, with hard mining that of [2]_; the package
is [3]_.

.. [1] F. Schroff, D. Kalenichenko, J. Philbin. FaceNet: A Unified Embedding for Face Recognition
   and Clustering. CVPR 2015.
.. [2] A. Hermans, L. Beyer, B. Leibe. In Defense of the Triplet Loss for Person Re-Identification.
   arXiv:1703.07737, 2017.
.. [3] K. Musgrave, S. Belongie, S.-N. Lim. PyTorch Metric Learning. arXiv:2008.09164, 2020.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from simsearch.errors import MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import torch
    from numpy.typing import NDArray

    from simsearch.training.config import TrainConfig

IMAGES_PER_CLASS = 4  # that a batch holds of each of its classes, at least
_global_generator = threading.Lock()  # pytorch-metric-learning has one for the process

# Functions of pytorch-metric-learning's miners and the margin.
MINERS: dict[str, Callable[[Any, float], Any]] = {
    "semihard": lambda miners, margin: miners.TripletMarginMiner(margin, "semihard"),
    "hard": lambda miners, _: miners.BatchHardMiner(),
    "all": lambda miners, margin: miners.TripletMarginMiner(margin, "all"),
}

# Functions of pytorch-metric-learning's losses, the margin, the number of classes and the width.
LOSSES: dict[str, Callable[[Any, float, int, int], Any]] = {
    "triplet": lambda losses, margin, _, __: losses.TripletMarginLoss(margin),
    "contrastive": lambda losses, *_: losses.ContrastiveLoss(),
    "multi-similarity": lambda losses, *_: losses.MultiSimilarityLoss(),
    "arcface": lambda losses, _, classes, dim: losses.ArcFaceLoss(classes, dim, scale=16),
    "supcon": lambda losses, *_: losses.SupConLoss(),
}


def metric_learning() -> Any:  # noqa: ANN401
    """Import pytorch-metric-learning.

    Raises
    ------
    MissingExtraError
        If it is not installed.
    """
    try:
        import pytorch_metric_learning.losses
        import pytorch_metric_learning.miners
        import pytorch_metric_learning.samplers
    except ImportError as error:
        raise MissingExtraError('train_head needs: pip install "simsearch[train]"') from error
    return pytorch_metric_learning


def make_loss(config: TrainConfig, classes: int, dim: int) -> tuple[torch.nn.Module, Any]:
    """Return the loss of (B, dim) embeddings and (B,) class numbers, and its miner or None."""
    package = metric_learning()
    loss = LOSSES[config.loss](package.losses, config.margin, classes, dim)
    mined = config.loss == "triplet"
    return loss, MINERS[config.mining](package.miners, config.margin) if mined else None


class BalancedSampler:
    """Batches of (B,) rows and class numbers, from as many images of each of some classes.

    Parameters
    ----------
    names
        (N,) unicode, the class of each row of the library.
    rows
        Those to draw from.
    config
        Its `batch_size` and `seed` count.
    min_batches
        Batches of an epoch, at least.

    Attributes
    ----------
    class_count : int
        Classes there are.
    batches : int
        Batches of an epoch: about as many as hold every row once.
    """

    def __init__(
        self, names: NDArray[np.str_], rows: NDArray[np.intp], config: TrainConfig, min_batches: int
    ) -> None:
        classes, self._codes = np.unique(names[rows], return_inverse=True)
        self._rows, self._seed, self.class_count = rows, config.seed, len(classes)
        self._classes = max(2, min(len(classes), config.batch_size // IMAGES_PER_CLASS))
        self._per_class = max(2, config.batch_size // self._classes)
        self._size = self._classes * self._per_class
        self.batches = max(min_batches, round(len(rows) / self._size))

    def epochs(self) -> Iterator[list[tuple[NDArray[np.intp], NDArray[np.intp]]]]:
        """Yield the batches of one epoch after the other, without end."""
        from pytorch_metric_learning.utils import common_functions

        draw = metric_learning().samplers.MPerClassSampler(
            self._codes, self._per_class, self._size, self.batches * self._size
        )
        generator = np.random.RandomState(np.random.MT19937(self._seed))
        while True:
            with _global_generator:
                before = common_functions.NUMPY_RANDOM
                common_functions.NUMPY_RANDOM = generator
                try:
                    positions = np.reshape([*draw], (self.batches, self._size))
                finally:
                    common_functions.NUMPY_RANDOM = before
            yield [(self._rows[each], self._codes[each]) for each in positions]

    def epoch(self, number: int) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
        """Yield the batches of an epoch, which follow from the seed and its number alone.

        Not by `MPerClassSampler`: a checkpoint of an earlier version resumes with the same batches.
        """
        rng = np.random.default_rng([self._seed, number])
        members = [self._rows[self._codes == code] for code in range(self.class_count)]
        for _ in range(self.batches):
            codes = rng.choice(self.class_count, self._classes, replace=False)
            rows = [
                rng.choice(members[code], self._per_class, len(members[code]) < self._per_class)
                for code in codes
            ]
            yield np.concatenate(rows), np.repeat(codes, self._per_class)
