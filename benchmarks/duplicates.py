"""Copies among photos: how many pairs are confirmed, how many of them are wrong, and what it costs.

    python benchmarks/duplicates.py                      # 250 photos, three seeds
    python benchmarks/duplicates.py --photos 60 --seeds 2
    python benchmarks/duplicates.py --peers fastdup=/tmp/fastdup/bin/python   # beside ours

Twelve edits of each photo, each saved as a JPEG of quality 85, among pages of text, codes, skies,
digits, scenes, and bursts (one background, an object of 5% of the area elsewhere). Candidates are
near in hash (in eight orientations) or in embedding (EfficientNet-Lite0), as in `ss.duplicates`;
the pixels decide. The thresholds were chosen on the photos of even number, and on scenes of
Intel's seg_train and seg_test. These figures are of the photos of odd number, and of as many
scenes of seg_pred (150 x 150 pixels).

Recall is of pairs of a photo and its edit: the mean of the seeds, the lowest and the highest.
Precision is of all pairs that are confirmed, those of two edits drawn; its bound is Clopper and
Pearson's, of 95%, one-sided.

Peers (`duplicates_peers.py`) see the same pictures, as files, in an environment of their own. Their
pairs are those they name, each counted once; processor time is that of the whole run.
"""

from __future__ import annotations

import argparse
import io
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
from common import INTEL, PHOTOS, verdict
from duplicates_peers import compare_peers
from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont, ImageOps

import simsearch as ss
from simsearch.analysis.candidates import CANDIDATE_COSINE, candidate_pairs
from simsearch.images.alignment import Alignment, alignments
from simsearch.images.confirm import confirm
from simsearch.images.decode import load_image
from simsearch.images.signature import SIGNATURE, is_blank, signature

EDITED_PAIRS = 500  # of two edits of one photo, drawn from the candidates of each seed
TEXT = (
    "invoice total amount due date customer name address order number item price quantity "
    "tax service report summary section figure table result method data value month "
    "contract party agree term payment account letter meeting agenda minutes project plan "
)
RIGHT_KINDS = {
    "half size": {"resized"}, "jpeg 40": {"recompressed"}, "crop 5%": {"crop"},
    "crop 15%": {"crop"}, "3 degrees": {"rotated"}, "mirror": {"mirror"},
    "watermark": {"watermark"}, "tint": {"tint"}, "border": {"border"}, "quarter turn": {"turn"},
    "grey": {"grey"}, "screenshot": {"screenshot"},
}  # fmt: skip


class Picture(NamedTuple):
    """A picture of the benchmark: what it shows (equal for copies) and the edit that made it."""

    image: Image.Image
    group: str
    edit: str = ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--photos", type=int, default=250, help="half of them scenes")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--distractors", type=int, default=40, help="of each kind")
    parser.add_argument("--cosine", type=float, default=CANDIDATE_COSINE, help="of candidates")
    parser.add_argument("--workers", type=int, default=1, help="seeds at once")
    parser.add_argument("--peers", nargs="*", default=[], metavar="NAME=PYTHON", help="peers alone")
    arguments = parser.parse_args()
    if arguments.peers:
        for seed in arguments.seeds:
            compare_peers(seed_pictures(arguments, seed), arguments.peers, seed)
        return
    with ProcessPoolExecutor(arguments.workers, mp_context=get_context("spawn")) as pool:
        totals = list(pool.map(run_seed, [arguments] * len(arguments.seeds), arguments.seeds))
    summarize(totals)


def seed_pictures(arguments: argparse.Namespace, seed: int) -> list[Picture]:
    photos = sorted(path for path in PHOTOS.iterdir() if path.is_file())
    scenes = sorted((INTEL / "seg_pred").iterdir())
    count = arguments.photos // 2
    paths = photos[1::2][: arguments.photos - count] + scenes[1::2][:count]
    pictures = make_pictures(paths, photos[::2], arguments.distractors, seed)
    return pictures + [Picture(load_image(path), path.name) for path in scenes[::2]]


def run_seed(arguments: argparse.Namespace, seed: int) -> Totals:
    totals = Totals()
    backbone = ss.load_backbone("efficientnet_lite0")
    measure(seed_pictures(arguments, seed), backbone, totals, arguments.cosine)
    print(f"seed {seed}", flush=True)
    totals.report()
    return totals


