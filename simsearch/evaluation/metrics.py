"""Retrieval metrics of one ranking, and of many.

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

.. [1] C. D. Manning, P. Raghavan, H. Schütze. Introduction to Information Retrieval. Cambridge
   University Press, 2008. Also for the curve: the highest precision at a recall or beyond it.
.. [2] H. O. Song, Y. Xiang, S. Jegelka, S. Savarese. Deep Metric Learning via Lifted Structured
   Feature Embedding. CVPR 2016.
.. [3] K. Musgrave, S. Belongie, S.-N. Lim. A Metric Learning Reality Check. ECCV 2020.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray


RECALL_PERCENTS = np.arange(101)
"""Recall levels of a precision-recall curve."""


class Measures(NamedTuple):
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
    """Return the names of the metrics that `measure_ranking` computes, in its order."""
    names = [f"{name}@{k}" for name in ("precision", "recall", "hit_rate") for k in depths]
    return (*names, "r_precision", "mAP", "mAP@R")


def measure_rankings(
    rankings: Iterable[NDArray[np.intp]],
    rows: NDArray[np.intp],
    codes: NDArray[np.intp],
    depths: NDArray[np.intp],
) -> Measures:
    """Measure the ranking of each query.

    Parameters
    ----------
    rankings
        For each query the gallery's rows, most alike first.
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
        values[i], curve = measure_ranking(codes[ranking] == codes[rows[i]], depths)
        nearest[i] = ranking[0]
        curves[classes[i]] += curve
    return Measures(values, nearest, curves / counts[:, None])


def measure_ranking(
    relevant: NDArray[np.bool_], depths: NDArray[np.intp]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Measure one ranking of (G,) images: the (M,) metrics, and the (101,) curve."""
    ranks = np.flatnonzero(relevant) + 1  # (R,)
    count = len(ranks)
    precisions = np.arange(1, count + 1) / ranks
    hits = np.searchsorted(ranks, depths, side="right")
    hits_at_count = int(np.searchsorted(ranks, count, side="right"))
    single = [hits_at_count / count, precisions.mean(), precisions[:hits_at_count].sum() / count]
    values = np.concatenate([hits / depths, hits / count, hits > 0, single])
    best = np.maximum.accumulate(precisions[::-1])[::-1]  # from this recall on
    needed = -(-RECALL_PERCENTS * count // 100)  # hits for a recall, rounded up in whole numbers
    return values, best[np.maximum(needed - 1, 0)]
