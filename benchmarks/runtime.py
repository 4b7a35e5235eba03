"""What runs the network: PyTorch or OpenVINO, from files to rows.

    python benchmarks/runtime.py [--rounds 5] [--images 96] [--only resnet50 int8]

Processor milliseconds of all threads a picture, and walls; both runtimes take turns in each round,
and medians of ratios within rounds are printed. "as before" is PyTorch with batches of eight, the
default until now. ResNet50 has seeded random weights: its speed does not depend on them. int8 is
calibrated on 64 of the pictures (it needs NNCF, the extra int8) and compared with float32.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from common import INTEL, PHOTOS, copy_images, median, resnet50_weights, verdict

import simsearch as ss
from simsearch.backbones import quantised
from simsearch.backbones.precision import Precision

CALIBRATION_PICTURES = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=96)
    parser.add_argument("--only", nargs=2, metavar=("NAME", "PRECISION"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        weights = resnet50_weights(Path(folder))
        contests: tuple[tuple[str, Path | None, Precision, float], ...] = (
            ("efficientnet_lite0", None, "float32", 3.0),
            ("efficientnet_lite0", None, "int8", 3.0),
            ("resnet50", weights, "float32", 1.2),
            ("resnet50", weights, "bfloat16", 1.2),
            ("resnet50", weights, "int8", 2.0),
        )
        for name, file, precision, goal in contests:
            if options.only not in (None, [name, precision]):
                continue
            print(f"\n{name}, {precision}, {os.cpu_count()} cores")
            backbones = load_both(name, file, precision)
            for source, pixels in ((INTEL, 150), (PHOTOS, 500)):
                place = Path(folder) / f"{name}{precision}{pixels}"
                pace(backbones, source, pixels, options.images, options.rounds, place, goal)


def load_both(name: str, file: Path | None, precision: Precision) -> dict[str, ss.Backbone]:
    """Load a network for PyTorch and for OpenVINO; PyTorch computes float32 in place of int8."""
    plain: Precision = "float32" if precision == "int8" else precision
    both = {
        runtime: ss.load_backbone(name, file, device="cpu", precision=plain, runtime=runtime)
        for runtime in ("torch", "openvino")
    }
    if precision == "int8":
        photos = sorted(path for path in PHOTOS.iterdir() if path.is_file())[:CALIBRATION_PICTURES]
        pictures = [both["torch"].prepare(ss.load_image(path)) for path in photos]
        quantised.MIN_COSINE = -1  # rows of random weights lie so close that any change is large
        both["openvino"] = quantised.quantise(both["torch"], pictures)
    return both


def pace(  # noqa: PLR0917
    backbones: dict[str, ss.Backbone],
    source: Path,
    pixels: int,
    count: int,
    rounds: int,
    place: Path,
    goal: float,
) -> None:
    """From files to a library, and the forward pass alone."""
    dataset = copy_images(source, place / "dataset", count)
    inputs = np.stack(
        [backbones["torch"].prepare(ss.load_image(path)) for path in sorted(dataset.iterdir())]
    )
    times: dict[str, list[float]] = {}

    def embed(backbone: ss.Backbone, batch_size: int | None = None) -> None:
        with tempfile.TemporaryDirectory() as outputs:
            ss.embed_dataset(dataset, outputs, backbone, batch_size, progress=False)

    network = backbones["openvino"]
    pairs = [inputs[i : i + 2] for i in range(0, count, 2)]
    runs: dict[str, Callable[[], object]] = {
        "as before": lambda: embed(backbones["torch"], 8),
        "torch": lambda: embed(backbones["torch"]),
        "openvino": lambda: embed(network),
        "openvino, forward pass": lambda: [network.embed(pair) for pair in pairs],
    }
    for number in range(rounds + 1):
        for name, run in runs.items():
            start = time.process_time()
            run()
            if number:  # the first round warms up
                times.setdefault(name, []).append((time.process_time() - start) / count * 1e3)
    for name, values in times.items():
        print(f"  {pixels} px  {name:<24} {median(values):7.2f} CPU ms a picture")
    gain = [a / b for a, b in zip(times["as before"], times["openvino"], strict=True)]
    share = [a / b for a, b in zip(times["openvino, forward pass"], times["openvino"], strict=True)]
    verdict(f"{pixels} px: as before / openvino, CPU", median(gain), goal)
    if pixels == 150:
        verdict("150 px: forward pass / the whole, CPU", median(share), 0.85)


if __name__ == "__main__":
    main()