def summarize(totals: list[Totals]) -> None:
    """Print the means over the seeds, with the lowest and the highest, and all wrong pairs."""
    print(f"{len(totals)} seeds: mean (lowest to highest)")
    for edit in RIGHT_KINDS:
        shares = [each.found[edit] / each.tried[edit] for each in totals]
        print(f"      {edit:<14} recall {spread(shares)}")
    shares = [each.found.total() / each.tried.total() for each in totals]
    print(f"      all edits      recall {spread(shares)}")
    found = sum(each.found.total() + each.edited_found for each in totals)
    wrong = sum(len(each.wrong) for each in totals)
    verdict("recall, all edits", float(np.mean(shares)), 0.95)
    verdict("precision", found / max(1, found + wrong), 0.999)
    verdict("precision, lower bound of 95%", lower_bound(found, wrong), 0.999)
    print(f"      {found} right, {wrong} wrong", flush=True)


def spread(values: list[float]) -> str:
    return f"{np.mean(values):6.3f} ({min(values):.3f} to {max(values):.3f})"


class Totals:
    """Counts over all seeds."""

    def __init__(self) -> None:
        self.tried: Counter[str] = Counter()
        self.candidates: Counter[str] = Counter()
        self.found: Counter[str] = Counter()
        self.named: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.unlike_pairs = self.edited_pairs = self.edited_found = 0
        self.signature_ms: list[float] = []
        self.yes_ms: list[float] = []
        self.no_ms: list[float] = []
        self.pictures, self.candidate_seconds = 0, 0.0

    def report(self) -> None:
        for edit in self.tried:
            tried = self.tried[edit]
            print(
                f"      {edit:<14} candidates {self.candidates[edit] / tried:6.3f}   recall "
                f"{self.found[edit] / tried:6.3f}   named right {self.named[edit] / tried:6.3f}"
            )
        print(f"      two edits of a photo: {self.edited_found} of {self.edited_pairs} pairs")
        found, wrong = self.found.total() + self.edited_found, len(self.wrong)
        verdict("recall, all edits", self.found.total() / self.tried.total(), 0.95)
        verdict("precision", found / max(1, found + wrong), 0.999)
        verdict("precision, lower bound of 95%", lower_bound(found, wrong), 0.999)
        print(f"      {found} right, {wrong} wrong of {self.unlike_pairs} unlike candidates")
        print("\n".join(f"      wrong: {pair}" for pair in self.wrong[:10]))
        verdict("signature, CPU ms", float(np.median(self.signature_ms)), 2, at_most=True)
        seconds = 1e3 * self.candidate_seconds / self.pictures
        print(f"      candidates: CPU s per 1,000 of {self.pictures} pictures {seconds:.1f}")
        for name in ("yes", "no"):
            times = getattr(self, f"{name}_ms")
            print(f"      {name}: CPU ms a pair, mean {np.mean(times or 0):.1f} of {len(times)}")


def measure(pictures: list[Picture], backbone: ss.Backbone, totals: Totals, cosine: float) -> None:
    rows = np.zeros(len(pictures), SIGNATURE)
    for i, picture in enumerate(pictures):
        start = time.process_time()
        rows[i] = signature(picture.image)
        totals.signature_ms.append(1e3 * (time.process_time() - start))
    pairs = all_candidates(pictures, rows, backbone, totals, cosine)
    originals = {each.group: i for i, each in enumerate(pictures) if not each.edit}
    for i, picture in enumerate(pictures):
        if picture.edit in RIGHT_KINDS:
            totals.tried[picture.edit] += 1
            pair = tuple(sorted((originals[picture.group], i)))
            if pair in pairs:
                totals.candidates[picture.edit] += 1
                kind = decide(pictures, rows, pair, pairs, totals)
                totals.found[picture.edit] += kind is not None
                totals.named[picture.edit] += kind in RIGHT_KINDS[picture.edit]
    of_one = [(i, j) for i, j in sorted(pairs) if pictures[i].group == pictures[j].group]
    edited = [pair for pair in of_one if all(pictures[i].edit in RIGHT_KINDS for i in pair)]
    for i in np.random.default_rng(0).permutation(len(edited))[:EDITED_PAIRS]:
        totals.edited_pairs += 1
        totals.edited_found += decide(pictures, rows, edited[i], pairs, totals) is not None
    for i, j in sorted(pairs):
        a, b = pictures[i], pictures[j]
        if a.group != b.group:
            totals.unlike_pairs += 1
            kind = decide(pictures, rows, (i, j), pairs, totals)
            if kind:
                totals.wrong.append(f"{a.group} {a.edit} | {b.group} {b.edit}: {kind}")


