"""How fast a folder is embedded, against the hand-written loop and against the network alone.

    python benchmarks/embed.py [--rounds 5]

ResNet50 with seeded random weights, on the photos beside the project. Each round runs all
contestants one after the other on the same images; ratios are taken within a round, and their
median over the rounds is printed, since a shared machine changes pace from minute to minute.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from common import INTEL, PHOTOS, SHARED, copy_images, median, resnet50_weights, seconds, verdict

import simsearch as ss
from simsearch.backbones.precision import restore_torch_threads

sys.path.insert(0, str(SHARED / "bench"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peak", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak:
        embed_and_print_peak(*options.peak)
        return
    with tempfile.TemporaryDirectory() as folder:
        weights = resnet50_weights(Path(folder))
        backbone = ss.load_backbone("resnet50", weights)
        print(f"{backbone!r}, {os.cpu_count()} cores\n")
        for name, source, goal in (("intel", INTEL, 0.9), ("photos", PHOTOS, 0.85)):
            pace(name, source, goal, backbone, options.rounds)
        memory_and_rerun(Path(folder), weights, backbone)


def pace(name: str, source: Path, goal: float, backbone: ss.Backbone, rounds: int) -> None:
    """Images a second, end to end: from files to a library on disk."""
    from naive import embed as naive

    rates: dict[str, list[float]] = {"loop, batch 1": [], "loop, batch 32": [], "forward": []}
    rates["simsearch"] = []
    with tempfile.TemporaryDirectory() as folder:
        count = 480
        dataset = copy_images(source, Path(folder) / "dataset", count)
        inputs = [backbone.prepare(ss.load_image(path)) for path in sorted(dataset.iterdir())]
        for number in range(rounds + 1):
            outputs = Path(folder) / f"outputs{number}"
            elapsed = seconds(lambda: ss.embed_dataset(dataset, outputs, backbone, progress=False))  # noqa: B023
            round_ = {
                "simsearch": count / elapsed,
                "forward": forward(backbone, inputs),
                "loop, batch 1": naive(dataset, 48, 1),
                "loop, batch 32": naive(dataset, 64, 32),
            }
            if number:  # the first round only warms up
                for contestant, rate in round_.items():
                    rates[contestant].append(rate)
    for contestant, values in rates.items():
        print(f"      {name}: {contestant:<50} {median(values):8.1f} images/s")
    ratios = {
        other: median([a / b for a, b in zip(rates["simsearch"], rates[other], strict=True)])
        for other in rates
    }
    verdict(f"{name}: over the loop with batch 1", ratios["loop, batch 1"], 2.3)
    verdict(f"{name}: over the loop with batch 32", ratios["loop, batch 32"], 3)
    verdict(f"{name}: over the pure forward pass", ratios["forward"], goal)
    print()


def forward(backbone: ss.Backbone, inputs: list[np.ndarray]) -> float:
    """Images a second of the network alone, same precision, in its fastest arrangement here."""
    rates = []
    for size in (8, 16, 32):
        batches = [np.stack(inputs[i : i + size]) for i in range(0, len(inputs), size)]
        rates.append(len(inputs) / seconds(lambda: [backbone.embed(batch) for batch in batches]))  # noqa: B023
    rates.append(len(inputs) / seconds(lambda: parallel(backbone, inputs)))
    return max(rates)


def parallel(backbone: ss.Backbone, inputs: list[np.ndarray]) -> None:
    """One single-threaded forward pass a core, as the pipeline arranges them."""
    import torch

    cores = len(os.sched_getaffinity(0))
    batches = [np.stack(inputs[i : i + 8]) for i in range(0, len(inputs), 8)]
    share = partial(torch.set_num_threads, 1)
    with restore_torch_threads(), ThreadPoolExecutor(cores, initializer=share) as pool:
        list(pool.map(backbone.embed, batches))


def memory_and_rerun(folder: Path, weights: Path, backbone: ss.Backbone) -> None:
    """Peak memory at 1,000 and at 8,000 images, then runs that find nothing to do."""
    outputs = folder / "outputs"
    small = peak_elsewhere(copy_images(INTEL, folder / "thousand", 1000), folder / "other", weights)
    large = peak_elsewhere(INTEL, outputs, weights)
    print(f"      peak memory at 1,000 images {small:44.0f} MB")
    print(f"      peak memory at 8,000 images {large:44.0f} MB")
    verdict("peak memory: 8,000 images less 1,000, in MB", large - small, 150, at_most=True)

    scans, runs = [], []
    for _ in range(25):
        scans.append(seconds(lambda: scan(INTEL)))
        runs.append(seconds(lambda: ss.embed_dataset(INTEL, outputs, backbone, progress=False)))
    print(f"      bare scan and stat of 8,000 files {1e3 * median(scans):38.1f} ms")
    print(f"      a run that finds them unchanged {1e3 * median(runs):40.1f} ms")
    ratio = median([run / bare for run, bare in zip(runs, scans, strict=True)])
    verdict("unchanged run over bare scan", ratio, 3, at_most=True)


def peak_elsewhere(dataset: Path, outputs: Path, weights: Path) -> float:
    """Embed in a process of its own; return its peak memory in MB."""
    command = [sys.executable, __file__, "--peak", *map(str, (dataset, outputs, weights))]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return float(done.stdout.splitlines()[-1])


def embed_and_print_peak(dataset: str, outputs: str, weights: str) -> None:
    ss.embed_dataset(dataset, outputs, "resnet50", weights=weights)
    # Not ru_maxrss, which a child process inherits from its parent.
    status = Path("/proc/self/status").read_text()
    print(int(status.partition("VmHWM:")[2].split()[0]) / 1024)


def scan(folder: Path) -> int:
    """List a tree and look at each file: the floor for finding out what has changed."""
    return sum(
        os.stat(os.path.join(place, name)).st_size  # noqa: PTH116, PTH118 (the fastest way)
        for place, _, names in os.walk(folder)
        for name in names
    )


if __name__ == "__main__":
    main()
