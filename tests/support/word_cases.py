"""A library of rows around the directions of a few classes of the bundled backbone."""

import numpy as np

import simsearch as ss
from simsearch.backbones.classifier import load_classifier

CLASSES = {"zebra": 340, "banana": 954, "seashore": 978, "street sign": 919}
EACH = 30


def class_library():
    """Rows around the directions of four classes, and around none."""
    rng, rows = np.random.default_rng(0), load_classifier("efficientnet_lite0").rows
    common = np.abs(rng.standard_normal(rows.shape[1])) * 0.03  # what all pictures share
    embeddings, paths = [], []
    for name, number in CLASSES.items():
        assert load_classifier("efficientnet_lite0").names[number] == name
        noise = rng.standard_normal((EACH, rows.shape[1])) * 0.02
        embeddings.append(rows[number] + common + noise)
        paths += [f"{name.replace(' ', '_')}/{i}.jpg" for i in range(EACH)]
    embeddings.append(common + rng.standard_normal((EACH, rows.shape[1])) * 0.04)
    paths += [f"other/{i}.jpg" for i in range(EACH)]
    backbone = ss.load_backbone("efficientnet_lite0", device="cpu")
    return ss.ImageLibrary(np.concatenate(embeddings), paths, backbone)
