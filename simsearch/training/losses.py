"""Losses and miners, by pytorch-metric-learning [1]_.

The triplet loss with semi-hard mining is FaceNet's [2]_, with hard mining that of [3]_.

.. [1] K. Musgrave, S. Belongie, S.-N. Lim. PyTorch Metric Learning. arXiv:2008.09164, 2020.
.. [2] F. Schroff, D. Kalenichenko, J. Philbin. FaceNet: A Unified Embedding for Face Recognition
   and Clustering. CVPR 2015.
.. [3] A. Hermans, L. Beyer, B. Leibe. In Defense of the Triplet Loss for Person Re-Identification.
   arXiv:1703.07737, 2017.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from simsearch.errors import MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    import torch

    from simsearch.training.config import TrainConfig


def metric_learning() -> Any:  # noqa: ANN401
    """Import pytorch-metric-learning, or say how to install it."""
    try:
        import pytorch_metric_learning.losses
        import pytorch_metric_learning.miners
    except ImportError as error:
        raise MissingExtraError('train_head needs: pip install "simsearch[train]"') from error
    return pytorch_metric_learning


MINERS: dict[str, Callable[[Any, float], Any]] = {
    "semihard": lambda miners, margin: miners.TripletMarginMiner(margin, "semihard"),
    "hard": lambda miners, _: miners.BatchHardMiner(),
    "all": lambda miners, margin: miners.TripletMarginMiner(margin, "all"),
}


LOSSES: dict[str, Callable[[Any, float, int, int], Any]] = {
    "triplet": lambda losses, margin, _, __: losses.TripletMarginLoss(margin),
    "contrastive": lambda losses, *_: losses.ContrastiveLoss(),
    "multi-similarity": lambda losses, *_: losses.MultiSimilarityLoss(),
    "arcface": lambda losses, _, classes, dim: losses.ArcFaceLoss(classes, dim, scale=16),
    "supcon": lambda losses, *_: losses.SupConLoss(),
}


def make_criterion(config: TrainConfig, classes: int, dim: int) -> torch.nn.Module:
    """Return the loss as a module of embeddings (B, dim) and class numbers (B,)."""
    import torch

    package = metric_learning()
    mined = config.loss == "triplet"
    miner = MINERS[config.mining](package.miners, config.margin) if mined else None

    class Criterion(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.measure = LOSSES[config.loss](package.losses, config.margin, classes, dim)

        def forward(self, embeddings: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
            chosen = (miner(embeddings, codes),) if miner else ()
            value: torch.Tensor = self.measure(embeddings, codes, *chosen)
            return value

    return Criterion()
