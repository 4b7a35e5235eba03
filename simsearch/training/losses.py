"""Losses and triplet miners by name, from pytorch-metric-learning.

The triplet loss with semi-hard mining is FaceNet's [1]_, with hard mining that of [2]_; the package
is [3]_.

.. [1] F. Schroff, D. Kalenichenko, J. Philbin. FaceNet: A Unified Embedding for Face Recognition
   and Clustering. CVPR 2015.
.. [2] A. Hermans, L. Beyer, B. Leibe. In Defense of the Triplet Loss for Person Re-Identification.
   arXiv:1703.07737, 2017.
.. [3] K. Musgrave, S. Belongie, S.-N. Lim. PyTorch Metric Learning. arXiv:2008.09164, 2020.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from simsearch.errors import MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from simsearch.training.config import TrainConfig

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


def make_criterion(config: TrainConfig, classes: int, dim: int) -> torch.nn.Module:
    """Return the loss as a module of (B, dim) embeddings and (B,) class numbers."""
    import torch

    package = metric_learning()
    mined = config.loss == "triplet"
    miner = MINERS[config.mining](package.miners, config.margin) if mined else None

    class Criterion(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.measure = LOSSES[config.loss](package.losses, config.margin, classes, dim)

        def forward(self, embeddings: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
            triplets = (miner(embeddings, codes),) if miner else ()
            value: torch.Tensor = self.measure(embeddings, codes, *triplets)
            return value

    return Criterion()
