"""Approximate index of a table in LanceDB: built, tuned, measured, and kept in the table.

LanceDB proposes rows, from lists of graphs or of product codes; float64 scores rank them. How many
lists are read is set by one half of some queries with known answers, and recall is stated of the
other.
"""

from __future__ import annotations

import json
import logging
import statistics
import time
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, get_args

import numpy as np

from simsearch.cluster.lance_scan import GATHERED_ROWS, ROW, LanceIndex, find_in_table
from simsearch.errors import LibraryError, QueryError
from simsearch.library.parquet import EMBEDDING
from simsearch.retrieval.exact import TopK, rescore, rounding_error

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from simsearch.cluster.lance import LanceLibrary

logger = logging.getLogger("simsearch")

Kind: TypeAlias = Literal["ivf_hnsw_sq", "ivf_pq"]
NAME = "simsearch_index"  # of the index, and of its settings in the metadata of the column
MIN_ROWS = 10_000  # fewer are scanned as quickly
GRAPH_ROWS, LIST_ROWS = 100_000, 2_048  # in a list of a graph, and of product codes
NUMBERS_PER_CODE = 8  # of an embedding, in one byte
K = 10  # for which the effort is set, and recall is stated
QUERIES = 200  # one half sets the effort, the other is measured
NEAR_ROWS = 100  # of a row: its near-copies score more than halfway from these to the nearest
MARGIN = 0.003  # of recall: the effort is set for more than is asked
REFINEMENTS = (1, 2, 4, 8, 16, 32)  # times as many rows are scored in full as are wanted
SPARE_ROWS = 32  # that a search finds beyond k
EXACT_BELOW = 0.1  # of the rows that are allowed: for fewer, the table is scanned
BLOCK_ROWS = 8_192


@dataclass(frozen=True)
class LanceReport:
    """What an index of a table is, and what was measured of it.

    Attributes
    ----------
    kind : str
        "ivf_hnsw_sq" or "ivf_pq".
    rows : int
        That it ranks.
    lists, probes : int
        Into which the rows fall, and how many of them a search reads.
    refine : int
        Times as many rows are scored in full as are wanted.
    recall_at_10 : float
        Share of the ten nearest that are found for rows which, with their near-copies, do not
        count: as for pictures that are not in the table. Other queries than those that set the
        effort.
    ms_per_query, exact_ms : float
        Median time of a search with the index, and of one that scans the table.
    build_seconds : float
        Building alone.
    """

    kind: str
    rows: int
    lists: int
    probes: int
    refine: int
    recall_at_10: float
    ms_per_query: float
    exact_ms: float
    build_seconds: float


class _Questions(NamedTuple):
    """Queries, the rows that do not count for each, and the ten nearest of all others."""

    vectors: NDArray[np.float32]  # (Q, D)
    copies: list[NDArray[np.intp]]
    truth: list[NDArray[np.intp]]

    def part(self, which: slice) -> _Questions:
        return _Questions(self.vectors[which], self.copies[which], self.truth[which])


class LanceListIndex(LanceIndex):
    """Ranks the rows that an index of LanceDB proposes; float64 scores rank them.

    Parameters
    ----------
    table
        Of LanceDB, at one version.
    report
        How it is searched.
    """

    exact = False

    def __init__(self, table: Any, report: LanceReport) -> None:  # noqa: ANN401
        super().__init__(table)
        self.report = report

    def __repr__(self) -> str:
        return f"LanceListIndex({self.report.kind}, {self.report.rows:,} images)"

    def _rank(
        self,
        library: LanceLibrary,
        vector: NDArray[np.float32],
        k: int,
        mask: NDArray[np.bool_] | None,
        count: int,
    ) -> TopK:
        """Rank what the lists hold; by a scan where few rows are allowed, or too few are found."""
        if count > max(GATHERED_ROWS, EXACT_BELOW * len(library)):
            share = count / len(library)
            limit = min(len(library), int((k + SPARE_ROWS) / share**2) + 1)  # which may be uneven
            rows, scores = find_in_table(
                self._table, vector, limit, probes=self.report.probes, refine=self.report.refine
            )
            if mask is not None:
                rows, scores = rows[mask[rows]], scores[mask[rows]]
            if len(rows) >= k:
                error = rounding_error(library.dim + 2)
                return rescore(library, vector, scores, k, rows=rows, error=error)
        return super()._rank(library, vector, k, mask, count)


def build_in_table(library: LanceLibrary, table: Any, kind: Kind, recall: float) -> LanceReport:  # noqa: ANN401
    """Build, tune and measure an index of the newest version of a table, and keep it there.

    Raises
    ------
    QueryError
        If there is no such kind, or the recall is none.
    LibraryError
        If the table has few rows, or LanceDB refuses.
    """
    if kind not in get_args(Kind):
        raise QueryError(f"kind={kind!r}: give one of {', '.join(map(repr, get_args(Kind)))}")
    if not 0.5 <= recall < 1:
        raise QueryError(f"recall={recall!r}: give a share from 0.5 to less than 1")
    if len(library) < MIN_ROWS:
        raise LibraryError(
            f"{library!s} has {len(library):,} rows: fewer than {MIN_ROWS:,} are searched as "
            "quickly without an index, and exactly"
        )
    config, lists = _config(kind, len(library), library.dim)
    started = time.perf_counter()
    try:
        table.create_index(EMBEDDING, config=config, name=NAME, replace=True)
    except (OSError, RuntimeError, ValueError) as error:
        raise LibraryError(f"cannot build an index of {library!s}: {error}") from error
    took = time.perf_counter() - started
    report = LanceReport(kind, len(library), lists, lists, 1, 0.0, 0.0, 0.0, took)
    report = _measured(library, table, report, recall)
    settings = {NAME: json.dumps(asdict(report))}
    table.update_field_metadata({"path": EMBEDDING, "metadata": settings})
    if report.recall_at_10 < recall:
        logger.warning(
            "the index of %s finds %.3f of the ten nearest, and %.3f was asked for: try the other "
            "kind, or search without it (use_index=False)",
            *(library, report.recall_at_10, recall),
        )
    return report


