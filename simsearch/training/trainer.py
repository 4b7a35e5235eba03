"""The trainer: epochs with early stopping, and a head that learns from embeddings."""

from __future__ import annotations

import copy
import logging
import math
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
from tqdm.auto import tqdm

from simsearch.backbones.precision import restore_torch_threads
from simsearch.errors import TrainingError
from simsearch.library.library import ImageLibrary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from typing import Any, TypeAlias

    import torch
    from numpy.typing import NDArray

    from simsearch.training.split import Split

from simsearch.training.config import TrainConfig
from simsearch.training.losses import make_criterion
from simsearch.training.network import HeadNetwork
from simsearch.training.sampler import BalancedSampler
from simsearch.training.validation import Validation

logger = logging.getLogger("simsearch")


MAX_WEIGHT = 1e6  # no weight of a sound network comes near it


class Epoch(NamedTuple):
    """One pass over the training images: its mean loss, and the mAP on the validation images."""

    number: int
    loss: float
    mAP: float  # noqa: N815 (its name everywhere)


def _diverged(what: str, number: int) -> TrainingError:
    return TrainingError(f"{what} in epoch {number}: lower learning_rate=, or choose another loss=")


def check_loss(loss: torch.Tensor, number: int) -> float:
    """Return a loss as a number, which it must be."""
    value = float(loss.detach())
    if not math.isfinite(value):
        raise _diverged(f"the loss is {value}", number)
    return value


def check_weights(weights: Iterable[torch.Tensor], number: int) -> None:
    """Raise unless every weight is a number of a sound size."""
    if not all(float(weight.detach().abs().max()) < MAX_WEIGHT for weight in weights):
        raise _diverged("the weights grow without limit", number)


@contextmanager
def seeded_torch(seed: int, devices: Sequence[torch.device] = ()) -> Iterator[None]:
    """Seed PyTorch, and put its generators back afterwards."""
    import torch

    with torch.random.fork_rng([x for x in devices if x.type == "cuda"]):
        torch.manual_seed(seed)
        yield


@contextmanager
def single_torch_thread() -> Iterator[None]:
    """Keep PyTorch to one thread.

    The products are so small that threads would mostly wait for each other: on two busy cores,
    one thread was four times as fast.
    """
    import torch

    with restore_torch_threads():
        torch.set_num_threads(1)
        yield


class Learner(Protocol):
    """What `train_epochs` trains."""

    name: str  # of what it does
    unit: str  # of its ticks
    ticks: int  # that an epoch has

    def learn(self, number: int, tick: Callable[[float], object]) -> float:
        """Train for one epoch, and tick with the loss; return the mean loss."""

    def weights(self) -> dict[str, Any]:
        """Return copies of all that learns."""

    def restore(self, weights: Mapping[str, Any]) -> None:
        """Take weights over."""


