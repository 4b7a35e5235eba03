"""mAP with and without query expansion (`refine`), for many and for few relevant images.

    python benchmarks/refine.py

Plain cosine, then `refine` with its defaults: on the Intel scenes (700 images per class), on the
sample dataset (40 views per class), and on views of 250 photos, of which the gallery holds four or
one; the large views share much of their photo, the small ones little or nothing. The gallery is
refined by itself, and each query is then moved towards its neighbours there, independent of other
queries. At the end, the time for 100,000 rows, extrapolated from a part of them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from common import INTEL, PHOTOS, seconds, verdict
from PIL import Image

import simsearch as ss
from simsearch.backbones.refine_head import RefineHead
from simsearch.embedding.batching import embed_batches
from simsearch.images.decode import ImageSource

METRICS = ("precision@1", "precision@10", "mAP")
VIEWS = 6  # of each photo; the last two are queries
ROUNDING = -1e-6  # a loss of mAP that is rounding alone


class Images(NamedTuple):
    """Embeddings (N, D), and labels (N,)."""

    rows: np.ndarray
    labels: np.ndarray


def main() -> None:
    backbone = ss.load_backbone("efficientnet_lite0")
    print(" " * 50 + "".join(f"{name:>14}" for name in METRICS))
    before, after = compare("Intel scenes", *folders(INTEL, backbone))
    verdict("Intel scenes: mAP", after["mAP"], 0.76)
    verdict("Intel scenes: mAP gained", after["mAP"] - before["mAP"], 0.09)
    with tempfile.TemporaryDirectory() as place:
        views = folders(ss.make_sample(Path(place) / "dataset"), backbone)
    no_loss("sample dataset", *views)
    for name, areas in (("large views", (0.25, 0.8)), ("small views", (0.08, 0.35))):
        queries, gallery = photos(areas, backbone)
        no_loss(f"{name} of photos, 4 others", queries, gallery)
        no_loss(f"{name} of photos, 1 other", queries, Images(*(part[::4] for part in gallery)))
    hundred_thousand()


def embed(images: Sequence[ImageSource], backbone: ss.Backbone) -> np.ndarray:
    return np.concatenate([batch.embeddings for batch in embed_batches(images, backbone)])


def folders(root: Path, backbone: ss.Backbone) -> list[Images]:
    """Embed seg_test, the queries, and seg_train, the gallery."""
    files = [sorted((root / part).rglob("*.jpg")) for part in ("seg_test", "seg_train")]
    return [
        Images(embed(part, backbone), np.array([file.parent.name for file in part]))
        for part in files
    ]


def photos(areas: tuple[float, float], backbone: ss.Backbone) -> list[Images]:
    """Embed views of each photo: two for queries, and four for the gallery."""
    rng, files = np.random.default_rng(0), sorted(PHOTOS.iterdir())
    views = [view(photo, areas, rng) for photo in map(ss.load_image, files) for _ in range(VIEWS)]
    rows = embed(views, backbone).reshape(len(files), VIEWS, -1)
    labels = np.repeat([file.stem for file in files], VIEWS).reshape(len(files), VIEWS)
    return [
        Images(rows[:, part].reshape(-1, backbone.dim), labels[:, part].ravel())
        for part in (slice(4, None), slice(4))
    ]


def view(photo: Image.Image, areas: tuple[float, float], rng: np.random.Generator) -> Image.Image:
    """Crop a share of a photo's area anywhere, at 3:4 to 4:3 of its ratio; flip every other."""
    side, shape = np.sqrt(rng.uniform(*areas)), np.exp(rng.uniform(-0.15, 0.15))
    size = np.minimum(np.array(photo.size) * side * (shape, 1 / shape), photo.size).astype(int)
    corner = rng.integers(0, np.array(photo.size) - size + 1)
    cut = photo.crop((*corner.tolist(), *(corner + size).tolist()))
    cut.thumbnail((256, 256))
    return cut.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else cut


def no_loss(name: str, queries: Images, gallery: Images) -> None:
    before, after = compare(name, queries, gallery)
    verdict(f"{name}: mAP gained", after["mAP"] - before["mAP"], ROUNDING)


def compare(name: str, queries: Images, gallery: Images) -> tuple[dict[str, float], ...]:
    """Measure plain cosine, and the refined library."""
    plain = ss.ImageLibrary(gallery.rows, [f"{i}.jpg" for i in range(len(gallery.rows))])
    refined = ss.refine(plain, progress=False)
    assert refined.head
    moved = refined.head.query(queries.rows, refined.embeddings)
    return (
        measure(f"{name}, plain", queries, gallery),
        measure(
            f"{name}, refined",
            queries._replace(rows=moved),
            gallery._replace(rows=refined.embeddings),
        ),
    )


def measure(name: str, queries: Images, gallery: Images) -> dict[str, float]:
    """Print and return how well queries find images of the same label."""
    rows, labels = (np.concatenate(parts) for parts in zip(queries, gallery, strict=True))
    library = ss.ImageLibrary(rows, [f"{i}.jpg" for i in range(len(rows))])
    is_query = np.arange(len(rows)) < len(queries.rows)
    found = ss.evaluate(
        library, labels, is_query, ~is_query, k=(1, 10), resamples=0, progress=False
    )
    figures = {key: found.overall[key].value for key in METRICS}
    print(f"      {name:<44}" + "".join(f"{value:14.3f}" for value in figures.values()), flush=True)
    return figures


def hundred_thousand() -> None:
    """Time the first of 100 parts of 100,000 rows, and extrapolate."""
    rows = np.random.default_rng(0).standard_normal((100_000, 1280), dtype=np.float32)
    head = RefineHead(np.zeros(1280, np.float32), neighbours=50, alpha=3)
    rows = head(rows)
    took = seconds(lambda: head.query(rows[:1000], rows))
    print(f"      refining 100,000 rows of 1,280: about {100 * took / 60:.0f} minutes")


if __name__ == "__main__":
    main()
