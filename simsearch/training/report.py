"""Results of a training: the head, its history as a figure, its evaluation on unseen images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from simsearch.backbones.backbone import load_backbone
from simsearch.backbones.long_pictures import made_like
from simsearch.backbones.spec import OWN_WEIGHTS
from simsearch.backbones.thaw import save_weights
from simsearch.embedding.reembed import reembed
from simsearch.evaluation.evaluation import evaluate
from simsearch.evaluation.plots import CURVE_INCHES
from simsearch.library.files import writing
from simsearch.plotting.charts import lay_out, make_axes
from simsearch.plotting.grid import ACCENT, GREY, INK
from simsearch.training.trainer import best_epoch

if TYPE_CHECKING:
    import os
    from typing import Any

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from simsearch.backbones.backbone import Backbone
    from simsearch.backbones.heads import ProjectionHead
    from simsearch.backbones.spec import ModelSpec
    from simsearch.evaluation.evaluation import Evaluation
    from simsearch.library.library import ImageLibrary
    from simsearch.training.split import TrainingData
    from simsearch.training.trainer import Epoch


@dataclass(frozen=True, eq=False, repr=False)
class TrainedHead:
    """A trained head, and its report on images that the training never saw.

    Prints as a small table. `apply` makes a library with this head; without fine-tuning,
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
        Duration of the training, without the report.
    before, after : Evaluation or None
        Of the test images, against those for training and validation: by the library's own
        embeddings, and by the head's. None if `validation` is 0 and there are no other images.
    before_left_out, after_left_out : Evaluation or None
        The same for the images of the classes in `leave_out`, against all; None without any.
    tuned : ModelSpec or None
        The fine-tuned network, whose embeddings the head takes; None without fine-tuning.
    backbone : Backbone or None
        The same, frozen and ready to embed.
    stage : tuple of str
        Names of its modules that were trained.
    alone, alone_left_out : Evaluation or None
        With fine-tuning: the same by the head that is trained without it.
    unreadable : int
        Images that can no longer be read, and took no part in the training or the report.
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

    @classmethod
    def evaluated(
        cls,
        data: TrainingData,
        head: ProjectionHead,
        library: ImageLibrary,
        readable: NDArray[np.bool_] | None = None,
        **fields: Any,  # noqa: ANN401
    ) -> TrainedHead:
        """Evaluate a head on a library of the images, which holds the backbone's embeddings."""
        before, before_left_out = evaluate_splits(data, data.library, readable)
        after, after_left_out = evaluate_splits(data, library.with_head(head), readable)
        return cls(
            head=head,
            before=before,
            after=after,
            before_left_out=before_left_out,
            after_left_out=after_left_out,
            **fields,
        )

    def __str__(self) -> str:
        lines = [
            f"{self.head!r}, {self.loss} loss: {self.history[-1].number} epochs of "
            f"{len(self.rows):,} images in {self.seconds:.0f} s"
        ]
        if self.tuned:
            lines.append(f"with {', '.join(self.stage)} of {self.tuned.name} fine-tuned")
        if self.unreadable:
            lines.append(f"without {self.unreadable:,} images that cannot be read")
        lines += _compare("images", self.before, self.after, self.alone)
        lines += _compare("classes", self.before_left_out, self.after_left_out, self.alone_left_out)
        return "\n".join(lines)

    __repr__ = __str__

    def apply(
        self, library: ImageLibrary, outputs: str | os.PathLike[str], *, progress: bool = True
    ) -> ImageLibrary:
        """Make a library of the same images with this head, and save it.

        Without fine-tuning no image is decoded. With it, every image is embedded by the tuned
        backbone; that may be stopped and run again. The backbone's weights are saved beside the
        library, which can then be opened, searched, updated and moved like any other. Only the
        library of your own module has to be opened with
        ``ImageLibrary.load(outputs, backbone=load_backbone(trained.tuned.module, transform=...))``.

        Parameters
        ----------
        library
            The one that it was trained on; with fine-tuning, any library.
        outputs
            Folder of the new library; a library that is there is replaced in the end.
        progress
            Show a progress bar.

        Raises
        ------
        BackboneError, LibraryError
            As `ImageLibrary.with_head` and `ImageLibrary.save` raise them.
        DatasetError
            If no image can be read.
        """
        if self.tuned is None or self.backbone is None:
            derived = library.with_head(self.head)
            derived.save(outputs)
            return derived
        backbone = self.backbone
        with writing(outputs) as folder:
            file = folder / f"backbone-{self.tuned.fingerprint}.safetensors"
            save_weights(self.tuned, file)
        if self.tuned.weights != OWN_WEIGHTS:  # as a user of the library loads it
            device, precision = backbone.device, backbone.precision
            loaded = load_backbone(self.tuned.name, file, device=device, precision=precision)
            backbone = made_like(loaded, backbone.fingerprint)
        made = reembed(library, folder, backbone, self.head, progress=progress)
        for older in set(folder.glob("backbone-*.safetensors")) - {file}:
            older.unlink()
        return made


