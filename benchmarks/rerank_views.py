"""Better rankings by embedding each picture more often: flip averaging and two scales.

    python benchmarks/rerank_views.py [OUTPUTS]

mAP and precision@10 of plain search (mean over three seeds, with their lowest and highest), whose
seeds draw a fifth of the pictures as queries: of 100 pictures of each of the Intel scenes, and of
the queries of the sample dataset. OUTPUTS keeps the embeddings for the next run.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from common import INTEL
from PIL import Image
from rerank import SEEDS, Task, cached, embedded, plain, report

import simsearch as ss


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        outputs = Path(sys.argv[1] if len(sys.argv) > 1 else folder)
        outputs.mkdir(exist_ok=True)
        compare(outputs)


def compare(outputs: Path) -> None:
    for name, files in (
        ("Intel scenes, 100 of a class", few_scenes()),
        ("sample", few_views(outputs)),
    ):
        views = {
            view: cached(outputs / f"{name[:6]}-{view}.npy", partial(seen_as, files, change))
            for view, change in CHANGES.items()
        }
        base = None
        for title, parts in SEEN.items():
            rows = np.sum([views[part] for part in parts], axis=0)
            rows /= np.linalg.norm(rows, axis=1, keepdims=True)
            tasks = list(halves(rows, np.array([file.parent.name for file in files])))
            found = report(f"{name}, {title}", plain, tasks, base)
            base = found if base is None else base


def seen_as(files: Sequence[Path], change: Callable[[Image.Image], Image.Image]) -> np.ndarray:
    return embedded([change(ss.load_image(file)) for file in files])


def middle(picture: Image.Image) -> Image.Image:
    """Crop half of the area, at the middle: the same picture at a larger scale."""
    width, height = picture.size
    left, top = 0.146 * width, 0.146 * height
    return picture.crop((round(left), round(top), round(width - left), round(height - top)))


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "whole": lambda picture: picture,
    "mirrored": lambda picture: picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "middle": middle,
}
SEEN = {
    "plain": ("whole",),
    "flip averaging": ("whole", "mirrored"),
    "two scales": ("whole", "middle"),
    "both": ("whole", "mirrored", "middle"),
}


def few_scenes(each: int = 100) -> list[Path]:
    folders = sorted((INTEL / "seg_train").iterdir())
    return [file for folder in folders for file in sorted(folder.iterdir())[:each]]


def few_views(outputs: Path) -> list[Path]:
    root = ss.make_sample(outputs / "sample")
    return sorted((root / "seg_test").rglob("*.jpg"))


def halves(rows: np.ndarray, labels: np.ndarray) -> Iterator[Task]:
    """Draw a fifth of the rows as queries, and search the others."""
    for seed in SEEDS:
        asked = np.random.default_rng(seed).random(len(rows)) < 0.2
        yield Task(rows[asked], labels[asked], rows[~asked], labels[~asked])


if __name__ == "__main__":
    main()
