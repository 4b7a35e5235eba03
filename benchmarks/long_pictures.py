"""What a long picture's row is made of: its centre, all of it squeezed or folded, or windows.

    python benchmarks/long_pictures.py [--half even] [--scenes 60] [--seeds 0 1 2]

EfficientNet-Lite0; only pictures beyond 2:1 differ, so that all sets are of such pictures, 2.2:1 to
8:1, lying and upright, among ordinary ones:

- thirds: strips of photos are the gallery; a third of each asks, from its start, its middle or its
  end (recall@1 of the strip; the gallery holds the strips of all photos and the Intel scenes);
- views: strips of photos ask for their photo (mean reciprocal rank);
- copies: strips ask for themselves, made smaller and compressed (recall@1 among all strips);
- scenes: strips of Intel scenes ask for scenes of their class, and scenes ask in a gallery of which
  every second picture is a strip (mean average precision);
- mixed: two photos side by side are one picture; each asks for it (recall@1).

The mode is chosen on one half of the photos and of the scenes, and reported on the other.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path

import numpy as np
from common import INTEL, PHOTOS
from cropping import Images, Rows, average_precision, pad, squash, unit
from numpy.typing import NDArray
from PIL import Image

import simsearch as ss
from simsearch.backbones.preprocessing import Preprocessing

LONG = 2.0  # of the sides, beyond which the modes differ
Inputs = NDArray[np.uint8]
Scenes = tuple[Images, NDArray[np.str_]]
Mode = Callable[[Image.Image, Preprocessing], Inputs]
PLACES = ("start", "middle", "end")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--half", choices=("even", "odd"), default="odd")
    parser.add_argument("--scenes", type=int, default=60, help="of each Intel class, a split")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--modes", nargs="+", default=[*MODES, *SUMS], choices=[*MODES, *SUMS])
    given = parser.parse_args()
    backbone = ss.load_backbone("efficientnet_lite0", precision="float32")
    first = 0 if given.half == "even" else 1
    photos = [ss.load_image(file) for file in sorted(PHOTOS.iterdir())[first::2]]
    figures: dict[str, dict[str, list[float]]] = {mode: {} for mode in given.modes}
    for seed in given.seeds:
        scenes = [draw_scenes(split, given.scenes, seed, first) for split in ("test", "train")]
        embedder = Embedder(backbone, given.modes)
        for mode, name, value in chain(
            measure_strips(embedder, photos, scenes[1][0], seed),
            measure_scenes(embedder, scenes, seed),
            measure_pairs(embedder, photos, seed),
        ):
            figures[mode].setdefault(name, []).append(value)
    names = list(next(iter(figures.values())))
    print(f"{'':<16}" + "".join(f"{name:>22}" for name in names))
    for mode, found in figures.items():
        cells = [
            f"{np.mean(found[n]):.3f} ({min(found[n]):.3f}, {max(found[n]):.3f})" for n in names
        ]
        print(f"{mode:<16}" + "".join(f"{cell:>22}" for cell in cells), flush=True)


# --- modes: an image to one or more inputs, (n, S, S, 3) uint8, whose rows are averaged


def centre(image: Image.Image, shape: Preprocessing) -> Inputs:
    """The middle square: the default."""
    return shape(image)[None]


def fold(image: Image.Image, shape: Preprocessing) -> Inputs:
    """Cut into pieces, laid beside each other to a square."""
    ratio = max(image.size) / min(image.size)
    count = max(2, round(ratio**0.5))
    square, edges = np.empty((shape.crop,) * 2 + (3,), np.uint8), np.linspace(0, 1, count + 1)
    ends = np.round(edges * shape.crop).astype(int)
    lying = image.width >= image.height
    for i in range(count):
        low, high = edges[i] * max(image.size), edges[i + 1] * max(image.size)
        box = (low, 0, high, image.height) if lying else (0, low, image.width, high)
        size = (shape.crop, int(ends[i + 1] - ends[i]))
        piece = np.array(
            image.resize(size if lying else size[::-1], Image.Resampling.BILINEAR, box)
        )
        if lying:
            square[ends[i] : ends[i + 1]] = piece
        else:
            square[:, ends[i] : ends[i + 1]] = piece
    return square[None]


def windows(image: Image.Image, shape: Preprocessing, overlap: float = 0.0) -> Inputs:
    """Squares along it, evenly spread from end to end."""
    short, long = min(image.size), max(image.size)
    count = int(np.ceil((long / short - 1) / (1 - overlap) - 1e-9)) + 1
    cut = []
    for start in np.linspace(0, long - short, count):
        left, top = (start, 0) if image.width == long else (0, start)
        box = (left, top, left + short, top + short)
        cut.append(np.array(image.resize((shape.crop,) * 2, Image.Resampling.BILINEAR, box)))
    return np.stack(cut)


MODES: dict[str, Mode] = {
    "centre": centre,
    "squash": squash,
    "pad": pad,
    "fold": fold,
    "windows": windows,
}
SUMS = ("windows+centre", "windows+fold", "windows+squash")  # of the rows, each of unit norm


class Embedder:
    """Rows by each mode; ordinary pictures are embedded once."""

    def __init__(self, backbone: ss.Backbone, modes: list[str]) -> None:
        assert isinstance(backbone.transform, Preprocessing)
        self.backbone, self.shape, self.modes = backbone, backbone.transform, modes
        self._known: dict[bytes, dict[str, NDArray[np.float32]]] = {}

    def __call__(self, images: Images, mode: str) -> Rows:
        return unit(np.stack([self._row(image, mode) for image in images]))

    def _row(self, image: Image.Image, mode: str) -> Rows:
        long = max(image.size) > LONG * min(image.size)
        mode = mode if long else "centre"
        known = self._known.setdefault(image.tobytes(), {})
        if "+" in mode:
            units = unit(np.stack([self._row(image, each) for each in mode.split("+")]))
            return np.asarray(units.sum(axis=0))
        if mode not in known:
            inputs = MODES[mode](image, self.shape)
            known[mode] = self.backbone.embed(inputs).mean(axis=0)
        return known[mode]


# --- sets


def draw_scenes(split: str, count: int, seed: int, first: int) -> Scenes:
    rng, files = np.random.default_rng([seed, first]), list[Path]()
    for folder in sorted((INTEL / f"seg_{split}").iterdir()):
        pictures = np.array(sorted(folder.glob("*.jpg"))[first::2])
        files += list(rng.permutation(pictures)[:count])
    return [ss.load_image(file) for file in files], np.array([file.parent.name for file in files])


def strip(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Cut a strip, of 2.2:1 to 8:1, the longer ones rarer, along the longer side; at random."""
    ratio = float(np.exp(rng.uniform(np.log(2.2), np.log(8))))
    lying = image.width > image.height or (image.width == image.height and rng.random() < 0.5)
    long, other = image.size if lying else image.size[::-1]
    short = max(8, round(long / ratio))
    start = int(rng.integers(0, max(1, other - short)))
    box = (0, start, long, start + short) if lying else (start, 0, start + short, long)
    return image.crop(box)


