"""Construction of FAISS indexes: rows along principal axes in 8 bits or fewer; effort; report.

The rows are kept as a graph [1]_, in inverted lists [2]_, or one after the other.

.. [1] Y. Malkov, D. Yashunin. Efficient and robust approximate nearest neighbor search using
   Hierarchical Navigable Small World graphs. IEEE TPAMI 42 (4), 2020.
.. [2] H. Jégou, M. Douze, C. Schmid. Product quantization for nearest neighbor search. IEEE TPAMI
   33 (1), 2011.
"""

from __future__ import annotations

import math
import statistics
import time
from bisect import bisect_left
from dataclasses import replace
from typing import TYPE_CHECKING, cast, get_args

import numpy as np
from tqdm.auto import tqdm

from simsearch.backbones.heads import unit
from simsearch.errors import QueryError
from simsearch.files import iter_blocks
from simsearch.retrieval.blas import one_blas_thread
from simsearch.retrieval.exact import TopK, exact_index
from simsearch.retrieval.faiss import TUNED_K, FaissIndex, IndexReport, Kind
from simsearch.retrieval.faiss_candidates import CandidateIndex, SearchEffort
from simsearch.retrieval.faiss_compat import import_faiss

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import Any, Literal

    from numpy.typing import NDArray

    from simsearch.library.library import ImageLibrary
    from simsearch.retrieval.faiss_candidates import Candidates


SCAN_MAX_ROWS = 10_000  # below, a full scan is as fast
GRAPH_MAX_ROWS = 5_000_000  # above, a graph takes much memory
TRAINING_ROWS = 20_000  # that set the principal axes and the quantiser
ROWS_PER_LIST = 50  # of training for the centre of each list
KMEANS_ITERATIONS = 10
KMEANS_MIN_ROWS = 16  # FAISS wants one row per centre of a 4-bit quantiser
MIN_AXES, MAX_AXES = 64, 384
VARIANCE_SHARE = 0.9  # that the principal axes hold
EF_CONSTRUCTION = 160  # rows that are looked at to link a new one into the graph
BLOCK_ROWS = 8192  # that are read and added together

TARGET_RECALL = 0.997  # at 10, so that 0.99 is reached by other queries too
RECALL_TOLERANCE = 0.002  # of the highest recall in reach, given up for speed
SCORE_TOLERANCE = 1e-12  # by which sums in another order may differ
SAMPLE_QUERIES = 300  # that set the effort, and as many others that measure
TIMED_QUERIES, TIMED_EXACT_QUERIES = 100, 15  # of which the median time is reported
MIX_WEIGHT = 0.3  # of another row, added to a row to make a query unlike every row
CANDIDATE_COUNTS = (20, 30, 50, 70, 100, 150, 200, 300, 500)
MAX_REACH = 1024  # of efSearch or nprobe
MIN_EF_SEARCH = 40  # however little the sample needs
LISTS_MARGIN = 2  # times as many lists are read as the sample needs


EMPTY_TOP_K = TopK(np.empty(0, np.intp), np.empty(0))

FACTORIES: dict[str, Callable[[int, int], str]] = {  # rows and width to FAISS's own notation
    "sq": lambda _, __: "SQ8",
    "hnsw": lambda _, __: "HNSW32_SQ8",
    "ivf": lambda lists, _: f"IVF{lists},SQ8",
    "ivfpq": lambda lists, width: f"IVF{lists},PQ{width // (2 - width % 2)}x4fs",
}


def build_index(
    library: ImageLibrary, kind: Kind | Literal["auto"] = "auto", progress: bool = True
) -> FaissIndex:
    """Build an index for a large library, and measure its recall and speed there.

    It is stored beside the library if that was loaded from a folder, for `load_index`. Made for
    `search(library, query, index=index)`. Where the embeddings change, it must be built again.

    Parameters
    ----------
    library
        What to index; not copied.
    kind
        "flat", all rows in full: exact, as large as the embeddings. "sq", all rows along their
        principal axes in 8 bits. "hnsw", a graph of these: the fastest. "ivf", inverted lists of
        these, trained on a random sample: smaller, and mostly faster to build. "ivfpq", lists of
        rows in 2 to 4 bits per number: the smallest. "auto" chooses, and its report says why.
    progress
        Show a progress bar.

    Returns
    -------
    FaissIndex
        Its `report` gives recall, time, size and build time.

    Raises
    ------
    QueryError
        If there is no such kind.
    MissingExtraError
        If FAISS is not installed.
    LibraryError
        If the index cannot be stored.

    Examples
    --------
    >>> from simsearch import ImageLibrary
    >>> library = ImageLibrary([[1, 0], [0.8, 0.6], [0, 1]], ["a.jpg", "b.jpg", "c.jpg"])
    >>> index = build_index(library, progress=False)
    >>> index, index.report.recall_at_10
    (FaissIndex(flat, 3 images), 1.0)
    """
    chosen, why = choose_kind(kind, len(library))
    started = time.perf_counter()
    candidates = CandidateIndex(make_index(library, chosen, progress), chosen)
    effort = tune_effort(candidates, library, count_lists(len(library)))
    took = time.perf_counter() - started
    folder, digest = library.stored or (None, None)
    report = IndexReport(chosen, why, len(library), math.nan, math.nan, math.nan, 0, took)
    index = FaissIndex(candidates, effort, report, library.embeddings, digest)
    index.report = measure(index, candidates, library)
    if folder:
        index.save(folder)
    return index