def decide(
    pictures: list[Picture],
    rows: np.ndarray,
    pair: tuple[int, ...],
    pairs: dict[tuple[int, int], list[Alignment] | None],
    totals: Totals,
) -> str | None:
    i, j = pair
    start = time.process_time()
    positions = pairs[i, j] or alignments(rows[i], rows[j])
    images = pictures[i].image, pictures[j].image
    edit = confirm(*images, (rows[i], rows[j]), positions) if positions else None
    milliseconds = 1e3 * (time.process_time() - start)
    (totals.yes_ms if edit else totals.no_ms).append(milliseconds)
    return edit.kind if edit else None


def all_candidates(
    pictures: list[Picture], rows: np.ndarray, backbone: ss.Backbone, totals: Totals, cosine: float
) -> dict[tuple[int, int], list[Alignment] | None]:
    """Choose pairs as `ss.duplicates` does, with the positions to compare, if they are known."""
    embeddings = ss.embed_images([each.image for each in pictures], backbone, workers=1)
    library = ss.ImageLibrary(embeddings, [f"{i:06}.jpg" for i in range(len(pictures))])
    start = time.process_time()
    pairs = candidate_pairs(library, rows, np.flatnonzero(~is_blank(rows)), cosine)
    totals.candidate_seconds += time.process_time() - start
    totals.pictures += len(pictures)
    print(f"      {len(pairs)} pairs to compare, of {len(pictures)} pictures", flush=True)
    return pairs


def lower_bound(right: int, wrong: int) -> float:
    """Clopper-Pearson lower bound of a share, 95%, one-sided."""
    from scipy.stats import beta

    return float(beta.ppf(0.05, right, wrong + 1)) if right else 0.0


def make_pictures(
    paths: list[Path], other: list[Path], distractors: int, seed: int
) -> list[Picture]:
    rng = np.random.default_rng(seed)
    photos = [load_image(path) for path in paths]
    pictures = []
    for path, photo in zip(paths, photos, strict=True):
        pictures.append(Picture(photo, path.name))
        for name, edit in EDITS.items():
            quality = 40 if name == "jpeg 40" else 85
            pictures.append(Picture(jpeg(edit(photo, rng), quality), path.name, name))
    for number in range(distractors):
        for name, make in {"page": page, "code": code, "sky": sky, "digit": digit}.items():
            pictures.append(Picture(make(rng), f"{name} {number}", "distractor"))
        photo, thing = (load_image(other[int(rng.integers(len(other)))]) for _ in range(2))
        for side, image in enumerate(burst(photo, thing, rng)):
            pictures.append(Picture(jpeg(image, 85), f"burst {number} {side}", "distractor"))
    return pictures


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return load_image(file.getvalue())


def font(size: int, weight: str = "bold") -> ImageFont.FreeTypeFont:
    name = font_manager.findfont(font_manager.FontProperties(family="DejaVu Sans", weight=weight))
    return ImageFont.truetype(name, size)


def crop(image: Image.Image, share: float, rng: np.random.Generator) -> Image.Image:
    """Cut off twice a share of both sides, at a random place."""
    width, height = (round(side * (1 - 2 * share)) for side in image.size)
    x = int(rng.integers(image.width - width + 1))
    y = int(rng.integers(image.height - height + 1))
    return image.crop((x, y, x + width, y + height))


