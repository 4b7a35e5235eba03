"""Training data: labelled rows shared out into train, validation, test and held-out classes."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from simsearch.errors import TrainingError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from simsearch.library.library import ImageLibrary
    from simsearch.library.types import Labels, Rows
    from simsearch.training.config import TrainConfig


logger = logging.getLogger("simsearch")


class Split(NamedTuple):
    """Rows of a library, each kind rising."""

    train: NDArray[np.intp]
    val: NDArray[np.intp]
    test: NDArray[np.intp]
    held_out_queries: NDArray[np.intp]  # of the classes that are left out
    held_out_gallery: NDArray[np.intp]

    @property
    def seen(self) -> NDArray[np.intp]:
        """Rows for training and validation."""
        return np.union1d(self.train, self.val)


class TrainingData(NamedTuple):
    """A library, the class name of each row (N,), and the split."""

    library: ImageLibrary
    names: NDArray[np.str_]
    split: Split


def load_training_data(
    library: ImageLibrary,
    labels: Labels,
    rows: Rows,
    left_out: str | Sequence[str],
    config: TrainConfig,
) -> TrainingData:
    """Label the rows of a library, and share them out class by class.

    Parameters
    ----------
    library, labels, rows, left_out
        What `train_head` takes; `rows` are those to train and validate on.
    config
        Its `validation` is the share of each class for validation; its `seed` draws the rows.

    Raises
    ------
    TrainingError
        If there are not two classes of two images, or no class of a name that is left out.
    """
    names = library.label_rows(labels)
    chosen = library.select(rows)
    held_out = np.isin(names, _check_classes(names, left_out))
    usable = _usable_classes(names[chosen & (names != "") & ~held_out])
    outside = np.flatnonzero(np.isin(names, usable) & ~chosen)
    rng = np.random.default_rng(config.seed)
    parts: list[list[NDArray[np.intp]]] = [[], [], []]
    for name in usable:
        own = rng.permutation(np.flatnonzero(chosen & (names == name)))
        share = round(config.validation * len(own)) or bool(config.validation)
        share = min(share, (len(own) - 2) // 2)  # two are left to train on
        cuts = [share, share if len(outside) else 2 * share]
        for part, piece in zip(parts, np.split(own, cuts), strict=True):
            part.append(piece)
    val, aside, train = (np.sort(np.concatenate(part)) for part in parts)
    inside, off = np.flatnonzero(held_out & chosen), np.flatnonzero(held_out & ~chosen)
    split = Split(
        train=train,
        val=val,
        test=outside if len(outside) else aside,
        held_out_queries=off if len(off) else inside,
        held_out_gallery=inside,
    )
    return TrainingData(library, names, split)


def _usable_classes(names: NDArray[np.str_]) -> NDArray[np.str_]:
    """Return the classes of at least two images, of which there must be two."""
    classes, counts = np.unique(names, return_counts=True)
    usable = classes[counts >= 2]
    if len(usable) < 2:
        found = [f"{name} ({n})" for name, n in zip(classes[:5], counts, strict=False)]
        raise TrainingError(
            "a head learns from at least two classes of two images or more, and there are only "
            f"{', '.join(found) or 'images without a label'}: keep the images in one folder per "
            "class (dataset/forest/1.jpg), choose others with on=, or give labels="
        )
    if len(usable) < len(classes):
        logger.warning(
            "Training without %d classes of a single image, such as %s.",
            *(len(classes) - len(usable), classes[counts < 2][0]),
        )
    return usable


def _check_classes(names: NDArray[np.str_], left_out: str | Sequence[str]) -> list[str]:
    """Return the names of the classes that are left out, which must be known."""
    chosen = [left_out] if isinstance(left_out, str) else list(left_out)
    known = sorted(set(names.tolist()) - {""})
    for name in chosen:
        if name not in known:
            raise TrainingError(
                f"leave_out={name!r} is no class; the classes are {', '.join(known[:20])}"
            )
    return chosen
