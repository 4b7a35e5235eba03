"""The parameters of a training: written here once, checked when made."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TypedDict

from simsearch.errors import TrainingError
from simsearch.training.losses import LOSSES, MINERS

HEAD_EPOCHS, HEAD_PATIENCE = 25, 8  # of a head
TUNING_EPOCHS, TUNING_PATIENCE = 8, 3  # of a fine-tuning

RANGES = {
    "dim": (2, 2**16),
    "margin": (0, 2),
    "keep": (0, 0.99),
    "hidden": (1, 2**16),
    "dropout": (0, 0.95),
    "epochs": (1, 10_000),
    "patience": (1, 10_000),
    "batch_size": (4, 2**16),
    "learning_rate": (1e-12, math.inf),
    "weight_decay": (0, math.inf),
    "validation": (0, 0.4),
    "stage_rate": (1e-12, math.inf),
}


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How `train_head` trains.

    Attributes
    ----------
    dim : int
        Width of the new embeddings.
    loss : str
        "triplet", "contrastive", "multi-similarity", "arcface" or "supcon".
    mining : str
        Which triplets count: "semihard", "hard" or "all".
    margin : float
        Of the triplet loss, between the distances of two unit vectors.
    keep : float
        Weight of the backbone's own cosine, centred, in the score, in [0, 1). Little serves the
        classes that are trained on best; about 0.6 keeps what the backbone knows of all others.
    hidden : int or None
        Width of the hidden layer; None for a linear head.
    dropout : float
        Share of the features that are dropped at each step.
    epochs : int or None
        Passes over the images, at most. By default 25, of a fine-tuning 8.
    patience : int or None
        Epochs without a better validation mAP after which training stops early. The best epoch's
        head is kept. By default 8, of a fine-tuning 3.
    batch_size : int
        Images per batch.
    learning_rate : float
        Of AdamW, with one cycle of the learning rate.
    weight_decay : float
        Of AdamW.
    validation : float
        Share of each class that decides when to stop, and again the share that is set aside for
        the report. With 0 there is neither, and the last epoch counts.
    refit : bool
        Train once more in the end, on the validation images as well, for as many epochs as were
        best if training stopped early, and for all otherwise: more to learn from, for twice the
        time. With `finetune`, that is done for the head alone, which it has to surpass.
    stage_rate : float
        The learning rate of the fine-tuned stage; the head then learns at a tenth of
        `learning_rate`.
    seed : int
        Of all random numbers.
    """

    dim: int = 256
    loss: str = "triplet"
    mining: str = "semihard"
    margin: float = 0.15
    keep: float = 0.3
    hidden: int | None = 512
    dropout: float = 0.3
    epochs: int | None = None
    patience: int | None = None
    batch_size: int = 96
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    validation: float = 0.1
    refit: bool = True
    stage_rate: float = 1e-5
    seed: int = 0

    def __post_init__(self) -> None:
        for name, known in (("loss", list(LOSSES)), ("mining", list(MINERS))):
            if getattr(self, name) not in known:
                raise TrainingError(
                    f"{name}={getattr(self, name)!r} is unknown; choose from {', '.join(known)}"
                )
        for name, (low, high) in RANGES.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise TrainingError(f"{name}={value}: give a number from {low:g} to {high:g}")

    @property
    def max_epochs(self) -> int:
        """The epochs at most, those of a head where none are given."""
        return self.epochs or HEAD_EPOCHS

    @property
    def max_patience(self) -> int:
        """The epochs without a gain at most, those of a head where none are given."""
        return self.patience or HEAD_PATIENCE

    def for_tuning(self) -> TrainConfig:
        """Return the same with the epochs of a fine-tuning, where none are given."""
        return replace(
            self, epochs=self.epochs or TUNING_EPOCHS, patience=self.patience or TUNING_PATIENCE
        )


class TrainKeywords(TypedDict, total=False):
    """The fields of `TrainConfig` as keywords of `train_head`, for type checkers."""

    dim: int
    loss: str
    mining: str
    margin: float
    keep: float
    hidden: int | None
    dropout: float
    epochs: int | None
    patience: int | None
    batch_size: int
    learning_rate: float
    weight_decay: float
    validation: float
    refit: bool
    stage_rate: float
    seed: int
