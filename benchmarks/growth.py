"""What each step costs as a library grows: embedding again, one more picture, searches, evaluation.

    python benchmarks/growth.py                              # 1,000 to 100,000 rows; ten minutes
    python benchmarks/growth.py --rows 1000000               # one size; its figures join the others
    python benchmarks/growth.py --publish                    # into a Milvus Lite file, too

Clustered rows of `search.py`, 1,280 wide, stand for the network's: no picture is decoded, so that
what is measured is all that is around it. Files are there, each with contents of its own. Given are
processor seconds of all threads: walls stray on machines that are shared. Each size runs in a
process of its own. The figures are kept in `growth.json` and drawn in `growth.png`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from search import make_queries, make_rows

import simsearch as ss
from simsearch.analysis.candidates import CANDIDATE_COSINE as LEAST
from simsearch.analysis.candidates import NEIGHBOURS
from simsearch.analysis.near_rows import near_pairs
from simsearch.analysis.similar_rows import similar_rows
from simsearch.embedding.batching import Batch

HERE = Path(__file__).resolve().parent
RESULTS, PLOT = HERE / "growth.json", HERE / "growth.png"
SIZES = (1_000, 3_000, 10_000, 30_000, 100_000)
DIM, FOLDERS, BATCH = 1280, 100, 256
SEARCHES, EVALUATED, DUPLICATE_COSINE = 20, 1000, 0.98
ALL_PAIRS_ROWS, INDEXED_ROWS = 10_000, 10_000  # most to compare in all pairs, least for an index
ALL_PAIRS, CELLS = "duplicates, all pairs", "duplicates, pairs of near cells"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="*", default=SIZES)
    parser.add_argument("--publish", action="store_true", help="into a Milvus Lite file, too")
    parser.add_argument("--size", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.size:
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            print(json.dumps(measure(options.size, publish=options.publish)))
        return
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    figures: dict[str, dict[str, float]] = known.get("figures", {})
    for rows in options.rows:
        command = [sys.executable, __file__, "--size", str(rows), *["--publish"] * options.publish]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        figures[str(rows)] = figures.get(str(rows), {}) | json.loads(done.stdout.splitlines()[-1])
        machine = {"python": platform.python_version(), "numpy": np.__version__}
        machine |= {"torch": torch.__version__, "cores": str(os.cpu_count())}
        RESULTS.write_text(json.dumps({"machine": machine, "figures": figures}, indent=2) + "\n")
        print(
            rows, {step: round(value, 3) for step, value in figures[str(rows)].items()}, flush=True
        )
    draw(figures)


def measure(count: int, *, publish: bool) -> dict[str, float]:
    """Return the processor seconds of each step for so many rows."""
    make_rows(Path("rows.npy"), count + 1, DIM)
    rows = np.load("rows.npy", mmap_mode="r")
    for i in range(count):
        write(i, count)
    backbone = network()

    def embed() -> ss.ImageLibrary:
        engine = lambda *given: embed_from(rows, *given)  # noqa: E731
        return ss.embed_dataset("dataset", "outputs", backbone, engine=engine, progress=False)

    times = {"embed, without the network": timed(embed), "embed again": timed(embed)}
    write(count, count)
    times["add one picture"] = timed(embed)
    times["load, and first search"] = timed(lambda: ss.search(ss.ImageLibrary.load("outputs"), 0))
    library = ss.ImageLibrary.load("outputs")
    queries = make_queries(np.asarray(rows[:count]), SEARCHES + 1)
    ss.search(library, queries[-1])
    times["one search"] = timed(lambda: [ss.search(library, q) for q in queries[:-1]]) / SEARCHES
    batch = list(make_queries(np.asarray(rows[:count]), 100))
    times["one search of a batch of 100"] = timed(lambda: ss.search(library, batch)) / 100
    asked = np.arange(0, count, max(1, count // EVALUATED))[:EVALUATED]
    times[f"evaluate, {EVALUATED:,} queries"] = timed(
        lambda: ss.evaluate(library, queries=asked, progress=False)
    )
    every = np.arange(count)
    times[CELLS] = timed(lambda: near_pairs(library.embeddings, every, every, LEAST, NEIGHBOURS))
    if count <= ALL_PAIRS_ROWS:
        times[ALL_PAIRS] = timed(lambda: similar_rows(library, DUPLICATE_COSINE, progress=False))
    if count >= INDEXED_ROWS:
        times |= measure_index(library, queries)
    if publish:
        times["publish, Milvus Lite"] = timed(lambda: ss.publish(library, "x.db", "x"))
    return times


def measure_index(library: ss.ImageLibrary, queries: np.ndarray) -> dict[str, float]:
    """Return the processor seconds of making an index, and of a search through it."""
    made: list[Any] = []
    times = {"index, made and measured": timed(lambda: made.append(build(library)))}
    ss.search(library, queries[-1], index=made[0])
    for_all = timed(lambda: [ss.search(library, q, index=made[0]) for q in queries[:-1]])
    return times | {"one search through an index": for_all / (len(queries) - 1)}


def build(library: ss.ImageLibrary) -> Any:
    return ss.build_index(library, "rabitq", progress=False)


def write(i: int, count: int) -> None:
    """Write a file that is listed as a picture; the last one sorts into the middle."""
    name = f"{i:07d}" if i < count else f"{count // 2:07d}a"
    file = Path("dataset", f"{(i if i < count else count // 2) % FOLDERS:02d}", f"{name}.jpg")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(name)


def network() -> ss.Backbone:
    """Return a backbone of the right width, which is never run."""
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3, DIM))

    def transform(image: Any) -> torch.Tensor:
        return torch.tensor(np.asarray(image.resize((1, 1)), np.float32)).reshape(3, 1, 1)

    return ss.load_backbone(module, transform=transform, device="cpu", precision="float32")


def embed_from(rows: np.ndarray, sources: Sequence[Any], *_: object) -> Generator[Batch]:
    """Stand for an executor: yield rows that were made before, by the number in a file's name."""
    for start in range(0, len(sources), BATCH):
        some = sources[start : start + BATCH]
        names = [Path(str(source)).stem for source in some]
        numbers = [len(rows) - 1 if name.endswith("a") else int(name) for name in names]
        yield Batch(list(range(start, start + len(some))), np.asarray(rows[numbers]), [])


def timed(call: Callable[[], object]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


def draw(figures: dict[str, dict[str, float]]) -> None:
    """Draw the seconds of each step against the number of rows, both on logarithmic axes."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    sizes = sorted(map(int, figures))
    steps = list(dict.fromkeys(step for size in sizes for step in figures[str(size)]))
    figure, axes = plt.subplots(figsize=(8.5, 5), layout="constrained")
    for i, step in enumerate(steps):
        known = [size for size in sizes if step in figures[str(size)]]
        seconds = [max(figures[str(size)][step], 1e-4) for size in known]
        style = "os^Dv<>Ph*X"[i % 11] + ("-" if i < 10 else "--")  # of ten colours
        axes.plot(known, seconds, style, ms=5, lw=1.5, label=step)
    grid = np.array([sizes[0], sizes[-1]])
    axes.plot(grid, 0.02 * grid / sizes[0], ":", color="0.5", label="in proportion to the rows")
    axes.set(xscale="log", yscale="log", xlabel="rows", ylabel="processor seconds")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.grid(visible=True, alpha=0.3)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    figure.savefig(PLOT, dpi=120)


if __name__ == "__main__":
    main()
