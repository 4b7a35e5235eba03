"""Listing of a dataset on an object store, by `find_images` and by s3fs alone.

    python benchmarks/object_listing.py                      # 1,000 and 10,000 keys; three minutes
    python benchmarks/object_listing.py --keys 30000

The store is moto's S3 server, in a process of its own; keys have spaces, `#`, `?` and letters
beyond ASCII. Given are processor seconds of this process, which the listing costs wherever the
store is, and the growth of its memory; the clock is mostly moto's, which walks through all keys for
each thousand that it lists. Rounds are in turns.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import median, verdict

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))

BUCKET, FOLDERS, ROUNDS = "shop", 100, 3
NAMES = ("{:06d}.jpg", "{:06d} red.jpg", "{:06d}#1.png", "{:06d}?.webp", "grün {:06d}.jpg")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--keys", type=int, nargs="+", default=[1_000, 10_000])
    options = parser.parse_args()
    for count in options.keys:
        here, there = multiprocessing.get_context("spawn").Pipe()
        server = multiprocessing.get_context("spawn").Process(
            target=serve, args=(there, count), daemon=True
        )
        server.start()
        measure(here.recv(), count)
        server.terminate()
        server.join()


def serve(connection: Any, count: int) -> None:
    """Serve a bucket of so many small objects, which are put into it without requests."""
    from moto.s3.models import s3_backends
    from object_store import ObjectStore  # type: ignore[import-not-found]

    store = ObjectStore()
    backend = s3_backends["123456789012"]["aws"]
    backend.create_bucket(BUCKET, "us-east-1")
    for i in range(count):
        backend.put_object(BUCKET, key(i), b"\xff\xd8\xff")
    connection.send(store.address)
    time.sleep(3600)


def key(i: int) -> str:
    return f"photos/{i % FOLDERS:02d}/{NAMES[i % len(NAMES)].format(i)}"


def measure(address: str, count: int) -> None:
    """List in turns with both, and print what each took."""
    os.environ |= {
        "AWS_ENDPOINT_URL": address,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    import fsspec

    from simsearch.images.listing import find_images

    def by_simsearch() -> int:
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        files, skipped = find_images(f"s3://{BUCKET}/photos")
        assert not skipped
        return len({file.name for file in files})

    def by_s3fs() -> int:
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        return len(fsspec.filesystem("s3").find(f"{BUCKET}/photos", detail=True))

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    spent = [(spend(by_simsearch, count), spend(by_s3fs, count)) for _ in range(ROUNDS)]
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    for place, name in enumerate(("find_images", "s3fs alone")):
        processor, clock = (median([turn[place][i] for turn in spent]) for i in range(2))
        print(f"      {count:,} keys, {name}: {processor:.2f} CPU s, {clock:.1f} s on the clock")
    print(f"      {count:,} keys: memory grew by {grown:.0f} MiB at most")
    ratio = median([ours[0] / theirs[0] for ours, theirs in spent])
    verdict(f"{count:,} keys: CPU time, over s3fs alone", ratio, 2, at_most=True)


def spend(list_all: Callable[[], int], count: int) -> tuple[float, float]:
    processor, clock = time.process_time(), time.perf_counter()
    assert list_all() == count
    return time.process_time() - processor, time.perf_counter() - clock


if __name__ == "__main__":
    main()
