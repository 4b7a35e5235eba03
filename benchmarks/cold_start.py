"""The command line from a standing start: processor time and peak memory of one command.

    python benchmarks/cold_start.py [--rounds 5]

Each command is a process of its own: `simsearch --help`, a query by a row, and a query by a photo,
with the extra `fast` (OpenVINO) and without (it cannot be imported: PyTorch). The library has 8,000
rows of 1,280, and the photo is the astronaut of scikit-image as a JPEG of 512 x 512. The commands
take turns in each round; medians and ranges are printed. The files are in the system's cache; walls
are those of a shared machine, and stand only beside the rest.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import skimage
from common import median, verdict
from PIL import Image

import simsearch as ss

COMMAND = """
import json, resource, sys
if sys.argv.pop(1) == "without":
    sys.modules["openvino"] = None  # as where it is not installed
from simsearch.cli.main import main
try:
    main(sys.argv[1:])
except SystemExit as end:  # of --help
    if end.code:
        raise
use = resource.getrusage(resource.RUSAGE_SELF)
with open("/proc/self/status") as status:  # ru_maxrss would count the parent's memory, too
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
print(json.dumps([use.ru_utime + use.ru_stime, peak / 1e3]), file=sys.stderr)
"""
PHOTO = Path(skimage.__file__).parent / "data" / "astronaut.png"
GOALS = {  # processor seconds and megabytes at most
    "--help": (0.3, 60),
    "a row": (0.5, 200),
    "a photo": (0.6, 250),
}
Figures = list[float]  # processor seconds, peak megabytes, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with Image.open(PHOTO) as photo:
            photo.save(folder / "photo.jpg")
        make_library(folder / "outputs")
        commands = {
            "--help": ("with", ["--help"]),
            "a row": ("with", ["search", "outputs", "17"]),
            "a photo": ("with", ["search", "outputs", "photo.jpg"]),
            "a photo, without fast": ("without", ["search", "outputs", "photo.jpg"]),
        }
        for extra, arguments in commands.values():  # converts networks, fills caches
            measure(folder, extra, arguments)
        rounds = [
            {each: measure(folder, *commands[each]) for each in commands}
            for _ in range(options.rounds)
        ]
    for each in commands:
        show(each, [figures[each] for figures in rounds])


def make_library(folder: Path) -> None:
    """Save a library of 8,000 random rows (seed 0), as wide as EfficientNet-Lite0's."""
    backbone = ss.load_backbone("efficientnet_lite0", precision="float32")
    rows = np.random.default_rng(0).normal(size=(8000, backbone.dim)).astype(np.float32)
    paths = [f"{i:05d}.jpg" for i in range(len(rows))]
    ss.ImageLibrary(rows, paths, backbone).save(folder)


def measure(folder: Path, extra: str, arguments: list[str]) -> Figures:
    """Run a command in a folder, with or without the extra `fast`."""
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, extra, *arguments],
        cwd=folder,
        env=os.environ | {"SIMSEARCH_RUNTIME": "auto"},
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - start
    if done.returncode:
        sys.exit(f"simsearch {' '.join(arguments)} failed:\n{done.stderr}")
    return [*json.loads(done.stderr.strip().splitlines()[-1]), seconds]


def show(name: str, rounds: list[Figures]) -> None:
    """Print medians, the range of processor time, and the goals where there are some."""
    times, peaks, walls = zip(*rounds, strict=True)
    print(
        f"{name:<22} {median(times):5.2f} CPU s ({min(times):.2f} to {max(times):.2f}),"
        f" {median(peaks):4.0f} MB, {median(walls):5.2f} s wall"
    )
    if name in GOALS:
        seconds, megabytes = GOALS[name]
        verdict(f"{name}: CPU seconds", median(times), seconds, at_most=True)
        verdict(f"{name}: MB", median(peaks), megabytes, at_most=True)


if __name__ == "__main__":
    main()
