"""Jobs on the compatibility fixtures, each for a fresh process, with the public API alone.

`python compat_jobs.py JOB` runs in a copy of a fixture folder and prints its results as JSON.
"""

import contextlib
import dataclasses
import io
import json
import re
import shutil
import sys
import zlib
from importlib.util import find_spec
from pathlib import Path

import numpy as np

import simsearch as ss

BACKBONE = "efficientnet_lite0"
SETTINGS = {"device": "cpu", "precision": "float32"}
QUERY = "query.png"  # an image that no library holds
ROWS = (0, 7, 13)  # rows that are queries
INDEX_KINDS = ("flat", "sq", "hnsw", "ivf", "ivfpq")
TORCHVISION = ("shufflenet_v2_x0_5", "mobilenet_v3_small", "efficientnet_b0")
TIMM = ("timm:test_resnet", "timm:test_vit", "timm:test_efficientnet")
TUNING = {
    "on": "train/*",
    "finetune": True,
    "dim": 4,
    "hidden": 8,
    "dropout": 0.1,
    "loss": "triplet",
    "mining": "all",
    "margin": 0.3,
    "keep": 0.3,
    "epochs": 3,
    "patience": 3,
    "batch_size": 12,
    "learning_rate": 1e-2,
    "weight_decay": 0.0,
    "validation": 0.2,
    "stage": "last",
    "stage_rate": 1e-2,
    "seed": 0,
    "progress": False,
}


# Networks of the tests' own. Their fingerprints are recorded, and hold the repr of `Pixels` and the
# bytecode and docstring of `small_pixels`: do not edit these.


def fixed_weights(shapes):
    """Make a state dict whose values follow from its keys alone, with any version of PyTorch."""
    import torch

    state = {}
    for key, tensor in shapes.items():
        shape = tuple(tensor.shape)
        values = np.random.RandomState(zlib.crc32(key.encode())).random_sample(shape)
        if key.endswith("num_batches_tracked"):
            values = np.zeros(shape)
        elif key.endswith("running_var"):
            values += 0.5
        else:
            values = (values - 0.5) * 4 / max(1, int(np.prod(shape[1:]))) ** 0.5
        state[key] = torch.from_numpy(np.array(values)).to(tensor.dtype)
    return state


@dataclasses.dataclass(frozen=True)
class Pixels:
    """A picture as (3, side, side) in [-1, 1]; its repr is part of the fingerprint."""

    side: int = 16

    def __call__(self, image):
        import torch

        values = np.asarray(image.resize((self.side, self.side)), np.float32)
        return torch.from_numpy(values / 127.5 - 1).permute(2, 0, 1)


def small_pixels(image, side=12, scale=127.5):
    """A transform that is a function: its bytecode is part of the fingerprint."""
    import torch

    values = np.asarray(image.resize((side, side)), np.float32)
    return torch.from_numpy(values / scale - 1).permute(2, 0, 1)


def two_stages():
    """Make a small convolutional network that gives (B, 16, h, w) maps."""
    from torch import nn

    module = nn.Sequential()
    module.stem = nn.Sequential(nn.Conv2d(3, 8, 5), nn.BatchNorm2d(8))
    module.last = nn.Sequential(nn.Conv2d(8, 16, 3), nn.BatchNorm2d(16), nn.ReLU())
    module.load_state_dict(fixed_weights(module.state_dict()))
    return module


def own_backbone(transform=None):
    return ss.load_backbone(two_stages(), transform=transform or Pixels(), **SETTINGS)


# Results as JSON


def found(matches):
    """Return row and score of each match, best first."""
    return [[match.row, match.score] for match in matches]


def ask(library, rows=ROWS, query=QUERY, **options):
    """Search for rows, by their paths, and for a new image."""
    answers = {
        f"row {row}": found(ss.search(library, str(library.paths[row]), k=5, **options))
        for row in rows
    }
    return answers | {"image": found(ss.search(library, query, k=5, **options))}


