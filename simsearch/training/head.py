"""A head trained on labels: images of one class drawn together, those of other classes apart.

The backbone stays frozen, unless `finetune` opens its last stage. Its embeddings are in the library
already, so no image is decoded, and a minute does for thousands of images. What is reported comes
from `evaluate`, on images, and if asked on classes, that the training never saw.
"""

from __future__ import annotations

import hashlib
import logging
import math
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from tqdm.auto import tqdm

from simsearch.backbones.backbone import Backbone, load_backbone
from simsearch.backbones.spec import OWN_WEIGHTS
from simsearch.backbones.weights import save_weights
from simsearch.embedding.batching import embed_batches
from simsearch.embedding.reembed import reembed
from simsearch.errors import TrainingError
from simsearch.evaluation.evaluation import evaluate
from simsearch.library.files import writing
from simsearch.library.library import ImageLibrary
from simsearch.training.finetune import Checkpoint, Pictures, Stage, Tuner
from simsearch.training.trainer import (
    Epoch,
    Recipe,
    Steps,
    Watch,
    best_epoch,
    fit,
    metric_learning,
    run,
    seeded_torch,
    split_rows,
)

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from typing import Any, TypeAlias

    from numpy.typing import NDArray

    from simsearch.backbones.heads import ProjectionHead
    from simsearch.backbones.spec import ModelSpec
    from simsearch.evaluation.evaluation import Evaluation
    from simsearch.library.types import Labels, Rows
    from simsearch.training.trainer import HeadLearner, Split


logger = logging.getLogger("simsearch")

_EPOCHS, _PATIENCE = 25, 8  # of a head
_TUNING_EPOCHS, _TUNING_PATIENCE = 8, 3
_SLOWLY = 0.1  # of the head's learning rate: it has learned already when the stage begins
_AGAINST = 1_500  # images that validate a fine-tuning as the gallery: each is embedded every time


@dataclass(frozen=True, eq=False, repr=False)
class TrainedHead:
    """A head, and what it is worth on images that the training never saw.

    Prints as a small table. `apply` makes the library that it serves; without fine-tuning,
    `library.with_head(trained.head)` does so in memory.

    Attributes
    ----------
    head : ProjectionHead
    loss : str
        Name of the loss.
    history : tuple of Epoch
        With fine-tuning, epoch 0 is the head on the frozen backbone, which has no loss.
    rows : numpy.ndarray
        Rows of the library that it was trained on, rising.
    seconds : float
        Time that the training took, without the reports.
    before, after : Evaluation or None
        By the library's own embeddings and by the head's: images of the trained classes that took
        no part in training or validation, against the others. None if `validation` is 0.
    before_left_out, after_left_out : Evaluation or None
        The same for the images of the classes in `leave_out`, against all; None without any.
    tuned : Network or None
        The fine-tuned network, whose embeddings the head takes; None if that is the library's own.
    backbone : Backbone or None
        The same, frozen and ready to embed.
    stage : tuple of str
        Names of its modules that were opened.
    alone, alone_left_out : Evaluation or None
        What the head that `train_head` makes without fine-tuning gives for the same queries.
    unreadable : int
        Images that could not be read any more, and took no part in the training or the report.
    """

    head: ProjectionHead
    loss: str
    history: tuple[Epoch, ...]
    rows: NDArray[np.intp]
    seconds: float
    before: Evaluation | None
    after: Evaluation | None
    before_left_out: Evaluation | None
    after_left_out: Evaluation | None
    tuned: ModelSpec | None = None
    backbone: Backbone | None = None
    stage: tuple[str, ...] = ()
    alone: Evaluation | None = None
    alone_left_out: Evaluation | None = None
    unreadable: int = 0

    def __str__(self) -> str:
        lines = [
            f"{self.head!r}, {self.loss} loss: {self.history[-1].number} epochs of "
            f"{len(self.rows):,} images in {self.seconds:.0f} s"
        ]
        if self.tuned:
            lines.append(f"with {', '.join(self.stage)} of {self.tuned.name} fine-tuned")
        if self.unreadable:
            lines.append(f"without {self.unreadable:,} images that cannot be read")
        for what, *reports in (
            ("images", self.before, self.after, self.alone),
            ("classes", self.before_left_out, self.after_left_out, self.alone_left_out),
        ):
            lines += _table(what, *reports)
        return "\n".join(lines)

    __repr__ = __str__

    def apply(
        self, library: ImageLibrary, outputs: str | os.PathLike[str], *, progress: bool = True
    ) -> ImageLibrary:
        """Make the library of the same images that this head serves, and save it.

        Without fine-tuning no image is decoded. With it, every image passes through the tuned
        backbone; that may be stopped and run again. The backbone's weights are saved beside the
        library, which can then be opened, searched and brought up to date as any other, and moved
        as a whole. Only the library of a module of your own has to be opened with
        ``ImageLibrary.load(outputs, backbone=load_backbone(trained.tuned.module, transform=...))``.

        Parameters
        ----------
        library
            The one that it was trained on; with fine-tuning, any library.
        outputs
            Folder of the new library; what is there is replaced in the end.
        progress
            Show a progress bar.

        Raises
        ------
        BackboneError, LibraryError
            As `ImageLibrary.with_head` and `ImageLibrary.save`.
        DatasetError
            If no image can be read.
        """
        if self.tuned is None or self.backbone is None:
            derived = library.with_head(self.head)
            derived.save(outputs)
            return derived
        with writing(outputs) as folder:
            file = folder / f"backbone-{self.tuned.fingerprint}.safetensors"
            save_weights(self.tuned, file)
        backbone = _loaded(self.tuned, file, self.backbone)
        made = reembed(library, folder, backbone, self.head, progress=progress)
        for older in set(folder.glob("backbone-*.safetensors")) - {file}:
            older.unlink()
        return made


