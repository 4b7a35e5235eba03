"""What the benchmarks share: photos, a ResNet50 with seeded weights, timing and verdicts."""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

SHARED = Path(__file__).resolve().parents[2] / "shared"
INTEL, PHOTOS = SHARED / "data" / "intel", SHARED / "data" / "photos"


def resnet50_weights(folder: Path) -> Path:
    """Save a seeded random state dict: speed does not depend on the weights."""
    import torch
    from torchvision.models import resnet50

    torch.manual_seed(0)
    file = folder / "resnet50.pth"
    torch.save(resnet50(weights=None).state_dict(), file)
    return file


def copy_images(source: Path, target: Path, count: int) -> Path:
    """Copy so many images below a folder, evenly spread: links out of a dataset lead nowhere."""
    images = sorted(path for path in source.rglob("*") if path.suffix.lower() in {".jpg", ".jpeg"})
    target.mkdir(parents=True)
    for i in range(count):
        image = images[i * len(images) // count]
        shutil.copyfile(image, target / f"{i:05d}{image.suffix}")
    return target


def seconds(call: Callable[[], object]) -> float:
    """Time one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def median(values: Sequence[float]) -> float:
    """Return the median: these machines are shared, and single timings stray."""
    return statistics.median(values)


def verdict(name: str, value: float, goal: float, *, at_most: bool = False) -> None:
    """Print a figure beside its goal."""
    met = value <= goal if at_most else value >= goal
    sign = "<=" if at_most else ">="
    print(
        f"{'ok  ' if met else 'MISS'}  {name:<58} {value:8.3f}  (goal {sign} {goal:g})", flush=True
    )
