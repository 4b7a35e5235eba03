"""A whole fine-tuning: head first, then stage and head together, then the comparison of both."""

from __future__ import annotations

import hashlib
import logging
import math
import time
from contextlib import nullcontext
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from tqdm.auto import tqdm

from simsearch.backbones.backbone import Backbone
from simsearch.embedding.batching import embed_batches
from simsearch.library.library import ImageLibrary
from simsearch.training.augmentation import TrainingImages
from simsearch.training.checkpoint import Checkpoint
from simsearch.training.config import TrainConfig
from simsearch.training.finetune import Tuner
from simsearch.training.report import TrainedHead, compare, evaluate_rows, report_rows
from simsearch.training.sampler import BalancedSampler
from simsearch.training.stage import Stage
from simsearch.training.trainer import (
    Epoch,
    best_epoch,
    fit_head,
    refit_head,
    seeded_torch,
    train_epochs,
)
from simsearch.training.validation import Validation

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence
    from typing import Any

    from numpy.typing import NDArray

    from simsearch.training.split import Split
    from simsearch.training.trainer import HeadLearner

logger = logging.getLogger("simsearch")


HEAD_RATE_FACTOR = 0.1  # the head is trained already when the stage begins to learn


GALLERY_IMAGES = 1_500  # of the validation: each is embedded after every epoch


class FineTuning(NamedTuple):
    """A fine-tuning that is to be done."""

    library: ImageLibrary
    names: NDArray[np.str_]
    split: Split
    config: TrainConfig
    stage: Stage

    def run(self, checkpoint: str | os.PathLike[str] | None, *, progress: bool) -> TrainedHead:
        """Train a head, then the stage and the head together; report both."""
        library, split, start = self.library, self.split, time.perf_counter()
        file = None if checkpoint is None else Checkpoint(checkpoint, self._settings())
        with file.hold() if file else nullcontext() as state:
            validation = None
            if len(split.val):
                validation = Validation(
                    library, self.names, split, self.config.seed, GALLERY_IMAGES
                )
            first = replace(self.config, epochs=None, patience=None)
            learner, epochs = fit_head(
                library, self.names, split.train, first, validation, progress=progress
            )
            head_alone, rows = learner, split.train
            if validation and self.config.refit:
                head_alone, rows = refit_head(
                    library, self.names, split, first, epochs, progress=progress
                )
            head_of_alone = head_alone.network.head(library.fingerprint)
            alone = library.with_head(head_of_alone)
            tuner = self._tuner(learner)
            with seeded_torch(self.config.seed, [self.stage.backbone.device]):
                history = self._run(tuner, learner, validation, file, state, progress=progress)
        seconds = time.perf_counter() - start
        if not best_epoch(history).number:
            logger.warning(
                "Fine-tuning gained nothing on the validation images: the head alone is returned."
            )
            report = compare(library, alone, self.names, split)
            return TrainedHead(head_of_alone, self.config.loss, history, rows, seconds, *report)
        return self._reported(
            learner, alone, tuner.images, history=history, seconds=seconds, progress=progress
        )

    def _reported(
        self,
        learner: HeadLearner,
        alone: ImageLibrary,
        images: TrainingImages,
        *,
        history: tuple[Epoch, ...],
        seconds: float,
        progress: bool,
    ) -> TrainedHead:
        """Embed what the report is about with the tuned network, and compare."""
        library, names, split = self.library, self.names, self.split
        network, frozen = self.stage.tuned(), self.stage.backbone
        head = learner.network.head(network.fingerprint)
        backbone = Backbone(network, frozen.device, frozen.precision)
        served, good = self._embed(backbone, progress=progress)
        good[[*images.unreadable]] = False
        known, left_out = (evaluate_rows(alone, names, *part) for part in report_rows(split, good))
        return TrainedHead(
            head,
            self.config.loss,
            history,
            split.train[good[split.train]],
            seconds,
            *compare(library, served.with_head(head), names, split, good),
            tuned=network,
            backbone=backbone,
            stage=self.stage.names,
            alone=known,
            alone_left_out=left_out,
            unreadable=int((~good).sum()),
        )

    def _settings(self) -> dict[str, Any]:
        """Return all that tells this training from another one."""
        digest = hashlib.sha256(repr(self.library.names).encode("utf-8", "surrogateescape"))
        for array in (self.names, self.split.train, self.split.val):
            digest.update(array.tobytes())
        return {
            **{name: value for name, value in asdict(self.config).items() if name != "refit"},
            "stage": list(self.stage.names),
            "backbone": self.library.fingerprint,
            "images and labels": digest.hexdigest()[:16],
        }

    def _tuner(self, learner: HeadLearner) -> Tuner:
        config, steps = (
            self.config,
            BalancedSampler(self.names, self.split.train, self.config, least=1),
        )
        for module in learner.modules.values():
            module.to(self.stage.backbone.device)

        def plan(number: int) -> BalancedSampler:
            steps.rng = np.random.default_rng([config.seed, number])
            return steps

        return Tuner(
            self.stage,
            TrainingImages(self.library.paths, self.stage.backbone),
            learner.modules,
            learner.loss,
            plan,
            steps=steps.count,
            epochs=config.max_epochs,
            rate=HEAD_RATE_FACTOR * config.learning_rate,
            stage_rate=config.stage_rate,
            weight_decay=config.weight_decay,
            seed=config.seed,
        )

    def _run(
        self,
        tuner: Tuner,
        learner: HeadLearner,
        validation: Validation | None,
        file: Checkpoint | None,
        state: Mapping[str, Any] | None,
        *,
        progress: bool,
    ) -> tuple[Epoch, ...]:
        """Run the epochs that are not yet in the checkpoint."""
        history, best = [], None
        if validation:
            history = [Epoch(0, math.nan, validation(learner.network.head()))]
        if state:
            tuner.resume(state["tuner"])
            history, best = [Epoch(*epoch) for epoch in state["history"]], state["best"]

        def keep(history: Sequence[Epoch], best: Mapping[str, Any]) -> None:
            if file:
                epochs = [list(epoch) for epoch in history]
                file.write({"tuner": tuner.state(), "best": best, "history": epochs})

        def measure() -> float:
            assert validation
            return validation(learner.network.head(), tuner.embed(validation.rows))

        return train_epochs(
            tuner,
            self.config,
            measure if validation else None,
            history=history,
            best=best,
            keep=keep,
            progress=progress,
        )

    def _embed(
        self, backbone: Backbone, *, progress: bool
    ) -> tuple[ImageLibrary, NDArray[np.bool_]]:
        """Embed what the report is about; return also which rows could be read."""
        library = self.library
        embeddings, good = np.array(library.embeddings), np.ones(len(library), bool)
        rows = np.unique(np.concatenate(self.split))
        sources = library.paths[rows].tolist()
        with tqdm(desc="Embedding", total=len(rows), unit="image", disable=not progress) as bar:
            for batch in embed_batches(sources, backbone):
                embeddings[rows[batch.positions]] = batch.embeddings
                good[rows[[i for i, _ in batch.failures]]] = False
                bar.update(len(batch.positions) + len(batch.failures))
        return ImageLibrary(embeddings, library.paths, backbone), good
