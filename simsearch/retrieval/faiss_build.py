"""Construction of FAISS indexes: rows turned at random [1]_, in 8 bits or fewer a number.

The rows are kept as a graph [2]_, in inverted lists [3]_, or one after the other. All dimensions
are kept: what lies outside the directions in which a library varies is what tells new pictures.

.. [1] J. Gao, C. Long. RaBitQ: Quantizing high-dimensional vectors with a theoretical error bound
   for approximate nearest neighbor search. SIGMOD 2024.
.. [2] Y. Malkov, D. Yashunin. Efficient and robust approximate nearest neighbor search using
   Hierarchical Navigable Small World graphs. IEEE TPAMI 42 (4), 2020.
.. [3] H. Jégou, M. Douze, C. Schmid. Product quantization for nearest neighbor search. IEEE TPAMI
   33 (1), 2011.
"""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import TYPE_CHECKING, cast, get_args

import numpy as np
from tqdm.auto import tqdm

from simsearch.errors import QueryError
from simsearch.files import iter_blocks
from simsearch.library.files import writing
from simsearch.retrieval.faiss import FaissIndex
from simsearch.retrieval.faiss_candidates import LIST_KINDS, CandidateIndex
from simsearch.retrieval.faiss_compat import import_faiss
from simsearch.retrieval.faiss_held_out import ask_questions, draw_rows, hold_out
from simsearch.retrieval.faiss_report import IndexReport, Kind, warn_if_low
from simsearch.retrieval.faiss_rotation import Rotation
from simsearch.retrieval.faiss_store import IndexedRows, rows_in_order, store_index
from simsearch.retrieval.faiss_tune import measure_cost, measure_recall, tune
from simsearch.retrieval.part_rows import rows_to_index

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, Literal

    from numpy.typing import NDArray

    from simsearch.library.library import ImageLibrary


SCAN_MAX_ROWS = 10_000  # below, a full scan is as fast
TRAINING_ROWS = 20_000  # that set the quantiser
ROWS_PER_LIST = 50  # of training for the centre of each list
CODES_PER_LIST = 2500  # of 1 bit a number
LISTED_ROWS = 100_000  # from which such codes have lists: of a few, a near row's is often not read
KMEANS_ITERATIONS = 6
KMEANS_MIN_ROWS = 16  # FAISS wants one row per centre of a 4-bit quantiser
EF_CONSTRUCTION = 160  # rows that are looked at to link a new one into the graph
BLOCK_ROWS = 8192  # that are read and added together

FACTORIES: dict[str, Callable[[int, int], str]] = {  # rows and width to FAISS's own notation
    "sq": lambda _, __: "SQ8",
    "hnsw": lambda _, __: "HNSW32_SQ8",
    "ivf": lambda lists, _: f"IVF{lists},SQ8",
    "ivfpq": lambda lists, width: f"IVF{lists},PQ{width // (2 - width % 2)}x4fs",
    "rabitq": lambda lists, _: f"IVF{lists},RaBitQfs",
}


def build_index(
    library: ImageLibrary,
    kind: Kind | Literal["auto"] = "auto",
    progress: bool = True,
    queries: Any = None,  # noqa: ANN401 (pictures and embeddings of all kinds)
    parts: bool = False,
) -> FaissIndex:
    """Build an index for a large library, and measure its recall and speed there.

    Recall is measured with queries that are not in the index: rows that are held out of it with
    their near-copies, rows without themselves, pictures unlike any, and queries of your own.

    It is stored beside the library if that was loaded from a folder, for `load_index`. Made for
    `search(library, query, index=index)`. Where the library changes, `load_index` brings it up to
    date.

    Parameters
    ----------
    library
        What to index; not copied.
    kind
        "flat", all rows in full: exact, as large as the embeddings. "sq", all rows in 8 bits a
        number. "hnsw", a graph of these: long to build. "ivf", inverted lists of these. "ivfpq",
        lists of rows in 2 bits a number. "rabitq", lists of rows in 1 bit a number: the smallest,
        and quick to build. "auto" chooses, and its report says why.
    progress
        Show a progress bar.
    queries
        What users ask for: several pictures or embeddings, as `search` takes them. One half helps
        to set the effort, and the other is measured.
    parts
        Index the parts of the pictures, for `search(library, query, parts=True, index=index)`;
        open it with `load_index(library, parts=True)`.

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
        If the index cannot be stored, or there are no parts.

    Examples
    --------
    >>> from simsearch import ImageLibrary
    >>> library = ImageLibrary([[1, 0], [0.8, 0.6], [0, 1]], ["a.jpg", "b.jpg", "c.jpg"])
    >>> index = build_index(library, progress=False)
    >>> index, index.report.recall_at_10
    (FaissIndex(flat, 3 images), 1.0)
    """
    whole = library
    if parts:
        library = rows_to_index(whole)  # type: ignore[assignment]
    chosen, why = choose_kind(kind, len(library), "parts" if parts else "images")
    asked = _embed_queries(whole, queries, parts=parts)
    started = time.perf_counter()
    new, held = hold_out(library) if chosen != "flat" else np.empty((2, 0), np.intp)
    tuning, measured = ask_questions(library, new, held, asked)
    order = rows_in_order(len(library), held.tolist())
    raw = empty_index(library, chosen)
    add_rows(raw, library, order[: len(order) - len(held)], progress)
    candidates = CandidateIndex(raw, chosen, order if len(held) else None)
    effort, candidates.margins = tune(candidates, library, tuning)
    took = time.perf_counter() - started
    folder, digest = library.stored or (None, None)
    report = IndexReport(
        chosen, why, len(library), math.nan, math.nan, math.nan, 0, took, of_parts=parts
    )
    origin = IndexedRows.of(library, order, asked) if folder else None
    index = FaissIndex(candidates, effort, report, library.embeddings, digest, origin)
    recalls = measure_recall(index, library, measured)
    started = time.perf_counter()
    add_rows(raw, library, held, progress=False)
    took += time.perf_counter() - started
    index.report = replace(
        report,
        **recalls,
        **measure_cost(index, library, measured),
        build_seconds=took,
        size_bytes=candidates.size_bytes(),
    )
    warn_if_low(index.report)
    if folder:
        with writing(folder):
            store_index(index, folder)
    return index


