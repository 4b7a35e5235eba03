"""Options of a training: their defaults, ranges and documentation, written once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict

from simsearch.errors import TrainingError
from simsearch.training.losses import LOSSES, MINERS

if TYPE_CHECKING:
    from collections.abc import Sequence

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
    """Options of `train_head`, checked when made.

    `train_head` takes each of them as a keyword, or all of them as `config=`.

    Attributes
    ----------
    dim : int
        Width of the new embeddings.
    loss : str
        "triplet", "contrastive", "multi-similarity", "arcface" or "supcon".
    mining : str
        Which triplets count: "semihard", "hard" or "all".
    margin : float
        Margin of the triplet loss, between the distances of two unit vectors.
    keep : float
        Weight of the backbone's own cosine, centred, in the score, in [0, 1). A small one serves
        the classes that are trained on best; about 0.6 keeps what the backbone knows of all others.
    hidden : int or None
        Width of the hidden layer; None for a linear head.
    dropout : float
        Share of the features that are dropped at each step.
    epochs : int or None
        Passes over the images, at most: 25 if not given. With `finetune` those of the fine-tuning:
        8 if not given.
    patience : int or None
        Early stopping: epochs without a better validation mAP after which training stops. The best
        epoch's head is kept. 8 if not given; with `finetune`, 3 if not given.
    batch_size : int
        Images per batch.
    learning_rate : float
        Highest learning rate of AdamW, in one cycle.
    weight_decay : float
        Weight decay of AdamW.
    validation : float
        Share of each class for validation, and again the share that is set aside for the report.
        With 0 there is neither, and the last epoch counts.
    refit : bool
        Train once more in the end, on the validation images as well, for as many epochs as were
        best if training stopped early, and for all otherwise: more training images, for twice the
        time. With `finetune`, this is done for the head alone, which fine-tuning has to surpass.
    stage : str, sequence of str or None
        With `finetune`: names of the modules to train, as the network's `named_modules` has them,
        such as "layer4". If not given, the last ones that together hold a quarter of the
        parameters.
    stage_rate : float
        With `finetune`: the learning rate of the stage; the head then learns at a tenth of
        `learning_rate`.
    seed : int
        Seed of everything random.

    Raises
    ------
    TrainingError
        If an option is out of range.
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
    stage: str | Sequence[str] | None = None
    stage_rate: float = 1e-5
    seed: int = 0

    def __post_init__(self) -> None:
        for name, known in (("loss", LOSSES), ("mining", MINERS)):
            if getattr(self, name) not in known:
                raise TrainingError(
                    f"{name}={getattr(self, name)!r} is unknown; choose from {', '.join(known)}"
                )
        for name, (low, high) in RANGES.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise TrainingError(f"{name}={value}: give a number from {low:g} to {high:g}")


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
    stage: str | Sequence[str] | None
    stage_rate: float
    seed: int