def _compare(
    what: str, before: Evaluation | None, after: Evaluation | None, alone: Evaluation | None
) -> list[str]:
    """Return the lines of one comparison."""
    if not before or not after:
        return []
    lines = [f"{what} that training never saw ({len(after.rows):,} queries):"]
    for name, value in after.overall.items():
        if name == "mAP" or name.startswith("precision@"):
            line = f"  {name:<12}  {before.overall[name].value:.3f} -> {value.value:.3f}"
            line += f"  ({alone.overall[name].value:.3f} by a head alone)" if alone else ""
            lines.append(line)
    return lines


def evaluate_splits(
    data: TrainingData, library: ImageLibrary, readable: NDArray[np.bool_] | None = None
) -> tuple[Evaluation | None, Evaluation | None]:
    """Evaluate a library on the test images, and on those of the classes that are left out.

    Parameters
    ----------
    data
        Labels and split.
    library
        Of the same images as the data's, with whatever embeddings.
    readable
        (N,) bool, the rows that take part; None for all.

    Returns
    -------
    tuple of Evaluation or None
        None where there is no query.
    """
    split = data.split

    def measure(*parts: NDArray[np.intp]) -> Evaluation | None:
        queries, gallery = (x if readable is None else x[readable[x]] for x in parts)
        depth = min(10, len(gallery) - 1)
        if not len(queries):
            return None
        return evaluate(library, data.names, queries, gallery, depth, progress=False)

    everything = np.union1d(split.seen, split.held_out_gallery)
    return measure(split.test, split.seen), measure(split.held_out_queries, everything)


def show_history(trained: TrainedHead) -> tuple[Figure, Axes]:
    """Show the learning curves: the loss, and the mAP on the validation images.

    A training is complete when the mAP has levelled off. Where it falls again, the head overfits;
    the best epoch is marked.

    Parameters
    ----------
    trained
        From `train_head`.

    Returns
    -------
    fig : matplotlib.figure.Figure
    axes : matplotlib.axes.Axes
        Of the mAP; the loss has axes of its own, on the right.

    Examples
    --------
    >>> fig, ax = show_history(train_head(library))  # doctest: +SKIP
    """
    from matplotlib.ticker import MaxNLocator

    numbers, losses, scores = zip(*trained.history, strict=True)
    fig, ax = make_axes(*CURVE_INCHES, f"Training with the {trained.loss} loss")
    best = best_epoch(trained.history)
    right = ax.twinx()
    for axes, values, name, color in (
        (ax, scores, "mAP", ACCENT),
        (right, losses, "loss", GREY),
    ):
        axes.plot(numbers, values, color=color, linewidth=1.5, clip_on=False)
        axes.set_ylabel(name, color=color, fontsize=10)
        axes.tick_params("y", colors=color, labelsize=9, length=0)
        axes.spines[:].set_visible(axes is ax)
    ax.plot(best.number, best.mAP, "o", color=ACCENT, clip_on=False)
    low, high = ax.get_ylim()
    ax.set_ylim(max(low, 0), min(high, 1))  # no ticks outside the range of an mAP
    ax.set_xlabel("epoch", color=INK, fontsize=10)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    lay_out(fig)
    return fig, ax