class HeadLearner:
    """A head that learns from the embeddings of a library."""

    name, unit, ticks = "Training", "epoch", 1

    def __init__(
        self,
        library: ImageLibrary,
        names: NDArray[np.str_],
        rows: NDArray[np.intp],
        config: TrainConfig,
    ) -> None:
        self.embeddings = library.embeddings
        self.steps = BalancedSampler(names, rows, config)
        self.network = HeadNetwork(library, rows, config)
        self.criterion = make_criterion(config, len(self.steps.members), self.network.dim)
        self.modules = {"head": self.network.module, "loss": self.criterion}
        parameters = [*self.network.parameters(), *self.criterion.parameters()]
        self._step = make_step(parameters, self.steps, config)

    def learn(self, number: int, tick: Callable[[float], object]) -> float:
        """Train for one epoch; return the mean loss."""
        import torch

        total = 0.0
        for rows, codes in self.steps:
            embeddings = torch.from_numpy(np.asarray(self.embeddings[rows]))
            loss = self.loss(embeddings, torch.from_numpy(codes))
            total += check_loss(loss, number)
            self._step(loss)
        check_weights(self.network.parameters(), number)
        tick(total / self.steps.count)
        return total / self.steps.count

    def loss(self, embeddings: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        """Return the loss of (B, D) embeddings of the backbone and their (B,) class numbers."""
        value: torch.Tensor = self.criterion(self.network(embeddings), codes)
        return value

    def weights(self) -> dict[str, Any]:
        """Return copies of all that learns."""
        return {name: copy.deepcopy(x.state_dict()) for name, x in self.modules.items()}

    def restore(self, weights: Mapping[str, Any]) -> None:
        """Take weights over."""
        for name, module in self.modules.items():
            module.load_state_dict(weights[name])


def fit_head(
    library: ImageLibrary,
    names: NDArray[np.str_],
    rows: NDArray[np.intp],
    config: TrainConfig,
    validation: Validation | None = None,
    *,
    progress: bool,
) -> tuple[HeadLearner, tuple[Epoch, ...]]:
    """Train a head on rows of a library; return it as the best epoch left it."""
    with seeded_torch(config.seed), single_torch_thread():
        learner = HeadLearner(library, names, rows, config)
        measure = (lambda: validation(learner.network.head())) if validation else None
        history = train_epochs(learner, config, measure, progress=progress)
    return learner, history


Keep: TypeAlias = "Callable[[list[Epoch], Mapping[str, Any]], object]"


def train_epochs(
    learner: Learner,
    config: TrainConfig,
    validate: Callable[[], float] | None,
    *,
    history: Sequence[Epoch] = (),
    best: Mapping[str, Any] | None = None,
    keep: Keep | None = None,
    progress: bool,
) -> tuple[Epoch, ...]:
    """Train epoch by epoch; leave the learner as the best epoch left it.

    Parameters
    ----------
    learner
        What learns, as the last epoch of `history` left it.
    recipe
        How many epochs there are at most, and how many that gain nothing.
    validate
        Returns the validation mAP.
    history, best
        Of the epochs that were run before: all of them, and the weights after the best one.
    keep
        Called after each epoch with the two.
    progress
        Show a progress bar.
    """
    history, best = list(history), best or learner.weights()
    done = history[-1].number if history else 0
    shown = {"mAP": f"{history[-1].mAP:.3f}"} if history else {}
    with tqdm(
        desc=learner.name,
        total=config.max_epochs * learner.ticks,
        initial=done * learner.ticks,
        unit=learner.unit,
        disable=not progress,
    ) as bar:

        def tick(loss: float) -> None:
            bar.set_postfix(shown | {"loss": f"{loss:.3f}"}, refresh=False)
            bar.update()

        while not should_stop(history, config):
            number = history[-1].number + 1 if history else 1
            loss = learner.learn(number, tick)
            history.append(Epoch(number, loss, validate() if validate else math.nan))
            if validate:
                shown["mAP"] = f"{history[-1].mAP:.3f}"
                bar.set_postfix(shown | {"loss": f"{loss:.3f}"})
            if best_epoch(history).number == number:
                best = learner.weights()
            if keep:
                keep(history, best)
    learner.restore(best)
    return tuple(history)


def should_stop(history: Sequence[Epoch], config: TrainConfig) -> bool:
    """Tell whether all epochs are done, or too many in a row gained nothing."""
    if not history:
        return False
    last, best = history[-1].number, best_epoch(history).number
    return last >= config.max_epochs or last - best >= config.max_patience


def best_epoch(history: Sequence[Epoch]) -> Epoch:
    """Return the first epoch of the highest validation mAP; without validation, the last."""
    watched = not math.isnan(history[-1].mAP)
    return max(history, key=lambda epoch: epoch.mAP) if watched else history[-1]


def make_step(
    parameters: list[torch.nn.Parameter], steps: BalancedSampler, config: TrainConfig
) -> Callable[[torch.Tensor], None]:
    """Return what makes one step down from a loss."""
    import torch

    optimizer = torch.optim.AdamW(
        parameters, config.learning_rate, weight_decay=config.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.learning_rate, total_steps=config.max_epochs * steps.count, pct_start=0.1
    )

    def step(loss: torch.Tensor) -> None:
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()

    return step


def refit_head(
    library: ImageLibrary,
    names: NDArray[np.str_],
    split: Split,
    config: TrainConfig,
    history: Sequence[Epoch],
    *,
    progress: bool,
) -> tuple[HeadLearner, NDArray[np.intp]]:
    """Train once more, on the validation images as well; return also what it learned from."""
    rows = np.union1d(split.train, split.val)
    stopped = len(history) < config.max_epochs
    again = replace(config, epochs=best_epoch(history).number if stopped else config.max_epochs)
    learner, _ = fit_head(library, names, rows, again, progress=progress)
    return learner, rows