def choose_kind(kind: str, rows: int, unit: str = "images") -> tuple[Kind, str]:
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
        why = f"below {SCAN_MAX_ROWS:,} {unit} no index is faster than exact search; leave it out"
        return "flat", why
    return "rabitq", "it is the smallest, quick to build, and keeps its recall for new images"


def make_index(library: ImageLibrary, kind: Kind, progress: bool) -> Any:  # noqa: ANN401
    """Make a FAISS index that takes whole embeddings, and add all rows to it."""
    index = empty_index(library, kind)
    add_rows(index, library, np.arange(len(library)), progress)
    return index


def add_rows(index: Any, library: ImageLibrary, rows: NDArray[Any], progress: bool) -> None:  # noqa: ANN401
    """Add rows to a FAISS index, in this order."""
    with tqdm(desc="Indexing", total=len(rows), unit="image", disable=not progress) as bar:
        for block in iter_blocks(len(rows), BLOCK_ROWS):
            index.add(np.asarray(library.embeddings[rows[block]]))
            bar.update(block.stop - block.start)


def empty_index(library: ImageLibrary, kind: Kind) -> Any:  # noqa: ANN401
    """Make a FAISS index without rows, trained by a sample of them."""
    faiss = import_faiss()
    if kind == "flat":
        return faiss.IndexFlatIP(library.dim)
    lists = count_lists(len(library), kind)
    inner = faiss.index_factory(library.dim, FACTORIES[kind](lists, library.dim))
    rotation = Rotation.of(library.dim).to_faiss()
    _train(inner, kind, library, rotation)
    return faiss.IndexPreTransform(rotation, inner)


def _train(
    index: Any,  # noqa: ANN401
    kind: Kind,
    library: ImageLibrary,
    rotation: Any,  # noqa: ANN401
) -> None:
    """Set the ranges of the quantiser, and the centres of lists, by a random sample of the rows."""
    count = TRAINING_ROWS
    if kind == "hnsw":
        index.hnsw.efConstruction = EF_CONSTRUCTION
    if kind in LIST_KINDS:
        index.cp.niter, index.cp.min_points_per_centroid = KMEANS_ITERATIONS, 1
        count = max(count, ROWS_PER_LIST * count_lists(len(library), kind))
    sample = np.concatenate([rotation.apply(rows) for rows in _sample_blocks(library, count)])
    if len(sample) < KMEANS_MIN_ROWS:
        sample = np.resize(sample, (KMEANS_MIN_ROWS, library.dim))
    index.train(sample)


def count_lists(rows: int, kind: Kind) -> int:
    """Return the number of inverted lists for this many rows.

    To start a list of 1-bit codes takes as long as to read some hundreds of them: they are long.
    """
    if kind == "rabitq":
        return max(1, rows // CODES_PER_LIST) if rows >= LISTED_ROWS else 1
    return max(1, min(int(math.sqrt(rows)), rows // ROWS_PER_LIST))


def _sample_blocks(library: ImageLibrary, count: int) -> Iterator[NDArray[np.float32]]:
    """Read a random sample of the rows block by block, in the order of the file."""
    rows = draw_rows(library, count)
    return (
        np.asarray(library.embeddings[rows[block]]) for block in iter_blocks(len(rows), BLOCK_ROWS)
    )


def _embed_queries(
    library: Any,  # noqa: ANN401 (an ImageLibrary, or one that is searched by its parts)
    queries: Any,  # noqa: ANN401
    *,
    parts: bool,
) -> NDArray[np.float32] | None:
    """Embed the user's own queries: (Q, D); None if there are none."""
    if queries is None:
        return None
    from simsearch.retrieval.query import as_queries, embed, resolve

    if parts:
        from simsearch.retrieval.parts import view_of_parts

        library = view_of_parts(library)
    given, _ = as_queries(library, queries)
    resolved = embed(library, [resolve(library, query) for query in given])
    return np.concatenate([query.vectors for query in resolved if query.vectors is not None])
