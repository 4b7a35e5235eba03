"""Indexes for very large libraries, by FAISS [1]_: quicker than a full scan, and not always exact.

An index holds the rows along their first principal axes, in 8 bits a number or fewer, as a graph
[2]_, in lists [3]_ or as they come. It names some candidates, and the library's own embeddings rank
these exactly. How many candidates, and how far to look for them, is set on the library itself, and
what is reached is measured and reported. FAISS is imported where it is used.

.. [1] M. Douze et al. The Faiss library. arXiv:2401.08281, 2024.
.. [2] Y. Malkov, D. Yashunin. Efficient and robust approximate nearest neighbor search using
   Hierarchical Navigable Small World graphs. IEEE TPAMI 42 (4), 2020.
.. [3] H. Jégou, M. Douze, C. Schmid. Product quantization for nearest neighbor search. IEEE TPAMI
   33 (1), 2011.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import time
from bisect import bisect_left
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

import numpy as np
from tqdm.auto import tqdm

from simsearch.backbones.heads import unit
from simsearch.errors import LibraryError, MissingExtraError, QueryError, StaleIndexError
from simsearch.files import write_text
from simsearch.library.files import file_record, matches_record, writing
from simsearch.library.library import ImageLibrary
from simsearch.retrieval.exact import TopK, exact_index, rounding_error, top_k_of_rows
from simsearch.retrieval.faiss_compat import keep_parameters

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import Any, TypeAlias

    from numpy.typing import NDArray


Kind: TypeAlias = Literal["flat", "sq", "hnsw", "ivf", "ivfpq"]
"""All rows in full; all rows, quantised; a graph; lists; lists of rows in a few bits a number."""

FORMAT = 1
INDEX, RECORD = "index.faiss", "index.json"

_SMALL, _HUGE = 10_000, 5_000_000  # rows: below a scan is as quick, above a graph takes much memory
_GOAL = 0.997  # recall@10 that the effort is set for, so that 0.99 is reached by other queries too
_MARGIN = 2  # times as many lists as the sample needs
_LEAST = 40  # of efSearch, however little the sample needs
_K = 10
_LOSS = 0.002  # of the most that can be reached, given up for speed
_SAME = 1e-12  # by which sums in another order may differ
_SAMPLE = 300  # queries that set the effort, and as many others that measure
_TIMED, _TIMED_EXACT = 100, 15  # queries of which the median time is reported
_LEAN = 0.3  # of another row, added to a row to make a query that is like none of the library
_AXES_FROM = 20_000  # rows that tell the principal axes
_NARROW, _WIDE, _HELD = 64, 384, 0.9  # axes at least and at most; share of the variance they hold
_LINKS = 160  # rows that are looked at to link a new one into the graph
_PER_LIST, _ROUNDS = (
    50,
    10,
)  # rows for each list to be trained on, and how often they are gone through
_LEVELS = 16  # that 4 bits tell apart
_FURTHEST = 1024  # of what HNSW keeps in view, or lists that are read
_SPARE = 16  # rows that a flat index finds beyond k, to know that float32 hid none
_BLOCK = 8192  # rows that are added together
_BATCH = 256  # queries that are answered together
_ALONE = 4  # queries up to which one thread is quicker
_WIDER = 4  # times as far is looked for a query that is not settled
_FILTERED = 0.1  # share of rows below which a filter leaves so few that a scan is better

_CANDIDATES = (20, 30, 50, 70, 100, 150, 200, 300, 500)

_FACTORIES: dict[str, Callable[[int, int], str]] = {  # rows and width to FAISS's own notation
    "flat": lambda _, __: "Flat",
    "sq": lambda _, __: "SQ8",
    "hnsw": lambda _, __: "HNSW32_SQ8",
    "ivf": lambda rows, _: f"IVF{_lists(rows)},SQ8",
    "ivfpq": lambda rows, width: f"IVF{_lists(rows)},PQ{width // (2 - width % 2)}x4fs",
}


@dataclass(frozen=True)
class IndexReport:
    """What an index is worth on the library that it was built for; prints as a few lines.

    Attributes
    ----------
    kind : Kind
        "flat", "sq", "hnsw", "ivf" or "ivfpq".
    why : str
        Why this kind.
    rows : int
        Images in it.
    recall_at_10 : float
        Share of the ten nearest images that it finds, by up to 300 rows as queries, each without
        itself; an image that scores as high as the tenth counts as well.
    ms_per_query, exact_ms : float
        Median time of one query for ten images through the index, and by exact search, in ms.
    size_bytes : int
        Of the index as a file, without the embeddings.
    build_seconds : float
        Time to make the index and to set its effort, without measuring and saving.
    """

    kind: Kind
    why: str
    rows: int
    recall_at_10: float
    ms_per_query: float
    exact_ms: float
    size_bytes: int
    build_seconds: float

    def __str__(self) -> str:
        answers = "exact" if self.kind == "flat" else "approximate"
        return (
            f"{self.kind} index of {self.rows:,} images, {answers}: {self.why}\n"
            f"recall@10  {self.recall_at_10:.3f}\n"
            f"a query    {self.ms_per_query:.2f} ms (exact search: {self.exact_ms:.2f} ms)\n"
            f"size       {self.size_bytes / 1e6:,.1f} MB\n"
            f"built in   {self.build_seconds:,.1f} s"
        )


class _Effort(NamedTuple):
    """How hard an index looks for ten images."""

    candidates: int  # that are ranked exactly
    reach: int  # HNSW's efSearch, or the number of lists that are read


class _Candidates(NamedTuple):
    """What FAISS finds for Q queries, best first."""

    scores: NDArray[np.float32]  # (Q, C) cosines of a flat index, squared distances of others
    rows: NDArray[np.int64]  # (Q, C), -1 at the end where there are fewer

    def first(self, count: int) -> _Candidates:
        """Return the first of them."""
        return _Candidates(self.scores[:, :count], self.rows[:, :count])


_NOTHING = TopK(np.empty(0, np.intp), np.empty(0))


class FaissIndex:
    """An index of one library; made by `build_index`, opened by `load_index`.

    Attributes
    ----------
    kind : Kind
        As in `IndexReport`.
    exact : bool
        Whether it finds what exact search finds, and not only most of it.
    report : IndexReport
        What it is worth on its library.
    """

    def __init__(
        self,
        index: Any,  # noqa: ANN401 (FAISS may be absent)
        effort: _Effort,
        report: IndexReport,
        embeddings: NDArray[np.float32] | None = None,
        digest: str | None = None,
    ) -> None:
        self.report, self.kind = report, report.kind
        self.exact = self.kind == "flat"
        self._index, self._effort = index, effort
        self._embeddings, self._digest = embeddings, digest  # what it was built of

    def __repr__(self) -> str:
        return f"FaissIndex({self.kind}, {self.report.rows:,} images)"

    def check(self, library: ImageLibrary) -> None:
        """Make sure that this is the library that the index was built for.

        Raises
        ------
        StaleIndexError
            If it is another one, or has changed since.
        """
        if library.embeddings is self._embeddings:
            return
        if self._digest is None or library.stored is None or library.stored[1] != self._digest:
            raise StaleIndexError(
                f"{self!r} was not built for {library!r}, or the library has changed since: "
                "build it again with simsearch.build_index(library)"
            )
        self._embeddings = library.embeddings

    def top_k(
        self,
        library: ImageLibrary,
        vectors: NDArray[np.float32],
        k: int,
        mask: NDArray[np.bool_] | None = None,
    ) -> Iterator[TopK]:
        """Find the k best rows for each of several embeddings; unless `exact`, nearly the best.

        Scores are exact, and k rows are found wherever k may be. Where an index cannot help, as
        with a filter that leaves few rows, the library is scanned.

        Parameters
        ----------
        library
            The library that the index was built for.
        vectors
            (Q, D) float32, rows of unit L2 norm.
        k
            How many rows to find; fewer if there are fewer.
        mask
            (N,) bool, the rows that may be found; all by default.

        Yields
        ------
        Found
            One a vector, in order.

        Raises
        ------
        StaleIndexError
            If the index was not built for this library.
        """
        self.check(library)
        allowed = len(library) if mask is None else int(np.count_nonzero(mask))
        if allowed < _FILTERED * len(library):
            yield from exact_index(library).top_k(library, vectors, k, mask)
            return
        for i in range(0, len(vectors), _BATCH):
            yield from self._answer(library, vectors[i : i + _BATCH], k, mask)

    def _answer(
        self,
        library: ImageLibrary,
        vectors: NDArray[np.float32],
        k: int,
        mask: NDArray[np.bool_] | None,
    ) -> Iterator[TopK]:
        """Answer a block of queries, looking further for those that are not settled.

        The effort was set without a filter. With one, all that may be found can lie far from the
        query, where rows are many and alike: there a wider search has to confirm the answer.
        """
        allowed = len(library) if mask is None else int(np.count_nonzero(mask))
        effort = self._effort_for(k, allowed / len(library))
        answers: dict[int, TopK | None] = {}
        left = list(range(len(vectors)))
        while left and 2 * effort.candidates <= allowed:
            unsettled = []
            found = self._ranked(library, vectors[left], k, self._find(vectors[left], effort, mask))
            for i, one in zip(left, found, strict=True):
                before, answers[i] = answers.get(i), one
                confirmed = mask is None or self.exact or _same(before, one)
                if one is None or not confirmed:
                    unsettled.append(i)
            left, effort = unsettled, _Effort(*(_WIDER * amount for amount in effort))
        if left:
            answers.update(
                zip(left, exact_index(library).top_k(library, vectors[left], k, mask), strict=True)
            )
        return (one for _, one in sorted(answers.items()) if one)

    def _effort_for(self, k: int, share: float) -> _Effort:
        """Look for more candidates for a larger k, and further past rows that are filtered out."""
        candidates, reach = self._effort
        if self.exact:
            return _Effort(k + _SPARE, 1)
        candidates = candidates * max(k, _K) // _K
        if self.kind == "hnsw":
            reach = max(reach, candidates)
        else:  # more neighbours lie in more lists, but not in as many more
            reach = math.ceil(reach * math.sqrt(max(k, _K) / _K))
        return _Effort(candidates, math.ceil(reach / share))

    def _ranked(
        self, library: ImageLibrary, vectors: NDArray[np.float32], k: int, candidates: _Candidates
    ) -> Iterator[TopK | None]:
        """Rank the candidates for each query; None where they do not tell the k best."""
        for vector, scores, rows in zip(vectors, *candidates, strict=True):
            # Exact, if all rows that float32 could have kept from the first k are here.
            settled = not self.exact or scores[-1] < scores[k - 1] - 2 * rounding_error(library.dim)
            there = rows[rows >= 0]
            yield (
                top_k_of_rows(library, vector, there, k) if settled and len(there) >= k else None
            )

    def _find(
        self,
        vectors: NDArray[np.float32],
        effort: _Effort,
        mask: NDArray[np.bool_] | None = None,
    ) -> _Candidates:
        """Ask FAISS for candidates, best first."""
        faiss = _faiss()
        options: dict[str, Any] = {}
        if mask is not None:
            options["sel"] = faiss.IDSelectorBitmap(np.packbits(mask, bitorder="little"))
        if self.kind == "hnsw":
            parameters = faiss.SearchParametersHNSW(efSearch=effort.reach, **options)
        elif self.kind in ("ivf", "ivfpq"):
            parameters = faiss.SearchParametersIVF(nprobe=effort.reach, **options)
        else:
            parameters = faiss.SearchParameters(**options)
        if not self.exact:
            parameters = faiss.SearchParametersPreTransform(index_params=parameters)
        with _threads(1 if len(vectors) <= _ALONE else faiss.omp_get_max_threads()):
            keep_parameters()
            scores, rows = self._index.search(
                np.ascontiguousarray(vectors), effort.candidates, params=parameters
            )
        return _Candidates(scores, rows)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> FaissIndex:
        """Open the index that lies in a library's folder, memory-mapped where its kind allows.

        Raises
        ------
        LibraryError
            If there is none, or its files are damaged.
        MissingExtraError
            If FAISS is not installed.
        """
        faiss, place = _faiss(), Path(folder).expanduser()
        try:
            record = json.loads((place / RECORD).read_text("utf-8"))
            if record["format"] != FORMAT:
                raise _damaged(place, f"its format is {record['format']!r}, not {FORMAT}")
            report, effort = IndexReport(**record["report"]), _Effort(*map(int, record["effort"]))
            if not matches_record(place / INDEX, record["seal"]):
                raise _damaged(place, f"{INDEX} is damaged, or belongs to another index")
            index = faiss.read_index(os.fspath(place / INDEX), _mapping(faiss))
            if index.ntotal != report.rows:
                raise _damaged(place, f"it holds {index.ntotal} rows, and not {report.rows}")
        except FileNotFoundError as error:
            raise LibraryError(
                f"no index in {os.fspath(folder)!r} ({Path(error.filename).name} is missing): make "
                "one with simsearch.build_index(library)"
            ) from error
        except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
            raise _damaged(place, f"it cannot be read ({error})") from error
        return cls(index, effort, report, digest=record["digest"])

    def _save(self, folder: Path) -> None:
        """Write the index into a folder; the record, which comes last, makes it count."""
        faiss = _faiss()
        with writing(folder):
            part = folder / f"{INDEX}.part"
            try:
                faiss.write_index(self._index, os.fspath(part))
            except RuntimeError as error:  # FAISS hides the reason in its message
                part.unlink(missing_ok=True)
                raise LibraryError(f"cannot write {os.fspath(part)!r}: {error}") from error
            with part.open("rb") as stream:
                os.fsync(stream.fileno())
            record = {
                "format": FORMAT,
                "digest": self._digest,
                "seal": file_record(part),
                "effort": self._effort,
                "report": asdict(self.report),
            }
            part.replace(folder / INDEX)
            write_text(folder / RECORD, json.dumps(record, indent=2))


def build_index(
    library: ImageLibrary, kind: Kind | Literal["auto"] = "auto", progress: bool = True
) -> FaissIndex:
    """Build an index for a large library, and measure what it is worth there.

    It is stored beside the library if that was loaded from a folder, for `load_index`. Made for
    `search(library, query, index=index)`. Where the embeddings change, it must be built again.

    Parameters
    ----------
    library
        What to index; not copied.
    kind
        "flat", all rows in full: exact, as large as the embeddings. "sq", all rows along their
        principal axes in 8 bits. "hnsw", a graph of these: the quickest. "ivf", lists of these,
        trained on a random sample: smaller, and mostly quicker to build. "ivfpq", lists of rows in
        2 to 4 bits a number: the smallest. "auto" chooses, and its report says why.
    progress
        Show a progress bar.

    Returns
    -------
    FaissIndex
        Its `report` tells recall, time, size and build time.

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
    >>> library = ImageLibrary([[1, 0], [0.8, 0.6], [0, 1]], ["a.jpg", "b.jpg", "c.jpg"])
    >>> index = build_index(library, progress=False)
    >>> index, index.report.recall_at_10
    (FaissIndex(flat, 3 images), 1.0)
    """
    chosen, why = _choose(kind, len(library))
    started = time.perf_counter()
    raw = _make(library, chosen, progress)
    report = IndexReport(chosen, why, len(library), math.nan, math.nan, math.nan, 0, 0)
    effort = _Effort(_CANDIDATES[-1], _reaches(chosen, len(library))[-1])
    folder, digest = library.stored or (None, None)
    index = FaissIndex(raw, effort, report, library.embeddings, digest)
    if not index.exact:
        index._effort = _tuned(index, library)
    took = time.perf_counter() - started
    index.report = replace(report, build_seconds=took, **_measured(index, library))
    if folder:
        index._save(folder)
    return index


def load_index(source: ImageLibrary | str | os.PathLike[str] = "outputs") -> FaissIndex:
    """Open the index that `build_index` has stored.

    Parameters
    ----------
    source
        The library that it belongs to, or the folder that holds both.

    Raises
    ------
    LibraryError
        If there is none, or it is damaged.
    StaleIndexError
        If the library has changed since it was built.
    MissingExtraError
        If FAISS is not installed.
    """
    if not isinstance(source, ImageLibrary):
        return FaissIndex.load(source)
    if source.stored is None:
        raise LibraryError(
            f"{source!r} was not loaded from a folder, so that no index is stored beside it: make "
            "one with simsearch.build_index(library)"
        )
    index = FaissIndex.load(source.stored[0])
    index.check(source)
    return index


def _choose(kind: str, rows: int) -> tuple[Kind, str]:
    """Return the kind, and why it is that one."""
    for known in get_args(Kind):
        if kind == known:
            return known, "as asked for"
    if kind != "auto":
        raise QueryError(f"kind={kind!r}: choose one of {('auto', *get_args(Kind))}")
    if rows < _SMALL:
        return "flat", f"below {_SMALL:,} images no index gains on exact search; leave it out"
    if rows <= _HUGE:
        return "hnsw", f"up to {_HUGE:,} images a graph fits in memory, and is the quickest"
    return "ivfpq", f"above {_HUGE:,} images a graph would take much memory and long to build"


def _make(library: ImageLibrary, kind: Kind, progress: bool) -> Any:  # noqa: ANN401
    """Make a FAISS index that takes and finds whole embeddings."""
    faiss = _faiss()
    if kind == "flat":
        index = faiss.IndexFlatIP(library.dim)
    else:
        axes = _principal_axes(_some_rows(library, _AXES_FROM))
        inner = faiss.index_factory(len(axes), _FACTORIES[kind](len(library), len(axes)))
        _train(inner, kind, library, axes)
        rotation = faiss.LinearTransform(library.dim, len(axes), False)
        faiss.copy_array_to_vector(axes.ravel(), rotation.A)
        rotation.is_trained = True
        index = faiss.IndexPreTransform(rotation, inner)
    with tqdm(desc="Indexing", total=len(library), unit="image", disable=not progress) as bar:
        for i in range(0, len(library), _BLOCK):
            block = np.asarray(library.embeddings[i : i + _BLOCK])
            index.add(block)
            bar.update(len(block))
    return index


def _train(
    index: Any,  # noqa: ANN401
    kind: Kind,
    library: ImageLibrary,
    axes: NDArray[np.float32],
) -> None:
    """Set the ranges of the quantiser, and the centres of lists, by a random sample of the rows."""
    if kind == "hnsw":
        index.hnsw.efConstruction = _LINKS
    count = _AXES_FROM
    if kind in {"ivf", "ivfpq"}:
        index.cp.niter, index.cp.min_points_per_centroid = _ROUNDS, 1
        count = max(count, _PER_LIST * _lists(len(library)))
    sample = np.concatenate([rows @ axes.T for rows in _blocks(library, _drawn(library, count))])
    if len(sample) < _LEVELS:  # k-means insists on as many
        sample = np.resize(sample, (_LEVELS, len(axes)))
    index.train(sample)


def _principal_axes(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the directions, (d, D), in which rows vary most: d is D where D is small."""
    from threadpoolctl import threadpool_limits

    total = rows.shape[1]
    if total <= _NARROW:
        return np.eye(total, dtype=np.float32)
    centred = rows - rows.mean(axis=0)
    products = centred.T @ centred
    with threadpool_limits(1, "blas"):  # its threads would mostly wait for each other
        variances, axes = np.linalg.eigh(products)
    held = np.cumsum(variances[::-1].clip(0))
    enough = int(np.searchsorted(held, _HELD * held[-1])) + 1
    width = min(max(_NARROW, 8 * math.ceil(enough / 8)), _WIDE, total)
    return np.ascontiguousarray(axes.T[::-1][:width], np.float32)


