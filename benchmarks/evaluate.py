"""What evaluating a large library costs: every query, and the sample that is asked by default.

    python benchmarks/evaluate.py                      # 100,000 x 1,280; some 10 minutes
    python benchmarks/evaluate.py --rows 20000 --seeds 20

Made-up rows: 100 classes of unequal size, which overlap. Processor seconds of all threads. Printed
is what the sample says of all queries, and how often its intervals of 95% hold their value.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
from common import verdict

import simsearch as ss

DIM, CLASSES, BLOCK, GOAL_SECONDS = 1280, 100, 4096, 60.0
METRICS = ("mAP", "precision@10", "r_precision")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--seeds", type=int, default=5, help="samples to draw")
    options = parser.parse_args()
    library = make_library(options.rows)
    before, every = timed(lambda: evaluate(library, "all", 0))
    print(f"{len(every.rows):,} queries: {before:.0f} CPU s")
    truth = {name: every.overall[name].value for name in METRICS}
    now, held, errors, widths = [], 0, [], []
    for seed in range(options.seeds):
        seconds, found = timed(lambda seed=seed: evaluate(library, None, seed))
        now.append(seconds)
        for name in METRICS:
            estimate = found.overall[name]
            held += estimate.low <= truth[name] <= estimate.high
        errors.append(found.overall["mAP"].value - truth["mAP"])
        widths.append(found.overall["mAP"].high - found.overall["mAP"].low)
    quicker = before / np.median(now)
    print(f"{len(found.rows):,}: {np.median(now):.1f} CPU s, {quicker:.1f} times as quick")
    print(
        f"mAP of all {truth['mAP']:.4f}; samples differ by {min(errors):+.4f} to "
        f"{max(errors):+.4f}, their intervals are {np.mean(widths):.4f} wide"
    )
    verdict("intervals that hold the value of all", held / len(METRICS) / options.seeds, 0.9)
    verdict("CPU seconds by default", float(np.median(now)), GOAL_SECONDS, at_most=True)


def evaluate(library: ss.ImageLibrary, sample: str | None, seed: int) -> ss.Evaluation:
    chosen = {} if sample is None else {"sample": sample}
    return ss.evaluate(library, seed=seed, progress=False, **chosen)


def make_library(count: int) -> ss.ImageLibrary:
    """Return rows of overlapping classes, from a few hundredths to twice the mean size."""
    rng = np.random.default_rng(0)
    shares = rng.uniform(0.05, 2, CLASSES)
    labels = rng.choice(CLASSES, count, p=shares / shares.sum())
    centres = rng.normal(size=(CLASSES, DIM)).astype(np.float32) / DIM**0.5
    rows = np.empty((count, DIM), np.float32)
    for start in range(0, count, BLOCK):
        own = labels[start : start + BLOCK]
        noise = rng.normal(size=(len(own), DIM)).astype(np.float32) / DIM**0.5
        spread = rng.uniform(2, 6, (len(own), 1)).astype(np.float32)
        rows[start : start + len(own)] = centres[own] + spread * noise
    return ss.ImageLibrary(rows, [f"{label:02d}/{i:07d}.jpg" for i, label in enumerate(labels)])


def timed(call: Callable[[], ss.Evaluation]) -> tuple[float, ss.Evaluation]:
    started = time.process_time()
    result = call()
    return time.process_time() - started, result


if __name__ == "__main__":
    main()
