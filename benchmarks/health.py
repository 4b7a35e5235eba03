"""Faults planted among pictures: how many of each kind `check_dataset` finds, and how many wrongly.

    python benchmarks/health.py                     # three seeds; about half an hour on two cores
    python benchmarks/health.py --tune              # the best thresholds, on other pictures
    python benchmarks/health.py --cleanvision /tmp/cv/bin/python

5% of each kind are planted in a sample: of Intel's scenes, with labels and two splits, and of 250
photos without labels. Thresholds were chosen with --tune, which draws from seg_train and from the
photos of even number; the report draws from seg_test, the photos of odd number, and other seeds.
Strange pictures among the scenes are photos, of the same numbers.

Precision is of findings on untouched pictures and on those planted as the kind at hand: pictures
with another planted fault (a black one is an outlier, too) are left out. Untouched pictures have
faults of their own, so that it is a lower bound. cleanvision runs in an environment of its own, on
the same pictures.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
from common import INTEL, PHOTOS
from PIL import Image, ImageEnhance, ImageFilter

import simsearch as ss
from simsearch.analysis.health_checks import CHECKS
from simsearch.images.decode import load_image

SHARE = 0.05
SINGLE = ("dark", "bright", "blurred", "blank", "low_contrast", "odd_shape", "odd_size")
EVERYTHING = {kind: np.inf if check.low else -np.inf for kind, check in CHECKS.items()}
CLEANVISION = {
    "dark": "dark", "light": "bright", "blurry": "blurred", "low_information": "blank",
    "odd_aspect_ratio": "odd_shape", "odd_size": "odd_size",
    "exact_duplicates": "exact_duplicate", "near_duplicates": "near_duplicate",
}  # fmt: skip
SCRIPT = """
import json, sys, warnings
warnings.filterwarnings("ignore")
from cleanvision import Imagelab
lab = Imagelab(data_path=sys.argv[1], verbose=False)
lab.find_issues(n_jobs=1, verbose=False)
names = [n for n in lab.issues if n.endswith("_issue")]
found = {n[3:-6]: lab.issues.index[lab.issues[n]].tolist() for n in names}
sets = {k: lab.info[k]["sets"] for k in ("exact_duplicates", "near_duplicates") if k in lab.info}
print("\\n" + json.dumps({"found": found, "sets": sets}, default=str))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=1000, help="of Intel, in each sample")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--tune", action="store_true")
    parser.add_argument("--cleanvision", metavar="PYTHON")
    arguments = parser.parse_args()
    backbone = ss.load_backbone("efficientnet_lite0")
    odd = not arguments.tune
    strange = sorted(PHOTOS.iterdir())[odd::2]
    scenes = sorted((INTEL / ("seg_test" if odd else "seg_train")).rglob("*.jpg"))
    for name, paths in (("intel", scenes), ("photos", strange)):
        results: dict[str, dict[str, list[tuple[float, ...]]]] = defaultdict(
            lambda: defaultdict(list)
        )
        for seed in range(100 * odd, 100 * odd + arguments.seeds):
            with tempfile.TemporaryDirectory() as folder:
                planted = plant(
                    paths,
                    strange,
                    labelled=name == "intel",
                    count=arguments.images,
                    seed=seed,
                    folder=folder,
                )
                one_seed(folder, planted, backbone, results, arguments)
        print(f"{name}, {arguments.seeds} seeds", flush=True)
        for kind in CHECKS:
            for who, values in results[kind].items():
                print(f"      {kind:<16} {who:<12} {describe(values)}", flush=True)


def describe(values: list[tuple[float, ...]]) -> str:
    columns = ("precision", "recall", "threshold", "of")
    text = [
        f"{name} {statistics.mean(column):6.3f} ({min(column):.3f} to {max(column):.3f})"
        for name, column in zip(columns, zip(*values, strict=True), strict=False)
    ]
    return "   ".join(text)


