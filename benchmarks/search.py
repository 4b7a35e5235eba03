"""What a search costs as a library grows: exact, and through an index.

    python benchmarks/search.py                           # all sizes; about two hours on two cores
    python benchmarks/search.py --rows 25000 --dims 1280  # a part of it; about three minutes

Clustered rows with a decaying spectrum, made block by block into a file (memory-mapped from
1,000,000 rows on), and queries that lean from one row towards another: they are in no library. k is
10. Every contestant takes its turn within a round, beside numpy's product of the matrix with one
vector (or with 100), which is one read of the matrix; ratios are taken within rounds, and medians
of these are given. A graph's effort is set, on other queries, to the least that finds 0.99 of the
ten nearest.

Each size runs in a process of its own. The figures are kept in `search.json`, so that parts can be
run one by one, and drawn in `search.png`. Graphs of whole rows take hours to build at 1,000,000
rows and hold another copy of them: there they are left out, unless `--all-graphs` asks for them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from common import median, seconds, verdict

import simsearch as ss

HERE = Path(__file__).resolve().parent
RESULTS, PLOT = HERE / "search.json", HERE / "search.png"

K, BATCH = 10, 100
ROUNDS, TURNS = 5, 20  # TURNS queries one by one within a round
MAPPED_FROM = 1_000_000  # rows from which on they stay in their file
BLOCK, LATENT = 8192, 512
PER_CLUSTER = 50
MEAN, CENTRES, WITHIN, NOISE = 0.3, 0.4, 0.26, 0.04  # of the squared length of a row
LEAN = 0.3
EFFORTS = (10, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 1024)


class Contestant(NamedTuple):
    """One way to search: queries (Q, D) to row numbers (Q, K), and what it took to get there."""

    name: str
    ask: Callable[[np.ndarray], Any]
    build_seconds: float = 0.0
    size_bytes: int = 0


class Bench(NamedTuple):
    """The rows of one size, and what is asked of them."""

    rows: np.ndarray  # (N, D) float32, unit norm
    library: ss.ImageLibrary
    singles: np.ndarray  # (ROUNDS * TURNS, D)
    batch: np.ndarray  # (BATCH, D)
    tuning: np.ndarray  # (BATCH, D), to set an effort by
    truth: np.ndarray  # (BATCH, K), of the batch
    tuning_truth: np.ndarray


def main() -> None:
    options = parse()
    if options.one:
        (rows,), (dim,) = options.rows, options.dims
        print(json.dumps(measure(rows, dim, all_graphs=options.all_graphs)))
        return
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for dim in options.dims:
        for rows in options.rows:
            known[f"{rows} x {dim}"] = in_a_process(rows, dim, all_graphs=options.all_graphs)
            RESULTS.write_text(json.dumps(known, indent=1) + "\n")
    draw(known)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure searches.")
    parser.add_argument("--rows", type=int, nargs="+", default=[25_000, 100_000, 1_000_000])
    parser.add_argument("--dims", type=int, nargs="+", default=[2048, 1280])
    parser.add_argument("--all-graphs", action="store_true", help="also those that take hours")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def in_a_process(rows: int, dim: int, *, all_graphs: bool) -> dict[str, Any]:
    """Measure one size; what it prints is passed on, and its last line holds the figures."""
    command = [sys.executable, __file__, "--one", "--rows", str(rows), "--dims", str(dim)]
    command += ["--all-graphs"] if all_graphs else []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        for line in process.stdout:
            if line.startswith("{"):
                figures: dict[str, Any] = json.loads(line)
            else:
                print(line, end="", flush=True)
    assert not process.returncode
    return figures


# Data


def measure(count: int, dim: int, *, all_graphs: bool) -> dict[str, Any]:
    """Make the rows of one size, and let everybody search them."""
    print(f"\n{count:,} rows of {dim}: {4e-6 * count * dim:,.0f} MB", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        bench = prepare(Path(folder) / "rows.npy", count, dim)
        figures = exact(bench)
        graphs = all_graphs or count < MAPPED_FROM
        for contestant in indexes(bench, graphs=graphs):
            figures |= approximate(bench, contestant)
        if not graphs:
            print("      graphs of whole rows: left out, as they take hours (--all-graphs)")
    return figures


def prepare(file: Path, count: int, dim: int) -> Bench:
    took = seconds(lambda: make_rows(file, count, dim))
    rows = np.load(file, mmap_mode="r" if count >= MAPPED_FROM else None)
    print(f"      made in {took:.0f} s", flush=True)
    library = ss.ImageLibrary(rows, [f"{i:07d}.jpg" for i in range(count)])
    queries = make_queries(rows, ROUNDS * TURNS + 2 * BATCH)
    singles, batch, tuning = np.split(queries, [ROUNDS * TURNS, ROUNDS * TURNS + BATCH])
    truth = nearest(rows, np.concatenate([batch, tuning]))
    return Bench(rows, library, singles, batch, tuning, truth[:BATCH], truth[BATCH:])


def make_rows(file: Path, count: int, dim: int) -> None:
    """Write clustered rows whose variance falls as that of real embeddings does."""
    rng = np.random.default_rng(0)
    variables = min(LATENT, dim)
    axes = np.linalg.qr(rng.standard_normal((dim, variables)))[0].T.astype(np.float32)
    spread = np.arange(1, variables + 1, dtype=np.float32) ** -0.5
    spread /= np.linalg.norm(spread)
    mean = unit(rng.standard_normal(variables, dtype=np.float32) * spread) * np.float32(MEAN**0.5)
    shape = (max(2, count // PER_CLUSTER), variables)
    centres = rng.standard_normal(shape, dtype=np.float32) * spread * np.float32(CENTRES**0.5)
    rows = np.lib.format.open_memmap(file, "w+", np.float32, (count, dim))
    for i in range(0, count, BLOCK):
        block = rows[i : i + BLOCK]
        latent = rng.standard_normal((len(block), variables), dtype=np.float32)
        latent *= spread * np.float32(WITHIN**0.5)
        latent += mean + centres[rng.integers(0, len(centres), len(block))]
        noise = rng.standard_normal(block.shape, dtype=np.float32) * np.float32(
            (NOISE / dim) ** 0.5
        )
        block[:] = unit(latent @ axes + noise)
    rows.flush()


def make_queries(rows: np.ndarray, count: int) -> np.ndarray:
    rng = np.random.default_rng(1)
    one, other = rng.integers(0, len(rows), (2, count))
    return unit(rows[one] + np.float32(LEAN) * rows[other])


def unit(rows: np.ndarray) -> np.ndarray:
    scaled: np.ndarray = rows / np.linalg.norm(rows, axis=-1, keepdims=True)
    return scaled


def nearest(rows: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Return the K nearest rows, (Q, K), by one product after the other."""
    scores, best = np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.intp)
    for i in range(0, len(rows), BLOCK):
        more = queries @ rows[i : i + BLOCK].T
        numbers = np.broadcast_to(np.arange(i, i + more.shape[1]), more.shape)
        scores, best = np.hstack([scores, more]), np.hstack([best, numbers])
        kept = np.argpartition(-scores, K - 1, axis=1)[:, :K]
        scores = np.take_along_axis(scores, kept, axis=1)
        best = np.take_along_axis(best, kept, axis=1)
    return best


