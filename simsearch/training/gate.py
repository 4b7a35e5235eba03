"""The gate of a head: images without a label that are unlike the training images are left alone.

A linear classifier tells the training images from those without a label (after Elkan and Noto,
"Learning classifiers from only positive and unlabeled data", KDD 2008). Where both are as frequent,
it cannot, and the gate is open; it closes for what is found almost only in those without a label.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from simsearch.errors import TrainingError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from simsearch.backbones.heads import Layer
    from simsearch.library.library import ImageLibrary
    from simsearch.library.types import Rows
    from simsearch.training.config import TrainConfig


MIN_UNLABELLED = 50  # fewer tell little of what else there is
STATISTICS_ROWS = 20_000  # of each of the two kinds, at most
# Chosen on a split of seg_train of the Intel scenes: `benchmarks/unknown.py --choose`.
REGULARISATION, STEEPNESS, LOG_RATIO = 1.0, 3.0, -0.7  # the gate is half open at this log ratio


def choose_unlabelled(
    library: ImageLibrary, unlabelled: Rows, trained_on: NDArray[np.intp], config: TrainConfig
) -> NDArray[np.intp]:
    """Return the rows to look at without their labels: those of `unlabelled` not trained on.

    Raises
    ------
    TrainingError
        If there are too few, or the head has no kept part.
    """
    if not config.keep:
        raise TrainingError(
            f"unlabelled= goes with keep above 0, such as {type(config).keep}: of images that the "
            "head leaves alone, the kept part is all that remains"
        )
    rows = np.setdiff1d(np.flatnonzero(library.select(unlabelled)), trained_on)
    if len(rows) < MIN_UNLABELLED:
        raise TrainingError(
            f"unlabelled={unlabelled!r} gives {len(rows)} images besides those that are trained "
            f"on, and {MIN_UNLABELLED} are needed: give more, or leave it out"
        )
    return rows


def fit_gate(
    library: ImageLibrary, known: NDArray[np.intp], others: NDArray[np.intp], seed: int
) -> Layer:
    """Fit a gate that is open for images like those known: weight (1, D) and bias (1,)."""
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(seed)
    parts = [
        np.asarray(library.embeddings[np.sort(rng.permutation(rows)[:STATISTICS_ROWS])])
        for rows in (known, others)
    ]
    mean = parts[0].mean(axis=0)
    scale = max(float(np.sqrt(((parts[0] - mean) ** 2).sum(axis=1).mean())), 1e-12)
    inputs = (np.concatenate(parts) - mean) / scale
    is_known = np.arange(len(inputs)) < len(parts[0])
    model = LogisticRegression(C=REGULARISATION, class_weight="balanced", max_iter=300)
    model.fit(inputs, is_known)
    weight = STEEPNESS * model.coef_ / scale  # (1, D)
    bias = STEEPNESS * (model.intercept_ - LOG_RATIO) - weight @ mean
    return weight.astype(np.float32), bias.astype(np.float32)
