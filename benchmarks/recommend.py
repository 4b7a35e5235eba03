"""What disliking is worth: recommendations among scenes, by the weight of the disliked.

    python benchmarks/recommend.py [OUTPUTS]

Somebody likes three photos of one scene, and dislikes the first three wrong ones that the likes
alone would bring. Counted are the right ones among the next 20, over 300 such tastes.
OUTPUTS keeps the embeddings for the next run.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator

import numpy as np
from common import INTEL, verdict

import simsearch as ss

WEIGHTS = (0.0, 0.1, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        outputs = sys.argv[1] if len(sys.argv) > 1 else folder
        library = ss.embed_dataset(INTEL, outputs, "efficientnet_lite0")
        likes = list(tastes(library))
        precision = {weight: mean_precision(library, likes, weight) for weight in WEIGHTS}
    for weight, value in precision.items():
        print(f"      dislike={weight:<5} precision@20 {value:.3f}")
    best = max(precision.values())
    verdict("disliking, at 0.25: precision@20 gained", precision[0.25] - precision[0.0], 0.03)
    verdict("the best weight over 0.25: precision@20", best - precision[0.25], 0.01, at_most=True)


def tastes(library: ss.ImageLibrary) -> Iterator[tuple[list[int], list[int]]]:
    """Yield what is liked, and what is disliked of that which the likes bring."""
    rng = np.random.default_rng(0)
    gallery = library.select("seg_train/*")
    classes = np.unique(library.labels[gallery])
    found = 0
    while found < 300:
        rows = np.flatnonzero(gallery & (library.labels == rng.choice(classes)))
        liked = rng.choice(rows, 3, replace=False).tolist()
        first = ss.recommend(library, liked, k=30, where="seg_train/*")
        wrong = [m.row for m in first if library.labels[m.row] != library.labels[liked[0]]]
        if wrong:
            found += 1
            yield liked, wrong[:3]


def mean_precision(
    library: ss.ImageLibrary, likes: list[tuple[list[int], list[int]]], weight: float
) -> float:
    right = []
    for liked, disliked in likes:
        matches = ss.recommend(library, liked, disliked, k=20, dislike=weight, where="seg_train/*")
        right.append(np.mean([library.labels[m.row] == library.labels[liked[0]] for m in matches]))
    return float(np.mean(right))


if __name__ == "__main__":
    main()