def recall(found: np.ndarray, truth: np.ndarray) -> float:
    hits = [len(np.intersect1d(some, best)) for some, best in zip(found, truth, strict=True)]
    return sum(hits) / truth.size


# Contestants


def product(rows: np.ndarray) -> Contestant:
    """One read of the matrix, and nothing else: no row is even picked."""
    return Contestant("numpy product", lambda queries: queries @ rows.T)


def searched(
    bench: Bench, index: ss.FaissIndex | None = None
) -> Callable[[np.ndarray], np.ndarray]:
    """Ask as a user would, from queries to matches."""

    def ask(queries: np.ndarray) -> np.ndarray:
        answers = ss.search(bench.library, list(queries), k=K, index=index)
        return np.array([[match.row for match in matches] for matches in answers])

    return ask


def exact_search(bench: Bench) -> Contestant:
    return Contestant("simsearch, exact", searched(bench))


def by_hand(rows: np.ndarray) -> Contestant:
    """The search that a notebook author writes: ../shared/bench/naive.py."""
    from sklearn.metrics.pairwise import cosine_similarity

    return Contestant(
        "by hand", lambda queries: np.argsort(-cosine_similarity(queries, rows))[:, :K]
    )


def scikit_learn(rows: np.ndarray) -> Contestant:
    """Euclidean, which on unit rows finds the same: for cosines it copies all rows each time."""
    from sklearn.neighbors import NearestNeighbors

    model = NearestNeighbors(n_neighbors=K, algorithm="brute").fit(rows)
    return Contestant(
        "scikit-learn", lambda queries: model.kneighbors(queries, return_distance=False)
    )