def stored_index(table: Any, count: int) -> LanceListIndex | None:  # noqa: ANN401
    """Return the index of a table, if `build_in_table` made one of all its rows."""
    text = (table.schema.field(EMBEDDING).metadata or {}).get(NAME.encode())
    if text is None or NAME not in [each.name for each in table.list_indices()]:
        return None
    try:
        report = LanceReport(**json.loads(text))
    except (ValueError, TypeError):
        return None
    stats = table.index_stats(NAME)
    whole = stats is not None and not stats.num_unindexed_rows
    return LanceListIndex(table, report) if whole and report.rows == count else None


def _config(kind: Kind, rows: int, dim: int) -> tuple[Any, int]:
    """Return LanceDB's configuration of an index, and the number of its lists."""
    from lancedb.index import HnswSq, IvfPq

    if kind == "ivf_hnsw_sq":
        lists = max(1, round(rows / GRAPH_ROWS))
        return HnswSq(distance_type="dot", num_partitions=lists), lists
    lists = max(1, round(rows / LIST_ROWS))
    codes = next(dim // width for width in range(NUMBERS_PER_CODE, 0, -1) if dim % width == 0)
    return IvfPq(distance_type="dot", num_partitions=lists, num_sub_vectors=codes), lists


# Effort and recall


def _measured(
    library: LanceLibrary,
    table: Any,  # noqa: ANN401
    report: LanceReport,
    recall: float,
) -> LanceReport:
    """Return the report with the least effort that reaches a recall, and what was measured."""
    questions = _ask(library, table)
    tuning, measured = (questions.part(slice(half, None, 2)) for half in (0, 1))
    goal = min(1.0, recall + MARGIN)

    def reached(probes: int, refine: int) -> float:
        chosen = replace(report, probes=probes, refine=refine)
        return _recall(LanceListIndex(table, chosen), library, tuning)

    refine = next((some for some in REFINEMENTS if reached(report.lists, some) >= goal), None)
    refine = refine or REFINEMENTS[-1]
    probes = 1
    while probes < report.lists and reached(probes, refine) < goal:
        probes = min(report.lists, 2 * probes)
    chosen = replace(report, probes=probes, refine=refine)
    index = LanceListIndex(table, chosen)
    return replace(
        chosen,
        recall_at_10=round(_recall(index, library, measured), 4),
        ms_per_query=_median_ms(index, library, measured.vectors),
        exact_ms=_median_ms(LanceIndex(table), library, measured.vectors[: QUERIES // 10]),
    )


def _recall(index: LanceListIndex, library: LanceLibrary, questions: _Questions) -> float:
    hits = total = 0
    for vector, copies, truth in zip(*questions, strict=True):
        found = next(index.top_k(library, vector[None], K + len(copies))).rows
        found = found[~np.isin(found, copies)][:K]
        hits, total = hits + len(np.intersect1d(found, truth)), total + len(truth)
    return hits / total if total else 1.0


def _median_ms(index: LanceIndex, library: LanceLibrary, vectors: NDArray[np.float32]) -> float:
    times = []
    for vector in vectors:
        started = time.perf_counter()
        next(index.top_k(library, vector[None], K))
        times.append(1e3 * (time.perf_counter() - started))
    return round(statistics.median(times), 2)


def _ask(library: LanceLibrary, table: Any) -> _Questions:  # noqa: ANN401
    """Draw queries, and find their nearest rows by one pass over the table."""
    drawn = np.random.default_rng(0).choice(len(library), min(QUERIES, len(library)), replace=False)
    vectors = library.row_lookup[drawn]
    rows, scores = _nearest(_blocks(table), vectors, NEAR_ROWS + 1)
    copies, truth = [], []
    for own, near, found in zip(drawn.tolist(), rows, scores, strict=True):
        others = near != own
        limit = (found[others][0] + found[-1]) / 2
        copy = (found > limit) | ~others
        copies.append(near[copy])
        truth.append(near[~copy][:K])
    return _Questions(vectors, copies, truth)


def _blocks(table: Any) -> Iterator[tuple[NDArray[np.intp], NDArray[np.float32]]]:  # noqa: ANN401
    """Read row numbers (n,) and embeddings (n, D) of a table, block by block."""
    for batch in table.search().select([ROW, EMBEDDING]).to_batches(BLOCK_ROWS):
        vectors = batch.column(EMBEDDING).flatten().to_numpy(zero_copy_only=False)
        rows = batch.column(ROW).to_numpy(zero_copy_only=False).astype(np.intp)
        yield rows, vectors.reshape(len(rows), -1)


def _nearest(
    blocks: Iterator[tuple[NDArray[np.intp], NDArray[np.float32]]],
    vectors: NDArray[np.float32],
    count: int,
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Return the best rows for each query, and their scores: (Q, count) each."""
    kept = np.empty((len(vectors), 0), np.intp), np.empty((len(vectors), 0), np.float32)
    for rows, embeddings in blocks:
        numbers = np.broadcast_to(rows, (len(vectors), len(rows)))
        scores = np.hstack([kept[1], vectors @ embeddings.T])
        best = np.argsort(-scores, axis=1, kind="stable")[:, :count]
        numbers = np.take_along_axis(np.hstack([kept[0], numbers]), best, axis=1)
        kept = numbers, np.take_along_axis(scores, best, axis=1)
    return kept
