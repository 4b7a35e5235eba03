"""What one query costs, and what the import costs.

    python benchmarks/query.py

A warm query, from a file on disk to its matches among 8,000 images, beside one forward pass of the
same network on a batch of one; then `import simsearch` in a fresh interpreter.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from common import INTEL, PHOTOS, median, resnet50_weights, seconds, verdict

import simsearch as ss


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name, weights in (
            ("resnet50", resnet50_weights(Path(folder))),
            ("efficientnet_lite0", None),
        ):
            query(ss.load_backbone(name, weights))
    start_up()


def query(backbone: ss.Backbone) -> None:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((8000, backbone.dim), dtype=np.float32)
    library = ss.ImageLibrary(rows, [f"{i:04d}.jpg" for i in range(8000)], backbone)
    for place, photos in (("intel", INTEL / "seg_pred"), ("photos", PHOTOS)):
        files = sorted(photos.iterdir())[:40]
        batches = [backbone.prepare(ss.load_image(file))[None] for file in files]
        ss.search(library, files[0])  # the first query looks at the library's background
        warm, bare = [], []
        for _ in range(3):  # in runs, not in turns: one must not leave its threads to the other
            bare += [seconds(lambda: backbone.embed(batch)) for batch in batches]  # noqa: B023
            warm += [seconds(lambda: ss.search(library, file)) for file in files]  # noqa: B023
        print(f"      {backbone.name}, {place}: one forward pass {1e3 * median(bare):28.1f} ms")
        print(f"      {backbone.name}, {place}: one query {1e3 * median(warm):35.1f} ms")
        ratio = median(warm) / median(bare)
        verdict(f"{backbone.name}, {place}: query over forward", ratio, 1.5, at_most=True)


def start_up() -> None:
    """Time the import alone, less what an empty interpreter takes."""

    def run(code: str) -> float:
        return seconds(lambda: subprocess.run([sys.executable, "-c", code], check=True))

    times = [run("import simsearch") - run("pass") for _ in range(9)]
    print(f"      import simsearch {1e3 * median(times):55.0f} ms")


if __name__ == "__main__":
    main()