def third(image: Image.Image, place: str) -> Image.Image:
    width, height = image.size
    i = PLACES.index(place)
    if width > height:
        return image.crop((i * width // 3, 0, (i + 1) * width // 3, height))
    return image.crop((0, i * height // 3, width, (i + 1) * height // 3))


def copied(image: Image.Image) -> Image.Image:
    data = io.BytesIO()
    small = image.resize([max(8, round(side * 0.7)) for side in image.size])
    small.save(data, "JPEG", quality=50)
    return Image.open(data).convert("RGB")


def measure_strips(
    embed: Embedder, photos: Images, scenes: Images, seed: int
) -> Iterator[tuple[str, str, float]]:
    rng = np.random.default_rng(seed)
    strips, right = [strip(photo, rng) for photo in photos], np.arange(len(photos))
    for mode in embed.modes:
        others = embed(scenes, mode)
        rows = np.concatenate([embed(strips, mode), others])
        for place in PLACES:
            asked = embed([third(each, place) for each in strips], mode)
            yield mode, f"third, {place}", float(((asked @ rows.T).argmax(axis=1) == right).mean())
        whole = np.concatenate([embed(photos, mode), others])
        scores = embed(strips, mode) @ whole.T
        yield mode, "views", average_precision(scores, np.eye(*scores.shape, dtype=np.bool_))
        asked = embed([copied(each) for each in strips], mode)
        yield mode, "copies", float(((asked @ rows.T).argmax(axis=1) == right).mean())


def measure_scenes(
    embed: Embedder, scenes: list[Scenes], seed: int
) -> Iterator[tuple[str, str, float]]:
    rng = np.random.default_rng(seed)
    (asked, classes), (gallery, others) = scenes
    right = classes[:, None] == others
    cut = [strip(image, rng) for image in asked]
    mixed = [strip(image, rng) if i % 2 else image for i, image in enumerate(gallery)]
    for mode in embed.modes:
        yield (
            mode,
            "strips to scenes",
            average_precision(embed(cut, mode) @ embed(gallery, mode).T, right),
        )
        yield (
            mode,
            "scenes to strips",
            average_precision(embed(asked, mode) @ embed(mixed, mode).T, right),
        )
        yield (
            mode,
            "strips to strips",
            average_precision(embed(cut, mode) @ embed(mixed, mode).T, right),
        )


def measure_pairs(embed: Embedder, photos: Images, seed: int) -> Iterator[tuple[str, str, float]]:
    order = np.random.default_rng(seed).permutation(len(photos)).tolist()
    pairs: Images = []
    homes: dict[int, int] = {}
    for a, b in zip(order[::2], order[1::2], strict=False):
        sheet = Image.new("RGB", (600, 240))
        sheet.paste(photos[a].resize((300, 240)), (0, 0))
        sheet.paste(photos[b].resize((300, 240)), (300, 0))
        homes |= dict.fromkeys((a, b), len(pairs))
        pairs.append(sheet)
    right = np.array(list(homes.values()))
    for mode in embed.modes:
        asked, rows = embed([photos[i] for i in homes], mode), embed(pairs, mode)
        yield mode, "pairs", float(((asked @ rows.T).argmax(axis=1) == right).mean())


if __name__ == "__main__":
    main()
