"""A tiny network of two stages, images of three classes, and a fine-tuning to kill.

`python tiny_tune.py FOLDER SECONDS` fine-tunes on the images in FOLDER with a checkpoint there,
and sleeps after each epoch.
"""

import sys
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

import simsearch as ss
from simsearch.training import head, trainable, trainer

KINDS = ("bars", "rows", "grid")
SETTINGS = {
    "on": "train/*",
    "finetune": True,
    "dim": 8,
    "hidden": 16,
    "dropout": 0.1,
    "mining": "all",
    "margin": 0.3,
    "epochs": 3,
    "batch_size": 12,
    "learning_rate": 1e-2,
    "stage_rate": 1e-2,
    "validation": 0.2,
    "progress": False,
}
LAST_EPOCH = SETTINGS | {"validation": 0}  # without validation, the last epoch counts


def draw(kind, rng):
    """Draw stripes of two random colours; their direction is the class."""
    y, x = np.mgrid[:20, :20] * (2 * np.pi / rng.uniform(3.5, 5)) + rng.uniform(0, 6)
    wave = {"bars": np.sin(x), "rows": np.sin(y), "grid": np.sin(x) * np.sin(y)}[kind]
    first, second = rng.integers(128, 256, 3), rng.integers(0, 128, 3)
    return Image.fromarray(np.where(wave[..., None] > 0, first, second).astype(np.uint8))


def draw_dataset(folder, counts=(("train", 20), ("test", 10))):
    """Draw images of each kind into FOLDER/data."""
    rng = np.random.default_rng(0)
    for part, count in counts:
        for kind in KINDS:
            place = folder / "data" / part / kind
            place.mkdir(parents=True)
            for i in range(count):
                draw(kind, rng).save(place / f"{i:02d}.png")


def pixels(image):
    """Turn an image into (3, 16, 16) in [-1, 1]."""
    values = np.asarray(image.resize((16, 16)), np.float32)
    return torch.from_numpy(values / 127.5 - 1).permute(2, 0, 1)


def two_stages(seed=0):
    """Make a stem, and a last stage that blurs, so that a head alone learns little."""
    torch.manual_seed(seed)
    module = nn.Sequential()
    module.stem = nn.Sequential(nn.Conv2d(3, 8, 5), nn.BatchNorm2d(8))
    module.last = nn.Sequential(nn.Conv2d(8, 16, 3), nn.BatchNorm2d(16), nn.ReLU())
    with torch.no_grad():
        module.last[0].weight.mul_(0.1).add_(0.05)
    return module


def load(module=None):
    """Load a module as a backbone."""
    return ss.load_backbone(
        module or two_stages(), transform=pixels, device="cpu", precision="float32"
    )


def make_library(folder):
    """Draw the dataset, and embed it."""
    draw_dataset(folder)
    return ss.embed_dataset(folder / "data", folder / "outputs", load(), progress=False)


def mean_average_precision(evaluation):
    return evaluation.overall["mAP"].value


def same_result(one, other):
    """Tell whether two trainings have equal results, to the last bit."""
    epochs = [np.array(found.history) for found in (one, other)]
    return (
        one.head.fingerprint == other.head.fingerprint
        and one.tuned.fingerprint == other.tuned.fingerprint
        and np.array_equal(*epochs, equal_nan=True)
        and np.array_equal(one.after.values, other.after.values)
    )


def last_epoch(file):
    stored = torch.load(file, weights_only=True)
    return stored["state"]["history"][-1][0]


if __name__ == "__main__":
    folder, seconds = Path(sys.argv[1]), float(sys.argv[2])
    write = trainer.Checkpoint.write

    def write_slowly(*arguments):
        write(*arguments)
        time.sleep(seconds)

    trainer.Checkpoint.write = write_slowly
    trainable.bfloat16_is_fast = lambda: False
    head.EPOCHS = 2
    torch.set_num_threads(1)
    library = ss.ImageLibrary.load(folder / "outputs", backbone=load())
    ss.train_head(library, checkpoint=folder / "checkpoint", **SETTINGS)
