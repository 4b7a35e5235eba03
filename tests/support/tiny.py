"""A network small enough that the pipeline around it is what takes the time.

As a script, `python tiny.py DATASET OUTPUTS SECONDS` embeds a folder with it, sleeping so long at
each image: something to kill.
"""

import sys
import time

import numpy as np
import torch

import simsearch as ss

pause = 0.0  # seconds; no part of the transform, so that the fingerprint stays the same


def thumbnail(image):
    """Turn an image into its 8×8 thumbnail: (3, 8, 8) in [0, 1]."""
    time.sleep(pause)
    pixels = np.asarray(image.resize((8, 8)), np.float32)
    return torch.from_numpy(pixels / 255).permute(2, 0, 1)


def tiny_backbone(seed=0):
    """16-d features of a thumbnail, by weights that follow from the seed."""
    torch.manual_seed(seed)
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 16))
    return ss.load_backbone(module, transform=thumbnail, device="cpu", precision="float32")


if __name__ == "__main__":
    pause = float(sys.argv[3])
    ss.embed_dataset(sys.argv[1], sys.argv[2], tiny_backbone())
