"""Small labelled libraries, and a brute-force evaluation of them."""

import numpy as np

import simsearch as ss
from simsearch.evaluation.metrics import RECALL_PERCENTS


def labelled_library(embeddings, labels, folder=""):
    """Images 0000.jpg, 0001.jpg, ... of which each lies in the folder of its label."""
    paths = [f"{folder}{label}/{i:04}.jpg" for i, label in enumerate(labels)]
    return ss.ImageLibrary(embeddings, paths)


def exact_library(rows, labels):
    """A library whose cosines are whole numbers, so that no rounding depends on the blocks."""
    library = labelled_library(np.eye(len(rows), len(rows[0])) + 1, labels)
    library.embeddings = np.array(rows, np.float32)
    return library


def ranked_library(relevant):
    """A query of class a, and a gallery whose n-th best image is of class a or b."""
    angles = np.linspace(0, 1.5, len(relevant) + 1)
    labels = ["a", *("a" if right else "b" for right in relevant)]
    return labelled_library(np.stack([np.cos(angles), np.sin(angles)], axis=1), labels)


def mean_values(evaluation):
    return {name: estimate.value for name, estimate in evaluation.overall.items()}


def brute_force(library, labels, rows, gallery, depths):
    """The same by the definitions, one query and one rank at a time."""
    table, curves, nearest, kept = [], [], [], []
    for q in rows:
        scores = {g: float(library.embeddings[q] @ library.embeddings[g]) for g in gallery}
        order = sorted((g for g in gallery if g != q and labels[g]), key=lambda g: (-scores[g], g))
        right = [labels[g] == labels[q] for g in order]
        count = sum(right)
        if not labels[q] or not count:
            continue
        precision = [sum(right[: i + 1]) / (i + 1) for i in range(len(right))]
        recall = [sum(right[: i + 1]) / count for i in range(len(right))]
        table.append(
            [sum(right[:k]) / k for k in depths]
            + [sum(right[:k]) / count for k in depths]
            + [float(any(right[:k])) for k in depths]
            + [sum(right[:count]) / count]
            + [sum(p for p, r in zip(precision, right, strict=True) if r) / count]
            + [sum(precision[i] for i in range(count) if right[i]) / count]
        )
        curves.append(
            [
                max(p for p, r in zip(precision, recall, strict=True) if r >= level / 100 - 1e-12)
                for level in RECALL_PERCENTS
            ]
        )
        nearest.append(order[0])
        kept.append(q)
    return kept, np.array(table), np.array(curves), nearest


def blobs(classes=4, size=25, dim=8, noise=0.8, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), size)
    centres = rng.normal(size=(classes, dim))
    return labelled_library(centres[labels] + noise * rng.normal(size=(len(labels), dim)), labels)
