"""What the speed costs, and what the embeddings are worth: precision and retrieval on real photos.

    python benchmarks/quality.py

Both on the Intel scenes beside the project. Reduced precision is held against float32: the cosine
of each embedding with its own, and the share of its ten nearest neighbours that stay. Retrieval is
plain cosine from all of seg_test to a gallery of 500 seg_train images a class, labelled by folder.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from common import INTEL, resnet50_weights, verdict

import simsearch as ss
from simsearch.embedding.batching import embed_batches


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        weights = resnet50_weights(Path(folder))
        reduced_precision("resnet50", weights, "bfloat16")
    reduced_precision("efficientnet_lite0", None, "auto")
    retrieval()


def embed(paths: list[Path], backbone: ss.Backbone) -> np.ndarray:
    return np.concatenate([batch.embeddings for batch in embed_batches(paths, backbone)])


def reduced_precision(name: str, weights: Path | None, precision: str) -> None:
    paths = sorted((INTEL / "seg_pred").glob("*.jpg"))
    exact = embed(paths, ss.load_backbone(name, weights, precision="float32"))
    backbone = ss.load_backbone(name, weights, precision=precision)  # type: ignore[arg-type]
    reduced = embed(paths, backbone)
    cosine = float((exact * reduced).sum(axis=1).mean())
    before, after = neighbours(exact), neighbours(reduced)
    overlap = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(before, after, strict=True)])
    label = f"{name} in {backbone.precision}"
    verdict(f"{label}: mean cosine with float32", cosine, 0.999)
    verdict(f"{label}: overlap of the top 10", float(overlap), 0.97)


def neighbours(embeddings: np.ndarray) -> np.ndarray:
    """Ten nearest rows of each row, itself left out."""
    scores = embeddings @ embeddings.T
    np.fill_diagonal(scores, -np.inf)
    return np.argpartition(-scores, 10, axis=1)[:, :10]


def retrieval() -> None:
    folders = sorted((INTEL / "seg_train").iterdir())
    gallery = [path for folder in folders for path in sorted(folder.glob("*.jpg"))[:500]]
    queries = sorted((INTEL / "seg_test").rglob("*.jpg"))
    backbone = ss.load_backbone("efficientnet_lite0")
    scores = embed(queries, backbone) @ embed(gallery, backbone).T
    labels = np.array([path.parent.name for path in gallery])
    wanted = np.array([path.parent.name for path in queries])
    right = labels[np.argsort(-scores, axis=1)] == wanted[:, None]
    precision = right.cumsum(axis=1) / np.arange(1, len(gallery) + 1)
    average = (precision * right).sum(axis=1) / right.sum(axis=1)
    verdict("efficientnet_lite0, seg_test to seg_train: precision@10", precision[:, 9].mean(), 0.83)
    verdict("efficientnet_lite0, seg_test to seg_train: mAP", average.mean(), 0.66)


if __name__ == "__main__":
    main()
