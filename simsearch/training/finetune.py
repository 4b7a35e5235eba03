"""Fine-tuning: the last stage of a backbone learns from images, together with the head.

The layers before the stage stay frozen, and batch norms keep their statistics. The head is trained
first, on frozen features, since the gradients of a random head would distort the backbone [1]_.

.. [1] A. Kumar, A. Raghunathan, R. Jones, T. Ma, P. Liang. Fine-Tuning can Distort Pretrained
   Features and Underperform Out-of-Distribution. ICLR 2022.
"""

from __future__ import annotations

import logging
import math
from contextlib import closing
from typing import TYPE_CHECKING

import numpy as np

from simsearch.training.trainer import check_loss, check_weights

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any, TypeAlias

    import torch
    from numpy.typing import NDArray

    Loss: TypeAlias = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    Plan: TypeAlias = Callable[[int], Iterable[tuple[NDArray[np.intp], NDArray[np.intp]]]]
from simsearch.training.augmentation import DecodeTask, TrainingImages
from simsearch.training.stage import (
    Stage,
)

logger = logging.getLogger("simsearch")


EMBED_IMAGES = 64  # images that are embedded together


WARM_UP_SHARE = 0.1  # of all steps


class Tuner:
    """What learns epoch by epoch: a stage, and the modules that follow it.

    Parameters
    ----------
    stage, pictures
        The backbone, and the images.
    modules
        What learns beside the stage, by name, on the stage's device.
    loss
        Of (B, D) embeddings and (B,) class numbers.
    plan
        The batches of an epoch, by its number: (B,) rows and class numbers.
    steps
        How many an epoch has.
    epochs
        How many there are, so that the learning rate falls to zero in the end.
    rate, stage_rate, weight_decay
        Of AdamW; the rate of the modules, and that of the stage.
    seed
        Of the augmentation and of dropout.
    """

    name, unit = "Fine-tuning", "batch"

    def __init__(
        self,
        stage: Stage,
        images: TrainingImages,
        modules: Mapping[str, torch.nn.Module],
        loss: Loss,
        plan: Plan,
        *,
        steps: int,
        epochs: int,
        rate: float,
        stage_rate: float,
        weight_decay: float,
        seed: int,
    ) -> None:
        import torch

        self.stage, self.images, self.modules = stage, images, modules
        self.ticks, self.seed = steps, seed
        self._loss, self._plan, self._total = loss, plan, steps * epochs
        others = [weight for module in modules.values() for weight in module.parameters()]
        self._optimizer = torch.optim.AdamW(
            [
                {"params": others, "lr": rate, "rate": rate},
                {"params": [*stage.parameters.values()], "lr": stage_rate, "rate": stage_rate},
            ],
            weight_decay=weight_decay,
        )
        self._scaler = torch.amp.GradScaler(
            stage.backbone.device.type, enabled=stage.precision == "float16"
        )

    def learn(self, number: int, tick: Callable[[float], object]) -> float:
        """Train for one epoch; return the mean loss."""
        import torch

        torch.manual_seed(self.seed * 100_003 + number)  # of dropout
        tasks = (
            DecodeTask(rows, codes, (self.seed, number, i))
            for i, (rows, codes) in enumerate(self._plan(number))
        )
        losses: list[float] = []
        with closing(self.images.batches(tasks)) as batches:  # its threads end with an error, too
            for images, task in batches:
                codes = torch.from_numpy(task.codes).to(self.stage.backbone.device)
                loss = self._loss(self.stage(images), codes)
                losses.append(check_loss(loss, number))
                self._step(loss, (number - 1) * self.ticks + len(losses))
                tick(losses[-1])
        if not losses:
            raise self.images.none()
        check_weights(
            (weight for group in self._optimizer.param_groups for weight in group["params"]), number
        )
        return sum(losses) / len(losses)

    def _step(self, loss: torch.Tensor, step: int) -> None:
        for group in self._optimizer.param_groups:
            group["lr"] = group["rate"] * one_cycle(step / self._total)
        self._optimizer.zero_grad()
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self._scaler.step(self._optimizer)
        self._scaler.update()

    def embed(self, rows: NDArray[np.intp]) -> NDArray[np.float32]:
        """Embed images as they are: (n, D) float32, unit norm; NaN where one cannot be read."""
        import torch

        width = self.stage.backbone.dim
        embeddings = np.full((len(rows), width), np.nan, np.float32)
        places = np.arange(len(rows))
        tasks = (
            DecodeTask(rows[i : i + EMBED_IMAGES], places[i : i + EMBED_IMAGES], None)
            for i in range(0, len(rows), EMBED_IMAGES)
        )
        with torch.no_grad():
            for inputs, task in self.images.batches(tasks):
                embeddings[task.codes] = self.stage(inputs).cpu().numpy()
        return embeddings

    def weights(self) -> dict[str, Any]:
        """Return copies of all that learns."""
        named = {name: module.state_dict() for name, module in self.modules.items()}
        named["stage"] = dict(self.stage.parameters)
        return {
            name: {key: weight.detach().cpu().clone() for key, weight in state.items()}
            for name, state in named.items()
        }

    def restore(self, weights: Mapping[str, Any]) -> None:
        """Take weights over."""
        import torch

        for name, module in self.modules.items():
            module.load_state_dict(weights[name])
        with torch.no_grad():
            for key, weight in self.stage.parameters.items():
                weight.copy_(weights["stage"][key])

    def state(self) -> dict[str, Any]:
        """Return all that the next epoch depends on."""
        return {
            "weights": self.weights(),
            "optimizer": self._optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
            "precision": [self.stage.backbone.device.type, self.stage.precision],
        }

    def resume(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        self.restore(state["weights"])
        self._optimizer.load_state_dict(state["optimizer"])
        device, precision = state["precision"]
        if device == self.stage.backbone.device.type:
            self.stage.precision = precision  # a busy processor may have judged otherwise today
        if state["scaler"] and self._scaler.is_enabled():
            self._scaler.load_state_dict(state["scaler"])


def one_cycle(passed: float) -> float:
    """Return the share of the learning rate: a short linear rise, then half a cosine to zero."""
    if passed < WARM_UP_SHARE:
        return passed / WARM_UP_SHARE
    return (1 + math.cos(math.pi * (passed - WARM_UP_SHARE) / (1 - WARM_UP_SHARE))) / 2
