"""What a trained head is worth: its report on images and classes that training never saw."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from simsearch.backbones.backbone import Backbone, load_backbone
from simsearch.backbones.spec import OWN_WEIGHTS
from simsearch.backbones.weights import save_weights
from simsearch.embedding.reembed import reembed
from simsearch.evaluation.metrics import evaluate
from simsearch.library.files import writing
from simsearch.library.library import ImageLibrary
from simsearch.training.trainer import (
    Epoch,
)

if TYPE_CHECKING:
    import os
    from pathlib import Path
    from typing import TypeAlias

    from numpy.typing import NDArray

    from simsearch.backbones.heads import ProjectionHead
    from simsearch.backbones.spec import ModelSpec
    from simsearch.evaluation.metrics import Evaluation
    from simsearch.training.split import Split


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


_Result: TypeAlias = "Evaluation | None"


def compare(
    before: ImageLibrary,
    after: ImageLibrary,
    names: NDArray[np.str_],
    split: Split,
    good: NDArray[np.bool_] | None = None,
) -> tuple[_Result, _Result, _Result, _Result]:
    """Evaluate both libraries alike: on unseen images, then on those of the classes left out."""
    known, left_out = report_rows(split, good)
    return (
        evaluate_rows(before, names, *known),
        evaluate_rows(after, names, *known),
        evaluate_rows(before, names, *left_out),
        evaluate_rows(after, names, *left_out),
    )


_Part: TypeAlias = "tuple[NDArray[np.intp], NDArray[np.intp]]"


def report_rows(split: Split, good: NDArray[np.bool_] | None = None) -> tuple[_Part, _Part]:
    """Return queries and gallery of both parts of a report, of the rows that are good."""
    seen = np.union1d(split.train, split.val)
    rows = (split.test, seen, split.heldout_queries, np.union1d(seen, split.heldout_gallery))
    queries, gallery, others, all_seen = rows if good is None else (x[good[x]] for x in rows)
    return (queries, gallery), (others, all_seen)


def evaluate_rows(
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
