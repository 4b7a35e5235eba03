"""From which cosine on two images count as a match, learnt from labels.

Nothing here changes a score. Without labels, `ImageLibrary.threshold` goes by the background alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from tqdm.auto import tqdm

from simsearch.errors import QueryError
from simsearch.evaluation.metrics import labelled

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from simsearch.library.library import ImageLibrary
    from simsearch.library.types import Labels


_QUERIES = 2048  # images whose pairs are looked at
_BINS = 20_000  # of cosines from -1 to 1, so that a threshold is good to 0.0001
_SCORES_BYTES = 2**26  # of scores that are held at once


@dataclass(frozen=True)
class SuggestedThreshold:
    """A cosine, and how it tells pairs of one label from pairs of two.

    Goes wherever a threshold does: `search(library, query, threshold=suggested)`.

    Attributes
    ----------
    cosine : float
        Pairs from here up count as matches.
    precision : float
        Share of these that are of one label.
    recall : float
        Share of the pairs of one label that are among these.
    false_match_rate : float
        Share of the pairs of two labels that are among these.
    """

    cosine: float
    precision: float
    recall: float
    false_match_rate: float

    def __float__(self) -> float:
        return self.cosine

    def __str__(self) -> str:
        return (
            f"cosine >= {self.cosine:.4f}: {self.precision:.1%} of such pairs are of one label, "
            f"{self.recall:.1%} of those of one label are such, and {self.false_match_rate:.2%} "
            "of all others"
        )


def suggest_threshold(
    library: ImageLibrary,
    labels: Labels = "folder",
    precision: float | None = None,
    seed: int = 0,
) -> SuggestedThreshold:
    """Find the cosine that best tells images of one label from others.

    Every labelled image is paired with up to 2,048 of them, drawn at random.

    Parameters
    ----------
    library
        From `embed_dataset` or `ImageLibrary.load`.
    labels
        What `ImageLibrary.label_rows` takes; images without a label are left aside.
    precision
        Take the lowest threshold at which this share of matches is right. By default the
        threshold with the highest F1, the harmonic mean of precision and recall.
    seed
        Of the draw.

    Raises
    ------
    LibraryError
        If no folder of the library is a label.
    QueryError
        If no two images share a label, or all do; or if the precision cannot be reached.

    Examples
    --------
    >>> from simsearch import ImageLibrary
    >>> rows = [[1, 0], [0.8, 0.6], [0, 1], [-0.6, 0.8]]
    >>> library = ImageLibrary(rows, ["cat/1.jpg", "cat/2.jpg", "dog/1.jpg", "dog/2.jpg"])
    >>> suggest_threshold(library)
    SuggestedThreshold(cosine=0.7001, precision=1.0, recall=1.0, false_match_rate=0.0)
    """
    if precision is not None and not 0 < precision <= 1:
        raise QueryError(f"precision={precision}: give a share above 0, up to 1")
    names = labelled(library, labels)
    others, same = _pairs(library, names, seed)
    if not same.any() or not others.any():
        raise QueryError("labels tell nothing of pairs where all images share one, or no two do")
    right, wrong = (np.cumsum(each[::-1])[::-1] for each in (same, others))  # from a bin up
    shares = right / np.maximum(right + wrong, 1)
    if precision is None:
        best = int(np.argmax(right / (right + wrong + right[0])))  # F1 rises and falls with this
    elif (reached := np.flatnonzero((shares >= precision) & (right > 0))).size:
        best = int(reached[0])
    else:
        raise QueryError(
            f"precision={precision} is out of reach: the highest is {shares.max():.3f}"
        )
    # All thresholds between two neighbouring scores do the same: the one midway is the safest.
    alike = np.flatnonzero((right == right[best]) & (wrong == wrong[best]))
    best = int(alike[len(alike) // 2])
    return SuggestedThreshold(
        round(2 * best / _BINS - 1, 6),
        float(shares[best]),
        float(right[best] / right[0]),
        float(wrong[best] / wrong[0]),
    )


def _pairs(
    library: ImageLibrary, names: NDArray[np.str_], seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Count pairs by cosine, those of different labels and those of the same: (_BINS + 1,) each."""
    rows = np.flatnonzero(names != "")
    _, codes = np.unique(names, return_inverse=True)
    draw = np.sort(np.random.default_rng(seed).permutation(rows)[:_QUERIES])
    queries = np.asarray(library.embeddings[draw])
    counts = np.zeros((2, _BINS + 1), np.int64)
    size = max(1, _SCORES_BYTES // (4 * len(draw)))
    for i in tqdm(range(0, len(rows), size), desc="Comparing", unit="block", delay=1):
        block = rows[i : i + size]
        scores = queries @ library.embeddings[block].T
        alike = codes[draw][:, None] == codes[block]
        itself = draw[:, None] == block
        # Rounding alone must not move a cosine of 0.8 into the bin below.
        bins = np.floor((scores.clip(-1, 1) + np.float32(1)) * (_BINS / 2) + 1e-2).astype(np.intp)
        counts[0] += np.bincount(bins[~alike], minlength=_BINS + 1)
        counts[1] += np.bincount(bins[alike & ~itself], minlength=_BINS + 1)
    return counts[0], counts[1]
