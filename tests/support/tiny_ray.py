"""Transforms for the workers of a cluster: a slow one, one that kills its process, one that raises.

As a script, `python tiny_ray.py DATASET OUTPUTS` embeds a folder slowly on the cluster of
RAY_ADDRESS, to be killed by a test; `hosted` as a third argument notes the hosts that work.
"""

import os
import signal
import sys
import time
from pathlib import Path

from tiny import thumbnail, tiny_backbone

import simsearch as ss
from simsearch.backbones.thaw import thaw

AWAITED = 4  # the caller's process, two workers, and one in a dead one's place
CALLER = "SIMSEARCH_TEST_CALLER"  # set in the caller's process alone
DEADLY = (13, 13)  # the size of a picture that no worker survives


def slow_thumbnail(image):
    """Sleep, and record the process in the folder `processes`, if there is one.

    With a folder `awaited` beside it, wait until there are `AWAITED` of them.
    """
    processes = Path("processes")
    if processes.is_dir():
        Path(processes, str(os.getpid())).touch()
    end = time.monotonic() + 100
    while Path("awaited").exists() and len(list(processes.iterdir())) < AWAITED:
        if time.monotonic() > end:
            break
        time.sleep(0.02)
    time.sleep(0.03)
    return thumbnail(image)


def hosted_thumbnail(image):
    """Take a while, and record the network that this process is in, in the folder `hosts`.

    Before that, wait for a second host; the caller, who embeds one picture itself, does not.
    """
    name = os.readlink("/proc/self/ns/net")  # noqa: PTH115 (not a path)
    Path("hosts", "".join(filter(str.isdecimal, name))).touch()
    end = time.monotonic() + 100 * (CALLER not in os.environ)
    while len(list(Path("hosts").iterdir())) < 2 and time.monotonic() < end:
        time.sleep(0.05)
    time.sleep(0.2)
    return thumbnail(image)


def deadly_thumbnail(image):
    """Kill the process at one picture, as a decoder's fault or the lack of memory would."""
    if image.size == DEADLY:
        os.kill(os.getpid(), signal.SIGKILL)
    return thumbnail(image)


def failing_thumbnail(image):
    """Raise an error at pictures of one size, which are not at fault."""
    if image.size == DEADLY:
        raise RuntimeError("a fault in the user's own code")
    return thumbnail(image)


def backbone_with(transform):
    """Put another transform before the tiny network."""
    module = thaw(tiny_backbone()).module
    return ss.load_backbone(module, transform=transform, device="cpu", precision="float32")


if __name__ == "__main__":
    hosted = sys.argv[3:] == ["hosted"]
    if hosted:
        from simsearch.cluster import ray_workers

        ray_workers.START_SECONDS, os.environ[CALLER] = 0.2, "1"
    backbone = backbone_with(hosted_thumbnail if hosted else slow_thumbnail)
    ss.embed_dataset(sys.argv[1], sys.argv[2], backbone, 2, engine="ray")
