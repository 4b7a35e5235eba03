"""What the network gets to see of a picture: the centre, all of it squeezed, padded, or in tiles.

    python benchmarks/cropping.py [--runtime auto] [--scenes 200] [--seeds 0 1 2]

EfficientNet-Lite0 on four sets: Intel scenes (seg_test to seg_train; all are square), the sample
dataset (seg_test to seg_train, one sample a seed), and views of the photos beside the project,
which ask for their photo: views of the same framing, and views of another format (upright, wide).
Mean average precision of the scenes and the sample; of views, the mean reciprocal rank of the
photo they come from, among all photos and the Intel scenes. In brackets: after the mean row of the
gallery is subtracted. A mode pays if it loses on no set.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from common import INTEL, PHOTOS
from numpy.typing import NDArray
from PIL import Image

import simsearch as ss
from simsearch.backbones.preprocessing import Preprocessing

Rows = NDArray[np.float32]
Images = list[Image.Image]
TILE_OVERLAP = 0.25  # of a tile's side, at least


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runtime", default="auto")
    parser.add_argument("--scenes", type=int, default=200, help="of each Intel class, a split")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    backbone = ss.load_backbone("efficientnet_lite0", precision="float32", runtime=options.runtime)
    assert isinstance(backbone.transform, Preprocessing)
    sets: dict[str, Callable[[int], tuple[Images, Images, NDArray[np.bool_]]]] = {
        "intel": lambda seed: labelled(INTEL, options.scenes, seed),
        "sample": sample,
        "views": lambda seed: views(seed, same_format=True),
        "formats": lambda seed: views(seed, same_format=False),
    }
    print(f"{'':<10}" + "".join(f"{name:>22}" for name in sets))
    for mode, cut in MODES.items():
        figures = []
        for load in sets.values():
            scores = [score(*load(seed), cut, backbone) for seed in options.seeds]
            (plain, centred), spread = np.mean(scores, axis=0), np.std(scores, axis=0)[0]
            figures.append(f"{plain:.3f} ± {spread:.3f} ({centred:.3f})")
        print(f"{mode:<10}" + "".join(f"{text:>22}" for text in figures), flush=True)


# --- modes: an image to one or more inputs, (n, S, S, 3) uint8


def centre(image: Image.Image, shape: Preprocessing) -> NDArray[np.uint8]:
    """The shorter side to 256 pixels, and the middle 224: the default."""
    return shape(image)[None]


def middle(image: Image.Image, shape: Preprocessing) -> NDArray[np.uint8]:
    """The largest square in the middle."""
    return Preprocessing(shape.crop, shape.crop, shape.mean, shape.std)(image)[None]


def squash(image: Image.Image, shape: Preprocessing) -> NDArray[np.uint8]:
    """All of it, whatever its format, made square."""
    return np.array(image.resize((shape.crop,) * 2, Image.Resampling.BILINEAR))[None]


def pad(image: Image.Image, shape: Preprocessing) -> NDArray[np.uint8]:
    """All of it, between bars of the mean colour of ImageNet."""
    side = max(image.size)
    width, height = (max(1, round(length * shape.crop / side)) for length in image.size)
    square = Image.new("RGB", (shape.crop,) * 2, (124, 116, 104))
    small = image.resize((width, height), Image.Resampling.BILINEAR)
    square.paste(small, ((shape.crop - width) // 2, (shape.crop - height) // 2))
    return np.array(square)[None]


def tile(image: Image.Image, shape: Preprocessing) -> NDArray[np.uint8]:
    """Overlapping squares that cover all of it; their rows are averaged."""
    short, long = min(image.size), max(image.size)
    count = 1 if long == short else int(np.ceil((long / short - 1) / (1 - TILE_OVERLAP))) + 1
    tiles = []
    for start in np.linspace(0, long - short, count):
        left, top = (start, 0) if image.width == long else (0, start)
        box = (left, top, left + short, top + short)
        tiles.append(np.array(image.resize((shape.crop,) * 2, Image.Resampling.BILINEAR, box)))
    return np.stack(tiles)


MODES: dict[str, Callable[[Image.Image, Preprocessing], NDArray[np.uint8]]] = {
    "centre": centre,
    "middle": middle,
    "squash": squash,
    "pad": pad,
    "tile": tile,
}


# --- sets: queries, gallery, and which of the gallery is right for each query


def labelled(root: Path, count: int | None, seed: int) -> tuple[Images, Images, NDArray[np.bool_]]:
    """Draw so many pictures of each class of seg_test and seg_train."""
    rng, chosen, labels = np.random.default_rng(seed), [], []
    for split in ("seg_test", "seg_train"):
        files = []
        for folder in sorted((root / split).iterdir()):
            pictures = sorted(folder.glob("*.jpg"))
            files += list(rng.permutation(np.array(pictures))[:count])
        chosen.append([ss.load_image(file) for file in files])
        labels.append(np.array([file.parent.name for file in files]))
    return chosen[0], chosen[1], labels[0][:, None] == labels[1]


def sample(seed: int) -> tuple[Images, Images, NDArray[np.bool_]]:
    with tempfile.TemporaryDirectory() as folder:
        return labelled(ss.make_sample(folder, seed=seed), None, seed)


def views(seed: int, *, same_format: bool) -> tuple[Images, Images, NDArray[np.bool_]]:
    """Cut a view out of each photo: 40 to 90% of its area, in its format or in another one."""
    rng = np.random.default_rng(seed)
    photos = [ss.load_image(file) for file in sorted(PHOTOS.iterdir())]
    scenes = labelled(INTEL, 40, seed)[1]
    queries = []
    for photo in photos:
        width, height = photo.size
        area = rng.uniform(0.4, 0.9) * width * height
        ratio = width / height if same_format else np.exp(rng.uniform(-0.8, 0.8))
        w = min(width, np.sqrt(area * ratio))
        h = min(height, area / w)
        left, top = rng.uniform(0, width - w), rng.uniform(0, height - h)
        queries.append(photo.crop((int(left), int(top), int(left + w), int(top + h))))
    right = np.eye(len(photos), len(photos) + len(scenes), dtype=bool)
    return queries, photos + scenes, right


# --- scores


def score(
    queries: Images,
    gallery: Images,
    right: NDArray[np.bool_],
    cut: Callable[[Image.Image, Preprocessing], NDArray[np.uint8]],
    backbone: ss.Backbone,
) -> tuple[float, float]:
    """Mean average precision, plain and with centred rows."""
    asked, rows = (embed(images, cut, backbone) for images in (queries, gallery))
    mean = rows.mean(axis=0)
    return average_precision(asked @ rows.T, right), average_precision(
        unit(asked - mean) @ unit(rows - mean).T, right
    )


def embed(
    images: Images,
    cut: Callable[[Image.Image, Preprocessing], NDArray[np.uint8]],
    backbone: ss.Backbone,
) -> Rows:
    assert isinstance(backbone.transform, Preprocessing)
    rows = [backbone.embed(cut(image, backbone.transform)).mean(axis=0) for image in images]
    return unit(np.stack(rows))


def unit(rows: Rows) -> Rows:
    units: Rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return units


def average_precision(scores: Rows, right: NDArray[np.bool_]) -> float:
    found = np.take_along_axis(right, np.argsort(-scores, axis=1), axis=1)
    precision = found.cumsum(axis=1) / np.arange(1, found.shape[1] + 1)
    return float(((precision * found).sum(axis=1) / found.sum(axis=1)).mean())


if __name__ == "__main__":
    main()