def _table(
    what: str, before: Evaluation | None, after: Evaluation | None, alone: Evaluation | None
) -> list[str]:
    """Write the lines of one comparison."""
    if not before or not after:
        return []
    lines = [f"{what} that training never saw ({len(after.rows):,} queries):"]
    for name, value in after.overall.items():
        if name == "mAP" or name.startswith("precision@"):
            line = f"  {name:<12}  {before.overall[name].value:.3f} -> {value.value:.3f}"
            line += f"  ({alone.overall[name].value:.3f} by a head alone)" if alone else ""
            lines.append(line)
    return lines


def _loaded(tuned: ModelSpec, file: Path, like: Backbone) -> Backbone:
    """Load a tuned network as a library's users will, where it was trained."""
    if tuned.weights == OWN_WEIGHTS:
        return like
    return load_backbone(tuned.name, file, device=like.device, precision=like.precision)


def train_head(
    library: ImageLibrary,
    labels: Labels = "folder",
    on: Rows = None,
    *,
    dim: int = 256,
    loss: str = "triplet",
    mining: str = "semihard",
    margin: float = 0.15,
    keep: float = 0.3,
    hidden: int | None = 512,
    dropout: float = 0.3,
    epochs: int | None = None,
    patience: int | None = None,
    batch_size: int = 96,
    learning_rate: float = 1e-3,
    weight_decay: float = 0.0,
    validation: float = 0.1,
    refit: bool = True,
    leave_out: Sequence[str] = (),
    finetune: bool = False,
    stage: str | Sequence[str] | None = None,
    stage_rate: float = 1e-5,
    checkpoint: str | os.PathLike[str] | None = None,
    seed: int = 0,
    progress: bool = True,
) -> TrainedHead:
    """Train a small head on the frozen embeddings of a labelled library.

    Images without a label, and classes of a single image, are left out. The same seed gives the
    same head on the same machine.

    With `finetune`, the backbone's last stage then learns as well, together with the head: from
    the images themselves, so that an epoch takes about as long as embedding them three times. That
    is for machines with a GPU, or for few images. It needs more images a class than a head does;
    the report says what it adds to one. Where the validation images gain nothing by it, a head
    alone is what is returned.

    Parameters
    ----------
    library
        From `embed_dataset`, `ImageLibrary.load` or `with_head`. To fine-tune, one without a head;
        its backbone's device is the one that is used.
    labels
        What `ImageLibrary.label_rows` takes.
    on
        What `ImageLibrary.select` takes: the images to train and validate on, such as
        "seg_train/*". Labelled images outside are then what the report is about; without any,
        images are set aside for it.
    dim
        Width of the new embeddings.
    loss
        "triplet", "contrastive", "multi-similarity", "arcface" or "supcon".
    mining
        Which triplets count: "semihard", "hard" or "all".
    margin
        Of the triplet loss, between the distances of two unit vectors.
    keep
        Weight of the backbone's own cosine, centred, in the score, in [0, 1). Little serves the
        classes that are trained on best; about 0.6 keeps what the backbone knows of all others.
    hidden
        Width of the hidden layer; None for a linear head.
    dropout
        Share of the features that are hidden at each step.
    epochs, patience
        Passes at most, and those without a better validation mAP after which training stops. The
        best epoch's head is kept. 25 and 8 if not given; with `finetune` they are about the
        fine-tuning, 8 and 3 if not given.
    batch_size, learning_rate, weight_decay
        Of AdamW, with one cycle of the learning rate.
    validation
        Share of each class that tells when to stop, and again the share that is set aside for the
        report. With 0 there is neither, and the last epoch counts.
    refit
        Train once more in the end, on the validation images as well, for as many epochs as were
        best if training stopped early, and for all otherwise: more to learn from, for twice the
        time. With `finetune`, that is done for the head alone, which it has to surpass.
    leave_out
        Classes that take no part in the training, to see what the head does to unknown ones.
    finetune
        Open the backbone's last stage. Its batch norms keep their statistics; the images are cut,
        mirrored and varied in colour at random; products are in half precision where that is fast.
    stage
        Names of the modules to open, as the network's `named_modules` has them, such as "layer4".
        If not given, the last ones that together hold a quarter of the parameters.
    stage_rate
        The learning rate of the stage; the head then learns at a tenth of `learning_rate`.
    checkpoint
        A folder that is to hold the fine-tuning after each epoch. Run again with the same
        arguments, a training that was stopped in any way goes on after its last whole epoch.
    seed
        Of everything that is drawn at random.
    progress
        Show progress bars, with the validation mAP.

    Returns
    -------
    TrainedHead

    Raises
    ------
    TrainingError
        If there are not two classes of two images to train on, if a parameter is out of range, or
        if the loss is no longer a number; with `finetune`, also if no image can be read, if the
        library has a head, or if the checkpoint is of another training.
    BackboneError
        If the backbone to be fine-tuned cannot be loaded.
    QueryError
        If `labels` or `on` do not fit the library.
    MissingExtraError
        If pytorch-metric-learning is not installed.
    """
    recipe = Recipe(
        dim=dim,
        loss=loss,
        mining=mining,
        margin=margin,
        keep=keep,
        hidden=hidden,
        dropout=dropout,
        epochs=_EPOCHS if epochs is None else epochs,
        patience=_PATIENCE if patience is None else patience,
        batch_size=batch_size,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        validation=validation,
        stage_rate=stage_rate,
        seed=seed,
    )
    if not finetune and (stage is not None or checkpoint is not None):
        raise TrainingError("stage= and checkpoint= go with finetune=True")
    metric_learning()
    names = library.label_rows(labels)
    split = split_rows(names, library.select(on), leave_out, recipe)
    if finetune:
        tuning = replace(
            recipe, epochs=epochs or _TUNING_EPOCHS, patience=patience or _TUNING_PATIENCE
        )
        task = _Tuning(library, names, split, tuning, _open(library, stage), refit)
        return task.run(checkpoint, progress=progress)
    start = time.perf_counter()
    watch = Watch(library, names, split, seed) if len(split.watch) else None
    rows = split.fit
    learner, history = fit(library, names, rows, recipe, watch, progress=progress)
    if watch and refit:
        learner, rows = _refit(library, names, split, recipe, history, progress=progress)
    seconds = time.perf_counter() - start
    head = learner.network.head(library.fingerprint)
    report = _report(library, library.with_head(head), names, split)
    return TrainedHead(head, loss, history, rows, seconds, *report)


