"""A head trained on labels: images of one class drawn together, those of other classes apart.

The backbone stays frozen. Its embeddings are in the library already, so no image is decoded, and
a minute does for thousands of images. What is reported comes from `evaluate`, on images, and if
asked on classes, that the training never saw.

The triplet loss with semi-hard mining is FaceNet's [1]_, with hard mining that of [2]_; both and
the other losses are run by pytorch-metric-learning [3]_.

.. [1] F. Schroff, D. Kalenichenko, J. Philbin. FaceNet: A Unified Embedding for Face Recognition
   and Clustering. CVPR 2015.
.. [2] A. Hermans, L. Beyer, B. Leibe. In Defense of the Triplet Loss for Person Re-Identification.
   arXiv:1703.07737, 2017.
.. [3] K. Musgrave, S. Belongie, S.-N. Lim. PyTorch Metric Learning. arXiv:2008.09164, 2020.
"""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
from tqdm.auto import tqdm

from simsearch.backbones import own_torch_threads
from simsearch.errors import MissingExtraError, TrainingError
from simsearch.heads import Layer, ProjectionHead
from simsearch.library import ImageLibrary, Labels, Rows
from simsearch.metrics import Evaluation, evaluate

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    Loss: TypeAlias = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

logger = logging.getLogger("simsearch")

_SAMPLE = 20_000  # rows that tell the mean, the spread and the principal axes
_WATCHED, _AGAINST = 500, 5_000  # queries and gallery of the validation after each epoch
_STEPS = 20  # of an epoch at least, so that few images are learned from as thoroughly as many
_PER_CLASS = 4  # images at least that a batch holds of each of its classes
_DIVERGED = 1e6  # no weight of standardised features comes near it
_SOFTENING = 0.05  # of the mean spread, added to each: a feature that hardly varies stays small


class Epoch(NamedTuple):
    """One pass over the training images: its mean loss, and the mAP on the validation images."""

    number: int
    loss: float
    mAP: float  # noqa: N815 (its name everywhere)


