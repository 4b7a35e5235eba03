"""mAP of a fine-tuned backbone and head against a head alone, on a processor and few images.

    python benchmarks/finetune.py [IMAGES ...]

Of the Intel scenes beside the project, so many images per class of seg_train are for training (a
tenth of them for validation), and 100 per class of seg_test are then searched in them. The baseline
is the head that `train_head` makes without fine-tuning, refitted on the validation images as well.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from common import INTEL, copy_images, verdict

import simsearch as ss

QUERIES = 100  # images of seg_test per class


def main() -> None:
    for count in map(int, sys.argv[1:] or ["100"]):
        with tempfile.TemporaryDirectory() as name:
            compare(Path(name), count)


def compare(folder: Path, count: int) -> None:
    for part, images in (("seg_train", count), ("seg_test", QUERIES)):
        for place in sorted((INTEL / part).iterdir()):
            copy_images(place, folder / "data" / part / place.name, images)
    library = ss.embed_dataset(
        folder / "data", folder / "outputs", "efficientnet_lite0", progress=False
    )
    tuned = ss.train_head(library, on="seg_train/*", keep=0.1, finetune=True, progress=False)
    after = metrics(tuned.after)
    print(f"      {count} images per class, plain: {metrics(tuned.before)}")
    print(f"      {count} images per class, a head alone: {metrics(tuned.alone) or after}")
    outcome = after if tuned.tuned else "no gain, not kept"
    print(f"      {count} images per class, fine-tuned: {outcome}")
    scores = ", ".join(f"{epoch.mAP:.3f}" for epoch in tuned.history)
    print(f"      {count} images per class: validation mAP {scores}; {tuned.seconds:.0f} s")
    if tuned.tuned:
        gain = value(tuned.after) - value(tuned.alone)
        verdict(f"{count} images per class: mAP gained over a head", gain, 0.0)


def value(found: ss.Evaluation | None, name: str = "mAP") -> float:
    assert found
    return found.overall[name].value


def metrics(found: ss.Evaluation | None) -> str:
    if found is None:
        return ""
    return f"mAP {value(found):.3f}, precision@10 {value(found, 'precision@10'):.3f}"


if __name__ == "__main__":
    main()