def _refit(
    library: ImageLibrary,
    names: NDArray[np.str_],
    split: Split,
    recipe: Recipe,
    history: Sequence[Epoch],
    *,
    progress: bool,
) -> tuple[HeadLearner, NDArray[np.intp]]:
    """Train once more, on the validation images as well; return also what it learned from."""
    rows = np.union1d(split.fit, split.watch)
    stopped = len(history) < recipe.epochs
    again = replace(recipe, epochs=best_epoch(history).number if stopped else recipe.epochs)
    learner, _ = fit(library, names, rows, again, progress=progress)
    return learner, rows


_Found: TypeAlias = "Evaluation | None"


def _report(
    before: ImageLibrary,
    after: ImageLibrary,
    names: NDArray[np.str_],
    split: Split,
    good: NDArray[np.bool_] | None = None,
) -> tuple[_Found, _Found, _Found, _Found]:
    """Evaluate both libraries alike: on unseen images, then on those of the classes left out."""
    known, left_out = _parts(split, good)
    return (
        _evaluate(before, names, *known),
        _evaluate(after, names, *known),
        _evaluate(before, names, *left_out),
        _evaluate(after, names, *left_out),
    )


_Part: TypeAlias = "tuple[NDArray[np.intp], NDArray[np.intp]]"


def _parts(split: Split, good: NDArray[np.bool_] | None = None) -> tuple[_Part, _Part]:
    """Return queries and gallery of both parts of a report, of the rows that are good."""
    seen = np.union1d(split.fit, split.watch)
    rows = (split.unseen, seen, split.left_queries, np.union1d(seen, split.left_gallery))
    queries, gallery, others, all_seen = rows if good is None else (x[good[x]] for x in rows)
    return (queries, gallery), (others, all_seen)


