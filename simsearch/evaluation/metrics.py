"""How well a library finds images of the same class: the measures of retrieval, with intervals.

Nothing here learns or draws. One query ranks the gallery by falling cosine, equal cosines in the
order of their rows. The gallery's images with the query's label are relevant, R of them, and
hits(k) of them are among the first k. The query itself is never among them. Then, for one query:

==============  =============================================  =================================
precision@k     hits(k) / k                                    [1]_, section 8.4
recall@k        hits(k) / R                                    [1]_, section 8.3
hit_rate@k      1 if hits(k) > 0, else 0                       "Recall@K" in metric learning [2]_
r_precision     hits(R) / R                                    [1]_, section 8.4
mAP             mean of precision@r over the ranks r of all R  [1]_, section 8.4
mAP@R           sum of precision@r over those r <= R, by R     [3]_
==============  =============================================  =================================

What is reported is the mean over queries. Its interval says what other queries of the same kind
might have given, against the same gallery: the percentile bootstrap over queries, [4]_, chapter 13.

.. [1] C. D. Manning, P. Raghavan, H. Schütze. Introduction to Information Retrieval. Cambridge
   University Press, 2008. Also for the curve: the highest precision at a recall or beyond it.
.. [2] H. O. Song, Y. Xiang, S. Jegelka, S. Savarese. Deep Metric Learning via Lifted Structured
   Feature Embedding. CVPR 2016.
.. [3] K. Musgrave, S. Belongie, S.-N. Lim. A Metric Learning Reality Check. ECCV 2020.
.. [4] B. Efron, R. J. Tibshirani. An Introduction to the Bootstrap. Chapman & Hall, 1993.
"""

from __future__ import annotations

import json
import math
import textwrap
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from tqdm.auto import tqdm

from simsearch.errors import LibraryError, QueryError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Any

    import pandas as pd
    from numpy.typing import NDArray

    from simsearch.library.library import ImageLibrary
    from simsearch.library.types import Labels, Rows


RECALLS = np.arange(101)
"""Recall levels of a precision-recall curve, in percent."""

_SCORES_BYTES = 2**26  # of scores, or of embeddings of queries, that are held at once
_DRAWS = 2**20  # of the bootstrap that are held at once
_PERCENTILES = (2.5, 97.5)
_CLASSES_SHOWN = 20  # lines of a printed table


