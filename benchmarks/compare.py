"""Two versions of the package side by side: processor time of the same work, pair by pair.

    python benchmarks/compare.py PATH_OF_THE_OTHER_CHECKOUT [--pairs 15] [--jobs embed query ...]

Each pair runs both versions one after the other in fresh processes, in turns which is first, and
takes the ratio of their processor times (this checkout over the other one). What is printed is the
geometric mean of the ratios with its 95% interval (Student's t on their logarithms).

embed   240 photos into a library, with EfficientNet-Lite0
query   60 searches by photos among 8,000 rows
search  300 searches one by one and 20 batches of 64, among 100,000 clustered rows
serve   600 searches by row and 40 by uploads, over the API, among 25,000 rows
"""

from __future__ import annotations

import argparse
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from common import INTEL

HERE = Path(__file__).resolve().parents[1]
GOAL = 1.05  # upper end of the interval
BACKBONE, DIM = "efficientnet_lite0", 1280

SETUP = """
import sys, time
from pathlib import Path
import numpy as np
import simsearch as ss

folder = Path(sys.argv[1])
files = [str(path) for path in sorted((folder / "dataset").iterdir())]
"""
JOBS = {
    "embed": """
backbone = ss.load_backbone("efficientnet_lite0", device="cpu")
start = time.process_time()
import tempfile
with tempfile.TemporaryDirectory() as outputs:
    ss.embed_dataset(folder / "dataset", outputs, backbone, progress=False)
""",
    "query": """
backbone = ss.load_backbone("efficientnet_lite0", device="cpu")
rows = np.load(folder / "rows8000.npy")
library = ss.ImageLibrary(rows, [f"{i:05}.jpg" for i in range(len(rows))], backbone)
ss.search(library, files[0])
start = time.process_time()
for file in files[:60]:
    ss.search(library, file)
""",
    "search": """
library = ss.ImageLibrary.load(folder / "outputs100000")
queries = np.load(folder / "queries.npy")
ss.search(library, queries[0])
start = time.process_time()
for query in queries[:300]:
    ss.search(library, query, k=10)
for i in range(20):
    ss.search(library, list(queries[64 * i : 64 * i + 64]), k=10)
""",
    "serve": """
from fastapi.testclient import TestClient
from simsearch.web.app import create_app
from simsearch.web.settings import Settings

with TestClient(create_app(Settings(str(folder / "outputs25000")))) as client:
    def ask(**body):
        answer = client.post("/api/search", **body)
        assert answer.status_code == 200, answer.text
    for _ in range(3):
        ask(files={"row": (None, "1")})
    pictures = [Path(file).read_bytes() for file in files[:40]]
    ask(files={"image": ("a.jpg", pictures[0])})
    start = time.process_time()
    for row in range(600):
        ask(files={"row": (None, str(row))})
    for picture in pictures:
        ask(files={"image": ("a.jpg", picture)})
    used = time.process_time() - start
start = time.process_time() - used
""",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("other", type=Path, help="checkout of the other version")
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--jobs", nargs="+", choices=list(JOBS), default=list(JOBS))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder))
        for job in options.jobs:
            compare(job, options.other.resolve(), Path(folder), options.pairs)


def prepare(folder: Path) -> None:
    """Make what both versions read: photos, rows, and libraries with their pruned copies."""
    import simsearch as ss

    photos = sorted((INTEL / "seg_pred").iterdir())[:240]
    (folder / "dataset").mkdir()
    for photo in photos:
        shutil.copy2(photo, folder / "dataset")
    rng = np.random.default_rng(0)
    np.save(folder / "rows8000.npy", rng.standard_normal((8000, DIM), dtype=np.float32))
    fade = np.arange(1, DIM + 1, dtype=np.float32) ** -0.5
    centres = rng.standard_normal((1000, DIM), dtype=np.float32) * fade

    def clustered(count: int) -> np.ndarray:
        noise = rng.standard_normal((count, DIM), dtype=np.float32) * fade
        return np.asarray(centres[rng.integers(0, len(centres), count)] + 0.3 * noise)

    np.save(folder / "queries.npy", clustered(1280))
    backbone = ss.load_backbone(BACKBONE, device="cpu")
    for count in (25_000, 100_000):
        paths = [f"{i:06}.jpg" for i in range(count)]
        library = ss.ImageLibrary(clustered(count), paths, backbone)
        library.save(folder / f"outputs{count}")
        ss.search(ss.ImageLibrary.load(folder / f"outputs{count}"), 0)  # makes the pruned copy


def compare(job: str, other: Path, folder: Path, pairs: int) -> None:
    """Print the ratio of both versions' processor times for one job."""
    times: dict[Path, list[float]] = {HERE: [], other: []}
    for number in range(pairs + 1):
        for version in (HERE, other) if number % 2 else (other, HERE):
            used = run(job, version, folder)
            if number:  # the first pair warms the disk's cache
                times[version].append(used)
    logs = [math.log(a / b) for a, b in zip(times[HERE], times[other], strict=True)]
    mean, low, high = interval(logs)
    print(
        f"{'ok  ' if high <= GOAL else 'MISS'}  {job:<8} {statistics.median(times[other]):7.2f} s "
        f"-> {statistics.median(times[HERE]):7.2f} s   ratio {mean:.3f} ({low:.3f} to {high:.3f}), "
        f"{pairs} pairs",
        flush=True,
    )


def interval(logs: list[float]) -> tuple[float, float, float]:
    """Geometric mean of ratios, and the ends of its 95% interval."""
    from scipy.stats import t

    mean = statistics.fmean(logs)
    spread = statistics.stdev(logs) / math.sqrt(len(logs)) if len(logs) > 1 else math.inf
    half = float(t.ppf(0.975, len(logs) - 1)) * spread if len(logs) > 1 else math.inf
    return math.exp(mean), math.exp(mean - half), math.exp(mean + half)


def run(job: str, version: Path, folder: Path) -> float:
    """Run a job with one version; return the processor seconds of its measured part."""
    code = SETUP + JOBS[job] + "\nprint(time.process_time() - start)"
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)],
        env=os.environ | {"PYTHONPATH": str(version)},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return float(done.stdout.split()[-1])


if __name__ == "__main__":
    main()