def choose_kind(kind: str, rows: int) -> tuple[Kind, str]:
    """Return the kind of index, and why it is that one.

    Raises
    ------
    QueryError
        If there is no such kind.
    """
    if kind in get_args(Kind):
        return cast("Kind", kind), "as asked for"
    if kind != "auto":
        raise QueryError(f"kind={kind!r}: choose one of {('auto', *get_args(Kind))}")
    if rows < SCAN_MAX_ROWS:
        why = f"below {SCAN_MAX_ROWS:,} images no index is faster than exact search; leave it out"
        return "flat", why
    if rows <= GRAPH_MAX_ROWS:
        return "hnsw", f"up to {GRAPH_MAX_ROWS:,} images a graph fits in memory, and is the fastest"
    return "ivfpq", f"above {GRAPH_MAX_ROWS:,} images a graph takes much memory and long to build"


def make_index(library: ImageLibrary, kind: Kind, progress: bool) -> Any:  # noqa: ANN401
    """Make a FAISS index that takes whole embeddings, and add all rows to it."""
    index = _empty_index(library, kind)
    with tqdm(desc="Indexing", total=len(library), unit="image", disable=not progress) as bar:
        for block in iter_blocks(len(library), BLOCK_ROWS):
            index.add(np.asarray(library.embeddings[block]))
            bar.update(block.stop - block.start)
    return index


def _empty_index(library: ImageLibrary, kind: Kind) -> Any:  # noqa: ANN401
    faiss = import_faiss()
    if kind == "flat":
        return faiss.IndexFlatIP(library.dim)
    axes = principal_axes(np.concatenate(list(_sample_blocks(library, TRAINING_ROWS))))
    inner = faiss.index_factory(len(axes), FACTORIES[kind](count_lists(len(library)), len(axes)))
    _train(inner, kind, library, axes)
    rotation = faiss.LinearTransform(library.dim, len(axes), False)
    faiss.copy_array_to_vector(axes.ravel(), rotation.A)
    rotation.is_trained = True
    return faiss.IndexPreTransform(rotation, inner)


def _train(
    index: Any,  # noqa: ANN401
    kind: Kind,
    library: ImageLibrary,
    axes: NDArray[np.float32],
) -> None:
    """Set the ranges of the quantiser, and the centres of lists, by a random sample of the rows."""
    count = TRAINING_ROWS
    if kind == "hnsw":
        index.hnsw.efConstruction = EF_CONSTRUCTION
    if kind in {"ivf", "ivfpq"}:
        index.cp.niter, index.cp.min_points_per_centroid = KMEANS_ITERATIONS, 1
        count = max(count, ROWS_PER_LIST * count_lists(len(library)))
    sample = np.concatenate([rows @ axes.T for rows in _sample_blocks(library, count)])
    if len(sample) < KMEANS_MIN_ROWS:
        sample = np.resize(sample, (KMEANS_MIN_ROWS, len(axes)))
    index.train(sample)