def one_seed(
    folder: str,
    planted: dict[str, str],
    backbone: ss.Backbone,
    results: dict[str, dict[str, list[tuple[float, ...]]]],
    arguments: argparse.Namespace,
) -> None:
    root = Path(folder) / "data"
    library = ss.embed_dataset(root, Path(folder) / "out", backbone=backbone)
    start = time.process_time()
    report = ss.check_dataset(library, thresholds=thresholds(arguments.tune), progress=False)
    print(f"      {len(library)} images, CPU s {time.process_time() - start:.1f}", flush=True)
    names = dict(zip(library.paths.tolist(), library.names, strict=True))
    for kind, found in report.items():
        if kind == "unreadable":
            continue
        scores = {names[each.path]: each.score for each in found}
        others = {names[each.path]: names.get(each.other, "") for each in found}
        if arguments.tune and np.isfinite(CHECKS[kind].threshold):
            best = best_threshold(kind, scores, planted)
            if best:
                results[kind]["tuned"].append(best)
        elif any(kind in faults.split() for faults in planted.values()):
            results[kind]["simsearch"].append(rate(kind, set(scores), others, planted))
    if arguments.cleanvision:
        for kind, (theirs, sets) in cleanvision(arguments.cleanvision, root).items():
            if any(kind in faults.split() for faults in planted.values()):
                results[kind]["cleanvision"].append(rate(kind, theirs, sets, planted))


def thresholds(tune: bool) -> dict[str, float] | None:
    """All scores are wanted to choose thresholds; but blank pictures are set apart as ever."""
    measured = {kind: value for kind, value in EVERYTHING.items() if CHECKS[kind].measure}
    return (
        {
            kind: value
            for kind, value in measured.items()
            if np.isfinite(CHECKS[kind].threshold) and kind != "blank"
        }
        if tune
        else None
    )


def rate(
    kind: str, found: set[str], others: dict[str, str], planted: dict[str, str]
) -> tuple[float, ...]:
    """Precision and recall; of two copies either may be named."""
    wanted = {name for name, faults in planted.items() if kind in faults.split()}
    hits = {name for name in wanted if name in found}
    hits |= {others[name] for name in found if others.get(name) in wanted}
    wrong = [n for n in found if n not in planted and others.get(n) not in planted]
    right = len(hits & wanted)
    return right / max(1, right + len(wrong)), right / len(wanted)


def best_threshold(
    kind: str, scores: dict[str, float], planted: dict[str, str]
) -> tuple[float, ...] | None:
    """Precision, recall and threshold at the best F1, and the next worse score beside it."""
    wanted = {name for name, faults in planted.items() if kind in faults.split()}
    ordered = sorted(scores, key=lambda name: scores[name], reverse=not CHECKS[kind].low)
    ordered = [name for name in ordered if name in wanted or name not in planted]
    hits = np.cumsum([name in wanted for name in ordered])
    if not len(hits) or not wanted:
        return None
    f1 = 2 * hits / (np.arange(1, len(hits) + 1) + len(wanted))
    at = int(f1.argmax())
    after = scores[ordered[min(at + 1, len(ordered) - 1)]]
    return hits[at] / (at + 1), hits[at] / len(wanted), scores[ordered[at]], after


