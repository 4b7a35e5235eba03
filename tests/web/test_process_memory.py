"""Memory of a long-lived server: what is free goes back, and what stays is not looked through."""

import subprocess
import sys

import pytest

PROGRAM = """
import sys
from pathlib import Path
from simsearch.images.allocator import limit_allocator

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20

if sys.argv[1] == "limited":
    assert limit_allocator()
bytearray(24 * 2**20)  # freeing it raises the size from which glibc maps blocks apart
before = resident()
large, small = [], []
for _ in range(20):
    block = bytearray(6 * 2**20)
    block[::4096] = b"x" * len(block[::4096])  # or it takes no memory
    large.append(block)
    small.append(bytes(100_000))  # lies on a heap, behind a large block if that is there, too
del large, block
print(resident() - before)
"""

COLLECTIONS = """
import gc, time
import simsearch.web.app
from simsearch.web.server import freeze_objects

def collect():
    start = time.process_time()
    gc.collect()
    return time.process_time() - start

collect()
print(collect())
freeze_objects()
print(collect())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="these are settings of glibc")
def test_large_blocks_go_back_although_small_ones_stay():
    grown = {
        how: float(subprocess.check_output([sys.executable, "-c", PROGRAM, how]))
        for how in ("limited", "free")
    }
    assert grown["limited"] < 10  # MB
    assert grown["free"] > 50  # or this test tells nothing


def test_full_collections_pass_over_what_was_there_at_the_start():
    found = subprocess.check_output([sys.executable, "-c", COLLECTIONS], text=True)
    before, after = map(float, found.split())
    assert after < before / 5
