"""The training loop: epochs, validation, early stopping, divergence, checkpoints."""

from __future__ import annotations

import io
import json
import math
from abc import ABC, abstractmethod
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from filelock import FileLock, Timeout
from tqdm.auto import tqdm

from simsearch.errors import TrainingError
from simsearch.evaluation.evaluation import evaluate
from simsearch.files import atomic_write
from simsearch.library.library import ImageLibrary
from simsearch.plain_json import dumps, plain

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
    from typing import Any, TypeAlias

    from numpy.typing import NDArray
    from torch.optim.lr_scheduler import LRScheduler

    from simsearch.backbones.heads import ProjectionHead
    from simsearch.training.split import TrainingData
    from simsearch.training.trainable import TrainableBackbone

    Save: TypeAlias = Callable[[Sequence["Epoch"], Mapping[str, Any]], object]


VALIDATION_QUERIES, VALIDATION_GALLERY = 500, 5_000  # images, at most
FILE_NAME = "checkpoint.pt"
DIVERGED_WEIGHT = 1e6  # no weight of a sound network comes near it


class Epoch(NamedTuple):
    """One pass over the training images: its mean loss, and the mAP on the validation images."""

    number: int
    loss: float
    mAP: float  # noqa: N815 (its name everywhere)


def best_epoch(history: Sequence[Epoch]) -> Epoch:
    """Return the first epoch of the highest validation mAP; without validation, the last."""
    validated = not math.isnan(history[-1].mAP)
    return max(history, key=lambda epoch: epoch.mAP) if validated else history[-1]


class EarlyStopping(NamedTuple):
    """Epochs at most, and epochs without a better validation mAP after which training stops."""

    epochs: int
    patience: int

    def is_due(self, history: Sequence[Epoch]) -> bool:
        """Tell whether a training of these epochs is finished."""
        last, best = (history[-1].number, best_epoch(history).number) if history else (0, 0)
        return last >= self.epochs or last - best >= self.patience


def _diverged(what: str, number: int) -> TrainingError:
    return TrainingError(f"{what} in epoch {number}: lower learning_rate=, or choose another loss=")


@contextmanager
def seeded_torch(seed: int, devices: Sequence[torch.device] = ()) -> Iterator[None]:
    """Seed PyTorch, and restore the state of its generators afterwards."""
    with torch.random.fork_rng([x for x in devices if x.type == "cuda"]):
        torch.manual_seed(seed)
        yield


class Validator:
    """Validation images: queries from `val`, a gallery from `train`.

    Attributes
    ----------
    rows : numpy.ndarray
        Rows of the library that take part: the queries, and then the gallery.
    """

    def __init__(
        self, data: TrainingData, seed: int, gallery_size: int = VALIDATION_GALLERY
    ) -> None:
        library, names, split = data
        rng = np.random.default_rng(seed)
        queries = rng.permutation(split.val)[:VALIDATION_QUERIES]
        gallery = rng.permutation(split.train)[:gallery_size]
        self.rows = np.concatenate([queries, gallery])
        self._names, self._queries = names[self.rows], len(queries)
        self._library = ImageLibrary(library.embeddings[self.rows], library.paths[self.rows])

    def score(self, head: ProjectionHead, embeddings: NDArray[np.float32] | None = None) -> float:
        """Return the mAP with a head.

        Parameters
        ----------
        head
            The head to validate.
        embeddings
            Other embeddings of `rows`, (n, D) float32; a row of NaNs is left out.
        """
        library, valid = self._library, np.arange(len(self.rows))
        if embeddings is not None:
            readable = np.isfinite(embeddings)
            valid = np.flatnonzero(readable[:, 0])
            library = ImageLibrary(
                np.where(readable, embeddings, library.embeddings), library.paths
            )
        queries, gallery = valid[valid < self._queries], valid[valid >= self._queries]
        if not len(queries) or not len(gallery):
            return 0.0
        derived = library.with_head(head)
        found = evaluate(derived, self._names, queries, gallery, 1, resamples=0, progress=False)
        return float(found.per_query("mAP").mean())


class Learner(ABC):
    """Modules that learn batch by batch, by AdamW.

    Parameters
    ----------
    modules
        What learns, by name.
    groups
        Weights, and the highest learning rate of each group of them.
    weight_decay
        Of AdamW.
    batches
        Batches of an epoch.
    scaler
        Scales the gradients of float16; None for no scaling.

    Attributes
    ----------
    optimizer : torch.optim.AdamW
    scheduler : torch.optim.lr_scheduler.LRScheduler
        Of the learning rates, batch by batch.
    """

    title: str
    scheduler: LRScheduler

    def __init__(
        self,
        modules: Mapping[str, torch.nn.Module | TrainableBackbone],
        groups: Iterable[tuple[Iterable[torch.Tensor], float]],
        weight_decay: float,
        batches: int,
        scaler: torch.amp.GradScaler | None = None,
    ) -> None:
        self.modules, self.batches = modules, batches
        self.optimizer = torch.optim.AdamW(
            [{"params": [*weights], "lr": rate, "initial_lr": rate} for weights, rate in groups],
            weight_decay=weight_decay,
        )
        self.scaler = scaler or torch.amp.GradScaler("cpu", enabled=False)

    @abstractmethod
    def losses(self, number: int) -> Generator[torch.Tensor]:
        """Yield the loss of each batch of an epoch; may set its `scheduler` before the first."""

    def train_epoch(self, number: int, update: Callable[[float], object]) -> float:
        """Train for one epoch, and call `update` with each loss; return the mean loss.

        Raises
        ------
        TrainingError
            If training diverges.
        """
        values: list[float] = []
        with closing(self.losses(number)) as losses:  # what loads images ends with an error, too
            for loss in losses:
                values.append(float(loss.detach()))
                if not math.isfinite(values[-1]):
                    raise _diverged(f"the loss is {values[-1]}", number)
                self._step(loss)
                update(values[-1])
        weights = [weight for group in self.optimizer.param_groups for weight in group["params"]]
        if not all(float(weight.detach().abs().max()) < DIVERGED_WEIGHT for weight in weights):
            raise _diverged("the weights grow without limit", number)
        return sum(values) / len(values)

    def _step(self, loss: torch.Tensor) -> None:
        scale = self.scaler.get_scale()
        self.optimizer.zero_grad()
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.scaler.get_scale() >= scale:  # otherwise the gradients overflowed, and were skipped
            self.scheduler.step()

    def weights(self) -> dict[str, dict[str, torch.Tensor]]:
        """Return copies of all weights, on the processor."""
        return {
            name: {
                key: weight.detach().cpu().clone() for key, weight in module.state_dict().items()
            }
            for name, module in self.modules.items()
        }

    def restore(self, weights: Mapping[str, Any]) -> None:
        """Load weights that `weights` returned."""
        for name, module in self.modules.items():
            module.load_state_dict(weights[name])


