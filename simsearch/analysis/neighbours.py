"""Nearest neighbours of every row in a library, and what they say of outliers and labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from tqdm.auto import tqdm

from simsearch.files import iter_blocks
from simsearch.retrieval.likely_best import kth_floor

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from simsearch.library.library import ImageLibrary


SCORES_BYTES = 1 << 26  # of cosines that are held at once
LEAST_DISTANCE = 1e-3  # a usual distance below it is that of copies, and no measure of others


class Neighbours(NamedTuple):
    """The nearest other rows of each row.

    Attributes
    ----------
    rows : (N, k) intp
    cosines : (N, k) float32
        In falling order.
    """

    rows: NDArray[np.intp]
    cosines: NDArray[np.float32]


def nearest_neighbours(library: ImageLibrary, k: int, *, progress: bool) -> Neighbours:
    """Find the k nearest other rows of each; of equals the first by path.

    Rows are compared in the order of their paths, so that the answer does not depend on how the
    library orders them.
    """
    order = np.argsort(library.paths, kind="stable")
    embeddings = np.asarray(library.embeddings)
    if not (order == np.arange(len(order))).all():
        embeddings = embeddings[order]
    count = len(embeddings)
    k = min(k, count - 1)
    rows = np.empty((count, k), np.intp)
    cosines = np.empty((count, k), np.float32)
    with tqdm(desc="Comparing", total=count, unit="image", delay=1, disable=not progress) as bar:
        for block in iter_blocks(count, max(1, SCORES_BYTES // (4 * count))):
            scores = embeddings[block] @ embeddings.T
            place = np.arange(block.start, block.stop)
            scores[place - block.start, place] = -np.inf
            for i, some in zip(order[block], scores, strict=True):
                best = _first_best(some, k)
                rows[i], cosines[i] = order[best], some[best]
            bar.update(len(place))
    return Neighbours(rows, cosines.clip(-1, 1))


def _first_best(scores: NDArray[np.float32], k: int) -> NDArray[np.intp]:
    """Return the places of the k highest scores, in falling order; of equals the first."""
    high = np.flatnonzero(scores >= kth_floor(scores, k))
    return high[np.argsort(-scores[high], kind="stable")[:k]]


def outlier_scores(neighbours: Neighbours) -> NDArray[np.float64]:
    """Mean cosine distance to the neighbours, in times of what is usual (the median): (N,).

    The distance to nearest neighbours in the embedding of a pretrained network is a strong
    baseline for pictures that do not belong: Sun et al., "Out-of-distribution detection with deep
    nearest neighbors" (ICML 2022); Kuan and Mueller, "Back to the basics: revisiting
    out-of-distribution detection baselines" (2022), which is cleanlab's.
    """
    distances = 1 - neighbours.cosines.mean(axis=1, dtype=np.float64)
    scores: NDArray[np.float64] = distances / max(float(np.median(distances)), LEAST_DISTANCE)
    return scores


class LabelVotes(NamedTuple):
    """What the labelled neighbours of each row say of its label.

    Attributes
    ----------
    own : (N,) float64
        Share of the votes for the label that the row has; NaN where nobody votes or it has none.
    other : (N,) str
        The other label that has most votes; "" where there is none.
    share : (N,) float64
        Its share.
    """

    own: NDArray[np.float64]
    other: NDArray[np.str_]
    share: NDArray[np.float64]


def label_votes(neighbours: Neighbours, labels: NDArray[np.str_]) -> LabelVotes:
    """Let the neighbours of each row vote on its label, each by its cosine.

    The share for the row's own label is the self-confidence of confident learning (Northcutt,
    Jiang, Chuang, "Confident learning: estimating uncertainty in dataset labels", JAIR 2021), by
    which cleanlab ranks likely errors; the probability is that of nearest neighbours, without the
    row itself, so that nothing is trained (Zhu, Dong, Liu, "Detecting corrupted labels without
    training a model to predict", ICML 2022).
    """
    classes, codes = np.unique(labels, return_inverse=True)
    votes = np.zeros((len(labels), len(classes)))
    weights = np.maximum(neighbours.cosines.astype(np.float64), 0)
    rows = np.repeat(np.arange(len(labels)), neighbours.rows.shape[1])
    np.add.at(votes, (rows, codes[neighbours.rows].ravel()), weights.ravel())
    votes[:, classes == ""] = 0
    total = votes.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        votes /= total[:, None]
    at = np.arange(len(labels))
    own = np.where(labels == "", np.nan, votes[at, codes])
    votes[at, codes] = -1
    best = votes.argmax(axis=1)
    share = np.nan_to_num(votes[at, best]).clip(0, 1)
    return LabelVotes(own, np.where(share > 0, classes[best], ""), share)
