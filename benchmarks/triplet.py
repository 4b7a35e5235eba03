"""Retrieval before and after training a head, on unseen images and on held-out classes.

    python benchmarks/triplet.py [OUTPUTS]

On the Intel scenes beside the project, with EfficientNet-Lite0: the head is trained on seg_train
alone (a tenth of it is for validation), and all of seg_test is then searched in seg_train. The
baseline is linear discriminant analysis, fitted to the same training images. For held-out classes,
each third of the classes is left out of the training in turn, and its images in seg_test are
searched in all of seg_train, so that an unknown class can be confused with a known one.
OUTPUTS keeps the embeddings for the next run.
"""

from __future__ import annotations

import sys
import tempfile

import numpy as np
from common import INTEL, verdict
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

import simsearch as ss

TEST, TRAIN = "seg_test/*", "seg_train/*"
PAIRS = [("buildings", "mountain"), ("forest", "sea"), ("glacier", "street")]
LOSSES = ("triplet", "contrastive", "multi-similarity", "arcface", "supcon")
# Weights of the backbone's own cosine: for held-out classes, the default, and a small one.
KEEP, DEFAULT, SMALL = 0.6, 0.3, 0.1


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        outputs = sys.argv[1] if len(sys.argv) > 1 else folder
        library = ss.embed_dataset(INTEL, outputs, "efficientnet_lite0")
        plain = retrieve(library)
        verdict("plain cosine: mAP", plain["mAP"], 0.66)
        verdict("plain cosine: precision@10", plain["precision@10"], 0.83)
        known_classes(library)
        held_out_classes(library)


def retrieve(library: ss.ImageLibrary, queries: object = TEST) -> dict[str, float]:
    """Mean of each metric over seg_test, or a mask of it, in seg_train."""
    found = ss.evaluate(library, queries=queries, gallery=TRAIN, resamples=0, progress=False)  # type: ignore[arg-type]
    return {name: estimate.value for name, estimate in found.overall.items()}


def known_classes(library: ss.ImageLibrary) -> None:
    """Train with each loss, and compare with the baseline."""
    best, baseline = 0.0, discriminant(library)
    for loss in LOSSES:
        trained = ss.train_head(library, on=TRAIN, loss=loss)
        after = retrieve(library.with_head(trained.head))
        small = retrieve(library.with_head(trained.head.keeping(SMALL)))["mAP"]
        best = max(best, after["mAP"], small)
        figures = f"mAP {after['mAP']:.3f}, precision@10 {after['precision@10']:.3f}"
        print(
            f"      {loss}: {figures}; {small:.3f} with keep={SMALL}; "
            f"{len(trained.history)} epochs, {trained.seconds:.0f} s"
        )
        if loss == "triplet":
            verdict("triplet head: mAP", after["mAP"], 0.925)
            verdict("triplet head: precision@10", after["precision@10"], 0.905)
            verdict("triplet head: mAP above LDA's", after["mAP"] - baseline, 0.0)
            verdict("triplet head: seconds of training", trained.seconds, 60, at_most=True)
            kept = retrieve(library.with_head(trained.head.keeping(KEEP)))
            figures = f"mAP {kept['mAP']:.3f}, precision@10 {kept['precision@10']:.3f}"
            print(f"      triplet, keep={KEEP}: {figures}")
    verdict(f"best loss, keep={SMALL} or {DEFAULT}: mAP", best, 0.93)


def discriminant(library: ss.ImageLibrary) -> float:
    """Return the mAP of LDA, which has one direction less than there are classes."""
    rows = library.select(TRAIN)
    lda = LinearDiscriminantAnalysis(solver="eigen", shrinkage="auto")
    lda.fit(library.embeddings[rows], library.labels[rows])
    weight = lda.scalings_.T[: len(lda.classes_) - 1]
    centre = lda.priors_ @ lda.means_
    after = retrieve(library.with_head(ss.ProjectionHead([(weight, -weight @ centre)])))
    print(f"      LDA: mAP {after['mAP']:.3f}, precision@10 {after['precision@10']:.3f}")
    return after["mAP"]


def held_out_classes(library: ss.ImageLibrary) -> None:
    """Average over three trainings, each without a third of the classes."""
    changes: dict[float, list[float]] = {KEEP: [], DEFAULT: []}
    seen = []
    for pair in PAIRS:
        trained = ss.train_head(library, on=TRAIN, leave_out=pair)
        queries = library.select(TEST) & np.isin(library.labels, pair)
        before = retrieve(library, queries)["mAP"]
        for keep, change in changes.items():
            derived = library.with_head(trained.head.keeping(keep))
            change.append(retrieve(derived, queries)["mAP"] - before)
            if keep == KEEP:
                known = library.select(TEST) & ~np.isin(library.labels, pair)
                seen.append(retrieve(derived, known)["mAP"] - retrieve(library, known)["mAP"])
    for keep, change in changes.items():
        print(
            f"      held-out classes, keep={keep}: "
            f"mAP {np.mean(change):+.3f} ({np.round(change, 3)})"
        )
    verdict(f"held-out classes, keep={KEEP}: change of mAP", float(np.mean(changes[KEEP])), -0.01)
    verdict(f"known classes beside them, keep={KEEP}: change of mAP", float(np.mean(seen)), 0.1)


if __name__ == "__main__":
    main()
