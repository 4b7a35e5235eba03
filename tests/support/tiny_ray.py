"""Transforms for the workers of a cluster: slow ones, and one that kills who runs it.

As a script, `python tiny_ray.py DATASET OUTPUTS` embeds a folder on the cluster that RAY_ADDRESS
names, slowly: something to kill.
"""

import os
import signal
import sys
import time
from pathlib import Path

from tiny import thumbnail, tiny_backbone

import simsearch as ss

DEADLY = (13, 13)  # the size of a picture that no worker survives


def slow_thumbnail(image):
    """Take long, and leave a note of the process that does it, where there is a place for that."""
    if Path("processes").is_dir():
        Path("processes", str(os.getpid())).touch()
    time.sleep(0.03)
    return thumbnail(image)


def deadly_thumbnail(image):
    """Die of one picture, as of a decoder's fault or for want of memory."""
    if image.size == DEADLY:
        os.kill(os.getpid(), signal.SIGKILL)
    return thumbnail(image)


def failing_thumbnail(image):
    """Be wrong about pictures of one size, which is no fault of theirs."""
    if image.size == DEADLY:
        raise RuntimeError("a fault in the user's own code")
    return thumbnail(image)


def backbone_with(transform):
    """Put another transform before the tiny network."""
    module = tiny_backbone().thaw().module
    return ss.load_backbone(module, transform=transform, device="cpu", precision="float32")


if __name__ == "__main__":
    ss.embed_dataset(sys.argv[1], sys.argv[2], backbone_with(slow_thumbnail), 2, engine="ray")