def run_epochs(
    learner: Learner,
    stopping: EarlyStopping,
    validate: Callable[[], float] | None,
    *,
    history: Sequence[Epoch] = (),
    best: Mapping[str, Any] | None = None,
    save: Save | None = None,
    progress: bool,
) -> tuple[Epoch, ...]:
    """Train epoch by epoch; leave the learner with the weights of the best epoch.

    Parameters
    ----------
    learner
        With the weights of the last epoch of `history`.
    stopping
        When to stop.
    validate
        Returns the validation mAP; None for no validation.
    history, best
        The epochs that were run before, and the weights of the best one.
    save
        Called after each epoch with the two.
    progress
        Show a progress bar.
    """
    history, best = list(history), best or learner.weights()
    done = history[-1].number if history else 0
    shown = {"mAP": f"{history[-1].mAP:.3f}"} if history else {}
    with tqdm(
        desc=learner.title,
        total=stopping.epochs * learner.batches,
        initial=done * learner.batches,
        unit="batch",
        disable=not progress,
    ) as bar:

        def update(loss: float) -> None:
            bar.set_postfix(shown | {"loss": f"{loss:.3f}"}, refresh=False)
            bar.update()

        while not stopping.is_due(history):
            done += 1
            loss = learner.train_epoch(done, update)
            history.append(Epoch(done, loss, validate() if validate else math.nan))
            if validate:
                shown["mAP"] = f"{history[-1].mAP:.3f}"
                bar.set_postfix(shown | {"loss": f"{loss:.3f}"})
            if best_epoch(history).number == done:
                best = learner.weights()
            if save:
                save(history, best)
    learner.restore(best)
    return tuple(history)


class Checkpoint:
    """One file with the state of a training after its last complete epoch.

    Replaced atomically; it holds tensors and plain values, no code.

    Parameters
    ----------
    folder
        Created if it does not exist.
    settings
        All that determines the training, ready for JSON: the file of another training is refused.

    Raises
    ------
    TrainingError
        If the file cannot be read or written, or is of another training.
    """

    def __init__(self, folder: str | os.PathLike[str], settings: Mapping[str, Any]) -> None:
        self.file = Path(folder).expanduser() / FILE_NAME
        self._settings: dict[str, Any] = json.loads(dumps(settings))

    @contextmanager
    def hold(self) -> Iterator[dict[str, Any] | None]:
        """Lock the folder for this process; give the state that was last written, or None."""
        lock = FileLock(self.file.with_name(".lock"), timeout=0)
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except Timeout:
            raise TrainingError(
                f"another process is training in {self.file.parent.as_posix()!r}; wait for it, "
                "or choose another checkpoint="
            ) from None
        except OSError as error:
            raise self._write_error(error) from error
        try:
            yield self._read()
        finally:
            lock.release()

    def _write_error(self, error: OSError) -> TrainingError:
        return TrainingError(
            f"cannot write {self.file.as_posix()!r}: {error.strerror or error}; the epochs that "
            "were written are kept: free disk space and run again"
        )

    def _read(self) -> dict[str, Any] | None:
        if not self.file.exists():
            return None
        try:
            stored = torch.load(self.file, map_location="cpu", weights_only=True)
            settings, state = plain(json.loads(stored["settings"])), stored["state"]
        except Exception as error:  # torch, pickle and zip each raise their own
            raise self._refuse(f"is damaged ({type(error).__name__})") from error
        names = sorted(settings.keys() | self._settings.keys())
        changed = [
            f"{name} was {settings.get(name)!r} and is {self._settings.get(name)!r}"
            for name in names
            if settings.get(name) != self._settings.get(name)
        ]
        if changed:
            raise self._refuse(f"is of another training ({'; '.join(changed)})")
        return dict(state)

    def _refuse(self, what: str) -> TrainingError:
        return TrainingError(
            f"the checkpoint {self.file.as_posix()!r} {what}; delete it to start anew, or choose "
            "another checkpoint="
        )

    def write(self, state: Mapping[str, Any]) -> None:
        """Replace the state: once this returns, a killed process does not lose it."""
        buffer = io.BytesIO()  # torch.save hides the message of a full disk
        torch.save({"settings": dumps(self._settings), "state": dict(state)}, buffer)
        try:
            with atomic_write(self.file) as stream:
                stream.write(buffer.getbuffer())
        except OSError as error:
            raise self._write_error(error) from error
