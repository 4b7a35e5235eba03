"""Match thresholds: the cosine from which two images count as a match, chosen from labels.

Without labels, `ImageLibrary.threshold` goes by the scores of random pairs alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from tqdm.auto import tqdm

from simsearch.errors import QueryError
from simsearch.evaluation.evaluation import require_labels
from simsearch.evaluation.metrics import SCORE_BLOCK_BYTES
from simsearch.files import iter_blocks

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from simsearch.library.library import ImageLibrary
    from simsearch.library.types import Labels


QUERIES = 2048  # images that every labelled image is paired with
BINS = 20_000  # of cosines from -1 to 1: a threshold is exact to 0.0001


@dataclass(frozen=True)
class SuggestedThreshold:
    """A cosine, and how well it separates pairs of the same label from pairs of different ones.

    Goes wherever a threshold does: `search(library, query, threshold=suggested)`.

    Attributes
    ----------
    cosine : float
        Pairs from here up count as matches.
    precision : float
        Share of the matches that have the same label.
    recall : float
        Share of the pairs of the same label that are matches.
    false_match_rate : float
        Share of the pairs of different labels that are matches.
    """

    cosine: float
    precision: float
    recall: float
    false_match_rate: float

    def __float__(self) -> float:
        return self.cosine

    def __str__(self) -> str:
        return (
            f"cosine >= {self.cosine:.4f}: precision {self.precision:.1%}, "
            f"recall {self.recall:.1%}, false match rate {self.false_match_rate:.2%}"
        )


def suggest_threshold(
    library: ImageLibrary,
    labels: Labels = "folder",
    precision: float | None = None,
    seed: int = 0,
) -> SuggestedThreshold:
    """Find the cosine that best separates images of the same label from others.

    Every labelled image is paired with up to 2,048 of them, drawn at random.

    Parameters
    ----------
    library
        From `embed_dataset` or `ImageLibrary.load`.
    labels
        What `ImageLibrary.label_rows` takes; images without a label are left out.
    precision
        Take the lowest threshold at which this share of matches is right. By default the
        threshold with the highest F1, the harmonic mean of precision and recall.
    seed
        Seed of the random draw.

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
    names = require_labels(library, labels)
    different, same = _count_pairs(library, names, seed)
    if not same.any() or not different.any():
        raise QueryError(
            "no threshold can be learnt: all images share one label, or no two do; give other "
            "labels="
        )
    right, wrong = (np.cumsum(each[::-1])[::-1] for each in (same, different))  # from a bin up
    shares = right / np.maximum(right + wrong, 1)
    if precision is None:
        best = int(np.argmax(right / (right + wrong + right[0])))  # F1 rises and falls with this
    elif (reached := np.flatnonzero((shares >= precision) & (right > 0))).size:
        best = int(reached[0])
    else:
        raise QueryError(
            f"precision={precision} cannot be reached: the highest is {shares.max():.3f}"
        )
    # All thresholds between two neighbouring scores are equivalent: the midway one is the safest.
    equivalent = np.flatnonzero((right == right[best]) & (wrong == wrong[best]))
    best = int(equivalent[len(equivalent) // 2])
    return SuggestedThreshold(
        round(2 * best / BINS - 1, 6),
        float(shares[best]),
        float(right[best] / right[0]),
        float(wrong[best] / wrong[0]),
    )


def _count_pairs(
    library: ImageLibrary, names: NDArray[np.str_], seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Count pairs per cosine bin, of different labels and of the same: (BINS + 1,) each."""
    rows = np.flatnonzero(names != "")
    _, codes = np.unique(names, return_inverse=True)
    draw = np.sort(np.random.default_rng(seed).permutation(rows)[:QUERIES])
    queries = np.asarray(library.embeddings[draw])
    counts = np.zeros((2, BINS + 1), np.int64)
    blocks = [*iter_blocks(len(rows), max(1, SCORE_BLOCK_BYTES // (4 * len(draw))))]
    for block in tqdm(blocks, desc="Comparing", unit="block", delay=1):
        others = rows[block]
        scores = queries @ library.embeddings[others].T
        same = codes[draw][:, None] == codes[others]
        itself = draw[:, None] == others
        # Rounding alone must not move a cosine of 0.8 into the bin below.
        bins = np.floor((scores.clip(-1, 1) + np.float32(1)) * (BINS / 2) + 1e-2).astype(np.intp)
        counts[0] += np.bincount(bins[~same], minlength=BINS + 1)
        counts[1] += np.bincount(bins[same & ~itself], minlength=BINS + 1)
    return counts[0], counts[1]
