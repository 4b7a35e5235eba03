"""Evaluation: how well the images of a library find others of the same class, with intervals.

The metrics are defined in `simsearch.evaluation.metrics`; reported is their mean over queries.
"""

from __future__ import annotations

import math
import textwrap
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from tqdm.auto import tqdm

from simsearch.errors import LibraryError, QueryError
from simsearch.evaluation.asked_rows import SAMPLE, choose_rows, draw_queries
from simsearch.evaluation.metrics import (
    RECALL_PERCENTS,
    Estimate,
    bootstrap_interval,
    measure_rankings,
    metric_names,
    rank_gallery,
)
from simsearch.plain_json import dumps, plain

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Literal

    import pandas as pd
    from numpy.typing import NDArray

    from simsearch.library.library import ImageLibrary
    from simsearch.library.types import Labels, Rows


CLASSES_SHOWN = 20  # lines of a printed table


@dataclass(frozen=True, eq=False, repr=False)
class Evaluation:
    """How well queries found images of their class, overall and class by class.

    Prints as a table, also as a notebook's bare last value.

    Attributes
    ----------
    metrics : tuple of str
        Such as "precision@10" and "mAP"; see `simsearch.evaluation.metrics`.
    values : numpy.ndarray
        (Q, M) float64, each metric of each query, in [0, 1].
    rows : numpy.ndarray
        (Q,) int, the query's row in the library, rising.
    answerable : numpy.ndarray
        (A,) int, the rows that could have asked, rising: `rows`, unless these are a sample of them.
    nearest : numpy.ndarray
        (Q,) int, the row of the gallery's image that is most similar.
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
        Images that were chosen, as a query or for the gallery, and left out as they have no label.
    resamples, seed : int
        Parameters of the bootstrap; the seed is that of the sample, too.
    """

    metrics: tuple[str, ...]
    values: NDArray[np.float64]
    rows: NDArray[np.intp]
    answerable: NDArray[np.intp]
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
        """Each metric over all queries, every query counting the same."""
        return self._estimates(self.values)

    @cached_property
    def by_class(self) -> dict[str, dict[str, Estimate]]:
        """Each metric over the queries of each class."""
        return {name: self._estimates(self.values[own]) for name, own in self._positions.items()}

    @cached_property
    def counts(self) -> dict[str, int]:
        """How many queries each class has."""
        return {name: len(own) for name, own in self._positions.items()}

    @property
    def curve(self) -> NDArray[np.float64]:
        """Interpolated precision at each of `RECALL_PERCENTS`, mean over queries: (101,)."""
        return np.asarray(np.average(self.curves, axis=0, weights=list(self.counts.values())))

    def per_query(self, metric: str = "mAP") -> NDArray[np.float64]:
        """Return one metric of each query, (Q,) float64 in the order of `rows`.

        Raises
        ------
        QueryError
            If the metric was not computed.
        """
        if metric not in self.metrics:
            raise QueryError(f"no metric {metric!r}; choose from {', '.join(self.metrics)}")
        return self.values[:, self.metrics.index(metric)]

    def worst(self, n: int = 5, metric: str = "mAP") -> NDArray[np.intp]:
        """Return the library's rows of the n queries with the lowest metric, lowest first."""
        return self.rows[np.argsort(self.per_query(metric), kind="stable")[:n]]

    def confusion(self) -> pd.DataFrame:
        """Count the class of the most similar image: one row per class of queries, one column each.

        Columns are the classes of queries, and the other classes that were found.
        """
        import pandas as pd

        from simsearch.library.odd_names import make_index

        pairs = Counter(zip(self.labels[self.rows], self.labels[self.nearest], strict=True))
        found = sorted({query for query, _ in pairs})
        columns = sorted({*self.classes, *(label for _, label in pairs)})
        counts = [[pairs[query, nearest] for nearest in columns] for query in found]
        frame = pd.DataFrame(counts, index=make_index(found), columns=make_index(columns))
        return frame.rename_axis(index="query", columns="nearest")

    def to_frame(self) -> pd.DataFrame:
        """Return a tidy pandas frame.

        Returns
        -------
        pandas.DataFrame
            Indexed by class ("" for all queries) and metric; columns value, low, high, queries.
        """
        from simsearch.library.odd_names import make_frame

        tables = {"": self.overall, **self.by_class}
        counts = {"": len(self.rows), **self.counts}
        records = [
            (name, metric, *estimate, counts[name])
            for name, table in tables.items()
            for metric, estimate in table.items()
        ]
        columns = ["class", "metric", *Estimate._fields, "queries"]
        return make_frame(records, columns, ["class", "metric"])

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python values, ready for JSON (a NaN becomes None)."""
        return {
            "queries": len(self.rows),
            "answerable": len(self.answerable),
            "gallery": len(self.gallery),
            "lonely": self.lonely,
            "unlabelled": self.unlabelled,
            "overall": _plain(self.overall),
            "classes": {
                name: {"queries": self.counts[name], **_plain(table)}
                for name, table in self.by_class.items()
            },
            "curve": {"recall": plain(RECALL_PERCENTS / 100), "precision": plain(self.curve)},
        }

    def to_json(self, indent: int | None = None) -> str:
        """Return what `to_dict` does as a JSON object."""
        return dumps(self.to_dict(), indent)

    def __str__(self) -> str:
        width = max(map(len, self.metrics))
        metrics = [f"{name:<{width}}  {value}" for name, value in self.overall.items()]
        return "\n".join([self._headline(), "", *metrics, "", *self._table()])

    __repr__ = __str__

    def _headline(self) -> str:
        head = f"{len(self.rows):,} queries{self._drawn()}, "
        head += f"{len(self.gallery):,} images in the gallery"
        reasons = {"queries that are alone in their class": self.lonely}
        reasons["images without a label"] = self.unlabelled
        left_out = ", ".join(f"{count:,} {what}" for what, count in reasons.items() if count)
        return head + (f"; left out: {left_out}" if left_out else "")

    def _drawn(self) -> str:
        """Say what the queries are a sample of."""
        if len(self.rows) == len(self.answerable):
            return ""
        absent = len(np.unique(self.labels[self.answerable])) - len(self.classes)
        none = f", none of {absent:,} small classes" if absent else ""
        return f" of {len(self.answerable):,} (a sample by class{none}; sample=all for every one)"

    def _table(self) -> list[str]:
        """List the classes, worst first, with the metrics that are one number per ranking."""
        kept = [name for name in self.metrics if not name.startswith(("recall@", "hit_rate@"))]
        worst = sorted(self._positions, key=lambda name: self._mean(name, "mAP"))
        shown = {
            name: textwrap.shorten(name, 30, placeholder="…") for name in worst[:CLASSES_SHOWN]
        }
        width = max(len("class"), *map(len, shown.values()))
        lines = [f"{'class':<{width}}  queries" + "".join(f"  {metric:>5}" for metric in kept)]
        for name, label in shown.items():
            cells = [f"  {self._mean(name, key):>{max(5, len(key))}.3f}" for key in kept]
            lines.append(f"{label:<{width}}  {self.counts[name]:>7,}{''.join(cells)}")
        hidden = len(worst) - len(shown)
        return [*lines, f"... and {hidden:,} better classes: to_frame()"] if hidden else lines

    def _mean(self, name: str, metric: str) -> float:
        """Mean of a metric over the queries of a class."""
        return float(self.per_query(metric)[self._positions[name]].mean())

    @cached_property
    def _positions(self) -> dict[str, NDArray[np.intp]]:
        """Positions of the queries of each class."""
        _, codes, counts = np.unique(
            self.labels[self.rows], return_inverse=True, return_counts=True
        )
        parts = np.split(np.argsort(codes, kind="stable"), np.cumsum(counts)[:-1])
        return dict(zip(self.classes, parts, strict=True))

    def _estimates(self, values: NDArray[np.float64]) -> dict[str, Estimate]:
        ends = bootstrap_interval(values, self.resamples, self.seed)
        table = np.vstack([values.mean(axis=0), ends]).T.tolist()
        return {name: Estimate(*row) for name, row in zip(self.metrics, table, strict=True)}


def evaluate(
    library: ImageLibrary,
    labels: Labels = "folder",
    queries: Rows = None,
    gallery: Rows = None,
    k: int | Sequence[int] = (1, 5, 10),
    *,
    sample: int | Literal["all"] = SAMPLE,
    resamples: int = 1000,
    seed: int = 0,
    progress: bool = True,
) -> Evaluation:
    """Measure how well the images of a library find others with the same label.

    Memory stays bounded, whatever the number of queries: about 64 MB of scores are held at once.
    Beyond that, a gallery that is not one run of rows is copied. Scores are float32, so that two
    images whose cosines differ by less than about 1e-6 may stand in either order.

    Every query is compared with all of the gallery. Of more queries than `sample`, that many are
    drawn, each with the same chance and from each class its share; the result says so. Its values
    are estimates of those of all queries, and its intervals hold for these.

    Parameters
    ----------
    library
        From `embed_dataset` or `ImageLibrary.load`.
    labels
        What `ImageLibrary.label_rows` takes: "folder", one label per row, or a mapping of path to
        label. An image without a label is neither a query nor in the gallery.
    queries, gallery
        What `ImageLibrary.select` takes: a glob over paths relative to the dataset's root, whose
        ``*`` also crosses folders, so that "seg_test/*" holds seg_test/forest/1.jpg; a mask of N
        booleans; or row numbers. By default every image. They may overlap: an image does not find
        itself.
    k
        The depths of precision@k, recall@k and hit_rate@k.
    sample
        How many queries to ask at most; or "all".
    resamples
        Resamples of the bootstrap; 0 for no intervals.
    seed
        Of the sample and the bootstrap: the same seed gives the same queries and intervals.
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
        the gallery is all of one class; or if k, sample or resamples is out of range.

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
    names = require_labels(library, labels)
    _, codes = np.unique(names, return_inverse=True)  # (N,) class number of each row
    is_query, in_gallery = library.select(queries), library.select(gallery)
    unlabelled = int(((is_query | in_gallery) & (names == "")).sum())
    answerable, gallery_rows, lonely = choose_rows(names, codes, is_query, in_gallery)
    rows = draw_queries(answerable, codes, sample, seed)
    depths = _check_depths(k, len(gallery_rows) - bool(in_gallery[rows].any()))
    rankings = tqdm(
        rank_gallery(library, rows, gallery_rows, codes),
        desc="Evaluating",
        total=len(rows),
        unit="query",
        delay=1,
        disable=not progress,
    )
    return Evaluation(
        metric_names(depths),
        rows=rows,
        answerable=answerable,
        **measure_rankings(rankings, rows, codes, depths)._asdict(),
        gallery=gallery_rows,
        labels=names,
        classes=tuple(np.unique(names[rows]).tolist()),
        lonely=lonely,
        unlabelled=unlabelled,
        resamples=resamples,
        seed=seed,
    )