def plant(
    paths: list[Path], strange: list[Path], *, labelled: bool, count: int, seed: int, folder: str
) -> dict[str, str]:
    """Write a dataset, and return the faults of each picture by name."""
    rng = np.random.default_rng(seed)
    chosen = [paths[i] for i in rng.permutation(len(paths))[:count]]
    each = max(4, round(SHARE * len(chosen)))
    kinds = [*SINGLE, *(["label"] if labelled else [])]
    planted: dict[str, str] = {}
    root = Path(folder) / "data"
    classes = sorted({path.parent.name for path in chosen})
    plain = []
    for i, path in enumerate(chosen):
        kind = kinds[i // each] if i // each < len(kinds) else ""
        label = path.parent.name if labelled else "all"
        if kind == "label":
            label = str(rng.choice([name for name in classes if name != label]))
        split = "test" if rng.random() < 0.2 else "train"
        name = f"{split}/{label}/{i:05}.jpg"
        image = load_image(path)
        save(EDITS[kind](image, rng) if kind in EDITS else image, root / name)
        if kind:
            planted[name] = kind
        else:
            plain.append((name, image))
    picks = rng.permutation(len(plain))[: 3 * each]
    for j, i in enumerate(picks.tolist()):
        name, image = plain[i]
        split, label, file = name.split("/")
        fault = ("exact_duplicate", "near_duplicate", "near_duplicate leak")[j % 3]
        if "leak" in fault:
            split = "test" if split == "train" else "train"
        copy = f"{split}/{label}/copy_{file}"
        if fault == "exact_duplicate":
            (root / copy).parent.mkdir(parents=True, exist_ok=True)
            (root / copy).write_bytes((root / name).read_bytes())
        else:
            save(NEAR[int(rng.integers(len(NEAR)))](image), root / copy, quality=75)
        planted[copy] = fault
        if "leak" in fault:  # either may be the one in test
            planted[name] = ""
    if labelled:
        for j, i in enumerate(rng.permutation(len(strange))[:each].tolist()):
            name = f"train/{classes[j % len(classes)]}/strange_{j:04}.jpg"
            image = load_image(strange[i]).resize((150, 150), Image.Resampling.LANCZOS)
            save(image, root / name)
            planted[name] = "outlier"
    return planted


def save(image: Image.Image, file: Path, quality: int = 90) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    image.save(file, quality=quality)


def darken(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    return ImageEnhance.Brightness(image).enhance(rng.uniform(0.05, 0.25))


def brighten(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    lift = rng.uniform(0.7, 0.92)
    return Image.blend(image, Image.new("RGB", image.size, "white"), lift)


def flatten(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    grey = Image.new("RGB", image.size, (int(rng.integers(90, 160)),) * 3)
    return Image.blend(image, grey, rng.uniform(0.75, 0.9))


def blur(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Out of focus, or moved along one axis."""
    side = min(image.size)
    if rng.random() < 0.5:
        return image.filter(ImageFilter.GaussianBlur(side * rng.uniform(0.01, 0.03)))
    length, axis = max(5, round(side * rng.uniform(0.04, 0.08))), int(rng.integers(2))
    sums = np.moveaxis(np.cumsum(np.asarray(image, np.float32), axis=axis), axis, 0)
    moved = np.moveaxis((sums[length:] - sums[:-length]) / length, 0, axis)
    return Image.fromarray(moved.clip(0, 255).astype(np.uint8))


def blank(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    color = rng.integers(0, 256, 3)
    noise = rng.normal(0, rng.uniform(0, 1), (image.height, image.width, 3))
    return Image.fromarray((color + noise).clip(0, 255).astype(np.uint8))


def lengthen(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Cut a strip, 3 to 6 times as long as wide."""
    short = round(min(image.size) / rng.uniform(3, 6))
    if rng.random() < 0.5:
        return image.crop((0, image.height // 2, image.width, image.height // 2 + short))
    return image.crop((image.width // 2, 0, image.width // 2 + short, image.height))


def rescale(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    factor = rng.uniform(3.5, 6) ** rng.choice([-1, 1])
    return image.resize(tuple(max(8, round(side * factor)) for side in image.size))


EDITS: dict[str, Callable[[Image.Image, np.random.Generator], Image.Image]] = {
    "dark": darken, "bright": brighten, "low_contrast": flatten, "blurred": blur,
    "blank": blank, "odd_shape": lengthen, "odd_size": rescale,
}  # fmt: skip
NEAR: list[Callable[[Image.Image], Image.Image]] = [
    lambda image: image,
    lambda image: image.resize((image.width * 2 // 3, image.height * 2 // 3), 1),
    lambda image: ImageEnhance.Brightness(image).enhance(1.1),
    lambda image: image.crop((4, 4, image.width - 4, image.height - 4)),
]


def cleanvision(python: str, root: Path) -> dict[str, tuple[set[str], dict[str, str]]]:
    """Run cleanvision in its own environment: its findings by the names of our kinds."""
    done = subprocess.run(
        [python, "-c", SCRIPT, str(root)], capture_output=True, text=True, check=True
    )
    answer = json.loads(done.stdout.strip().splitlines()[-1])
    found = {}
    for theirs, ours in CLEANVISION.items():
        names = {Path(p).relative_to(root).as_posix() for p in answer["found"].get(theirs, [])}
        others: dict[str, str] = {}
        for group in answer["sets"].get(theirs, []):
            members = [Path(path).relative_to(root).as_posix() for path in group]
            others |= {name: next(m for m in members if m != name) for name in members}
        found[ours] = (names, others)
    return found


if __name__ == "__main__":
    main()
