"""What evaluating a large library costs: every query, and the sample that is asked by default.

    python benchmarks/evaluate.py              # 100,000 x 1,280, and 20,000 for the intervals
    python benchmarks/evaluate.py --every      # asks all 100,000, too: a quarter of an hour

Made-up rows: 100 classes of unequal size, which overlap; seed 0. Processor seconds of all threads.
Without `--every`, what all queries cost is the cost of one in the sample, times their number. The
smaller library tells how often the intervals of 95% of such a sample hold the value of all.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from common import verdict

import simsearch as ss

DIM, CLASSES, BLOCK, GOAL_SECONDS = 1280, 100, 4096, 60.0
SMALL_ROWS, SMALL_SAMPLE = 20_000, 2_000
METRICS = ("mAP", "precision@10", "r_precision")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--seeds", type=int, default=20, help="samples of the smaller library")
    parser.add_argument("--every", action="store_true", help="ask all queries of the larger one")
    options = parser.parse_args()
    intervals(make_library(SMALL_ROWS), options.seeds)
    library = make_library(options.rows)
    seconds, found = timed(lambda: evaluate(library))
    asked, many = len(found.rows), len(found.answerable)
    print(f"{asked:,} queries of {many:,}: {seconds:.1f} CPU s, mAP {found.overall['mAP']}")
    all_seconds, how = seconds * many / asked, "by these"
    if options.every:
        all_seconds, every = timed(lambda: evaluate(library, sample="all"))
        how = f"measured, mAP {every.overall['mAP']}"
    print(f"{many:,} queries: {all_seconds:.0f} CPU s ({how})")
    verdict("CPU seconds by default", seconds, GOAL_SECONDS, at_most=True)


def intervals(library: ss.ImageLibrary, seeds: int) -> None:
    """Print what samples say of all queries of a library."""
    every = evaluate(library, sample="all").overall
    errors, widths, held = [], [], 0
    for seed in range(seeds):
        found = evaluate(library, sample=SMALL_SAMPLE, seed=seed).overall
        errors.append(found["mAP"].value - every["mAP"].value)
        widths.append(found["mAP"].high - found["mAP"].low)
        held += sum(found[name].low <= every[name].value <= found[name].high for name in METRICS)
    print(
        f"{len(library):,} rows, samples of {SMALL_SAMPLE:,}: mAP of all {every['mAP'].value:.4f}, "
        f"samples {min(errors):+.4f} to {max(errors):+.4f}, intervals {np.mean(widths):.4f} wide"
    )
    verdict("intervals that hold the value of all", held / len(METRICS) / seeds, 0.9)


def evaluate(library: ss.ImageLibrary, **options: Any) -> ss.Evaluation:
    return ss.evaluate(library, progress=False, **options)


def make_library(count: int) -> ss.ImageLibrary:
    """Return rows of overlapping classes, from a twentieth of the mean size to twice it."""
    rng = np.random.default_rng(0)
    shares = rng.uniform(0.05, 2, CLASSES)
    labels = rng.choice(CLASSES, count, p=shares / shares.sum())
    centres = rng.normal(size=(CLASSES, DIM)).astype(np.float32) / DIM**0.5
    rows = np.empty((count, DIM), np.float32)
    for start in range(0, count, BLOCK):
        own = labels[start : start + BLOCK]
        noise = rng.standard_normal((len(own), DIM), np.float32) / np.float32(DIM**0.5)
        spread = rng.uniform(2, 6, (len(own), 1)).astype(np.float32)
        rows[start : start + len(own)] = centres[own] + spread * noise
    return ss.ImageLibrary(rows, [f"{label:02d}/{i:07d}.jpg" for i, label in enumerate(labels)])


def timed(call: Callable[[], ss.Evaluation]) -> tuple[float, ss.Evaluation]:
    started = time.process_time()
    result = call()
    return time.process_time() - started, result


if __name__ == "__main__":
    main()