def principal_axes(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the directions in which rows vary most: (d, D) float32, orthonormal.

    They hold 90% of the variance, within 64 to 384 axes; narrow rows keep their own axes.
    """
    dim = rows.shape[1]
    if dim <= MIN_AXES:
        return np.eye(dim, dtype=np.float32)
    centred = rows - rows.mean(axis=0)
    products = centred.T @ centred
    with one_blas_thread():  # many steps so short that two would mostly wait
        variances, axes = np.linalg.eigh(products)  # rising
    held = np.cumsum(variances[::-1].clip(0))
    enough = int(np.searchsorted(held, VARIANCE_SHARE * held[-1])) + 1
    width = min(max(MIN_AXES, 8 * math.ceil(enough / 8)), MAX_AXES, dim)
    return np.ascontiguousarray(axes.T[::-1][:width], np.float32)


def count_lists(rows: int) -> int:
    """Return the number of inverted lists for this many rows."""
    return max(1, min(int(4 * math.sqrt(rows)), rows // ROWS_PER_LIST))


def _sample_blocks(library: ImageLibrary, count: int) -> Iterator[NDArray[np.float32]]:
    """Read a random sample of the rows block by block, in the order of the file."""
    rows = draw_rows(library, count)
    return (
        np.asarray(library.embeddings[rows[block]]) for block in iter_blocks(len(rows), BLOCK_ROWS)
    )


def tune_effort(index: CandidateIndex, library: ImageLibrary, lists: int) -> SearchEffort:
    """Find the effort that reaches the target recall, or nearly the highest in reach.

    Half of the queries are rows. The others are mixtures of two rows and unlike every row, as new
    images are: a graph finds its own rows, and what is linked to them, a little too easily.

    Parameters
    ----------
    index
        With all rows of the library.
    library
        What it was built for.
    lists
        Number of its inverted lists, if it has any.
    """
    reaches = _reaches(index.kind, lists)
    if index.exact:
        return SearchEffort(CANDIDATE_COUNTS[-1], reaches[-1])
    own, vectors = _tuning_queries(library)
    truth = _exact_neighbours(library, vectors, own)

    def recall(candidates: Candidates) -> float:
        ranked = index.rank(library, vectors, min(TUNED_K + 1, len(library)), candidates)
        found = _without_own((one or EMPTY_TOP_K for one in ranked), own)
        half = len(own) // 2
        return min(recall_of(found[:half], truth[:half]), recall_of(found[half:], truth[half:]))

    widest = index.find(vectors, SearchEffort(CANDIDATE_COUNTS[-1], reaches[-1]))
    goal = min(TARGET_RECALL, recall(widest) - RECALL_TOLERANCE)
    count = _first_reaching(goal, CANDIDATE_COUNTS, lambda count: recall(widest.first(count)))
    reach = _first_reaching(
        goal, reaches, lambda reach: recall(index.find(vectors, SearchEffort(count, reach)))
    )
    # A query that misses the place of its neighbours misses them all; a sample meets few such.
    safe = max(reach, MIN_EF_SEARCH) if index.kind == "hnsw" else LISTS_MARGIN * reach
    return SearchEffort(count, min(safe, reaches[-1]))


def _tuning_queries(library: ImageLibrary) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Return rows, then mixtures: their row numbers, -1 for mixtures, and their embeddings."""
    own = draw_rows(library, SAMPLE_QUERIES, seed=1)
    vectors = np.asarray(library.embeddings[own])
    mixtures = unit(vectors + np.float32(MIX_WEIGHT) * np.roll(vectors, len(own) // 2, axis=0))
    return np.concatenate([own, np.full(len(own), -1)]), np.concatenate([vectors, mixtures])


def _reaches(kind: str, lists: int) -> list[int]:
    """List the values of efSearch or nprobe to try, in steps of about 1.4."""
    highest = {"hnsw": MAX_REACH, "ivf": lists, "ivfpq": lists}.get(kind, 1)
    steps = (round(2 ** (i / 2)) for i in range(2 * MAX_REACH.bit_length() - 1))
    return sorted({min(step, highest) for step in steps})


def _first_reaching(goal: float, steps: Sequence[int], reached: Callable[[int], float]) -> int:
    """Return the first step that reaches a goal, the last if none does."""
    return steps[min(bisect_left(steps, goal, key=reached), len(steps) - 1)]


def measure(index: FaissIndex, candidates: CandidateIndex, library: ImageLibrary) -> IndexReport:
    """Complete the report of an index, by rows of the library as queries."""
    own = draw_rows(library, SAMPLE_QUERIES, seed=2)
    vectors = np.asarray(library.embeddings[own])
    truth = _exact_neighbours(library, vectors, own)
    found = _without_own(index.top_k(library, vectors, TUNED_K + 1), own)
    exact = exact_index(library)
    return replace(
        index.report,
        recall_at_10=recall_of(found, truth),
        exact_ms=median_ms(
            lambda vector: exact.top_k(library, vector, TUNED_K), vectors[:TIMED_EXACT_QUERIES]
        ),
        ms_per_query=median_ms(
            lambda vector: index.top_k(library, vector, TUNED_K), vectors[:TIMED_QUERIES]
        ),
        size_bytes=candidates.size_bytes(),
    )


def draw_rows(library: ImageLibrary, count: int, seed: int = 0) -> NDArray[np.intp]:
    """Draw `count` different row numbers, or all there are; sorted, for reads in file order."""
    rng = np.random.default_rng(seed)
    return np.sort(rng.choice(len(library), min(count, len(library)), replace=False))


def _exact_neighbours(
    library: ImageLibrary, vectors: NDArray[np.float32], own: NDArray[np.intp]
) -> list[TopK]:
    """Return the ten best rows for each query, without its own."""
    return _without_own(exact_index(library).top_k(library, vectors, TUNED_K + 1), own)


def _without_own(found: Iterable[TopK], own: NDArray[np.intp]) -> list[TopK]:
    """Leave out of each answer the query's own row."""
    pairs = zip(found, own, strict=True)
    return [TopK(*(part[one.rows != row][:TUNED_K] for part in one)) for one, row in pairs]


def recall_of(found: Sequence[TopK], truth: Sequence[TopK]) -> float:
    """Return the share of the best rows that were found; equal scores count as well."""
    total = sum(len(best.rows) for best in truth)
    hits = sum(
        int(np.count_nonzero(some.scores >= best.scores[-1] - SCORE_TOLERANCE))
        for some, best in zip(found, truth, strict=True)
        if len(best.rows)
    )
    return hits / total if total else 1.0


def median_ms(
    search: Callable[[NDArray[np.float32]], Iterator[TopK]], vectors: NDArray[np.float32]
) -> float:
    """Median time of a search for one vector, in ms."""
    times = []
    for vector in vectors:
        started = time.perf_counter()
        next(search(vector[None]))
        times.append(1e3 * (time.perf_counter() - started))
    return statistics.median(times)
