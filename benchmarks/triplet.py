"""What a trained head is worth: retrieval before and after, on images and classes it never saw.

    python benchmarks/triplet.py [OUTPUTS]

On the Intel scenes beside the project, with EfficientNet-Lite0: the head learns from seg_train
alone (a tenth of it first tells when to stop), and all of seg_test then searches seg_train. The
rival is linear discriminant analysis, fitted to the same training images. For leave-classes-out,
each third of the classes is kept from the training in turn, and its images in seg_test search all
of seg_train: all classes are in the gallery, so that an unknown one can be taken for a known one.
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
# Of the backbone's own cosine: for classes that training does not know, the default, and the least.
KEEP, DEFAULT, LITTLE = 0.6, 0.3, 0.1


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        outputs = sys.argv[1] if len(sys.argv) > 1 else folder
        library = ss.embed_dataset(INTEL, outputs, "efficientnet_lite0")
        plain = retrieve(library)
        verdict("plain cosine: mAP", plain["mAP"], 0.66)
        verdict("plain cosine: precision@10", plain["precision@10"], 0.83)
        known_classes(library)
        unknown_classes(library)


def retrieve(library: ss.ImageLibrary, queries: object = TEST) -> dict[str, float]:
    """Mean of each measure over seg_test, or a mask of it, against seg_train."""
    found = ss.evaluate(library, queries=queries, gallery=TRAIN, resamples=0, progress=False)  # type: ignore[arg-type]
    return {name: estimate.value for name, estimate in found.overall.items()}


def known_classes(library: ss.ImageLibrary) -> None:
    """Each loss, and the rival."""
    best, rival = 0.0, discriminant(library)
    for loss in LOSSES:
        trained = ss.train_head(library, on=TRAIN, loss=loss)
        after = retrieve(library.with_head(trained.head))
        little = retrieve(library.with_head(trained.head.keeping(LITTLE)))["mAP"]
        best = max(best, after["mAP"], little)
        figures = f"mAP {after['mAP']:.3f}, precision@10 {after['precision@10']:.3f}"
        print(
            f"      {loss}: {figures}; {little:.3f} with keep={LITTLE}; "
            f"{len(trained.history)} epochs, {trained.seconds:.0f} s"
        )
        if loss == "triplet":
            verdict("triplet head: mAP", after["mAP"], 0.925)
            verdict("triplet head: precision@10", after["precision@10"], 0.905)
            verdict("triplet head: mAP above LDA's", after["mAP"] - rival, 0.0)
            verdict("triplet head: seconds of training", trained.seconds, 60, at_most=True)
            kept = retrieve(library.with_head(trained.head.keeping(KEEP)))
            figures = f"mAP {kept['mAP']:.3f}, precision@10 {kept['precision@10']:.3f}"
            print(f"      triplet, keep={KEEP}: {figures}")
    verdict(f"best loss, keep={LITTLE} or {DEFAULT}: mAP", best, 0.93)


def discriminant(library: ss.ImageLibrary) -> float:
    """LDA's mAP; one direction less than there are classes is all that it has."""
    rows = library.select(TRAIN)
    lda = LinearDiscriminantAnalysis(solver="eigen", shrinkage="auto")
    lda.fit(library.embeddings[rows], library.labels[rows])
    weight = lda.scalings_.T[: len(lda.classes_) - 1]
    centre = lda.priors_ @ lda.means_
    after = retrieve(library.with_head(ss.ProjectionHead([(weight, -weight @ centre)])))
    print(f"      LDA: mAP {after['mAP']:.3f}, precision@10 {after['precision@10']:.3f}")
    return after["mAP"]


def unknown_classes(library: ss.ImageLibrary) -> None:
    """Mean over three trainings, each without a third of the classes."""
    losses: dict[float, list[float]] = {KEEP: [], DEFAULT: []}
    seen = []
    for pair in PAIRS:
        trained = ss.train_head(library, on=TRAIN, leave_out=pair)
        queries = library.select(TEST) & np.isin(library.labels, pair)
        before = retrieve(library, queries)["mAP"]
        for keep, lost in losses.items():
            derived = library.with_head(trained.head.keeping(keep))
            lost.append(retrieve(derived, queries)["mAP"] - before)
            if keep == KEEP:
                known = library.select(TEST) & ~np.isin(library.labels, pair)
                seen.append(retrieve(derived, known)["mAP"] - retrieve(library, known)["mAP"])
    for keep, lost in losses.items():
        print(f"      unknown classes, keep={keep}: mAP {np.mean(lost):+.3f} ({np.round(lost, 3)})")
    verdict(f"unknown classes, keep={KEEP}: change of mAP", float(np.mean(losses[KEEP])), -0.01)
    verdict(f"known classes beside them, keep={KEEP}: change of mAP", float(np.mean(seen)), 0.1)


if __name__ == "__main__":
    main()
