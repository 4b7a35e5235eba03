"""Fine-tuning: the last stage of a backbone learns from images, together with a head.

The head learns first, on the frozen features, and only then both together [1]_: the gradients of a
random head would spoil the features. A training that was killed resumes as if it had never stopped.

.. [1] A. Kumar, A. Raghunathan, R. Jones, T. Ma, P. Liang. Fine-Tuning can Distort Pretrained
   Features and Underperform Out-of-Distribution. ICLR 2022.
"""

from __future__ import annotations

import hashlib
import logging
import math
import time
from contextlib import closing, nullcontext
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.optim.lr_scheduler import LambdaLR
from tqdm.auto import tqdm

from simsearch.backbones.backbone import Backbone
from simsearch.backbones.long_pictures import made_like
from simsearch.embedding.batching import embed_batches
from simsearch.errors import TrainingError
from simsearch.files import iter_blocks
from simsearch.library.library import ImageLibrary
from simsearch.training.head import fit_and_refit
from simsearch.training.image_loader import ImageBatch, ImageLoader
from simsearch.training.losses import BalancedSampler
from simsearch.training.report import TrainedHead, evaluate_splits
from simsearch.training.trainable import TrainableBackbone
from simsearch.training.trainer import (
    Checkpoint,
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
    from collections.abc import Generator, Mapping, Sequence
    from typing import Any

    from numpy.typing import NDArray

    from simsearch.backbones.heads import ProjectionHead
    from simsearch.training.config import TrainConfig
    from simsearch.training.head import HeadLearner
    from simsearch.training.split import TrainingData

logger = logging.getLogger("simsearch")

EPOCHS, PATIENCE = 8, 3  # where the config gives none
HEAD_RATE_FACTOR = 0.1  # on the head's learning rate: it is already trained when the stage begins
VALIDATION_GALLERY = 1_500  # images, at most: each is embedded after every epoch
EMBED_BATCH = 64  # images that are embedded together
WARM_UP = 0.1  # of all steps


def warmup_cosine(progress: float) -> float:
    """Return the factor on the learning rate: a short linear rise, then half a cosine to zero."""
    if progress < WARM_UP:
        return progress / WARM_UP
    return (1 + math.cos(math.pi * (progress - WARM_UP) / (1 - WARM_UP))) / 2


class FineTuner(Learner):
    """A backbone's last stage and a head, which learn together from images.

    Parameters
    ----------
    data
        The library, its labels and the split.
    backbone
        The backbone, and its stage.
    head
        A head that is trained already; it is moved to the backbone's device.
    config
        Learning rates, weight decay, and the seed of batches, augmentation and dropout.
    epochs
        How many there are at most: the learning rate falls to zero in the end.
    """

    title = "Fine-tuning"

    def __init__(
        self,
        data: TrainingData,
        backbone: TrainableBackbone,
        head: HeadLearner,
        config: TrainConfig,
        epochs: int,
    ) -> None:
        device = backbone.backbone.device
        self.backbone, self.head, self._seed = backbone, head, config.seed
        self.loader = ImageLoader(data.library.paths, backbone.backbone)
        self._sampler = BalancedSampler(data.names, data.split.train, config, min_batches=1)
        self._total = self._sampler.batches * epochs
        weights = [x for part in head.layers.values() for x in part.to(device).parameters()]
        groups = [
            (weights, HEAD_RATE_FACTOR * config.learning_rate),
            (backbone.parameters.values(), config.stage_rate),
        ]
        scaler = torch.amp.GradScaler(device.type, enabled=backbone.precision == "float16")
        modules = {**head.modules, "stage": backbone}
        super().__init__(modules, groups, config.weight_decay, self._sampler.batches, scaler)

    def losses(self, number: int) -> Generator[torch.Tensor]:
        """Yield the loss of each batch of an epoch, which follows from its number alone."""
        first = (number - 1) * self.batches + 1
        self.scheduler = LambdaLR(
            self.optimizer, lambda step: warmup_cosine((first + step) / self._total)
        )
        torch.manual_seed(self._seed * 100_003 + number)  # of dropout
        batches = (
            ImageBatch(rows, codes, (self._seed, number, i))
            for i, (rows, codes) in enumerate(self._sampler.epoch(number))
        )
        batch = None
        with closing(self.loader.load(batches)) as loaded:
            for images, batch in loaded:
                codes = torch.from_numpy(batch.codes).to(self.backbone.backbone.device)
                yield self.head.loss(self.backbone(images), codes)
        if batch is None:
            row, reason = next(iter(self.loader.unreadable.items()))
            raise TrainingError(
                f"none of the images can be read: {self.loader.paths[row]}: {reason}; "
                'ImageLibrary.load(outputs, root="new/place") opens a library that has moved'
            )

    def embed(self, rows: NDArray[np.intp]) -> NDArray[np.float32]:
        """Embed images as they are: (n, D) float32, unit norm; NaN where one cannot be read."""
        embeddings = np.full((len(rows), self.backbone.backbone.dim), np.nan, np.float32)
        batches = (
            ImageBatch(rows[block], np.arange(block.start, block.stop), None)
            for block in iter_blocks(len(rows), EMBED_BATCH)
        )
        with torch.no_grad():
            for images, batch in self.loader.load(batches):
                embeddings[batch.codes] = self.backbone(images).cpu().numpy()
        return embeddings

    def state(self) -> dict[str, Any]:
        """Return all that the next epoch depends on."""
        return {
            "weights": self.weights(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "precision": [self.backbone.backbone.device.type, self.backbone.precision],
        }

    def resume(self, state: Mapping[str, Any]) -> None:
        """Continue from a state."""
        self.restore(state["weights"])
        groups = self.optimizer.state_dict()["param_groups"]  # of the same settings
        self.optimizer.load_state_dict({**state["optimizer"], "param_groups": groups})
        device, precision = state["precision"]
        if device == self.backbone.backbone.device.type:
            self.backbone.precision = precision  # timed once: a busy processor may differ today
        if state["scaler"] and self.scaler.is_enabled():
            self.scaler.load_state_dict(state["scaler"])


def fine_tune(
    data: TrainingData,
    config: TrainConfig,
    checkpoint: str | os.PathLike[str] | None,
    *,
    progress: bool,
) -> TrainedHead:
    """Train a head, then the backbone's last stage and the head together; report both."""
    start, library = time.perf_counter(), data.library
    backbone = _open_backbone(library, config)
    stopping = EarlyStopping(config.epochs or EPOCHS, config.patience or PATIENCE)
    settings = _checkpoint_settings(data, config, stopping, backbone)
    file = None if checkpoint is None else Checkpoint(checkpoint, settings)
    with file.hold() if file else nullcontext() as state:
        validating = len(data.split.val) > 0
        validator = Validator(data, config.seed, VALIDATION_GALLERY) if validating else None
        head_config = replace(config, epochs=None, patience=None)
        validated, final = fit_and_refit(data, head_config, validator, progress=progress)
        head = final.network.to_head(library.fingerprint)
        tuner = FineTuner(data, backbone, validated, config, stopping.epochs)
        with seeded_torch(config.seed, [backbone.backbone.device]):
            history = _run_epochs(tuner, stopping, validator, file, state, progress=progress)
    seconds = time.perf_counter() - start
    training: dict[str, Any] = {"loss": config.loss, "history": history, "seconds": seconds}
    if best_epoch(history).number:
        return _report(data, tuner, head, progress=progress, **training)
    logger.warning(
        "Fine-tuning gained nothing on the validation images: the head alone is returned."
    )
    return TrainedHead.evaluated(data, head, library, rows=final.rows, **training)


def _open_backbone(library: ImageLibrary, config: TrainConfig) -> TrainableBackbone:
    if library.head:
        raise TrainingError(
            f"{library!r} has a head, through which no gradient passes: fine-tune the library "
            "that embed_dataset made"
        )
    return TrainableBackbone(library.backbone, config.stage)


def _checkpoint_settings(
    data: TrainingData, config: TrainConfig, stopping: EarlyStopping, backbone: TrainableBackbone
) -> dict[str, Any]:
    """Return all that distinguishes this training from another one."""
    digest = hashlib.sha256(repr(data.library.names).encode("utf-8", "surrogateescape"))
    for array in (data.names, data.split.train, data.split.val):
        digest.update(array.tobytes())
    options = {name: value for name, value in asdict(config).items() if name != "refit"}
    return {
        **options,
        **stopping._asdict(),
        "stage": list(backbone.names),
        "backbone": data.library.fingerprint,
        "images and labels": digest.hexdigest()[:16],
    }


def _run_epochs(
    tuner: FineTuner,
    stopping: EarlyStopping,
    validator: Validator | None,
    file: Checkpoint | None,
    state: Mapping[str, Any] | None,
    *,
    progress: bool,
) -> tuple[Epoch, ...]:
    """Run the epochs that are not yet in the checkpoint; epoch 0 is the head alone."""
    head, history, best = tuner.head.network, [], None
    if validator:
        history = [Epoch(0, math.nan, validator.score(head.to_head()))]
    if state:
        tuner.resume(state["tuner"])
        history, best = [Epoch(*epoch) for epoch in state["history"]], state["best"]

    def save(history: Sequence[Epoch], best: Mapping[str, Any]) -> None:
        if file:
            epochs = [list(epoch) for epoch in history]
            file.write({"tuner": tuner.state(), "best": best, "history": epochs})

    validate = (
        (lambda: validator.score(head.to_head(), tuner.embed(validator.rows)))
        if validator
        else None
    )
    return run_epochs(
        tuner, stopping, validate, history=history, best=best, save=save, progress=progress
    )


def _report(
    data: TrainingData,
    tuner: FineTuner,
    head_alone: ProjectionHead,
    *,
    progress: bool,
    **training: Any,  # noqa: ANN401
) -> TrainedHead:
    """Embed the images of the report with the tuned network, and compare it with a head alone."""
    network, frozen = tuner.backbone.finish(), tuner.backbone.backbone
    plain = Backbone(network, frozen.device, frozen.precision, "auto")
    backbone = made_like(plain, frozen.fingerprint)
    embedded, readable = _embed_split(data, backbone, progress=progress)
    readable[[*tuner.loader.unreadable]] = False
    alone, alone_left_out = evaluate_splits(data, data.library.with_head(head_alone), readable)
    return TrainedHead.evaluated(
        data,
        tuner.head.network.to_head(backbone.fingerprint),
        embedded,
        readable,
        rows=data.split.train[readable[data.split.train]],
        tuned=network,
        backbone=backbone,
        stage=tuner.backbone.names,
        alone=alone,
        alone_left_out=alone_left_out,
        unreadable=int((~readable).sum()),
        **training,
    )


def _embed_split(
    data: TrainingData, backbone: Backbone, *, progress: bool
) -> tuple[ImageLibrary, NDArray[np.bool_]]:
    """Embed the rows of the split; return the library, and which rows can be read."""
    library = data.library
    embeddings, readable = np.array(library.embeddings), np.ones(len(library), bool)
    rows = np.unique(np.concatenate(data.split))
    sources = library.paths[rows].tolist()
    with tqdm(desc="Embedding", total=len(rows), unit="image", disable=not progress) as bar:
        for batch in embed_batches(sources, backbone):
            embeddings[rows[batch.positions]] = batch.embeddings
            readable[rows[[i for i, _ in batch.failures]]] = False
            bar.update(len(batch.positions) + len(batch.failures))
    return ImageLibrary(embeddings, library.paths, backbone), readable
