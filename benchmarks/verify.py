"""What digests of blocks cost: a query, opening, saving and verifying a library.

    python benchmarks/verify.py                 # 100,000 × 1280; about three minutes
    python benchmarks/verify.py --rows 25000

Processor time of this process. Queries of a library in its files are paired, round by round, with
the same queries of the same rows in memory that nobody checks; of the ratios the median is given,
and the lowest and highest. "read anew" is how rows of more than 1 GiB are read; "mapped" is what
earlier versions did: no check, and the end of the process if the file is cut.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from common import median, verdict
from search import make_queries, make_rows

import simsearch as ss
from simsearch.library.block_digests import file_record

ROUNDS, QUERIES, K = 11, 60, 10


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what checks of rows cost.")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=1280)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        outputs = Path(folder) / "outputs"
        make_rows(Path(folder) / "rows.npy", options.rows, options.dim)
        rows = np.load(Path(folder) / "rows.npy", mmap_mode="r")
        queries = make_queries(rows, QUERIES)
        paths = [f"{row:07d}.jpg" for row in range(options.rows)]
        library = ss.ImageLibrary(rows, paths)
        print(f"{options.rows:,} rows of {options.dim}; processor time")
        print(f"      save, with digests: {seconds(lambda: library.save(outputs)):.2f} s")
        record = seconds(lambda: file_record(outputs / "embeddings.npy"))
        print(f"      of which digests of the rows: {record:.2f} s")
        ss.search(ss.ImageLibrary.as_stored(outputs), queries[0], k=K)  # makes the shortened copy
        measure_queries(outputs, queries)
        measure_others(outputs, queries)


def seconds(call: Callable[[], object]) -> float:
    """Return the processor time of one call."""
    start = time.process_time()
    call()
    return time.process_time() - start


def measure_queries(outputs: Path, queries: np.ndarray) -> None:
    """Pair the ways to read rows, round by round, in changing order."""
    mapped = ss.ImageLibrary.as_stored(outputs)
    mapped.row_file = None
    kept, anew = ss.ImageLibrary.as_stored(outputs), ss.ImageLibrary.as_stored(outputs)
    if anew.row_file is None:
        print("      these rows are few: they are read into memory when they are opened")
        return
    anew.row_file.keep_nothing()
    ways = {"mapped": mapped, "kept": kept, "read anew": anew}
    for library in ways.values():
        ask(library, queries)  # so that every block that is read has been checked
    rounds = [
        {name: ask(ways[name], queries) for name in turn(list(ways), i)} for i in range(ROUNDS)
    ]
    for name in ways:
        costs = [each[name] for each in rounds]
        ratios = sorted(each[name] / each["mapped"] for each in rounds)
        print(
            f"      {name}: {1000 * median(costs) / len(queries):.2f} ms a query, "
            f"{median(ratios):.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f}) of mapped"
        )
    ratio = median([each["kept"] / each["mapped"] for each in rounds])
    verdict("a query beside one without checks, of processor time", ratio, 1.05, at_most=True)


def turn(names: list[str], by: int) -> list[str]:
    return names[by % len(names) :] + names[: by % len(names)]


def ask(library: ss.ImageLibrary, queries: np.ndarray) -> float:
    return seconds(lambda: [ss.search(library, query, k=K) for query in queries])


def measure_others(outputs: Path, queries: np.ndarray) -> None:
    """Time what is done once."""
    opened = [seconds(lambda: ss.ImageLibrary.as_stored(outputs)) for _ in range(5)]
    print(f"      open: {1000 * median(opened):.0f} ms")
    first = []
    for query in queries[:5]:
        library = ss.ImageLibrary.as_stored(outputs)
        first.append(seconds(partial(ss.search, library, query, k=K)))
    print(f"      the first query, which checks what it reads: {1000 * median(first):.0f} ms")
    library = ss.ImageLibrary.as_stored(outputs)
    whole = seconds(lambda: library.row_file and library.row_file.whole())
    print(f"      a private copy of all rows, checked: {whole:.2f} s")
    everything = seconds(lambda: ss.verify_library(outputs, progress=False))
    print(f"      verify_library: {everything:.2f} s")


if __name__ == "__main__":
    main()