def _evaluate(
    library: ImageLibrary,
    names: NDArray[np.str_],
    queries: NDArray[np.intp],
    gallery: NDArray[np.intp],
) -> Evaluation | None:
    """Evaluate rows; nothing where there is no query."""
    if not len(queries):
        return None
    depth = min(10, len(gallery) - 1)
    return evaluate(library, names, queries, gallery, depth, progress=False)


def _open(library: ImageLibrary, stage: str | Sequence[str] | None) -> Stage:
    """Open the last stage of what made a library."""
    if library.head:
        raise TrainingError(
            f"{library!r} has a head, through which no gradient passes: fine-tune the library "
            "that embed_dataset made"
        )
    return Stage(library.backbone, stage)


class _Tuning(NamedTuple):
    """A fine-tuning that is to be done."""

    library: ImageLibrary
    names: NDArray[np.str_]
    split: Split
    recipe: Recipe
    stage: Stage
    refit: bool

    def run(self, checkpoint: str | os.PathLike[str] | None, *, progress: bool) -> TrainedHead:
        """Train a head, then the stage and the head together; report both."""
        library, split, start = self.library, self.split, time.perf_counter()
        file = None if checkpoint is None else Checkpoint(checkpoint, self._settings())
        with file.hold() if file else nullcontext() as state:
            watch = None
            if len(split.watch):
                watch = Watch(library, self.names, split, self.recipe.seed, _AGAINST)
            first = replace(self.recipe, epochs=_EPOCHS, patience=_PATIENCE)
            learner, epochs = fit(library, self.names, split.fit, first, watch, progress=progress)
            rival, rows = learner, split.fit
            if watch and self.refit:
                rival, rows = _refit(library, self.names, split, first, epochs, progress=progress)
            rival_head = rival.network.head(library.fingerprint)
            alone = library.with_head(rival_head)
            tuner = self._tuner(learner)
            with seeded_torch(self.recipe.seed, [self.stage.backbone.device]):
                history = self._run(tuner, learner, watch, file, state, progress=progress)
        seconds = time.perf_counter() - start
        if not best_epoch(history).number:
            logger.warning(
                "Fine-tuning gained nothing on the validation images: the head alone is returned."
            )
            report = _report(library, alone, self.names, split)
            return TrainedHead(rival_head, self.recipe.loss, history, rows, seconds, *report)
        return self._reported(
            learner, alone, tuner.pictures, history=history, seconds=seconds, progress=progress
        )

    def _reported(
        self,
        learner: HeadLearner,
        alone: ImageLibrary,
        pictures: Pictures,
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
        good[[*pictures.unreadable]] = False
        known, left_out = (_evaluate(alone, names, *part) for part in _parts(split, good))
        return TrainedHead(
            head,
            self.recipe.loss,
            history,
            split.fit[good[split.fit]],
            seconds,
            *_report(library, served.with_head(head), names, split, good),
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
        for array in (self.names, self.split.fit, self.split.watch):
            digest.update(array.tobytes())
        return {
            **asdict(self.recipe),
            "stage": list(self.stage.names),
            "backbone": self.library.fingerprint,
            "images and labels": digest.hexdigest()[:16],
        }

    def _tuner(self, learner: HeadLearner) -> Tuner:
        recipe, steps = self.recipe, Steps(self.names, self.split.fit, self.recipe, least=1)
        for module in learner.modules.values():
            module.to(self.stage.backbone.device)

        def plan(number: int) -> Steps:
            steps.rng = np.random.default_rng([recipe.seed, number])
            return steps

        return Tuner(
            self.stage,
            Pictures(self.library.paths, self.stage.backbone),
            learner.modules,
            learner.loss,
            plan,
            steps=steps.count,
            epochs=recipe.epochs,
            rate=_SLOWLY * recipe.learning_rate,
            stage_rate=recipe.stage_rate,
            weight_decay=recipe.weight_decay,
            seed=recipe.seed,
        )

    def _run(
        self,
        tuner: Tuner,
        learner: HeadLearner,
        watch: Watch | None,
        file: Checkpoint | None,
        state: Mapping[str, Any] | None,
        *,
        progress: bool,
    ) -> tuple[Epoch, ...]:
        """Run the epochs that are not yet in the checkpoint."""
        history, best = [], None
        if watch:
            history = [Epoch(0, math.nan, watch(learner.network.head()))]
        if state:
            tuner.resume(state["tuner"])
            history, best = [Epoch(*epoch) for epoch in state["history"]], state["best"]

        def keep(history: Sequence[Epoch], best: Mapping[str, Any]) -> None:
            if file:
                epochs = [list(epoch) for epoch in history]
                file.write({"tuner": tuner.state(), "best": best, "history": epochs})

        def reached() -> float:
            assert watch
            return watch(learner.network.head(), tuner.embed(watch.rows))

        return run(
            tuner,
            self.recipe,
            reached if watch else None,
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
