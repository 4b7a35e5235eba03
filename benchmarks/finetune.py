"""What fine-tuning adds to a trained head, on a processor and few images.

    python benchmarks/finetune.py [IMAGES ...]

Of the Intel scenes beside the project, so many images a class of seg_train are learned from (a
tenth of them tells when to stop), and 100 a class of seg_test then search them. The rival is the
head that `train_head` makes without fine-tuning; in the end it learns from that tenth as well.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from common import INTEL, link_images, verdict

import simsearch as ss

ASKED = 100  # images of seg_test a class


def main() -> None:
    for count in map(int, sys.argv[1:] or ["100"]):
        with tempfile.TemporaryDirectory() as name:
            compare(Path(name), count)


def compare(folder: Path, count: int) -> None:
    for part, images in (("seg_train", count), ("seg_test", ASKED)):
        for place in sorted((INTEL / part).iterdir()):
            link_images(place, folder / "data" / part / place.name, images)
    library = ss.embed_dataset(
        folder / "data", folder / "outputs", "efficientnet_lite0", progress=False
    )
    tuned = ss.train_head(library, on="seg_train/*", keep=0.1, finetune=True, progress=False)
    kept = measures(tuned.after)
    print(f"      {count} images a class, plain: {measures(tuned.before)}")
    print(f"      {count} images a class, a head alone: {measures(tuned.alone) or kept}")
    print(
        f"      {count} images a class, fine-tuned: {kept if tuned.tuned else 'no gain, not kept'}"
    )
    reached = ", ".join(f"{epoch.mAP:.3f}" for epoch in tuned.history)
    print(f"      {count} images a class: validation mAP {reached}; {tuned.seconds:.0f} s")
    if tuned.tuned:
        gained = value(tuned.after) - value(tuned.alone)
        verdict(f"{count} images a class: mAP gained over a head", gained, 0.0)


def value(found: ss.Evaluation | None, name: str = "mAP") -> float:
    assert found
    return found.overall[name].value


def measures(found: ss.Evaluation | None) -> str:
    if found is None:
        return ""
    return f"mAP {value(found):.3f}, precision@10 {value(found, 'precision@10'):.3f}"


if __name__ == "__main__":
    main()
