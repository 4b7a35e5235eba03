"""What a search costs through Milvus, beside the exact search of the same library.

    python benchmarks/cluster_search.py              # 25,000 rows of 1,280 into a Milvus Lite file
    python benchmarks/cluster_search.py --rows 5000  # a shorter run
    python benchmarks/cluster_search.py --uri http://localhost:19530

The rows and queries of `search.py`; k is 10. Local and remote take their turn, query by query. A
Lite file is served from within this process, in Python: it shows that the answers are right and
what the way there costs, not what a server can do.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from common import median, verdict
from search import K, make_queries, make_rows

import simsearch as ss

QUERIES = 100


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure searches through Milvus.")
    parser.add_argument("--rows", type=int, default=25_000)
    parser.add_argument("--dim", type=int, default=1280)
    parser.add_argument("--uri", help="of a server; a Milvus Lite file by default")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.npy"
        make_rows(file, options.rows, options.dim)
        rows = np.load(file)
        library = ss.ImageLibrary(rows, [f"{i % 100:02}/{i:07}.jpg" for i in range(len(rows))])
        measure(library, options.uri or str(Path(folder) / "images.db"))


def measure(library: ss.ImageLibrary, uri: str) -> None:
    """Publish, publish again, and ask both."""
    count = len(library)
    name = f"{count:,} x {library.dim}"
    print(f"      {name}: {count / timed(library, uri):,.0f} rows published a second")
    print(f"      {name}: {timed(library, uri):.1f} s to publish again, with nothing changed")
    with ss.RemoteLibrary(uri, "benchmark") as remote:
        queries = make_queries(library.embeddings, QUERIES)
        for condition in (None, "0*"):
            compare(f"{name}, where={condition!r}", library, remote, queries, condition)


def timed(library: ss.ImageLibrary, uri: str) -> float:
    started = time.perf_counter()
    ss.publish(library, uri, "benchmark", progress=False)
    return time.perf_counter() - started


def compare(
    name: str,
    library: ss.ImageLibrary,
    remote: ss.RemoteLibrary,
    queries: np.ndarray,
    where: str | None,
) -> None:
    """Ask both, one query after the other."""
    seconds: dict[str, list[float]] = {"local": [], "remote": []}
    hits, off = 0, 0.0
    for query in queries:
        answers = {}
        for side, asked in (("local", library), ("remote", remote)):
            started = time.perf_counter()
            answers[side] = ss.search(asked, query, K, where=where)
            seconds[side].append(time.perf_counter() - started)
        exact = {match.path: match.score for match in answers["local"]}
        found = [match for match in answers["remote"] if match.path in exact]
        hits += len(found)
        off = max([off, *(abs(match.score - exact[match.path]) for match in found)])
    for side, times in seconds.items():
        slow = float(np.percentile(times, 95))
        print(f"      {name}: {side} {median(times) * 1e3:.2f} ms a query, {slow * 1e3:.2f} at p95")
    verdict(f"{name}: recall@{K}", hits / (K * len(queries)), 0.99)
    verdict(f"{name}: scores differ by at most", off, 1e-3, at_most=True)


if __name__ == "__main__":
    main()