class Estimate(NamedTuple):
    """A mean over queries, with its 95% bootstrap interval; NaNs where there is no interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        interval = "" if math.isnan(self.low) else f"  ({self.low:.3f} to {self.high:.3f})"
        return f"{self.value:.3f}{interval}"


@dataclass(frozen=True, eq=False, repr=False)
class Evaluation:
    """How well queries found images of their class, overall and class by class.

    Prints as a table, also as a notebook's bare last value.

    Attributes
    ----------
    metrics : tuple of str
        Names of the measures, such as "precision@10" and "mAP"; see `simsearch.metrics`.
    values : numpy.ndarray
        (Q, M) float64, each measure of each query, in [0, 1].
    rows : numpy.ndarray
        (Q,) int, the query's row in the library, rising.
    nearest : numpy.ndarray
        (Q,) int, the row of the gallery's image that is most like it.
    gallery : numpy.ndarray
        (G,) int, the rows that were searched, rising.
    labels : numpy.ndarray
        (N,) unicode, of every image of the library; "" where it has none.
    classes : tuple of str
        Names of the queries' classes, sorted.
    curves : numpy.ndarray
        (C, 101) float64, for each of those classes the interpolated precision at a recall of 0%,
        1%, ..., 100%, mean over its queries.
    lonely : int
        Queries that were left out, as the gallery holds no other image of their class.
    unlabelled : int
        Images that were asked for, as a query or in the gallery, and left out for want of a label.
    resamples, seed : int
        Of the bootstrap.
    """

    metrics: tuple[str, ...]
    values: NDArray[np.float64]
    rows: NDArray[np.intp]
    nearest: NDArray[np.intp]
    gallery: NDArray[np.intp]
    labels: NDArray[np.str_]
    classes: tuple[str, ...]
    curves: NDArray[np.float64]
    lonely: int
    unlabelled: int
    resamples: int
    seed: int

    @cached_property
    def overall(self) -> dict[str, Estimate]:
        """Each measure over all queries, every query counting the same."""
        return self._estimates(self.values)

    @cached_property
    def by_class(self) -> dict[str, dict[str, Estimate]]:
        """Each measure over the queries of each class."""
        return {name: self._estimates(self.values[own]) for name, own in self._members.items()}

    @cached_property
    def counts(self) -> dict[str, int]:
        """How many queries each class has."""
        return {name: len(own) for name, own in self._members.items()}

    @property
    def curve(self) -> NDArray[np.float64]:
        """Interpolated precision at each of `RECALLS`, mean over all queries: (101,) float64."""
        mean: NDArray[np.float64] = np.average(
            self.curves, axis=0, weights=list(self.counts.values())
        )
        return mean

    def per_query(self, metric: str = "mAP") -> NDArray[np.float64]:
        """Return one measure of each query, (Q,) float64 in the order of `rows`.

        Raises
        ------
        QueryError
            If it was not measured.
        """
        if metric not in self.metrics:
            raise QueryError(f"no measure {metric!r}; choose from {', '.join(self.metrics)}")
        return self.values[:, self.metrics.index(metric)]

    def worst(self, n: int = 5, metric: str = "mAP") -> NDArray[np.intp]:
        """Return the library's rows of the n queries with the lowest measure, lowest first."""
        return self.rows[np.argsort(self.per_query(metric), kind="stable")[:n]]

    def confusion(self) -> pd.DataFrame:
        """Count what class the most alike image has: a row a query's class, a column a found one.

        Both hold the classes of queries, and columns also the other ones that were found.
        """
        import pandas as pd

        counts = pd.crosstab(self.labels[self.rows], self.labels[self.nearest])
        columns = sorted({*self.classes, *counts.columns})
        frame: pd.DataFrame = counts.reindex(columns=columns, fill_value=0)
        return frame.rename_axis(index="query", columns="nearest")

    def to_frame(self) -> pd.DataFrame:
        """Return a tidy pandas frame.

        Returns
        -------
        pandas.DataFrame
            Indexed by class ("" for all queries) and metric; columns value, low, high, queries.
        """
        import pandas as pd

        tables = {"": self.overall, **self.by_class}
        counts = {"": len(self.rows), **self.counts}
        records = [
            (name, metric, *estimate, counts[name])
            for name, table in tables.items()
            for metric, estimate in table.items()
        ]
        columns = ["class", "metric", *Estimate._fields, "queries"]
        return pd.DataFrame(records, columns=columns).set_index(["class", "metric"])

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python values, ready for JSON (a NaN becomes None)."""
        return {
            "queries": len(self.rows),
            "gallery": len(self.gallery),
            "lonely": self.lonely,
            "unlabelled": self.unlabelled,
            "overall": _plain(self.overall),
            "classes": {
                name: {"queries": self.counts[name], **_plain(table)}
                for name, table in self.by_class.items()
            },
            "curve": {"recall": (RECALLS / 100).tolist(), "precision": self.curve.tolist()},
        }

    def to_json(self, indent: int | None = None) -> str:
        """Return what `to_dict` does as a JSON object."""
        return json.dumps(self.to_dict(), indent=indent)

    def __str__(self) -> str:
        width = max(map(len, self.metrics))
        measures = [f"{name:<{width}}  {value}" for name, value in self.overall.items()]
        return "\n".join([self._headline(), "", *measures, "", *self._table()])

    __repr__ = __str__

    def _headline(self) -> str:
        left_out = []
        if self.lonely:
            left_out.append(f"{self.lonely:,} queries that are alone in their class")
        if self.unlabelled:
            left_out.append(f"{self.unlabelled:,} images without a label")
        head = f"{len(self.rows):,} queries, {len(self.gallery):,} images in the gallery"
        return head + (f"; left out: {', '.join(left_out)}" if left_out else "")

    def _table(self) -> list[str]:
        """List the classes, worst first, with the measures that are one number a ranking."""
        kept = [name for name in self.metrics if not name.startswith(("recall@", "hit_rate@"))]
        columns = [self.metrics.index(name) for name in kept]
        means = {
            name: self.values[own].mean(axis=0)[columns] for name, own in self._members.items()
        }
        worst = sorted(means, key=lambda name: means[name][kept.index("mAP")])
        names = {name: textwrap.shorten(name, 30, placeholder="…") for name in worst}
        shown = worst[:_CLASSES_SHOWN]
        first = max(len("class"), *(len(names[name]) for name in shown))
        heads = "".join(f"  {key:>5}" for key in kept)
        lines = [f"{'class':<{first}}  queries{heads}"]
        for name in shown:
            cells = (
                f"  {mean:>{max(5, len(key))}.3f}"
                for mean, key in zip(means[name], kept, strict=True)
            )
            lines.append(f"{names[name]:<{first}}  {self.counts[name]:>7,}{''.join(cells)}")
        hidden = len(worst) - len(shown)
        return [*lines, f"... and {hidden:,} better classes: to_frame()"] if hidden else lines

    @cached_property
    def _members(self) -> dict[str, NDArray[np.intp]]:
        """Positions of the queries of each class."""
        _, which, counts = np.unique(
            self.labels[self.rows], return_inverse=True, return_counts=True
        )
        parts = np.split(np.argsort(which, kind="stable"), np.cumsum(counts)[:-1])
        return dict(zip(self.classes, parts, strict=True))

    def _estimates(self, values: NDArray[np.float64]) -> dict[str, Estimate]:
        ends = _interval(values, self.resamples, self.seed)
        table = np.vstack([values.mean(axis=0), ends]).T.tolist()
        return {name: Estimate(*row) for name, row in zip(self.metrics, table, strict=True)}


def evaluate(
    library: ImageLibrary,
    labels: Labels = "folder",
    queries: Rows = None,
    gallery: Rows = None,
    k: int | Sequence[int] = (1, 5, 10),
    *,
    resamples: int = 1000,
    seed: int = 0,
    progress: bool = True,
) -> Evaluation:
    """Measure how well images of a library find those with the same label.

    Memory stays bounded, whatever the number of queries: about 64 MB of scores are held at once.
    Beyond that, a gallery that is not one run of rows is copied. Scores are float32, so that two
    images whose cosines differ by less than about 1e-6 may stand in either order.

    Parameters
    ----------
    library
        From `embed_dataset` or `ImageLibrary.load`.
    labels
        What `ImageLibrary.label_rows` takes: "folder", a label a row, or a mapping of path to
        label. What an image without a label shows is not known, so it counts neither as right nor
        as wrong: it is no query, and not in the gallery.
    queries, gallery
        What `ImageLibrary.select` takes: a glob over paths relative to the dataset's root, whose
        ``*`` also crosses folders, so that "seg_test/*" holds seg_test/forest/1.jpg; a mask of N
        booleans; or row numbers. By default every image. They may overlap: an image does not find
        itself.
    k
        The depths of precision@k, recall@k and hit_rate@k.
    resamples
        Of the bootstrap; 0 for no intervals.
    seed
        Of the bootstrap: the same one gives the same intervals.
    progress
        Whether to show a progress bar, if it takes more than a second.

    Returns
    -------
    Evaluation

    Raises
    ------
    LibraryError
        If no folder of the library is a label.
    QueryError
        If labels, queries or gallery do not fit the library; if no query has a relevant image; if
        the gallery is all of one class; or if k or resamples is out of range.

    Examples
    --------
    >>> from simsearch import ImageLibrary
    >>> rows = [[1, 0], [0.9, 0.1], [0.8, 0.2], [0, 1], [0.3, 0.7]]
    >>> paths = ["cat/1.jpg", "cat/2.jpg", "dog/1.jpg", "dog/2.jpg", "dog/3.jpg"]
    >>> evaluation = evaluate(ImageLibrary(rows, paths), k=1)
    >>> round(evaluation.overall["mAP"].value, 3), evaluation.counts
    (0.883, {'cat': 2, 'dog': 3})
    """
    if resamples < 0:
        raise QueryError(f"resamples={resamples}: give 0, for no intervals, or more")
    names = labelled(library, labels)
    _, codes = np.unique(names, return_inverse=True)  # (N,) a number for each label
    asked, offered = library.select(queries), library.select(gallery)
    unlabelled = int(((asked | offered) & (names == "")).sum())
    rows, others, lonely = _pair(names, codes, asked, offered)
    depths = _depths(k, len(others) - bool(offered[rows].any()))
    shown = tqdm(
        _rankings(library, rows, others),
        desc="Evaluating",
        total=len(rows),
        unit="query",
        delay=1,
        disable=not progress,
    )
    values, nearest, curves = _measure_all(shown, rows, codes, depths)
    return Evaluation(
        metrics=(
            *(
                f"{name}@{depth}"
                for name in ("precision", "recall", "hit_rate")
                for depth in depths
            ),
            *("r_precision", "mAP", "mAP@R"),
        ),
        values=values,
        rows=rows,
        nearest=nearest,
        gallery=others,
        labels=names,
        classes=tuple(np.unique(names[rows]).tolist()),
        curves=curves,
        lonely=lonely,
        unlabelled=unlabelled,
        resamples=resamples,
        seed=seed,
    )


def labelled(library: ImageLibrary, labels: Labels) -> NDArray[np.str_]:
    """Label each image, and see that there is a label at all: (N,) unicode."""
    names = library.label_rows(labels)
    if not (names != "").any():
        if isinstance(labels, str):
            raise LibraryError(
                "no folder of this library is a label: keep the images in one folder a class "
                "(dataset/forest/1.jpg), or give labels="
            )
        raise QueryError("every label is empty; give labels= some that are not")
    return names


def _pair(
    names: NDArray[np.str_],
    codes: NDArray[np.intp],
    asked: NDArray[np.bool_],
    offered: NDArray[np.bool_],
) -> tuple[NDArray[np.intp], NDArray[np.intp], int]:
    """Return the rows of queries and gallery, and how many queries have nothing to find."""
    asked, offered = asked & (names != ""), offered & (names != "")
    if not asked.any() or not offered.any():
        which = "gallery" if asked.any() else "queries"
        raise QueryError(f"no image of {which}= has a label; choose others, or give labels=")
    sizes = np.bincount(codes[offered], minlength=codes.max() + 1)
    if np.count_nonzero(sizes) == 1:
        only = str(names[offered][0])
        raise QueryError(
            f"every image of the gallery is labelled {only!r}: nothing wrong could be found there; "
            "choose a gallery of several classes, or give other labels="
        )
    answered = asked & (sizes[codes] > offered)
    if not answered.any():
        raise QueryError(
            f"no query has another image of its class in the gallery (the first is labelled "
            f"{str(names[asked][0])!r}); choose other queries= or gallery=, or give other labels="
        )
    return np.flatnonzero(answered), np.flatnonzero(offered), int((asked & ~answered).sum())


def _depths(k: int | Sequence[int], limit: int) -> NDArray[np.intp]:
    """Check the depths, and sort them: (K,) int."""
    asked = np.atleast_1d(np.asarray(k))
    if asked.dtype.kind not in "iu" or asked.ndim != 1:
        raise QueryError(f"k={k!r}: give whole numbers, such as (1, 5, 10)")
    depths = np.unique(asked)
    if depths[0] < 1 or depths[-1] > limit:
        raise QueryError(f"k={k!r}: a query ranks {limit:,} images, so give 1 to {limit}")
    return depths.astype(np.intp)


def _rankings(
    library: ImageLibrary, rows: NDArray[np.intp], gallery: NDArray[np.intp]
) -> Iterator[NDArray[np.intp]]:
    """Rank the gallery for each query in turn: its rows, most alike first, without the query."""
    candidates = _take(library.embeddings, gallery)  # (G, D)
    at_once = max(1, _SCORES_BYTES // (4 * max(candidates.shape)))
    for i in range(0, len(rows), at_once):
        block = rows[i : i + at_once]
        for row, scores in zip(block, _take(library.embeddings, block) @ candidates.T, strict=True):
            found = gallery[_by_score(scores)]
            yield found[found != row]


def _take(embeddings: NDArray[np.float32], rows: NDArray[np.intp]) -> NDArray[np.float32]:
    """Take rising rows, without a copy if they are one run, such as those of one folder."""
    run = slice(rows[0], rows[-1] + 1)
    return np.asarray(embeddings[run if len(rows) == rows[-1] + 1 - rows[0] else rows])


def _by_score(scores: NDArray[np.float32]) -> NDArray[np.int64]:
    """Order positions by falling score, equal ones by position: (G,) int64.

    What a stable argsort returns, in a twentieth of its time at 100,000: the bits of a float32,
    made to sort as an integer, stand before its position in one int64.
    """
    bits = (np.float32(0) - scores).view(np.int32)  # no -0.0, whose bits are not those of 0.0
    keys = (bits ^ (bits >> 31 & 0x7FFFFFFF)).astype(np.int64) << 32 | np.arange(len(scores))
    keys.sort()
    return keys & 0xFFFFFFFF


def _measure_all(
    rankings: Iterable[NDArray[np.intp]],
    rows: NDArray[np.intp],
    codes: NDArray[np.intp],
    depths: NDArray[np.intp],
) -> tuple[NDArray[np.float64], NDArray[np.intp], NDArray[np.float64]]:
    """Measure each query's ranking: the values, the first row, and the mean curve of each class."""
    _, which, counts = np.unique(codes[rows], return_inverse=True, return_counts=True)
    values = np.empty((len(rows), 3 * len(depths) + 3))
    nearest = np.empty(len(rows), np.intp)
    curves = np.zeros((len(counts), len(RECALLS)))
    for i, found in enumerate(rankings):
        values[i], curve = _measure(codes[found] == codes[rows[i]], depths)
        nearest[i] = found[0]
        curves[which[i]] += curve
    return values, nearest, curves / counts[:, None]