def require_labels(library: ImageLibrary, labels: Labels) -> NDArray[np.str_]:
    """Return the label of each image, (N,) unicode, at least one of which is not empty.

    Raises
    ------
    LibraryError
        If no folder of the library is a label.
    QueryError
        If every label is empty, or they do not fit the library.
    """
    names = library.label_rows(labels)
    if (names != "").any():
        return names
    if isinstance(labels, str):
        raise LibraryError(
            "no folder of this library is a label: keep the images in one folder per class "
            "(dataset/forest/1.jpg), or give labels="
        )
    raise QueryError("every label is empty; give labels= some that are not")


def _check_depths(k: int | Sequence[int], limit: int) -> NDArray[np.intp]:
    """Check the depths, and sort them: (K,) int."""
    given = np.atleast_1d(np.asarray(k))
    if given.dtype.kind not in "iu" or given.ndim != 1:
        raise QueryError(f"k={k!r}: give whole numbers, such as (1, 5, 10)")
    depths = np.unique(given)
    if depths[0] < 1 or depths[-1] > limit:
        raise QueryError(f"k={k!r}: a query ranks {limit:,} images, so give 1 to {limit}")
    return depths.astype(np.intp)


def _plain(table: dict[str, Estimate]) -> dict[str, dict[str, float | None]]:
    return {
        metric: {key: None if math.isnan(x) else x for key, x in estimate._asdict().items()}
        for metric, estimate in table.items()
    }
