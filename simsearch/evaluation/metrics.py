"""Retrieval metrics: rankings of a gallery, their measures, and bootstrap intervals of the mean.

One query ranks the gallery by falling cosine, equal cosines in the order of their rows. The
gallery's images with the query's label are relevant, R of them, and hits(k) of them are among the
first k. The query itself is never among them. Then, for one query:

==============  =============================================  =================================
precision@k     hits(k) / k                                    [1]_, section 8.4
recall@k        hits(k) / R                                    [1]_, section 8.3
hit_rate@k      1 if hits(k) > 0, else 0                       "Recall@K" in metric learning [2]_
r_precision     hits(R) / R                                    [1]_, section 8.4
mAP             mean of precision@r over the ranks r of all R  [1]_, section 8.4
mAP@R           sum of precision@r over those r <= R, by R     [3]_
==============  =============================================  =================================

An interval says what other queries of the same kind might have given, against the same gallery:
the percentile bootstrap over queries, [4]_, chapter 13.

.. [1] C. D. Manning, P. Raghavan, H. Schütze. Introduction to Information Retrieval. Cambridge
   University Press, 2008. Also for the curve: the highest precision at a recall or beyond it.
.. [2] H. O. Song, Y. Xiang, S. Jegelka, S. Savarese. Deep Metric Learning via Lifted Structured
   Feature Embedding. CVPR 2016.
.. [3] K. Musgrave, S. Belongie, S.-N. Lim. A Metric Learning Reality Check. ECCV 2020.
.. [4] B. Efron, R. J. Tibshirani. An Introduction to the Bootstrap. Chapman & Hall, 1993.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from simsearch.files import iter_blocks

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from simsearch.library.library import ImageLibrary


RECALL_PERCENTS = np.arange(101)
"""Recall levels of a precision-recall curve."""

SCORE_BLOCK_BYTES = 2**26  # of scores, or of embeddings of queries, that are held at once
DRAW_BLOCK = 2**20  # draws of the bootstrap that are held at once
MOST_TIES = 64  # values of chosen and other scores that are looked up one by one
LEAST_SPREAD = 1e-6  # of scores that share out the bins
PERCENTILES = (2.5, 97.5)  # the ends of an interval


class QueryMetrics(NamedTuple):
    """The metrics of Q queries of C classes.

    Attributes
    ----------
    values
        (Q, M) float64, in [0, 1]; M metrics in the order of `metric_names`.
    nearest
        (Q,) int, the first row of each ranking.
    curves
        (C, 101) float64, mean precision of each class at each of `RECALL_PERCENTS`.
    """

    values: NDArray[np.float64]
    nearest: NDArray[np.intp]
    curves: NDArray[np.float64]


def metric_names(depths: Sequence[int] | NDArray[np.intp]) -> tuple[str, ...]:
    """Return the names of the metrics that `measure_ranks` computes, in its order."""
    names = [f"{name}@{k}" for name in ("precision", "recall", "hit_rate") for k in depths]
    return (*names, "r_precision", "mAP", "mAP@R")


def measure_rankings(
    rankings: Iterable[Ranking],
    rows: NDArray[np.intp],
    codes: NDArray[np.intp],
    depths: NDArray[np.intp],
) -> QueryMetrics:
    """Measure the ranking of each query.

    Parameters
    ----------
    rankings
        Of each query, from `rank_gallery`.
    rows
        (Q,) int, the queries' rows.
    codes
        (N,) int, class number of each row of the library.
    depths
        (K,) int, each k of precision@k, recall@k and hit_rate@k.
    """
    _, classes, counts = np.unique(codes[rows], return_inverse=True, return_counts=True)
    values = np.empty((len(rows), 3 * len(depths) + 3))
    nearest = np.empty(len(rows), np.intp)
    curves = np.zeros((len(counts), len(RECALL_PERCENTS)))
    for i, ranking in enumerate(rankings):
        values[i], curve = measure_ranks(ranking.ranks, depths)
        nearest[i] = ranking.nearest
        curves[classes[i]] += curve
    return QueryMetrics(values, nearest, curves / counts[:, None])


def measure_ranks(
    ranks: NDArray[np.intp], depths: NDArray[np.intp]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Measure one ranking by the ranks of its R relevant images, rising from 1.

    Returns
    -------
    tuple of numpy.ndarray
        The (M,) metrics, and the (101,) curve.
    """
    count = len(ranks)
    precisions = np.arange(1, count + 1) / ranks
    hits = np.searchsorted(ranks, depths, side="right")
    hits_at_count = int(np.searchsorted(ranks, count, side="right"))
    single = [hits_at_count / count, precisions.mean(), precisions[:hits_at_count].sum() / count]
    values = np.concatenate([hits / depths, hits / count, hits > 0, single])
    best = np.maximum.accumulate(precisions[::-1])[::-1]  # from this recall on
    needed = -(-RECALL_PERCENTS * count // 100)  # hits for a recall, rounded up in whole numbers
    return values, best[np.maximum(needed - 1, 0)]


class Ranking(NamedTuple):
    """What the metrics need of one query's ranking of the gallery."""

    nearest: int  # the first row
    ranks: NDArray[np.intp]  # (R,) of the relevant images, rising from 1


def rank_gallery(
    library: ImageLibrary,
    rows: NDArray[np.intp],
    gallery: NDArray[np.intp],
    codes: NDArray[np.intp],
) -> Iterator[Ranking]:
    """Rank the gallery for each query in turn, without the query.

    Parameters
    ----------
    library
        What the rows are of.
    rows, gallery
        (Q,) and (G,) int, rising.
    codes
        (N,) int, class number of each row of the library.
    """
    candidates = _take(library.embeddings, gallery)  # (G, D)
    order = np.argsort(codes[gallery], kind="stable")
    sizes = np.bincount(codes[gallery], minlength=int(codes.max()) + 1)
    of_class = np.split(order, np.cumsum(sizes)[:-1])  # positions in the gallery, rising
    own = np.searchsorted(gallery, rows)
    is_own = gallery[np.minimum(own, len(gallery) - 1)] == rows
    for block in iter_blocks(len(rows), max(1, SCORE_BLOCK_BYTES // (4 * max(candidates.shape)))):
        table = _take(library.embeddings, rows[block]) @ candidates.T
        for i, scores in zip(range(block.start, block.stop), table, strict=True):
            relevant = of_class[codes[rows[i]]]
            if is_own[i]:
                scores[own[i]] = -np.inf
                relevant = relevant[relevant != own[i]]
            yield Ranking(int(gallery[scores.argmax()]), ranks_of(scores, relevant))


def ranks_of(scores: NDArray[np.float32], chosen: NDArray[np.intp]) -> NDArray[np.intp]:
    """Find which ranks some positions have by falling score, equal scores by position.

    All scores are sorted without their positions, which is the quickest; positions are looked up
    only where a chosen one equals another that is not.

    Parameters
    ----------
    scores
        (G,) float32; minus infinity ranks last.
    chosen
        (R,) int, positions, with finite scores.

    Returns
    -------
    numpy.ndarray
        (R,) int, rising from 1.
    """
    values, counts = np.unique(scores[chosen], return_counts=True)
    ordered = np.sort(scores)
    ends = np.searchsorted(ordered, values, side="right")
    equal = ends - np.searchsorted(ordered, values)
    mixed = np.flatnonzero(equal > counts)
    if len(mixed) > MOST_TIES:
        return _ranks_by_bins(scores, chosen)
    ahead = (len(scores) - ends)[::-1]  # of each value, falling
    counts = counts[::-1]
    starts = np.cumsum(counts) - counts
    ranks = np.arange(1, len(chosen) + 1) + np.repeat(ahead - starts, counts)
    is_chosen = np.zeros(len(scores), bool)
    is_chosen[chosen] = True
    for i in mixed.tolist():
        group = len(values) - 1 - i
        places = np.flatnonzero(is_chosen[scores == values[i]])
        ranks[starts[group] : starts[group] + counts[group]] = ahead[group] + 1 + places
    return np.asarray(ranks)


def _ranks_by_bins(scores: NDArray[np.float32], chosen: NDArray[np.intp]) -> NDArray[np.intp]:
    """Do the same for scores of which many are equal.

    Scores are put into bins, as in a bucket sort, and only bins that hold a chosen one are sorted:
    a bin's number never falls as the score rises, so that whole bins need only be counted.
    """
    low, bins = scores[chosen].min(), len(scores)
    scale = np.float32(bins / max(float(scores.max() - low), LEAST_SPREAD))
    keys = np.clip((scores - low) * scale + 1, 0, bins + 1).astype(np.intp)  # 0 is below them all
    counts = np.bincount(keys)
    holds = np.zeros(len(counts), bool)
    holds[keys[chosen]] = True
    some = np.flatnonzero(holds[keys])
    some = some[order_by_score(scores[some])]
    bin_of = keys[some]  # falling
    starts = np.flatnonzero(np.append(True, bin_of[1:] != bin_of[:-1]))
    sizes = np.diff(np.append(starts, len(some)))
    ahead = len(scores) - np.cumsum(counts)[bin_of[starts]]  # in higher bins
    ranks = np.arange(1, len(some) + 1) + np.repeat(ahead - starts, sizes)
    is_chosen = np.zeros(len(scores), bool)
    is_chosen[chosen] = True
    return np.asarray(ranks[is_chosen[some]])


def _take(embeddings: NDArray[np.float32], rows: NDArray[np.intp]) -> NDArray[np.float32]:
    """Take rising rows, without a copy if they are one run, such as those of one folder."""
    run = slice(rows[0], rows[-1] + 1)
    return np.asarray(embeddings[run if len(rows) == run.stop - run.start else rows])


def order_by_score(scores: NDArray[np.float32]) -> NDArray[np.int64]:
    """Order positions by falling score, equal ones by position: (G,) int64.

    What a stable argsort returns, in a twentieth of its time at 100,000: the bits of a float32,
    made to sort as an integer, stand before its position in one int64.
    """
    bits = (np.float32(0) - scores).view(np.int32)  # no -0.0, whose bits are not those of 0.0
    keys = (bits ^ (bits >> 31 & 0x7FFFFFFF)).astype(np.int64) << 32 | np.arange(len(scores))
    keys.sort()
    return keys & 0xFFFFFFFF


class Estimate(NamedTuple):
    """A mean over queries, with its 95% bootstrap interval; NaNs where there is no interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        interval = "" if math.isnan(self.low) else f"  ({self.low:.3f} to {self.high:.3f})"
        return f"{self.value:.3f}{interval}"


def bootstrap_interval(
    values: NDArray[np.float64], resamples: int, seed: int
) -> NDArray[np.float64]:
    """Return the ends of the interval of each column's mean: (Q, M) to (2, M) float64."""
    count, width = values.shape
    if count < 2 or not resamples:
        return np.full((2, width), np.nan)  # one query says nothing of how queries differ
    rng = np.random.default_rng(seed)
    columns = np.ascontiguousarray(values.T)
    means = np.empty((width, resamples))
    for block in iter_blocks(resamples, max(1, DRAW_BLOCK // count)):
        draws = block.stop - block.start
        cells = rng.integers(count, size=(draws, count)) + count * np.arange(draws)[:, None]
        weights = np.bincount(cells.ravel(), minlength=draws * count).reshape(draws, count) / count
        # Column by column, so that the interval of a metric does not depend on what else is asked.
        for mean, column in zip(means, columns, strict=True):
            mean[block] = weights @ column
    return np.asarray(np.percentile(means, PERCENTILES, axis=1))
