"""Better rankings without a label: background normalisation, k-reciprocal, and `refine`.

    python benchmarks/rerank.py [OUTPUTS]      # every set in one table
    python benchmarks/rerank.py --choose       # the settings, from seg_train of the scenes alone
    python benchmarks/rerank.py --scale 100000 # cost of a query in a large library

mAP and precision@10 (mean over three seeds, with their lowest and highest), and what a query costs.
Sets: the Intel scenes (700 images per class), the sample dataset (40 views per class), views of
photos with four or one in the gallery, and crops of photos whose gallery is the whole photos. Each
seed takes other queries, and cuts other views. OUTPUTS keeps the embeddings for the next run.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from common import INTEL, PHOTOS, verdict
from parts import crop_of
from refine import VIEWS, embed, view

import simsearch as ss
from simsearch.images.decode import ImageSource
from simsearch.retrieval.options import SearchOptions
from simsearch.retrieval.query import ResolvedQuery
from simsearch.retrieval.search import Ranking

SEEDS, QUERIES = (0, 1, 2), 10  # queries of each class, in a seed
AREAS = {"large views": (0.25, 0.8), "small views": (0.08, 0.35)}
CROP_SHARES = (10, 20, 40)  # percent of the photo's area
WIDE = ss.KReciprocal(k1=50, k2=10, candidates=500)
DEEP = ss.KReciprocal(k1=200, k2=40, weight=0.3, candidates=1000)
WARY = ss.KReciprocal(k1=50, k2=10, weight=0.9, candidates=500)
TRIED = [
    ss.KReciprocal(k1=k1, k2=k2, weight=weight, candidates=candidates)
    for candidates in (300, 500, 1000)
    for k1, k2 in ((10, 3), (20, 6), (50, 10), (100, 20), (200, 40))
    for weight in (0.1, 0.3, 0.6)
]


class Task(NamedTuple):
    """Queries and gallery of one seed: rows (n, D) of unit norm, and labels (n,)."""

    queries: np.ndarray
    query_labels: np.ndarray
    gallery: np.ndarray
    gallery_labels: np.ndarray


Method = Callable[[Task], np.ndarray]
"""A task in; for each query the gallery's rows out, best first: (Q, N)."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("outputs", nargs="?")
    parser.add_argument("--choose", action="store_true")
    parser.add_argument("--only", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--scale", type=int, metavar="N", help="made-up rows")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        outputs = Path(given.outputs or folder)
        outputs.mkdir(exist_ok=True)
        if given.scale:
            measure_scale(given.scale)
        elif given.choose:
            choose(outputs)
        else:
            compare(outputs, given.only)


def compare(outputs: Path, methods: Sequence[str]) -> None:
    print(f"{'mAP, precision@10: mean (lowest, highest of 3)':<50}{'gain of mAP':>14}{'ms':>8}")
    for name, tasks in all_sets(outputs):
        base = report(f"{name}, plain", plain, tasks)
        for title in methods:
            found = report(f"{name}, {title}", METHODS[title], tasks, base)
            if title in SAFE:
                verdict(f"{name}, {title}: mAP gained", found - base, -1e-6)


def all_sets(outputs: Path) -> Iterator[tuple[str, list[Task]]]:
    yield "Intel scenes", list(scenes(outputs))
    yield "sample dataset", list(sample(outputs))
    yield "crops of photos", list(crops(outputs))
    for name in AREAS:
        views = list(photo_views(name, outputs))
        yield f"{name}, 4 others", views
        yield f"{name}, 1 other", [alone(task) for task in views]


def report(name: str, method: Method, tasks: list[Task], base: float | None = None) -> float:
    """Print mean and spread of a method; return its mAP."""
    figures, cost = [], 0.0
    for task in tasks:
        start = time.process_time()
        order = method(task)
        cost += (time.process_time() - start) / len(order) / len(tasks)
        figures.append(measures(order, task))
    maps, tens = np.array(figures).T
    gain = "" if base is None else f"{maps.mean() - base:+.3f}"
    print(
        f"      {name:<44} {maps.mean():.3f} ({maps.min():.3f}, {maps.max():.3f})  "
        f"{tens.mean():.3f} ({tens.min():.3f}, {tens.max():.3f})  {gain:>7} {1e3 * cost:8.1f}",
        flush=True,
    )
    return float(maps.mean())


def measures(order: np.ndarray, task: Task) -> tuple[float, float]:
    """Mean average precision over the whole gallery, and precision@10."""
    relevant = task.gallery_labels[order] == task.query_labels[:, None]  # (Q, N)
    precision = np.cumsum(relevant, axis=1) / np.arange(1, relevant.shape[1] + 1)
    average = (precision * relevant).sum(axis=1) / relevant.sum(axis=1)
    return float(average.mean()), float(relevant[:, :10].mean())


def ranked_by(task: Task, **options: object) -> np.ndarray:
    """Rank as `search` with these options does."""
    return ranked(task.queries, task.gallery, **options)


def ranked(queries: np.ndarray, gallery: np.ndarray, **options: object) -> np.ndarray:
    library = ss.ImageLibrary(gallery, [f"{i:05d}.jpg" for i in range(len(gallery))])
    ranking = Ranking(library, SearchOptions(k=len(gallery), **options))  # type: ignore[arg-type]
    asked = [ResolvedQuery("", vectors=row[None]) for row in np.asarray(queries, np.float32)]
    return np.array([found.rows for found in ranking.candidates(asked, len(gallery))])


def plain(task: Task) -> np.ndarray:
    return ranked_by(task)


def centred(task: Task) -> np.ndarray:
    """Background normalisation: each row's mean cosine with the gallery is subtracted."""
    scores = task.queries @ task.gallery.T - task.gallery @ task.gallery.mean(axis=0)
    return np.argsort(-scores, axis=1, kind="stable")


def local_background(task: Task, neighbours: int = 10) -> np.ndarray:
    """Subtract half of each row's mean cosine with its nearest neighbours, as CSLS does."""
    cosines = task.gallery @ task.gallery.T
    np.fill_diagonal(cosines, -1)
    count = min(neighbours, len(cosines) - 1)
    means = np.partition(cosines, -count, axis=1)[:, -count:].mean(axis=1)
    return np.argsort(-(task.queries @ task.gallery.T - means / 2), axis=1, kind="stable")


def refined(task: Task, neighbours: int = 50, **options: object) -> np.ndarray:
    """`refine` the gallery, move the queries, and rank with these options."""
    library = ss.ImageLibrary(task.gallery, [f"{i:05d}.jpg" for i in range(len(task.gallery))])
    moved = ss.refine(library, neighbours, progress=False)
    assert moved.head
    queries: np.ndarray = moved.head.query(task.queries, moved.embeddings)
    return ranked(queries, moved.embeddings, **options)


METHODS: dict[str, Method] = {
    "background": lambda task: ranked_by(task, rerank="background"),
    "less the mean cosine, all": centred,
    "less the neighbours' cosine": local_background,
    "k-reciprocal": lambda task: ranked_by(task, rerank="k-reciprocal"),
    "k-reciprocal 50, 10 of 500": lambda task: ranked_by(task, rerank=WIDE),
    "the same, weight 0.9": lambda task: ranked_by(task, rerank=WARY),
    "k-reciprocal 200, 40 of 1,000": lambda task: ranked_by(task, rerank=DEEP),
    "refine": refined,
    "refine, 200 neighbours": partial(refined, neighbours=200),
    "refine, k-reciprocal": lambda task: refined(task, rerank="k-reciprocal"),
    "refine, 200, 40 of 1,000": lambda task: refined(task, rerank=DEEP),
}
SAFE = {"background"}


@cache
def backbone() -> ss.Backbone:
    return ss.load_backbone("efficientnet_lite0")


def embedded(images: Sequence[ImageSource]) -> np.ndarray:
    return embed(images, backbone())


def cached(file: Path, make: Callable[[], np.ndarray]) -> np.ndarray:
    if not file.exists():
        np.save(file, make())
    rows: np.ndarray = np.load(file)
    return rows


def scenes(outputs: Path, part: str = "seg_test") -> Iterator[Task]:
    """Yield queries of a part of the scenes, and seg_train; of seg_train itself, the rest of it."""
    folder = outputs / "intel"
    if not (folder / "manifest.json").exists():
        ss.embed_dataset(INTEL, folder, backbone())
    library = ss.ImageLibrary.load(folder)
    labels, rows = library.labels, np.asarray(library.embeddings)
    train, asked = library.select("seg_train/*"), library.select(f"{part}/*")
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        own = [np.flatnonzero(asked & (labels == name)) for name in sorted(set(labels[train]))]
        queries = np.concatenate([rng.choice(each, QUERIES, replace=False) for each in own])
        gallery = np.setdiff1d(np.flatnonzero(train), queries)
        yield Task(rows[queries], labels[queries], rows[gallery], labels[gallery])


def sample(outputs: Path) -> Iterator[Task]:
    """Yield a third of the sample's seg_test, and its seg_train."""
    root = ss.make_sample(outputs / "sample")
    files = {part: sorted((root / part).rglob("*.jpg")) for part in PARTS}
    rows, labels = {}, {}
    for part in PARTS:
        labels[part] = np.array([file.parent.name for file in files[part]])
        rows[part] = cached(outputs / f"sample-{part}.npy", partial(embedded, files[part]))
    for seed in SEEDS:
        queries, names = (each["seg_test"][seed :: len(SEEDS)] for each in (rows, labels))
        yield Task(queries, names, rows["seg_train"], labels["seg_train"])


PARTS = ("seg_test", "seg_train")


def photo_views(name: str, outputs: Path) -> Iterator[Task]:
    """Yield views of a third of the photos: two of each for queries, four for the gallery."""
    files = sorted(PHOTOS.iterdir())
    for seed in SEEDS:
        rng, own = np.random.default_rng(seed), files[seed :: len(SEEDS)]

        def make(rng: np.random.Generator = rng, own: list[Path] = own) -> np.ndarray:
            photos = map(ss.load_image, own)
            views = [view(photo, AREAS[name], rng) for photo in photos for _ in range(VIEWS)]
            return embedded(views)

        rows = cached(outputs / f"{name.replace(' ', '-')}-{seed}.npy", make)
        rows = rows.reshape(len(own), VIEWS, -1)
        labels = np.repeat(np.arange(len(own)), VIEWS).reshape(len(own), VIEWS)
        cut = [(rows[:, part].reshape(-1, rows.shape[2]), labels[:, part].ravel()) for part in CUTS]
        yield Task(*(each for pair in cut for each in pair))


CUTS = (slice(4, None), slice(4))  # of the views of a photo: queries, gallery


def alone(task: Task) -> Task:
    """Keep one view of each photo in the gallery."""
    return task._replace(gallery=task.gallery[::4], gallery_labels=task.gallery_labels[::4])


def crops(outputs: Path) -> Iterator[Task]:
    """Yield crops of every third photo, and all photos."""
    files = sorted(PHOTOS.iterdir())
    gallery = cached(outputs / "photos.npy", lambda: embedded(files))
    for seed in SEEDS:
        rng, asked = (
            np.random.default_rng(seed),
            np.arange(seed, len(files), len(SEEDS)),
        )

        def make(rng: np.random.Generator = rng, asked: np.ndarray = asked) -> np.ndarray:
            photos = [ss.load_image(files[i]) for i in asked]
            cut = [crop_of(photo, share, rng) for share in CROP_SHARES for photo in photos]
            return embedded(cut)

        queries = cached(outputs / f"crops-{seed}.npy", make)
        yield Task(queries, np.tile(asked, len(CROP_SHARES)), gallery, np.arange(len(files)))


def choose(outputs: Path) -> None:
    """Compare settings on seg_train alone."""
    tasks = list(scenes(outputs, "seg_train"))
    base = report("seg_train, plain", plain, tasks)
    for each in TRIED:
        title = f"k1 {each.k1}, k2 {each.k2}, weight {each.weight}, of {each.candidates}"
        report(title, partial(ranked_by, rerank=each), tasks, base)


def measure_scale(count: int, dim: int = 1280) -> None:
    """Time queries over made-up clustered rows, with and without reranking."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((500, dim), np.float32)
    rows = centres[rng.integers(0, 500, count)] + rng.standard_normal((count, dim), np.float32)
    library = ss.ImageLibrary(rows, [f"{i:06d}.jpg" for i in range(count)])
    queries = rng.integers(0, count, 20).tolist()
    ss.search(library, queries[0])  # the first looks at random pairs
    kinds = {
        "plain": None,
        "background": "background",
        "k-reciprocal": "k-reciprocal",
        "of 500": WIDE,
        "of 1,000": DEEP,
    }
    for name, rerank in kinds.items():
        costs = []
        for query in queries:
            start = time.process_time()
            ss.search(library, query, k=10, rerank=rerank)  # type: ignore[arg-type]
            costs.append(1e3 * (time.process_time() - start))
        print(
            f"      {count:,} rows, {name}: {np.median(costs):.1f} ms of the processor a query "
            f"({min(costs):.1f} to {max(costs):.1f})",
            flush=True,
        )


if __name__ == "__main__":
    main()