def watermark(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    layer = Image.new("RGBA", image.size)
    draw = ImageDraw.Draw(layer)
    text, face = "© SAMPLE PHOTO", font(max(10, image.width // int(rng.integers(8, 14))))
    x = max(0.0, (image.width - draw.textlength(text, face)) * rng.random())
    place = x, rng.uniform(0.1, 0.8) * image.height
    draw.text(place, text, fill=(255, 255, 255, int(rng.integers(110, 200))), font=face)
    return Image.alpha_composite(image.convert("RGBA"), layer).convert("RGB")


def tint(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    gains = np.array([1.12, 1.0, 0.82])[rng.permutation(3)]
    return Image.fromarray((np.asarray(image) * gains).clip(0, 255).astype(np.uint8))


def border(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    color = [(255, 255, 255), (0, 0, 0), (30, 60, 120)][int(rng.integers(3))]
    return ImageOps.expand(image, round(rng.uniform(0.04, 0.1) * max(image.size)), color)


def screenshot(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Show a picture in a window with a title, a list of folders, and plain ground."""
    width, height = round(image.width * rng.uniform(1.3, 1.8)), round(image.height * 1.5)
    screen = Image.new("RGB", (width, height), (240, 240, 244))
    draw, face, bar = ImageDraw.Draw(screen), font(max(8, height // 30)), height // 14
    draw.rectangle((0, 0, width, bar), fill=(52, 58, 70))
    draw.text((10, height // 50), "Photo viewer   File  Edit  View  Help", fill="white", font=face)
    left = round((width - image.width) * rng.uniform(0.4, 0.8))
    draw.rectangle((0, bar, left - 8, height), fill=(222, 226, 232))
    for line in range(8):
        name = f"Folder {int(rng.integers(100))}"
        draw.text((8, bar + 10 + line * height // 10), name, fill=(40, 40, 40), font=face)
    screen.paste(image, (left, bar + round((height - bar - image.height) * rng.uniform(0.2, 0.8))))
    return screen


EDITS = {
    "half size": lambda image, _: image.resize((image.width // 2, image.height // 2), 1),
    "jpeg 40": lambda image, _: image,
    "crop 5%": lambda image, rng: crop(image, 0.05, rng),
    "crop 15%": lambda image, rng: crop(image, 0.15, rng),
    "3 degrees": lambda image, rng: image.rotate(3 * rng.choice([-1, 1]), 3),
    "mirror": lambda image, _: ImageOps.mirror(image),
    "watermark": watermark,
    "tint": tint,
    "border": border,
    "quarter turn": lambda image, rng: image.rotate(int(rng.choice([90, 270])), expand=True),
    "grey": lambda image, _: image.convert("L").convert("RGB"),
    "screenshot": screenshot,
}


def page(rng: np.random.Generator) -> Image.Image:
    image = Image.new("RGB", (1240, 1754), "white")
    draw, face = ImageDraw.Draw(image), font(22, "normal")
    for y in range(100, 1650, 36):
        line = " ".join(rng.choice(TEXT.split(), int(rng.integers(6, 14))))[:85]
        draw.text((100, y), line, fill="black", font=face)
    return image


def code(rng: np.random.Generator) -> Image.Image:
    """Something like a QR code: random modules, and three finders."""
    modules = rng.random((33, 33)) > 0.5
    for y, x in ((0, 0), (0, 26), (26, 0)):
        for ring, value in ((0, False), (1, True), (2, False)):
            modules[y + ring : y + 7 - ring, x + ring : x + 7 - ring] = value
    image = Image.fromarray((modules * 255).astype(np.uint8))
    return image.resize((330, 330), Image.Resampling.NEAREST).convert("RGB")


def sky(rng: np.random.Generator) -> Image.Image:
    """Draw stars on a dark ground with noise."""
    levels = rng.normal(8, 2, (400, 600)) + np.linspace(0, 15, 400)[:, None]
    for _ in range(int(rng.integers(40, 200))):
        y, x, light = int(rng.integers(1, 399)), int(rng.integers(1, 599)), rng.uniform(40, 255)
        levels[y - 1 : y + 2, x - 1 : x + 2] += 0.3 * light
        levels[y, x] += light
    grey = Image.fromarray(levels.clip(0, 255).astype(np.uint8))
    return jpeg(grey.convert("RGB"), 90)


def digit(rng: np.random.Generator) -> Image.Image:
    """A digit of 28 x 28 pixels with its own place, size, width, slant and bends."""
    image = Image.new("L", (224, 224))
    face = font(int(rng.uniform(150, 200)), str(rng.choice(["bold", "normal"])))
    place = tuple(rng.uniform(100, 124, 2))
    ImageDraw.Draw(image).text(place, str(rng.integers(10)), fill=255, font=face, anchor="mm")
    corners = np.array([0, 0, 0, 224, 224, 224, 224, 0]) + rng.uniform(-30, 30, 8)
    image = image.transform(image.size, Image.Transform.QUAD, tuple(corners), 2)
    return image.resize((28, 28), Image.Resampling.BOX).convert("RGB")


def burst(
    photo: Image.Image, thing: Image.Image, rng: np.random.Generator
) -> tuple[Image.Image, Image.Image]:
    """Two shots of one background, with a thing of 5% of the area in two places."""
    radius = np.sqrt(0.05 * photo.width * photo.height / np.pi)
    thing = thing.resize((int(2 * radius), int(2 * radius)))
    mask = Image.new("L", thing.size)
    ImageDraw.Draw(mask).ellipse((0, 0, *thing.size), fill=255)
    left, right = photo.copy(), photo.copy()
    room = photo.width - thing.width, photo.height - thing.height
    first = int(rng.integers(max(1, room[0]))), int(rng.integers(max(1, room[1])))
    far = (first[0] + room[0] // 2) % max(1, room[0]), (first[1] + room[1] // 3) % max(1, room[1])
    left.paste(thing, first, mask)
    right.paste(thing, far, mask)
    return left, right


if __name__ == "__main__":
    main()