def _measure(
    relevant: NDArray[np.bool_], depths: NDArray[np.intp]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Measure one ranking: the values, as defined at the top, and the curve at `RECALLS`."""
    ranks = np.flatnonzero(relevant) + 1  # (R,)
    count = len(ranks)
    precisions = np.arange(1, count + 1) / ranks
    hits = np.searchsorted(ranks, depths, side="right")
    first = int(np.searchsorted(ranks, count, side="right"))  # hits(R)
    single = [first / count, precisions.mean(), precisions[:first].sum() / count]
    values = np.concatenate([hits / depths, hits / count, hits > 0, single])
    best = np.maximum.accumulate(precisions[::-1])[::-1]  # from this recall on
    needed = -(-RECALLS * count // 100)  # hits for a recall, rounded up in whole numbers
    return values, best[np.maximum(needed - 1, 0)]


def _interval(values: NDArray[np.float64], resamples: int, seed: int) -> NDArray[np.float64]:
    """Return the ends of the bootstrap interval of each column's mean: (2, M) float64."""
    count, width = values.shape
    if count < 2 or not resamples:
        return np.full((2, width), np.nan)  # one query says nothing of how queries differ
    rng = np.random.default_rng(seed)
    at_once = max(1, _DRAWS // count)
    means = []
    for i in range(0, resamples, at_once):
        draws = min(at_once, resamples - i)
        cells = rng.integers(count, size=(draws, count)) + count * np.arange(draws)[:, None]
        weights = np.bincount(cells.ravel(), minlength=draws * count).reshape(draws, count)
        means.append(weights @ values / count)
    ends: NDArray[np.float64] = np.percentile(np.concatenate(means), _PERCENTILES, axis=0)
    return ends


def _plain(table: dict[str, Estimate]) -> dict[str, dict[str, float | None]]:
    return {
        metric: {
            name: None if math.isnan(value) else value for name, value in estimate._asdict().items()
        }
        for metric, estimate in table.items()
    }
