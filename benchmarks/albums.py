"""Albums beside k-means that is given the number of classes, and what 100,000 rows cost.

    python benchmarks/albums.py

The Intel scenes by EfficientNet-Lite0. The settings were chosen on seg_train, and stand in
`simsearch/analysis/row_groups.py`; the figures are of seg_test, whole and of halves drawn at random
(three seeds). Adjusted Rand index (ARI): over the pictures that are in an album, and over all, each
that is in none as an album of its own. K-means gets the true number of classes.
EVoC, a library for the same job, runs where it is installed: `PEER=python-with-evoc`. At the end,
100,000 rows: each the mean of a picture's row and another's, with noise.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from common import INTEL, verdict
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

import simsearch as ss

SEEDS = (0, 1, 2)
ROWS = 100_000
OUTPUTS = Path(tempfile.gettempdir()) / "simsearch_albums_intel"

EVOC = """
import sys, time
start = time.process_time()
import numpy as np, evoc
rows = np.load(sys.argv[1])
for run in ("first", "second"):
    model = evoc.EVoC(random_state=0).fit(rows)
    print(f"EVoC, {run} run with all before it: {time.process_time() - start:.1f} CPU s")
np.save(sys.argv[2], np.array(model.cluster_layers_))
"""


def main() -> None:
    library = ss.embed_dataset(
        INTEL, os.environ.get("OUTPUTS", OUTPUTS), backbone="efficientnet_lite0", progress=False
    )
    names = [path.split("/") for path in library.paths.tolist()]
    for part in ("seg_train", "seg_test"):
        mask = np.array([name[-3] == part for name in names])
        truth = np.array([name[-2] for name in names])[mask]
        compare(f"{part} ({mask.sum():,})", library.embeddings[mask], truth)
    rows = library.embeddings[mask]
    scores = [halves(rows, truth, seed) for seed in SEEDS]
    albums, kmeans = np.mean(scores, axis=0)
    verdict("seg_test, halves: ARI of coarse albums less k-means' with k", albums - kmeans, -0.05)
    if "PEER" in os.environ:
        evoc(rows, truth)
    many(library.embeddings)


def compare(name: str, rows: np.ndarray, truth: np.ndarray) -> None:
    """Print what each grain reaches, and k-means."""
    print(f"{name:<24}{'albums':>8}{'assigned':>10}{'ARI inside':>12}{'ARI all':>9}{'CPU s':>8}")
    start = time.process_time()
    found = group(rows)
    took = time.process_time() - start
    for level in found:
        line(level.grain, clusters(level, len(rows)), truth, took)
    for seed in SEEDS:
        start = time.process_time()
        groups = KMeans(len(set(truth)), n_init=3, random_state=seed).fit_predict(rows)
        line(f"k-means, k given, {seed}", groups, truth, time.process_time() - start)


def line(name: str, groups: np.ndarray, truth: np.ndarray, took: float) -> None:
    inside = groups >= 0
    within = adjusted_rand_score(truth[inside], groups[inside])
    print(
        f"  {name:<22}{groups.max() + 1:8}{inside.mean():10.3f}{within:12.3f}"
        f"{whole(groups, truth):9.3f}{took:8.1f}",
        flush=True,
    )


def whole(groups: np.ndarray, truth: np.ndarray) -> float:
    """Return the ARI in which each row of no group is a group of its own."""
    own = np.where(groups < 0, groups.max() + 1 + np.arange(len(groups)), groups)
    return float(adjusted_rand_score(truth, own))


def group(rows: np.ndarray) -> ss.Albums:
    library = ss.ImageLibrary(rows, [f"{i:06}.jpg" for i in range(len(rows))])
    return ss.albums(library, labels=[None] * len(rows))


def clusters(level: ss.AlbumLevel, count: int) -> np.ndarray:
    groups = np.full(count, -1)
    for number, album in enumerate(level):
        groups[list(album.rows)] = number
    return groups


def halves(rows: np.ndarray, truth: np.ndarray, seed: int) -> tuple[float, float]:
    """Return the ARI of coarse albums and of k-means, over a half of the rows."""
    part = np.sort(np.random.default_rng(seed).choice(len(rows), len(rows) // 2, replace=False))
    coarse = clusters(group(rows[part]).level("coarse"), len(part))
    given = KMeans(len(set(truth)), n_init=3, random_state=seed).fit_predict(rows[part])
    scores = whole(coarse, truth[part]), whole(given, truth[part])
    print(f"  half {seed}: coarse albums {scores[0]:.3f}, k-means with k {scores[1]:.3f}")
    return scores


def evoc(rows: np.ndarray, truth: np.ndarray) -> None:
    """Run EVoC in an environment of its own, and print each of its layers."""
    with tempfile.TemporaryDirectory() as folder:
        files = [str(Path(folder, name)) for name in ("rows.npy", "layers.npy")]
        np.save(files[0], rows)
        subprocess.run([os.environ["PEER"], "-c", EVOC, *files], check=True)
        for groups in np.load(files[1]):
            line("EVoC", groups, truth, 0)


def many(rows: np.ndarray) -> None:
    """Print what 100,000 rows cost."""
    rng = np.random.default_rng(0)
    made = rng.standard_normal((ROWS, rows.shape[1]), dtype=np.float32) * np.float32(0.005)
    for first_row in range(0, ROWS, 5000):
        first, second = rng.integers(len(rows), size=(2, 5000))
        made[first_row : first_row + 5000] += 0.85 * rows[first] + 0.15 * rows[second]
    library = ss.ImageLibrary(made, [f"{i:06}.jpg" for i in range(ROWS)])
    del made
    # The making of the rows counts, too: 512 MB, and a copy of them for a while.
    unit = 1024 if sys.platform == "darwin" else 1
    start = time.process_time()
    found = ss.albums(library, labels=[None] * ROWS)
    took = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // unit
    print("\n".join(f"  {level.grain}: {level.summary}" for level in found))
    verdict(f"{ROWS:,} rows of {rows.shape[1]:,}: CPU seconds", took, 120, at_most=True)
    verdict("peak memory of the whole run, in MB", peak / 1024, 2500, at_most=True)


if __name__ == "__main__":
    main()