def faiss_flat(rows: np.ndarray) -> Contestant:
    """What IndexFlatIP runs, without its copy of the rows."""
    import faiss

    return Contestant(
        "FAISS flat",
        lambda queries: faiss.knn(queries, rows, K, metric=faiss.METRIC_INNER_PRODUCT)[1],
    )


def indexes(bench: Bench, *, graphs: bool) -> Iterator[Contestant]:
    """Build one index after the other: together, they might not fit in memory."""
    for kind in ("hnsw", "ivf", "ivfpq"):
        yield indexed(bench, kind)
    for make in (faiss_hnsw, hnswlib_graph, usearch_graph) if graphs else ():
        yield make(bench)


def indexed(bench: Bench, kind: Any) -> Contestant:
    index = ss.build_index(bench.library, kind, progress=False)
    print("\n".join(f"      {line}" for line in str(index.report).splitlines()), flush=True)

    report = index.report
    return Contestant(
        f"simsearch, {kind}", searched(bench, index), report.build_seconds, report.size_bytes
    )


def faiss_hnsw(bench: Bench) -> Contestant:
    import faiss

    index = faiss.IndexHNSWFlat(bench.rows.shape[1], 32, faiss.METRIC_INNER_PRODUCT)
    took = seconds(lambda: [index.add(block) for block in blocks(bench.rows)])
    effort = faiss.SearchParametersHNSW()

    def ask(queries: np.ndarray) -> np.ndarray:
        found: np.ndarray = index.search(queries, K, params=effort)[1]
        return found

    tune(bench, ask, lambda amount: setattr(effort, "efSearch", amount))
    links = index.hnsw.neighbors.size() * 4
    return Contestant("FAISS HNSW", ask, took, bench.rows.nbytes + links)


def hnswlib_graph(bench: Bench) -> Contestant:
    import hnswlib

    index = hnswlib.Index(space="ip", dim=bench.rows.shape[1])
    index.init_index(max_elements=len(bench.rows), ef_construction=100, M=16)
    took = seconds(lambda: [index.add_items(block) for block in blocks(bench.rows)])

    def ask(queries: np.ndarray) -> np.ndarray:
        threads = 1 if len(queries) == 1 else -1
        found: np.ndarray = index.knn_query(queries, k=K, num_threads=threads)[0]
        return found

    tune(bench, ask, index.set_ef)
    return Contestant("hnswlib", ask, took, index.index_file_size())


def usearch_graph(bench: Bench) -> Contestant:
    from usearch.index import Index

    index = Index(ndim=bench.rows.shape[1], metric="ip", dtype="f32")

    def add() -> None:
        for block in blocks(bench.rows):
            index.add(np.arange(len(index), len(index) + len(block), dtype=np.uint64), block)

    took = seconds(add)

    def ask(queries: np.ndarray) -> np.ndarray:
        threads = 1 if len(queries) == 1 else 0
        found = index.search(queries, K, threads=threads).keys
        return np.atleast_2d(np.asarray(found)).astype(np.intp)

    tune(bench, ask, lambda amount: setattr(index, "expansion_search", amount))
    return Contestant("usearch", ask, took, index.serialized_length)


