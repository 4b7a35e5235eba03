"""What learns from labels, and from whom: the rows, the balanced batches, the losses, the epochs.

Embeddings and class numbers go in; what is trained comes out. What it is worth to a user is said
elsewhere.

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
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
from tqdm.auto import tqdm

from simsearch.backbones.heads import ProjectionHead
from simsearch.backbones.precision import restore_torch_threads
from simsearch.errors import MissingExtraError, TrainingError
from simsearch.evaluation.evaluation import evaluate
from simsearch.library.library import ImageLibrary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from typing import Any, TypeAlias

    import torch
    from numpy.typing import NDArray

    from simsearch.backbones.heads import Layer


logger = logging.getLogger("simsearch")

_SAMPLE = 20_000  # rows that tell the mean, the spread and the principal axes
_WATCHED, _AGAINST = 500, 5_000  # queries and gallery of the validation after each epoch
_STEPS = 20  # of an epoch at least, so that few images are learned from as thoroughly as many
_PER_CLASS = 4  # images at least that a batch holds of each of its classes
_DIVERGED = 1e6  # no weight of a sound network comes near it
_SOFTENING = 0.05  # of the mean spread, added to each: a feature that hardly varies stays small


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
    if not all(float(weight.detach().abs().max()) < _DIVERGED for weight in weights):
        raise _diverged("the weights grow without limit", number)


@dataclass(frozen=True, kw_only=True)
class Recipe:
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
    stage_rate: float
    seed: int

    def __post_init__(self) -> None:
        for name, known in (("loss", list(LOSSES)), ("mining", list(MINING))):
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
    ("stage_rate", 1e-12, math.inf),
)


class Split(NamedTuple):
    """Rows of a library, each kind rising."""

    fit: NDArray[np.intp]  # trained on
    watch: NDArray[np.intp]  # tell when to stop
    unseen: NDArray[np.intp]  # of the report
    left_queries: NDArray[np.intp]  # of classes that are left out
    left_gallery: NDArray[np.intp]


def split_rows(
    names: NDArray[np.str_], on: NDArray[np.bool_], leave_out: Sequence[str], recipe: Recipe
) -> Split:
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
    return Split(
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


class HeadNetwork:
    """The learning part of a `ProjectionHead`, and the standardisation before it."""

    def __init__(self, library: ImageLibrary, fit: NDArray[np.intp], recipe: Recipe) -> None:
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

    def __call__(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Map (B, D) embeddings to (B, dim) of unit norm."""
        import torch

        mean, scale = (torch.from_numpy(x).to(embeddings.device) for x in (self.mean, self.scale))
        return torch.nn.functional.normalize(self.module((embeddings - mean) / scale))

    def head(self, source: str = "") -> ProjectionHead:
        """Fold the standardisation into the first layer."""
        from torch import nn

        linear = [x for x in self.module if isinstance(x, nn.Linear)]
        layers = [
            (x.weight.detach().cpu().numpy().copy(), x.bias.detach().cpu().numpy().copy())
            for x in linear
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
def seeded_torch(seed: int, devices: Sequence[torch.device] = ()) -> Iterator[None]:
    """Seed PyTorch, and put its generators back afterwards."""
    import torch

    with torch.random.fork_rng([x for x in devices if x.type == "cuda"]):
        torch.manual_seed(seed)
        yield


@contextmanager
def _one_thread() -> Iterator[None]:
    """Keep PyTorch to one thread.

    The products are so small that threads would mostly wait for each other: on two busy cores,
    one thread was four times as fast.
    """
    import torch

    with restore_torch_threads():
        torch.set_num_threads(1)
        yield


def metric_learning() -> Any:  # noqa: ANN401
    """Import pytorch-metric-learning, or say how to install it."""
    try:
        import pytorch_metric_learning.losses
        import pytorch_metric_learning.miners
    except ImportError as error:
        raise MissingExtraError('train_head needs: pip install "simsearch[train]"') from error
    return pytorch_metric_learning


MINING: dict[str, Callable[[Any, float], Any]] = {
    "semihard": lambda miners, margin: miners.TripletMarginMiner(margin, "semihard"),
    "hard": lambda miners, _: miners.BatchHardMiner(),
    "all": lambda miners, margin: miners.TripletMarginMiner(margin, "all"),
}

LOSSES: dict[str, Callable[[Any, float, int, int], Any]] = {
    "triplet": lambda losses, margin, _, __: losses.TripletMarginLoss(margin),
    "contrastive": lambda losses, *_: losses.ContrastiveLoss(),
    "multi-similarity": lambda losses, *_: losses.MultiSimilarityLoss(),
    "arcface": lambda losses, _, classes, dim: losses.ArcFaceLoss(classes, dim, scale=16),
    "supcon": lambda losses, *_: losses.SupConLoss(),
}


def _criterion(recipe: Recipe, classes: int, dim: int) -> torch.nn.Module:
    """Return the loss as a module of embeddings (B, dim) and class numbers (B,)."""
    import torch

    package = metric_learning()
    mined = recipe.loss == "triplet"
    miner = MINING[recipe.mining](package.miners, recipe.margin) if mined else None

    class Criterion(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.measure = LOSSES[recipe.loss](package.losses, recipe.margin, classes, dim)

        def forward(self, embeddings: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
            chosen = (miner(embeddings, codes),) if miner else ()
            value: torch.Tensor = self.measure(embeddings, codes, *chosen)
            return value

    return Criterion()


class Steps:
    """Balanced batches: as many images of each class, drawn again where there are too few."""

    def __init__(
        self, names: NDArray[np.str_], rows: NDArray[np.intp], recipe: Recipe, least: int = _STEPS
    ) -> None:
        self.rng = np.random.default_rng(recipe.seed)
        self.members = [rows[names[rows] == name] for name in np.unique(names[rows])]
        self.classes = max(2, min(len(self.members), recipe.batch_size // _PER_CLASS))
        self.each = max(2, recipe.batch_size // self.classes)
        self.count = max(least, round(len(rows) / (self.classes * self.each)))

    def __iter__(self) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
        """Yield one epoch of (B,) rows with their class numbers."""
        for _ in range(self.count):
            codes = self.rng.choice(len(self.members), self.classes, replace=False)
            rows = [
                self.rng.choice(self.members[code], self.each, len(self.members[code]) < self.each)
                for code in codes
            ]
            yield np.concatenate(rows), np.repeat(codes, self.each)


class Watch:
    """The validation images: after each epoch, how well they find their class.

    Attributes
    ----------
    rows : numpy.ndarray
        Rows of the library that take part: the queries, and then the gallery.
    """

    def __init__(
        self,
        library: ImageLibrary,
        names: NDArray[np.str_],
        split: Split,
        seed: int,
        against: int = _AGAINST,
    ) -> None:
        rng = np.random.default_rng(seed)
        queries = rng.permutation(split.watch)[:_WATCHED]
        gallery = rng.permutation(split.fit)[:against]
        self.rows = np.concatenate([queries, gallery])
        self.library = ImageLibrary(library.embeddings[self.rows], library.paths[self.rows])
        self.names = names[self.rows]
        self.is_query = np.arange(len(self.rows)) < len(queries)

    def __call__(
        self, head: ProjectionHead, embeddings: NDArray[np.float32] | None = None
    ) -> float:
        """Return the mAP, by other embeddings of these rows if given (NaN leaves one out)."""
        library, good = self.library, np.ones(len(self.rows), bool)
        if embeddings is not None:
            good = np.isfinite(embeddings[:, 0])
            rows = np.where(good[:, None], embeddings, library.embeddings)
            library = ImageLibrary(rows, library.paths)
        if not (self.is_query & good).any() or not (~self.is_query & good).any():
            return 0.0
        found = evaluate(
            library.with_head(head),
            self.names,
            self.is_query & good,
            ~self.is_query & good,
            1,
            resamples=0,
            progress=False,
        )
        return float(found.per_query("mAP").mean())


class Learner(Protocol):
    """What `run` trains."""

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
        recipe: Recipe,
    ) -> None:
        self.embeddings = library.embeddings
        self.steps = Steps(names, rows, recipe)
        self.network = HeadNetwork(library, rows, recipe)
        self.criterion = _criterion(recipe, len(self.steps.members), self.network.dim)
        self.modules = {"head": self.network.module, "loss": self.criterion}
        parameters = [*self.network.parameters(), *self.criterion.parameters()]
        self._step = _stepper(parameters, self.steps, recipe)

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


def fit(
    library: ImageLibrary,
    names: NDArray[np.str_],
    rows: NDArray[np.intp],
    recipe: Recipe,
    watch: Watch | None = None,
    *,
    progress: bool,
) -> tuple[HeadLearner, tuple[Epoch, ...]]:
    """Train a head on rows of a library; return it as the best epoch left it."""
    with seeded_torch(recipe.seed), _one_thread():
        learner = HeadLearner(library, names, rows, recipe)
        reached = (lambda: watch(learner.network.head())) if watch else None
        history = run(learner, recipe, reached, progress=progress)
    return learner, history


Keep: TypeAlias = "Callable[[list[Epoch], Mapping[str, Any]], object]"


def run(
    learner: Learner,
    recipe: Recipe,
    watch: Callable[[], float] | None,
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
    watch
        Gives the validation mAP.
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
        total=recipe.epochs * learner.ticks,
        initial=done * learner.ticks,
        unit=learner.unit,
        disable=not progress,
    ) as bar:

        def tick(loss: float) -> None:
            bar.set_postfix(shown | {"loss": f"{loss:.3f}"}, refresh=False)
            bar.update()

        while not _is_finished(history, recipe):
            number = history[-1].number + 1 if history else 1
            loss = learner.learn(number, tick)
            history.append(Epoch(number, loss, watch() if watch else math.nan))
            if watch:
                shown["mAP"] = f"{history[-1].mAP:.3f}"
                bar.set_postfix(shown | {"loss": f"{loss:.3f}"})
            if best_epoch(history).number == number:
                best = learner.weights()
            if keep:
                keep(history, best)
    learner.restore(best)
    return tuple(history)


def _is_finished(history: Sequence[Epoch], recipe: Recipe) -> bool:
    if not history:
        return False
    last, best = history[-1].number, best_epoch(history).number
    return last >= recipe.epochs or last - best >= recipe.patience


def best_epoch(history: Sequence[Epoch]) -> Epoch:
    """Return the first epoch of the highest validation mAP; without validation, the last."""
    watched = not math.isnan(history[-1].mAP)
    return max(history, key=lambda epoch: epoch.mAP) if watched else history[-1]


def _stepper(
    parameters: list[torch.nn.Parameter], steps: Steps, recipe: Recipe
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
