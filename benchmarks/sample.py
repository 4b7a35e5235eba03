"""How hard the sample dataset is, and what learning from it gains: mAP over three seeds.

    python benchmarks/sample.py

EfficientNet-Lite0 on seg_test, the queries, and seg_train, the gallery: plain cosine, `refine`, a
trained head, and rows in a random order. The goals say what the dataset promises: room above plain
search, a gain without labels, and a larger one with them.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

import numpy as np
from common import verdict

import simsearch as ss

SEEDS = (0, 1, 2)
QUERIES, GALLERY = "seg_test/*", "seg_train/*"


def main() -> None:
    found = [measure(seed) for seed in SEEDS]
    print(" " * 12 + "".join(f"{f'seed {seed}':>10}" for seed in SEEDS) + "      mean    spread")
    rows = {name: [figures[name] for figures in found] for name in found[0]}
    for name, values in rows.items():
        spread = max(values) - min(values)
        figures = [*values, statistics.mean(values), spread]
        print(f"      {name:<6}" + "".join(f"{value:10.3f}" for value in figures), flush=True)
    plain, refined, trained = (np.array(rows[name]) for name in ("plain", "refine", "head"))
    verdict("sample dataset, plain: highest mAP", plain.max(), 0.85, at_most=True)
    verdict("sample dataset, plain: lowest mAP", plain.min(), 0.65)
    verdict("sample dataset, refine: least mAP gained", (refined - plain).min(), 0.02)
    verdict("sample dataset, head: least mAP gained", (trained - plain).min(), 0.05)


def measure(seed: int) -> dict[str, float]:
    """Make the dataset, embed it, and return mAP by what ranks it."""
    with tempfile.TemporaryDirectory() as place:
        folder = ss.make_sample(Path(place) / "dataset", seed)
        outputs = Path(place) / "outputs"
        library = ss.embed_dataset(folder, outputs, "efficientnet_lite0", progress=False)
        trained = ss.train_head(library, on=GALLERY, progress=False)
        return {
            "random": mean_average_precision(shuffled(library, seed)),
            "plain": mean_average_precision(library),
            "refine": mean_average_precision(ss.refine(library, progress=False)),
            "head": mean_average_precision(library.with_head(trained.head)),
        }


def shuffled(library: ss.ImageLibrary, seed: int) -> ss.ImageLibrary:
    """Give each image the embedding of another: what chance finds."""
    order = np.random.default_rng(seed).permutation(len(library))
    mixed = ss.ImageLibrary(np.asarray(library.embeddings)[order], library.paths)
    mixed.root = library.root
    return mixed


def mean_average_precision(library: ss.ImageLibrary) -> float:
    found = ss.evaluate(library, queries=QUERIES, gallery=GALLERY, resamples=0, progress=False)
    return found.overall["mAP"].value


if __name__ == "__main__":
    main()