def update(outputs, root="dataset", backbone="auto", **options):
    """Run `embed_dataset`; return the library and the counts of its summary."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        library = ss.embed_dataset(root, outputs, backbone, **SETTINGS, **options)
    counts = re.search(
        r"([\d,]+) embedded.*?([\d,]+) reused, ([\d,]+) removed, ([\d,]+) skipped", said.getvalue()
    )
    return library, [int(count) for count in counts.groups()]


def extend(outputs):
    """Update a library twice: as it is, and with one more image."""
    _, unchanged = update(outputs)
    shutil.copy(QUERY, "dataset/sea/new.png")
    library, counts = update(outputs)
    new = library.find("dataset/sea/new.png")
    nearest = ss.search(library, "dataset/sea/new.png", k=5)
    return {
        "unchanged": unchanged,
        "counts": counts,
        "rows": len(library),
        "dim": library.dim,
        "new row": new,
        "nearest": [[match.path, match.score] for match in nearest],
    }


# Jobs


def plain():
    library = ss.ImageLibrary.load("plain")
    answers = ask(library)
    library.attach("table.csv")
    described = ss.search(library, "dataset/sea/00.png", k=3, where={"price": (None, 25)})
    return {
        "fingerprint": library.fingerprint,
        "answers": answers,
        "cheap": np.flatnonzero(library.where({"price": (None, 25)})).tolist(),
        "tagged": np.flatnonzero(library.where({"tags": "blue"})).tolist(),
        "captions": [[match.row, match.score, match.caption] for match in described],
        "extended": extend("plain"),
    }


def refined():
    library = ss.ImageLibrary.load("refined")
    found = {"answers": ask(library), "head": library.head.fingerprint, "kind": library.head.kind}
    derived = ss.refine(ss.ImageLibrary.load("plain"), neighbours=5, progress=False)
    found["derived again"] = ask(derived)
    shutil.copy(QUERY, "dataset/sea/new.png")
    try:
        update("refined")
    except ss.LibraryError as error:
        found["extended"] = type(error).__name__
    return found


def chained():
    library = ss.ImageLibrary.load("chained")
    heads = [ss.load_head(f"heads/{name}.safetensors") for name in ("trained", "linear", "refine")]
    derived = ss.ImageLibrary.load("plain").with_head(heads[0]).with_head(heads[1])
    return {
        "head": library.head.fingerprint,
        "kinds": [library.head.kind, *(head.kind for head in heads)],
        "heads": [head.fingerprint for head in heads],
        "derived again": [derived.head.fingerprint, ask(derived)],
        "answers": ask(library),
        "extended": extend("chained"),
    }


def indexes():
    """Open the index of each kind beside the library; no image is opened."""
    answers = {}
    for kind in INDEX_KINDS:
        shutil.copytree("indexes/library", f"indexed/{kind}")
        shutil.copytree(f"indexes/{kind}", f"indexed/{kind}", dirs_exist_ok=True)
        library = ss.ImageLibrary.load(f"indexed/{kind}")
        with contextlib.suppress(ss.LibraryError):  # it bears nobody's mark
            ss.load_index(library)
            raise AssertionError("an index of an earlier version was parsed before it was trusted")
        ss.trust_library(f"indexed/{kind}")
        index = ss.load_index(library)
        rows = np.asarray(library.embeddings)
        between = rows[3] + rows[40]
        answers[kind] = {
            "kind": index.kind,
            "rows": [found(ss.search(library, rows[i], k=5, index=index)) for i in (0, 50, 149)],
            "between": found(ss.search(library, between, k=5, index=index)),
        }
    return answers


def unfinished():
    """Finish the runs that were killed: one with no library, one beside an older library."""
    first, counts = update("unfinished", backbone=BACKBONE)
    second, counts_older = update("unfinished_older")
    whole = ss.ImageLibrary.load("plain")
    return {
        "counts": counts,
        "counts with an older library": counts_older,
        "same paths": [
            library.paths.tolist() == whole.paths.tolist() for library in (first, second)
        ],
        "answers": [ask(first), ask(second)],
        "left": sorted(path.name for path in Path().glob("unfinished*/unfinished.*")),
    }


def tuning():
    """Continue a fine-tuning on other pictures, so that epochs that are run again would show."""
    library = ss.ImageLibrary.load("tuning/outputs", backbone=own_backbone())
    answers = ask(library)
    mirror_images(Path("tuning/dataset"))
    trained = ss.train_head(library, checkpoint="tuning/checkpoint", **TUNING)
    anew = ss.train_head(library, **TUNING)
    return {
        "fingerprint": library.fingerprint,
        "answers": answers,
        "history": [epoch[:2] for epoch in trained.history],
        "scores": [epoch[2] for epoch in trained.history],
        "history without the checkpoint": [epoch[:2] for epoch in anew.history],
    }


def mirror_images(folder):
    """Replace every image by its negative under the same name."""
    from PIL import Image, ImageOps

    for path in sorted(folder.rglob("*.png")):
        with Image.open(path) as image:
            negative = ImageOps.invert(image.convert("RGB"))
        negative.save(path)


def fingerprints():
    """Load a network of each family, with weights that are the same everywhere."""
    from torch import save
    from torchvision import models

    made = {BACKBONE: ss.load_backbone(BACKBONE, **SETTINGS).fingerprint}
    networks = {name: models.get_model(name) for name in TORCHVISION}
    if find_spec("timm"):
        import timm

        networks |= {name: timm.create_model(name.removeprefix("timm:")) for name in TIMM}
    for name, network in networks.items():
        save(fixed_weights(network.state_dict()), "weights.pth")
        made[name] = ss.load_backbone(name, "weights.pth", **SETTINGS).fingerprint
    made["own, with an object"] = own_backbone().fingerprint
    made["own, with another object"] = own_backbone(Pixels(side=20)).fingerprint
    made["own, with a function"] = own_backbone(small_pixels).fingerprint
    return made


JOBS = (plain, refined, chained, indexes, unfinished, tuning, fingerprints)

if __name__ == "__main__":
    result = {job.__name__: job for job in JOBS}[sys.argv[1]]()
    Path("result.json").write_text(json.dumps(result, indent=1), "utf-8")
