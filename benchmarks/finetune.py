"""What fine-tuning adds to a trained head, on a processor and few images.

    python benchmarks/finetune.py [SEED ...]

Of the Intel scenes beside the project, 100 images a class of seg_train are learned from (a tenth of
them tells when to stop), and 100 a class of seg_test then search them. The rival is the head that
`train_head` makes without fine-tuning; it learns from the validation images as well in the end.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from common import INTEL, link_images, verdict

import simsearch as ss

IMAGES = 100  # a class, for each of the two


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for place in sorted(INTEL.glob("seg_t*/*")):
            link_images(place, folder / "data" / place.relative_to(INTEL), IMAGES)
        library = ss.embed_dataset(folder / "data", folder / "outputs", "efficientnet_lite0")
        for seed in map(int, sys.argv[1:] or ["0"]):
            compare(library, seed)


def compare(library: ss.ImageLibrary, seed: int) -> None:
    tuned = ss.train_head(library, on="seg_train/*", finetune=True, seed=seed, progress=False)
    print(f"      seed {seed}, plain: {measures(tuned.before)}")
    print(f"      seed {seed}, a head alone: {measures(tuned.alone)}")
    print(f"      seed {seed}, fine-tuned: {measures(tuned.after)}, {tuned.seconds:.0f} s")
    reached = ", ".join(f"{epoch.mAP:.3f}" for epoch in tuned.history)
    print(
        f"      seed {seed}, opened {', '.join(tuned.stage) or 'nothing'}; validation mAP {reached}"
    )
    gained = value(tuned.after) - value(tuned.alone) if tuned.tuned else 0.0
    verdict(f"seed {seed}: mAP gained over a head", gained, 0.0)


def value(found: ss.Evaluation | None, name: str = "mAP") -> float:
    assert found
    return found.overall[name].value


def measures(found: ss.Evaluation | None) -> str:
    if found is None:
        return "none"
    return f"mAP {value(found):.3f}, precision@10 {value(found, 'precision@10'):.3f}"


if __name__ == "__main__":
    main()
