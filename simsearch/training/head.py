"""Projection heads trained on labels, so that images of one class come together: `train_head`.

The backbone stays frozen, unless `finetune` trains its last stage. Its embeddings are in the
library already, so that no image is decoded, and a minute is enough for thousands of images.
"""

from __future__ import annotations

import time
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch

from simsearch.backbones.gated_head import GatedHead
from simsearch.backbones.heads import ProjectionHead
from simsearch.backbones.precision import restore_torch_threads
from simsearch.errors import TrainingError
from simsearch.pca import principal_axes
from simsearch.retrieval.options import accepts, make_options
from simsearch.training.config import TrainConfig
from simsearch.training.gate import choose_unlabelled, fit_gate
from simsearch.training.losses import BalancedSampler, make_loss, metric_learning
from simsearch.training.report import TrainedHead
from simsearch.training.split import TrainingData, load_training_data
from simsearch.training.trainer import (
    EarlyStopping,
    Epoch,
    Learner,
    Validator,
    best_epoch,
    run_epochs,
    seeded_torch,
)

if TYPE_CHECKING:
    import os
    from collections.abc import Generator, Sequence

    from numpy.typing import NDArray
    from typing_extensions import Unpack

    from simsearch.library.library import ImageLibrary
    from simsearch.library.types import Labels, Rows
    from simsearch.training.config import TrainKeywords


EPOCHS, PATIENCE = 25, 8  # where the config gives none
MIN_BATCHES = 20  # of an epoch, so that few images are learned from as thoroughly as many
STATISTICS_ROWS = 20_000  # rows that give the mean, the spread and the principal axes
SPREAD_SOFTENING = 0.05  # of the mean spread, added to each: a near-constant feature stays small