def _lists(rows: int) -> int:
    """Return into how many lists to divide so many rows."""
    return max(1, min(int(4 * math.sqrt(rows)), rows // _PER_LIST))


def _drawn(library: ImageLibrary, count: int, seed: int = 0) -> NDArray[np.intp]:
    """Draw so many different row numbers, or all there are; rising, as a disk likes them."""
    rng = np.random.default_rng(seed)
    return np.sort(rng.choice(len(library), min(count, len(library)), replace=False))


def _blocks(library: ImageLibrary, rows: NDArray[np.intp]) -> Iterator[NDArray[np.float32]]:
    for i in range(0, len(rows), _BLOCK):
        yield np.asarray(library.embeddings[rows[i : i + _BLOCK]])


def _some_rows(library: ImageLibrary, count: int, seed: int = 0) -> NDArray[np.float32]:
    return np.concatenate(list(_blocks(library, _drawn(library, count, seed))))


def _reaches(kind: Kind, rows: int) -> list[int]:
    """List how far an index may be asked to look, in steps of about 1.4."""
    furthest = {"hnsw": _FURTHEST, "ivf": _lists(rows), "ivfpq": _lists(rows)}.get(kind, 1)
    steps = (round(2 ** (i / 2)) for i in range(2 * _FURTHEST.bit_length() - 1))
    return sorted({min(step, furthest) for step in steps})


def _tuned(index: FaissIndex, library: ImageLibrary) -> _Effort:
    """Find the effort that reaches the goal, or nearly the most that can be reached.

    Half of the queries are rows. The others lean towards other rows and are like none, as new
    images are: a graph finds its own rows, and what is linked to them, a little too easily.
    """
    own = _drawn(library, _SAMPLE, seed=1)
    vectors = np.asarray(library.embeddings[own])
    others = np.roll(vectors, len(vectors) // 2, axis=0)
    vectors = np.concatenate([vectors, unit(np.asarray(vectors + _LEAN * others, np.float32))])
    own = np.concatenate([own, np.full(len(own), -1)])
    truth = _without(exact_index(library).top_k(library, vectors, _K + 1), own)

    def recall(candidates: _Candidates) -> float:
        found = index._ranked(library, vectors, min(_K + 1, len(library)), candidates)
        told = _without((one or _NOTHING for one in found), own)
        half = len(own) // 2
        return min(_recall(told[:half], truth[:half]), _recall(told[half:], truth[half:]))

    reaches = _reaches(index.kind, len(library))
    far = index._find(vectors, _Effort(_CANDIDATES[-1], reaches[-1]))
    goal = min(_GOAL, recall(far) - _LOSS)
    enough = _first(_CANDIDATES, goal, lambda count: recall(far.first(count)))
    reach = _first(
        reaches, goal, lambda reach: recall(index._find(vectors, _Effort(enough, reach)))
    )
    # A query that misses the place of its neighbours misses them all; a sample meets few such.
    safe = max(reach, _LEAST) if index.kind == "hnsw" else _MARGIN * reach
    return _Effort(enough, min(safe, reaches[-1]))


def _first(steps: Sequence[int], goal: float, reached: Callable[[int], float]) -> int:
    """Return the first step that reaches a goal, the last if none does."""
    return steps[min(bisect_left(steps, goal, key=reached), len(steps) - 1)]


def _measured(index: FaissIndex, library: ImageLibrary) -> dict[str, Any]:
    """Measure what the report tells, by rows of the library as queries."""
    own = _drawn(library, _SAMPLE, seed=2)
    vectors = np.asarray(library.embeddings[own])
    truth = _without(exact_index(library).top_k(library, vectors, _K + 1), own)
    found = _without(index.top_k(library, vectors, _K + 1), own)
    return {
        "recall_at_10": _recall(found, truth),
        "exact_ms": _median_ms(
            lambda vector: exact_index(library).top_k(library, vector, _K), vectors[:_TIMED_EXACT]
        ),
        "ms_per_query": _median_ms(
            lambda vector: index.top_k(library, vector, _K), vectors[:_TIMED]
        ),
        "size_bytes": _size(index._index),
    }


def _without(found: Iterable[TopK], own: NDArray[np.intp]) -> list[TopK]:
    """Leave out of each answer the row that asked."""
    others = [
        (one, np.flatnonzero(one.rows != row)[:_K]) for one, row in zip(found, own, strict=True)
    ]
    return [TopK(one.rows[kept], one.scores[kept]) for one, kept in others]


def _recall(found: Sequence[TopK], truth: Sequence[TopK]) -> float:
    """Return the share of the best rows that were found; mask equals, any will do."""
    there = sum(len(best.rows) for best in truth)
    hits = sum(
        int(np.count_nonzero(some.scores >= best.scores[-1] - _SAME))
        for some, best in zip(found, truth, strict=True)
        if len(best.rows)
    )
    return hits / there if there else 1.0


def _median_ms(
    ask: Callable[[NDArray[np.float32]], Iterator[TopK]], vectors: NDArray[np.float32]
) -> float:
    def once(vector: NDArray[np.float32]) -> float:
        started = time.perf_counter()
        next(ask(vector[None]))
        return 1e3 * (time.perf_counter() - started)

    return statistics.median(once(vector) for vector in vectors)


def _size(index: Any) -> int:  # noqa: ANN401
    """Count the bytes of the file that an index makes, without keeping them."""
    faiss, count = _faiss(), 0

    def add(data: bytes) -> int:
        nonlocal count
        count += len(data)
        return len(data)

    faiss.write_index(index, faiss.PyCallbackIOWriter(add))
    return count


def _same(one: TopK | None, other: TopK | None) -> bool:
    return bool(one and other and np.array_equal(one.rows, other.rows))


def _faiss() -> Any:  # noqa: ANN401
    try:
        import faiss
    except ImportError as error:
        raise MissingExtraError('an index needs: pip install "simsearch[faiss]"') from error
    return faiss


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Let FAISS use so many threads: for one query, waking them takes longer than the search."""
    faiss = _faiss()
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(count)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def _mapping(faiss: Any) -> int:  # noqa: ANN401
    """Return how to open a file: Windows cannot replace one that is mapped, so there it is read."""
    return 0 if os.name == "nt" else int(faiss.IO_FLAG_MMAP_IFC)


def _damaged(folder: Path, reason: str) -> LibraryError:
    return LibraryError(
        f"the index in {os.fspath(folder)!r} cannot be used: {reason}; make it anew with "
        "simsearch.build_index(library)"
    )