def blocks(rows: np.ndarray) -> Iterator[np.ndarray]:
    for i in range(0, len(rows), BLOCK):
        yield np.asarray(rows[i : i + BLOCK])


def tune(
    bench: Bench, ask: Callable[[np.ndarray], np.ndarray], set_effort: Callable[[int], object]
) -> None:
    """Set the least effort that finds 0.99, on queries that are not timed."""
    for effort in EFFORTS:
        set_effort(effort)
        if recall(ask(bench.tuning), bench.tuning_truth) >= 0.99:
            return


# Timing


class Times(NamedTuple):
    """Milliseconds a query, round by round."""

    single: list[float]
    batch: list[float]

    def over(self, other: Times) -> tuple[float, float]:
        """Return how many times as long the other takes, for single queries and for batches."""
        return tuple(  # type: ignore[return-value]
            median([b / a for a, b in zip(mine, theirs, strict=True)])
            for mine, theirs in zip(self, other, strict=True)
        )


def top_k_of_rows(bench: Bench, contestants: Sequence[Contestant]) -> list[Times]:
    """Let each take its turn in every round; threads get a moment to stop spinning in between."""
    times = [Times([], []) for _ in contestants]
    for contestant in contestants:
        contestant.ask(bench.tuning[:1])
    for turn in range(ROUNDS):
        queries = bench.singles[turn * TURNS : (turn + 1) * TURNS]
        for contestant, taken in zip(contestants, times, strict=True):
            time.sleep(0.05)
            asked = [seconds(lambda: contestant.ask(one[None])) for one in queries]  # noqa: B023
            taken.single.append(1e3 * median(asked))
        for contestant, taken in zip(contestants, times, strict=True):
            time.sleep(0.05)
            whole = seconds(lambda: contestant.ask(bench.batch))  # noqa: B023
            taken.batch.append(1e3 * whole / BATCH)
    return times


def exact(bench: Bench) -> dict[str, Any]:
    """Time everybody who looks at all rows."""
    rows = bench.rows
    others = [scikit_learn(rows), faiss_flat(rows)]
    contestants = [product(rows), exact_search(bench), *others]
    times = top_k_of_rows(bench, contestants)
    for contestant, taken in zip(contestants, times, strict=True):
        tell(contestant, taken)
    ours, size = times[1], f"{len(rows):,} x {rows.shape[1]}"
    found = recall(contestants[1].ask(bench.batch), bench.truth)
    verdict(f"{size}: exact, recall@10", found, 0.999)  # the truth is in float32
    single, batch = ours.over(times[0])
    verdict(f"{size}: exact, over one read", 1 / single, 0.5, at_most=True)
    print(f"      {size}: exact in batches, over the product {1 / batch:23.3f}")
    for other, taken in zip(others, times[2:], strict=True):
        for what, ratio in zip(("single", "batch"), ours.over(taken), strict=True):
            verdict(f"{size}: {other.name} over exact, {what}", ratio, 1)
    figures = {
        contestant.name: record(contestant, taken)
        for contestant, taken in zip(contestants, times, strict=True)
    }
    return figures | against_by_hand(bench, size)


def against_by_hand(bench: Bench, size: str) -> dict[str, Any]:
    """Time the hand-written search on few single queries: it copies all rows for each."""
    hand, ours = by_hand(bench.rows), exact_search(bench)
    pairs = []
    for query in bench.singles[:3]:
        taken = []
        for who in (hand, ours):
            time.sleep(0.05)
            taken.append(1e3 * seconds(lambda: who.ask(query[None])))  # noqa: B023
        pairs.append(taken)
    times = Times([pair[0] for pair in pairs], [pair[0] for pair in pairs])
    print(f"      {hand.name:<24} {median(times.single):10.2f} ms a query", flush=True)
    verdict(f"{size}: by hand over exact", median([a / b for a, b in pairs]), 20)
    return {hand.name: record(hand, times)}