class HeadNetwork:
    """The trainable part of a `ProjectionHead`, and the standardisation before it."""

    def __init__(self, library: ImageLibrary, rows: NDArray[np.intp], config: TrainConfig) -> None:
        sample = np.random.default_rng(config.seed).permutation(rows)[:STATISTICS_ROWS]
        embeddings = np.asarray(library.embeddings[np.sort(sample)])
        self.mean, spread = embeddings.mean(axis=0), embeddings.std(axis=0)
        self.scale = spread + max(SPREAD_SOFTENING * spread.mean(), np.finfo(np.float32).tiny)
        self.keep, self.kept, self.dim = config.keep, None, config.dim
        if config.keep:
            axes = principal_axes(embeddings, config.dim // 2)[0].astype(np.float32)
            self.kept = axes, -axes @ self.mean
            self.dim -= len(axes)
        self.module = _make_layers([library.dim, config.hidden, self.dim], config.dropout)

    def __call__(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Map (B, D) embeddings to (B, dim) of unit norm."""
        mean, scale = (torch.from_numpy(x).to(embeddings.device) for x in (self.mean, self.scale))
        return torch.nn.functional.normalize(self.module((embeddings - mean) / scale))

    def to_head(self, source: str = "") -> ProjectionHead:
        """Make a head of it, with the standardisation folded into the first layer."""
        layers = [
            (layer.weight.detach().cpu().numpy().copy(), layer.bias.detach().cpu().numpy().copy())
            for layer in self.module
            if isinstance(layer, torch.nn.Linear)
        ]
        weight, bias = layers[0]
        layers[0] = weight / self.scale, bias - (weight / self.scale) @ self.mean
        return ProjectionHead(layers, source, self.kept, self.keep)


def _make_layers(widths: Sequence[int | None], dropout: float) -> torch.nn.Sequential:
    """Make linear layers with ReLU and dropout between them; a width of None is no layer."""
    layers: list[torch.nn.Module] = []
    for sizes in pairwise(width for width in widths if width):
        layers += [torch.nn.ReLU(), torch.nn.Dropout(dropout), torch.nn.Linear(*sizes)]
    return torch.nn.Sequential(*layers[1:])


class HeadLearner(Learner):
    """A head that learns from the embeddings of a library.

    Attributes
    ----------
    rows
        What it learns from.
    history
        Its epochs, once it is trained.
    """

    title = "Training"
    history: tuple[Epoch, ...]

    def __init__(
        self, data: TrainingData, rows: NDArray[np.intp], config: TrainConfig, epochs: int
    ) -> None:
        sampler = BalancedSampler(data.names, rows, config, MIN_BATCHES)
        self.rows, self._embeddings = rows, data.library.embeddings
        self._epochs = sampler.epochs()
        self.network = HeadNetwork(data.library, rows, config)
        self._loss, self._miner = make_loss(config, sampler.class_count, self.network.dim)
        criterion = torch.nn.ModuleDict({"measure": self._loss})  # as checkpoints name it
        self.layers = {"head": self.network.module, "loss": criterion}
        weights = [weight for layers in self.layers.values() for weight in layers.parameters()]
        rate = config.learning_rate
        super().__init__(self.layers, [(weights, rate)], config.weight_decay, sampler.batches)
        self.scheduler = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, rate, total_steps=epochs * sampler.batches, pct_start=0.1
        )

    def losses(self, number: int) -> Generator[torch.Tensor]:  # noqa: ARG002
        """Yield the loss of each batch of the next epoch."""
        for rows, codes in next(self._epochs):
            embeddings = torch.from_numpy(np.asarray(self._embeddings[rows]))
            yield self.loss(embeddings, torch.from_numpy(codes))

    def loss(self, embeddings: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        """Return the loss of (B, D) embeddings of the backbone and their (B,) class numbers."""
        mapped = self.network(embeddings)
        triplets = self._miner(mapped, codes) if self._miner else None
        value: torch.Tensor = self._loss(mapped, codes, triplets)
        return value


def fit_head(
    data: TrainingData,
    rows: NDArray[np.intp],
    config: TrainConfig,
    stopping: EarlyStopping,
    validator: Validator | None = None,
    *,
    progress: bool,
) -> HeadLearner:
    """Train a head on rows of a library; return it with the weights of the best epoch.

    One thread computes: the products are so small that several would mostly wait for each other. On
    two busy cores, one was four times as fast.
    """
    with seeded_torch(config.seed), restore_torch_threads():
        torch.set_num_threads(1)
        learner = HeadLearner(data, rows, config, stopping.epochs)
        validate = (lambda: validator.score(learner.network.to_head())) if validator else None
        learner.history = run_epochs(learner, stopping, validate, progress=progress)
    return learner


def fit_and_refit(
    data: TrainingData, config: TrainConfig, validator: Validator | None, *, progress: bool
) -> tuple[HeadLearner, HeadLearner]:
    """Train a head on `train`; then, if asked to, anew on the validation images as well.

    Returns
    -------
    validated, final : HeadLearner
        Both the same where there is no second training.
    """
    stopping = EarlyStopping(config.epochs or EPOCHS, config.patience or PATIENCE)
    learner = fit_head(data, data.split.train, config, stopping, validator, progress=progress)
    if not validator or not config.refit:
        return learner, learner
    if len(learner.history) < stopping.epochs:
        stopping = stopping._replace(epochs=best_epoch(learner.history).number)
    return learner, fit_head(data, data.split.seen, config, stopping, progress=progress)


@accepts(TrainConfig)
def train_head(
    library: ImageLibrary,
    labels: Labels = "folder",
    on: Rows = None,
    *,
    leave_out: Sequence[str] = (),
    unlabelled: Rows = None,
    finetune: bool = False,
    checkpoint: str | os.PathLike[str] | None = None,
    progress: bool = True,
    config: TrainConfig | None = None,
    **options: Unpack[TrainKeywords],
) -> TrainedHead:
    """Train a small head on the frozen embeddings of a labelled library.

    Images without a label, and classes of a single image, are left out. The same seed gives the
    same head on the same machine.

    With `finetune`, the backbone's last stage then learns as well, together with the head: from
    the images themselves, so that an epoch takes about as long as embedding them three times. That
    is for machines with a GPU, or for few images. It needs more images per class than a head does;
    the report compares it with a head alone. If it gains nothing on the validation images, the head
    alone is returned.

    Parameters
    ----------
    library
        From `embed_dataset`, `ImageLibrary.load` or `with_head`. To fine-tune, one without a head;
        its backbone's device is the one that is used.
    labels
        What `ImageLibrary.label_rows` takes.
    on
        What `ImageLibrary.select` takes: the images to train and validate on, such as
        "seg_train/*". Labelled images outside are then the test images of the report; without any,
        test images are set aside.
    leave_out
        Classes that are held out from the training, to see how the head serves unknown ones.
    unlabelled
        What `ImageLibrary.select` takes: images to look at without their labels, 50 or more, some
        of which may be of classes that have none. What is found almost only among them is then left
        as the backbone sees it, by a `GatedHead`. None for no such images.
    finetune
        Train the backbone's last stage, too. Its batch norms keep their statistics; the images are
        augmented by random crops, flips and colour jitter; products are in half precision where
        that is fast.
    checkpoint
        With `finetune`: a folder for the state after each epoch. Run again with the same arguments,
        a training that was stopped in any way resumes after its last complete epoch.
    progress
        Show progress bars, with the validation mAP.
    config
        Options in one object; those given as keywords replace its own.
    **options
        The fields of `TrainConfig`.

    Returns
    -------
    TrainedHead

    Raises
    ------
    TrainingError
        If there are not two classes of two images to train on, if an option is out of range, if
        there are too few images without labels, or if training diverges; with `finetune`, also
        if no image can be read, if the library has a head, or if the checkpoint is of another
        training.
    BackboneError
        If the backbone to be fine-tuned cannot be loaded.
    QueryError
        If `labels` or `on` do not fit the library.
    MissingExtraError
        If pytorch-metric-learning is not installed.
    TypeError
        If there is no such option.
    """
    from simsearch.training.finetune import fine_tune

    config = make_options(TrainConfig, options, config)
    if not finetune and (config.stage is not None or checkpoint is not None):
        raise TrainingError("stage= and checkpoint= go with finetune=True")
    if finetune and unlabelled is not None:
        raise TrainingError("unlabelled= goes with a head alone: leave out finetune=True")
    metric_learning()
    data = load_training_data(library, labels, on, leave_out, config)
    if finetune:
        return fine_tune(data, config, checkpoint, progress=progress)
    start, others = time.perf_counter(), None
    if unlabelled is not None:
        others = choose_unlabelled(library, unlabelled, data.split.seen, config)
    validator = Validator(data, config.seed) if len(data.split.val) else None
    validated, final = fit_and_refit(data, config, validator, progress=progress)
    head = final.network.to_head(library.fingerprint)
    if others is not None:
        head = GatedHead.gated(head, fit_gate(library, final.rows, others, config.seed))
    return TrainedHead.evaluated(
        data,
        head,
        library,
        loss=config.loss,
        history=validated.history,
        rows=final.rows,
        seconds=time.perf_counter() - start,
    )
