"""The split of labelled rows: train, validation, test and held-out classes."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from simsearch.errors import TrainingError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

from simsearch.training.config import TrainConfig

logger = logging.getLogger("simsearch")


class Split(NamedTuple):
    """Rows of a library, each kind rising."""

    train: NDArray[np.intp]
    val: NDArray[np.intp]  # decide when to stop
    test: NDArray[np.intp]  # queries of the report
    heldout_queries: NDArray[np.intp]  # of classes that are left out
    heldout_gallery: NDArray[np.intp]


def split_rows(
    names: NDArray[np.str_], on: NDArray[np.bool_], leave_out: Sequence[str], config: TrainConfig
) -> Split:
    """Share out the labelled rows, class by class."""
    left_out = heldout_classes(names, leave_out)
    left = np.isin(names, left_out)
    usable = usable_classes(names[on & (names != "") & ~left])
    outside = np.flatnonzero(np.isin(names, usable) & ~on)
    rng = np.random.default_rng(config.seed)
    parts: list[list[NDArray[np.intp]]] = [[], [], []]
    for name in usable:
        rows = rng.permutation(np.flatnonzero(on & (names == name)))
        share = round(config.validation * len(rows)) or bool(config.validation)
        share = min(share, (len(rows) - 2) // 2)  # two are left to learn from
        cuts = [share, share if len(outside) else 2 * share]
        for part, piece in zip(parts, np.split(rows, cuts), strict=True):
            part.append(piece)
    val, aside, train = (np.sort(np.concatenate(part)) for part in parts)
    left_on, left_off = np.flatnonzero(left & on), np.flatnonzero(left & ~on)
    return Split(
        train=train,
        val=val,
        test=outside if len(outside) else aside,
        heldout_queries=left_off if len(left_off) else left_on,
        heldout_gallery=left_on,
    )


def usable_classes(names: NDArray[np.str_]) -> NDArray[np.str_]:
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


def heldout_classes(names: NDArray[np.str_], leave_out: Sequence[str]) -> list[str]:
    """Check the names of the classes that are left out."""
    chosen = [leave_out] if isinstance(leave_out, str) else list(leave_out)
    known = sorted(set(names.tolist()) - {""})
    for name in chosen:
        if name not in known:
            raise TrainingError(
                f"leave_out={name!r} is no class; there are {', '.join(known[:20])}"
            )
    return chosen