@dataclass(frozen=True, eq=False, repr=False)
class TrainedHead:
    """A head, and what it is worth on images that the training never saw.

    Prints as a small table. `library.with_head(trained.head)` puts it to use.

    Attributes
    ----------
    head : ProjectionHead
    loss : str
        Name of the loss.
    history : tuple of Epoch
    rows : numpy.ndarray
        Rows of the library that it was trained on, rising.
    seconds : float
        Time that the training took, without the reports.
    before, after : Evaluation or None
        By the library's own embeddings and by the head's: images of the trained classes that took
        no part in training or validation, against the others. None if `validation` is 0.
    before_left_out, after_left_out : Evaluation or None
        The same for the images of the classes in `leave_out`, against all; None without any.
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

    def __str__(self) -> str:
        lines = [
            f"{self.head!r}, {self.loss} loss: {len(self.history)} epochs of {len(self.rows):,} "
            f"images in {self.seconds:.0f} s"
        ]
        for what, before, after in (
            ("images", self.before, self.after),
            ("classes", self.before_left_out, self.after_left_out),
        ):
            if before and after:
                lines.append(f"{what} that training never saw ({len(after.rows):,} queries):")
                lines += [
                    f"  {name:<12}  {before.overall[name].value:.3f} -> {value.value:.3f}"
                    for name, value in after.overall.items()
                    if name == "mAP" or name.startswith("precision@")
                ]
        return "\n".join(lines)

    __repr__ = __str__


def train_head(
    library: ImageLibrary,
    labels: Labels = "folder",
    on: Rows = None,
    *,
    dim: int = 256,
    loss: str = "triplet",
    mining: str = "semihard",
    margin: float = 0.15,
    keep: float = 0.1,
    hidden: int | None = 512,
    dropout: float = 0.3,
    epochs: int = 25,
    patience: int = 8,
    batch_size: int = 96,
    learning_rate: float = 1e-3,
    weight_decay: float = 0.0,
    validation: float = 0.1,
    refit: bool = True,
    leave_out: Sequence[str] = (),
    seed: int = 0,
    progress: bool = True,
) -> TrainedHead:
    """Train a small head on the frozen embeddings of a labelled library.

    Images without a label, and classes of a single image, are left out. The same seed gives the
    same head on the same machine.

    Parameters
    ----------
    library
        From `embed_dataset`, `ImageLibrary.load` or `with_head`.
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
        classes that are trained on best; about 0.65 keeps what the backbone knows of all others.
    hidden
        Width of the hidden layer; None for a linear head.
    dropout
        Share of the features that are hidden at each step.
    epochs, patience
        Passes at most, and those without a better validation mAP after which training stops. The
        best epoch's head is kept.
    batch_size, learning_rate, weight_decay
        Of AdamW, with one cycle of the learning rate.
    validation
        Share of each class that tells when to stop, and again the share that is set aside for the
        report. With 0 there is neither, and the last epoch counts.
    refit
        Train once more in the end, on the validation images as well, for as many epochs as were
        best if training stopped early, and for all otherwise: more to learn from, for twice the
        time.
    leave_out
        Classes that take no part in the training, to see what the head does to unknown ones.
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
        if the loss is no longer a number.
    QueryError
        If `labels` or `on` do not fit the library.
    MissingExtraError
        If pytorch-metric-learning is not installed.
    """
    recipe = _Recipe(
        dim=dim,
        loss=loss,
        mining=mining,
        margin=margin,
        keep=keep,
        hidden=hidden,
        dropout=dropout,
        epochs=epochs,
        patience=patience,
        batch_size=batch_size,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        validation=validation,
        seed=seed,
    )
    _metric_learning()
    names = library.label_rows(labels)
    split = _split(names, library.select(on), leave_out, recipe)
    watch = _Watch(library, names, split, seed) if len(split.watch) else None
    start = time.perf_counter()
    rows = split.fit
    network, history = _fit(library, names, rows, recipe, watch, progress=progress)
    if watch and refit:
        rows = np.union1d(split.fit, split.watch)
        stopped = len(history) < epochs
        again = replace(recipe, epochs=best_epoch(history).number if stopped else epochs)
        network, _ = _fit(library, names, rows, again, progress=progress)
    seconds = time.perf_counter() - start
    head = network.head(library.fingerprint)
    derived = library.with_head(head)
    seen = np.union1d(split.fit, split.watch)
    return TrainedHead(
        head,
        loss,
        history,
        rows,
        seconds,
        *_report(library, derived, names, split.unseen, seen),
        *_report(library, derived, names, split.left_queries, np.union1d(seen, split.left_gallery)),
    )


def _report(
    before: ImageLibrary,
    after: ImageLibrary,
    names: NDArray[np.str_],
    queries: NDArray[np.intp],
    gallery: NDArray[np.intp],
) -> tuple[Evaluation | None, Evaluation | None]:
    """Evaluate both libraries alike; nothing where there is no query."""
    if not len(queries):
        return None, None
    depth = min(10, len(gallery) - 1)
    first, second = (
        evaluate(library, names, queries, gallery, depth, progress=False)
        for library in (before, after)
    )
    return first, second


@dataclass(frozen=True, kw_only=True)
class _Recipe:
    """The parameters of `train_head`, checked."""

    dim: int
    loss: str
    mining: str
    margin: float
    keep: float
    hidden: int | None
    dropout: float
    epochs: int
    patience: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    validation: float
    seed: int

    def __post_init__(self) -> None:
        for name, known in (("loss", list(_LOSSES)), ("mining", list(_MINING))):
            if getattr(self, name) not in known:
                raise TrainingError(
                    f"{name}={getattr(self, name)!r} is unknown; choose from {', '.join(known)}"
                )
        for name, low, high in _RANGES:
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise TrainingError(f"{name}={value}: give a number from {low:g} to {high:g}")


_RANGES = (
    ("dim", 2, 2**16),
    ("margin", 0, 2),
    ("keep", 0, 0.99),
    ("hidden", 1, 2**16),
    ("dropout", 0, 0.95),
    ("epochs", 1, 10_000),
    ("patience", 1, 10_000),
    ("batch_size", 4, 2**16),
    ("learning_rate", 1e-12, math.inf),
    ("weight_decay", 0, math.inf),
    ("validation", 0, 0.4),
)


# Who trains, who watches, who is asked in the end


class _Split(NamedTuple):
    """Rows of a library, each kind rising."""

    fit: NDArray[np.intp]  # trained on
    watch: NDArray[np.intp]  # tell when to stop
    unseen: NDArray[np.intp]  # of the report
    left_queries: NDArray[np.intp]  # of classes that are left out
    left_gallery: NDArray[np.intp]


def _split(
    names: NDArray[np.str_], on: NDArray[np.bool_], leave_out: Sequence[str], recipe: _Recipe
) -> _Split:
    """Share out the labelled rows, class by class."""
    left_out = _classes(names, leave_out)
    left = np.isin(names, left_out)
    usable = _usable(names[on & (names != "") & ~left])
    outside = np.flatnonzero(np.isin(names, usable) & ~on)
    rng = np.random.default_rng(recipe.seed)
    parts: list[list[NDArray[np.intp]]] = [[], [], []]
    for name in usable:
        rows = rng.permutation(np.flatnonzero(on & (names == name)))
        share = round(recipe.validation * len(rows)) or bool(recipe.validation)
        share = min(share, (len(rows) - 2) // 2)  # two are left to learn from
        cuts = [share, share if len(outside) else 2 * share]
        for part, piece in zip(parts, np.split(rows, cuts), strict=True):
            part.append(piece)
    watch, aside, fit = (np.sort(np.concatenate(part)) for part in parts)
    left_on, left_off = np.flatnonzero(left & on), np.flatnonzero(left & ~on)
    return _Split(
        fit=fit,
        watch=watch,
        unseen=outside if len(outside) else aside,
        left_queries=left_off if len(left_off) else left_on,
        left_gallery=left_on,
    )


def _usable(names: NDArray[np.str_]) -> NDArray[np.str_]:
    """Return the classes of at least two images, of which there must be two."""
    classes, counts = np.unique(names, return_counts=True)
    usable = classes[counts >= 2]
    if len(usable) < 2:
        found = [f"{name} ({n})" for name, n in zip(classes[:5], counts, strict=False)]
        raise TrainingError(
            "a head learns from at least two classes of two images or more, and there are only "
            f"{', '.join(found) or 'images without a label'}: keep the images in one folder a "
            "class (dataset/forest/1.jpg), choose others with on=, or give labels="
        )
    if len(usable) < len(classes):
        logger.warning(
            "Training without %d classes of a single image, such as %s.",
            *(len(classes) - len(usable), classes[counts < 2][0]),
        )
    return usable


def _classes(names: NDArray[np.str_], leave_out: Sequence[str]) -> list[str]:
    """Check the names of the classes that are left out."""
    chosen = [leave_out] if isinstance(leave_out, str) else list(leave_out)
    known = sorted(set(names.tolist()) - {""})
    for name in chosen:
        if name not in known:
            raise TrainingError(
                f"leave_out={name!r} is no class; there are {', '.join(known[:20])}"
            )
    return chosen


# The network, while it learns


class _Network:
    """The learning part of a `ProjectionHead`, and the standardisation before it."""

    def __init__(self, library: ImageLibrary, fit: NDArray[np.intp], recipe: _Recipe) -> None:
        sample = np.random.default_rng(recipe.seed).permutation(fit)[:_SAMPLE]
        rows = np.asarray(library.embeddings[np.sort(sample)])
        self.mean, spread = rows.mean(axis=0), rows.std(axis=0)
        self.scale = spread + max(_SOFTENING * spread.mean(), np.finfo(np.float32).tiny)
        self.keep, self.kept = recipe.keep, None
        if recipe.keep:
            self.kept = _principal(rows - self.mean, self.mean, recipe.dim // 2)
        self.dim = recipe.dim - (len(self.kept[0]) if self.kept else 0)
        self.module = _layers([library.dim, recipe.hidden, self.dim], recipe.dropout)
        self.parameters = self.module.parameters

    def __call__(self, rows: NDArray[np.float32]) -> torch.Tensor:
        import torch

        standard = torch.from_numpy((rows - self.mean) / self.scale)
        return torch.nn.functional.normalize(self.module(standard))

    def head(self, source: str = "") -> ProjectionHead:
        """Fold the standardisation into the first layer."""
        from torch import nn

        linear = [x for x in self.module if isinstance(x, nn.Linear)]
        layers = [
            (x.weight.detach().numpy().copy(), x.bias.detach().numpy().copy()) for x in linear
        ]
        weight, bias = layers[0]
        layers[0] = weight / self.scale, bias - (weight / self.scale) @ self.mean
        return ProjectionHead(layers, source, self.kept, self.keep)


def _layers(widths: Sequence[int | None], dropout: float) -> torch.nn.Sequential:
    """Make linear layers with ReLU and dropout between them; a width of None is no layer."""
    from torch import nn

    sizes = [width for width in widths if width]
    layers: list[nn.Module] = []
    for i, width in enumerate(sizes[1:]):
        layers += [nn.ReLU()] if i else []
        layers += [nn.Dropout(dropout), nn.Linear(sizes[i], width)]
    return nn.Sequential(*layers)


def _principal(centred: NDArray[np.float32], mean: NDArray[np.float32], dim: int) -> Layer:
    """Make the layer that centres and rotates onto the widest directions."""
    _, axes = np.linalg.eigh(centred.T.astype(np.float64) @ centred)
    weight = axes.T[::-1][:dim].astype(np.float32)  # (dim, D)
    return weight, -weight @ mean


@contextmanager
def _quiet_torch(seed: int) -> Iterator[None]:
    """Seed PyTorch, on one thread, and put both back afterwards.

    The products are so small that threads would mostly wait for each other: on two busy cores,
    one thread was four times as fast.
    """
    import torch

    with torch.random.fork_rng(devices=[]), own_torch_threads():
        torch.manual_seed(seed)
        torch.set_num_threads(1)
        yield


# Losses


def _metric_learning() -> Any:  # noqa: ANN401
    try:
        import pytorch_metric_learning.losses
        import pytorch_metric_learning.miners
    except ImportError as error:
        raise MissingExtraError('train_head needs: pip install "simsearch[train]"') from error
    return pytorch_metric_learning


_MINING: dict[str, Callable[[Any, float], Any]] = {
    "semihard": lambda miners, margin: miners.TripletMarginMiner(margin, "semihard"),
    "hard": lambda miners, _: miners.BatchHardMiner(),
    "all": lambda miners, margin: miners.TripletMarginMiner(margin, "all"),
}

_LOSSES: dict[str, Callable[[Any, float, int, int], Any]] = {
    "triplet": lambda losses, margin, _, __: losses.TripletMarginLoss(margin),
    "contrastive": lambda losses, *_: losses.ContrastiveLoss(),
    "multi-similarity": lambda losses, *_: losses.MultiSimilarityLoss(),
    "arcface": lambda losses, _, classes, dim: losses.ArcFaceLoss(classes, dim, scale=16),
    "supcon": lambda losses, *_: losses.SupConLoss(),
}


def _criterion(recipe: _Recipe, classes: int, dim: int) -> torch.nn.Module:
    """Return the loss as a module of embeddings (B, dim) and class numbers (B,)."""
    import torch

    package = _metric_learning()
    mined = recipe.loss == "triplet"
    miner = _MINING[recipe.mining](package.miners, recipe.margin) if mined else None

    class Criterion(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.measure = _LOSSES[recipe.loss](package.losses, recipe.margin, classes, dim)

        def forward(self, embeddings: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
            chosen = (miner(embeddings, codes),) if miner else ()
            value: torch.Tensor = self.measure(embeddings, codes, *chosen)
            return value

    return Criterion()


# Training


class _Steps:
    """Balanced batches: as many images of each class, drawn again where there are too few."""

    def __init__(
        self,
        embeddings: NDArray[np.float32],
        names: NDArray[np.str_],
        fit: NDArray[np.intp],
        recipe: _Recipe,
    ) -> None:
        self.embeddings, self.rng = embeddings, np.random.default_rng(recipe.seed)
        self.members = [fit[names[fit] == name] for name in np.unique(names[fit])]
        self.classes = max(2, min(len(self.members), recipe.batch_size // _PER_CLASS))
        self.each = max(2, recipe.batch_size // self.classes)
        self.count = max(_STEPS, round(len(fit) / (self.classes * self.each)))

    def __iter__(self) -> Iterator[tuple[NDArray[np.float32], NDArray[np.intp]]]:
        """Yield one epoch of (B, D) embeddings with their (B,) class numbers."""
        for _ in range(self.count):
            codes = self.rng.choice(len(self.members), self.classes, replace=False)
            rows = [
                self.rng.choice(self.members[code], self.each, len(self.members[code]) < self.each)
                for code in codes
            ]
            yield np.asarray(self.embeddings[np.concatenate(rows)]), np.repeat(codes, self.each)


class _Watch:
    """The validation images: after each epoch, how well they find their class."""

    def __init__(
        self, library: ImageLibrary, names: NDArray[np.str_], split: _Split, seed: int
    ) -> None:
        rng = np.random.default_rng(seed)
        queries = rng.permutation(split.watch)[:_WATCHED]
        gallery = rng.permutation(split.fit)[:_AGAINST]
        rows = np.concatenate([queries, gallery])
        self.library = ImageLibrary(library.embeddings[rows], library.paths[rows])
        self.names = names[rows]
        self.queries = np.arange(len(queries))
        self.gallery = np.arange(len(queries), len(rows))

    def __call__(self, head: ProjectionHead) -> float:
        """Return the mAP."""
        derived = self.library.with_head(head)
        found = evaluate(
            derived, self.names, self.queries, self.gallery, 1, resamples=0, progress=False
        )
        return float(found.per_query("mAP").mean())


def _fit(
    library: ImageLibrary,
    names: NDArray[np.str_],
    rows: NDArray[np.intp],
    recipe: _Recipe,
    watch: _Watch | None = None,
    *,
    progress: bool,
) -> tuple[_Network, tuple[Epoch, ...]]:
    """Train on rows of a library; return the network as the best epoch left it."""
    with _quiet_torch(recipe.seed):
        steps = _Steps(library.embeddings, names, rows, recipe)
        network = _Network(library, rows, recipe)
        criterion = _criterion(recipe, len(steps.members), network.dim)
        step = _stepper([*network.parameters(), *criterion.parameters()], steps, recipe)
        history: list[Epoch] = []
        weights = network.module.state_dict()
        with tqdm(desc="Training", total=recipe.epochs, unit="epoch", disable=not progress) as bar:
            for number in range(1, recipe.epochs + 1):
                loss = _pass(network, criterion, steps, step, number)
                reached = watch(network.head()) if watch else math.nan
                history.append(Epoch(number, loss, reached))
                bar.set_postfix(loss=f"{loss:.3f}", **({"mAP": f"{reached:.3f}"} if watch else {}))
                bar.update()
                best = best_epoch(history).number
                if best == number:
                    weights = copy.deepcopy(network.module.state_dict())
                elif number - best >= recipe.patience:
                    break
        network.module.load_state_dict(weights)
    return network, tuple(history)


def best_epoch(history: Sequence[Epoch]) -> Epoch:
    """Return the first epoch of the highest validation mAP; without validation, the last."""
    watched = not math.isnan(history[-1].mAP)
    return max(history, key=lambda epoch: epoch.mAP) if watched else history[-1]


def _stepper(
    parameters: list[torch.nn.Parameter], steps: _Steps, recipe: _Recipe
) -> Callable[[torch.Tensor], None]:
    """Return what makes one step down from a loss."""
    import torch

    optimizer = torch.optim.AdamW(
        parameters, recipe.learning_rate, weight_decay=recipe.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.learning_rate, total_steps=recipe.epochs * steps.count, pct_start=0.1
    )

    def step(loss: torch.Tensor) -> None:
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()

    return step


def _pass(
    network: _Network,
    criterion: torch.nn.Module,
    steps: _Steps,
    step: Callable[[torch.Tensor], None],
    number: int,
) -> float:
    """Train for one epoch; return the mean loss."""
    import torch

    total = 0.0
    for rows, codes in steps:
        loss = criterion(network(rows), torch.from_numpy(codes))
        value = float(loss.detach())
        if not math.isfinite(value):
            raise _diverged(f"the loss is {value}", number)
        step(loss)
        total += value
    if not all(float(weight.detach().abs().max()) < _DIVERGED for weight in network.parameters()):
        raise _diverged("the weights grow without limit", number)
    return total / steps.count


def _diverged(what: str, number: int) -> TrainingError:
    return TrainingError(f"{what} in epoch {number}: lower learning_rate=, or choose another loss=")
