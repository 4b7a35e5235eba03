"""How fast a folder is embedded on a GPU: end to end, and what each step alone would allow.

    python benchmarks/gpu.py [--images 8000] [--rounds 3] [--device cuda]

ResNet50 with seeded random weights and EfficientNet-Lite0, on small scenes (150 px), photos
(500 px) and photos enlarged to 12 megapixels, as cameras write them. Each round runs, one after
the other on the same pictures:

- forward: the network alone, on batches that lie on the device already;
- with copies: batches from the processor's memory and rows back into it, by one thread;
- decode: files to network inputs alone, in threads on all cores;
- embed_dataset: files to a library on disk, signatures for `duplicates` included.

Medians over the rounds, in pictures a second. The rows of each precision are compared with those of
the processor in float32: least cosine, and share of the ten nearest neighbours.
"""

from __future__ import annotations

import argparse
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from common import INTEL, PHOTOS, copy_images, median, resnet50_weights, seconds
from PIL import Image

import simsearch as ss
from simsearch.backbones.precision import usable_cores
from simsearch.backbones.preprocessing import normalise
from simsearch.embedding.batching import MAX_WORKERS

BATCHES = (64, 128, 256)
CAMERA = (4000, 3000)  # pixels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=8000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cuda")
    options = parser.parse_args()
    name = torch.cuda.get_device_name() if options.device == "cuda" else options.device
    print(f"{name}, {usable_cores()} cores, PyTorch {torch.__version__}\n")
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        weights = resnet50_weights(place)
        backbones = {
            "resnet50": ss.load_backbone("resnet50", weights, device=options.device),
            "lite0": ss.load_backbone("efficientnet_lite0", device=options.device),
        }
        compare_precisions(weights, options.device)
        for kind, dataset in datasets(place, options.images):
            for network, backbone in backbones.items():
                pace(f"{kind}: {network}", dataset, backbone, options.rounds, place)


def datasets(place: Path, count: int) -> list[tuple[str, Path]]:
    """Make the three folders; of the large pictures there are an eighth as many."""
    small = copy_images(INTEL, place / "small", count)
    photos = copy_images(PHOTOS, place / "photos", count // 2)
    few = copy_images(PHOTOS, place / "few", 40)
    large = place / "large"
    large.mkdir()
    with ThreadPoolExecutor(usable_cores()) as pool:
        list(pool.map(lambda path: enlarge(path, large), sorted(few.iterdir())))
    return [
        ("150 px", small),
        ("500 px", photos),
        ("12 MP", copy_images(large, place / "camera", count // 8)),
    ]


def enlarge(path: Path, folder: Path) -> None:
    """Write a photo with as many pixels as a camera's."""
    Image.open(path).convert("RGB").resize(CAMERA).save(folder / path.name, quality=90)


def compare_precisions(weights: Path, device: str) -> None:
    """Rows of the device beside those of the processor in float32."""
    with tempfile.TemporaryDirectory() as folder:
        paths = sorted(copy_images(PHOTOS, Path(folder) / "photos", 100).iterdir())
        for name, file in (("resnet50", weights), ("efficientnet_lite0", None)):
            expected = rows(ss.load_backbone(name, file, device="cpu", precision="float32"), paths)
            for precision in ("float32", "float16", "bfloat16"):
                found = rows(
                    ss.load_backbone(name, file, device=device, precision=precision), paths
                )
                cosine = float((found * expected).sum(axis=1).min())
                shared = neighbours_shared(expected, found)
                print(
                    f"{name}, {precision}: cosine at least {cosine:.6f}, ten nearest {shared:.3f}"
                )
    print()


def rows(backbone: ss.Backbone, paths: list[Path]) -> np.ndarray:
    return ss.embed_images(paths, backbone)


def neighbours_shared(one: np.ndarray, other: np.ndarray, count: int = 10) -> float:
    """Share of the nearest neighbours of each row, itself left out, that both sets have."""
    orders = [np.argsort(-(each @ each.T), axis=1)[:, 1 : count + 1] for each in (one, other)]
    found = [len(np.intersect1d(*pair)) for pair in zip(*orders, strict=True)]
    return float(np.mean(found)) / count


def pace(name: str, dataset: Path, backbone: ss.Backbone, rounds: int, place: Path) -> None:
    """Pictures a second of each step, over rounds."""
    paths = sorted(dataset.iterdir())
    rates: dict[str, list[float]] = {}
    inputs = [backbone.prepare(ss.load_image(path, backbone.min_side)) for path in paths[:1024]]
    for number in range(rounds + 1):
        found = forward_rates(backbone, inputs)
        found["decode"] = len(paths) / seconds(lambda: decode(backbone, paths))
        outputs = place / f"{name}{number}".replace(":", "").replace(" ", "")
        found["embed_dataset"] = len(paths) / seconds(
            lambda: ss.embed_dataset(dataset, outputs, backbone, progress=False)  # noqa: B023
        )
        if number:  # the first round only warms up
            for step, rate in found.items():
                rates.setdefault(step, []).append(rate)
    for step, values in rates.items():
        spread = f"({min(values):.0f} to {max(values):.0f})"
        print(f"{name:<18} {step:<18} {median(values):9.0f}/s  {spread}")
    print(flush=True)


def forward_rates(backbone: ss.Backbone, inputs: list[np.ndarray]) -> dict[str, float]:
    """Pictures a second of the network alone, and with the copies there and back."""
    found = {}
    for size in BATCHES:
        batches = [np.stack(inputs[i : i + size]) for i in range(0, len(inputs), size)]
        there = [torch.from_numpy(batch).to(backbone.device) for batch in batches]
        found[f"forward, {size}"] = len(inputs) / seconds(lambda: run_there(backbone, there))  # noqa: B023
        found[f"with copies, {size}"] = len(inputs) / seconds(
            lambda: [backbone.embed(batch) for batch in batches]  # noqa: B023
        )
    return found


@torch.inference_mode()
def run_there(backbone: ss.Backbone, batches: list[torch.Tensor]) -> None:
    dtype = getattr(torch, backbone.precision)
    for batch in batches:
        backbone.unit_rows(backbone.module(normalise(batch, backbone.transform).to(dtype)))
    if backbone.device.type == "cuda":
        torch.cuda.synchronize()


def decode(backbone: ss.Backbone, paths: list[Path]) -> None:
    with ThreadPoolExecutor(min(usable_cores(), MAX_WORKERS)) as pool:
        for _ in pool.map(backbone.read, paths, chunksize=8):
            pass


if __name__ == "__main__":
    main()