def approximate(bench: Bench, contestant: Contestant) -> dict[str, Any]:
    """Time one index beside the product of matrix and vector."""
    whole, taken = top_k_of_rows(bench, [product(bench.rows), contestant])
    found = recall(contestant.ask(bench.batch), bench.truth)
    tell(contestant, taken)
    name = f"{len(bench.rows):,} x {bench.rows.shape[1]}: {contestant.name}"
    single, batch = taken.over(whole)
    goal = 100 if len(bench.rows) >= 1_000_000 else 30
    if contestant.name.startswith("simsearch"):
        verdict(f"{name}, recall@10", found, 0.99)
        if len(bench.rows) >= 100_000:
            verdict(f"{name}, product over it", single, goal)
    else:
        print(f"      {name}, recall@10 {found:.3f}, product over it {single:.1f}")
    print(
        f"      {name}: {batch:.1f} times the product's pace in batches, built in "
        f"{contestant.build_seconds:.0f} s, {contestant.size_bytes / 1e6:,.0f} MB",
        flush=True,
    )
    return {contestant.name: record(contestant, taken) | {"recall": found}}


def tell(contestant: Contestant, taken: Times) -> None:
    single, batch = median(taken.single), median(taken.batch)
    print(
        f"      {contestant.name:<24} {single:10.2f} ms a query, {batch:10.3f} in a batch",
        flush=True,
    )


def record(contestant: Contestant, taken: Times) -> dict[str, float]:
    return {
        "ms": round(median(taken.single), 4),
        "batch_ms": round(median(taken.batch), 4),
        "build_seconds": round(contestant.build_seconds, 2),
        "size_bytes": contestant.size_bytes,
    }


# The figure


def draw(known: dict[str, Any]) -> None:
    """Draw how time, build time and size grow with the rows, a line of panels a width."""
    from matplotlib.figure import Figure

    sizes = sorted(tuple(map(int, size.split(" x "))) for size in known)
    dims = sorted({dim for _, dim in sizes}, reverse=True)
    panels = (
        ("ms", "one query (ms)"),
        ("batch_ms", "a query of 100 (ms)"),
        ("build_seconds", "build (s)"),
        ("size_bytes", "index (bytes)"),
    )
    figure = Figure(figsize=(16, 4 * len(dims)), layout="constrained")
    grid = figure.subplots(len(dims), len(panels), squeeze=False)
    for line, dim in zip(grid, dims, strict=True):
        for axes, (figure_name, title) in zip(line, panels, strict=True):
            counts = [rows for rows, width in sizes if width == dim]
            curves(axes, known, counts, dim, figure_name)
            axes.set(title=f"{title}, {dim}-d", xlabel="rows", xscale="log", yscale="log")
            axes.set_xticks(counts, [f"{rows:,}" for rows in counts])
            axes.minorticks_off()
            axes.grid(alpha=0.3)
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=6)
    figure.savefig(PLOT, dpi=90)


def curves(axes: Any, known: dict[str, Any], counts: list[int], dim: int, name: str) -> None:
    from matplotlib import colormaps

    contestants = {who: None for rows in counts for who in known[f"{rows} x {dim}"]}
    for i, who in enumerate(contestants):
        points = [
            (rows, known[f"{rows} x {dim}"][who][name])
            for rows in counts
            if known[f"{rows} x {dim}"].get(who, {}).get(name)
        ]
        style = {"lw": 2.5 if who.startswith("simsearch") else 1.2, "color": colormaps["tab20"](i)}
        axes.plot(*zip(*points, strict=True) if points else ([], []), "o-", label=who, **style)


if __name__ == "__main__":
    main()
