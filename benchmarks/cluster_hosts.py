"""Ray on two hosts beside the local executor: processor time per picture, and the start.

    sudo python benchmarks/cluster_hosts.py [--images 800] [--rounds 2] [--workers 1 2 4]

The hosts are network namespaces of this machine, joined by a cable of their own, with token
authentication, as in the tests; four workers are twice as many as two cores have room for, so that
nothing is said of the clock. Processor time is that of all processes: the caller, the workers and
Ray's own. Per picture it is the slope between a quarter of the pictures and all of them, so that
starting the workers does not count; the start is given by itself, from the call to the first batch.
EfficientNet-Lite0, one thread for each computation, on the photos beside the project.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from common import INTEL, median, verdict

import simsearch as ss
from simsearch.embedding.batching import embed_batches

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=800)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--inside", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        workers, images, *names = options.inside
        print(json.dumps(inside(int(workers), int(images), names)))
        return
    from two_hosts import TwoHosts  # type: ignore[import-not-found]

    with tempfile.TemporaryDirectory() as folder:
        hosts = TwoHosts(Path(folder), cpus=max(options.workers) // 2 or 1)
        try:
            hosts.open()
            for host in range(2):
                hosts.start_node(host)
            measure(hosts, options.images, options.rounds, options.workers)
        finally:
            hosts.close()


def measure(hosts: Any, images: int, rounds: int, workers: list[int]) -> None:
    """Run all candidates in turns, the local one first, and print medians."""
    spent: dict[int, list[dict[str, float]]] = {count: [] for count in (0, *workers)}
    for _ in range(rounds):
        for count, runs in spent.items():
            runs.append(run(hosts, count, images))
            print(f"      {count or 'local'}: {runs[-1]}", file=sys.stderr, flush=True)
    for count, runs in spent.items():
        name = f"{count} worker{'s' * (count > 1)} on two hosts" if count else "local"
        keys = ("per_image", "of_ray", "first")
        per_image, of_ray, first = (median([one[key] for one in runs]) for key in keys)
        print(
            f"      {name}: {per_image * 1e3:.1f} CPU ms a picture, of which Ray's own processes "
            f"took {of_ray * 1e3:.1f}; {first:.1f} s to the first batch"
        )
        if count:
            pairs = [*zip(runs, spent[0], strict=True)]
            for kind, left_out in (("with", 0), ("without", 1)):
                ratio = median(
                    [
                        (there["per_image"] - left_out * there["of_ray"]) / here["per_image"]
                        for there, here in pairs
                    ]
                )
                title = f"{name}: CPU time, over local, {kind} Ray's own"
                verdict(title, ratio, 1.05, at_most=True)
            more = median([there["first"] - here["first"] for there, here in pairs])
            verdict(f"{name}: seconds more until the first batch", more, 12, at_most=True)


def run(hosts: Any, workers: int, images: int) -> dict[str, float]:
    """Embed in a process on the first host."""
    command = [sys.executable, __file__, "--inside", workers, images, *hosts.names]
    process = hosts.run(0, *command, stdout=subprocess.PIPE)
    out = process.communicate(timeout=500)[0]
    assert not process.returncode
    figures: dict[str, float] = json.loads(out.splitlines()[-1])
    return figures


def processor_seconds(names: list[str]) -> dict[tuple[int, bool], float]:
    """Return what each process of some namespaces has taken, by number and whether it embeds."""
    found = {}
    for name in names:
        command = ["ip", "netns", "pids", name]
        listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        for number in map(int, listed.split()):
            with suppress(OSError):  # it has ended meanwhile
                fields = Path(f"/proc/{number}/stat").read_text().rsplit(")", 1)[1].split()
                title = Path(f"/proc/{number}/cmdline").read_bytes()
                embeds = number == os.getpid() or title.startswith(b"ray::")
                ticks = sum(map(int, fields[11:13]))
                found[number, embeds] = ticks / os.sysconf("SC_CLK_TCK")
    return found


def inside(workers: int, images: int, names: list[str]) -> dict[str, float]:
    """Embed, and tell the seconds to the first batch, and processor seconds per picture."""
    sources = [path.as_posix() for path in sorted(INTEL.rglob("*.jpg"))[:images]]
    backbone = ss.load_backbone("efficientnet_lite0", device="cpu")
    start, engine = time.perf_counter(), ss.RayEngine(cpus=1)
    batches = (
        engine(sources, backbone, workers=workers) if workers else embed_batches(sources, backbone)
    )
    first, count = 0.0, 0
    samples: list[tuple[int, dict[tuple[int, bool], float]]] = []
    for batch in batches:
        first = first or time.perf_counter() - start
        count += len(batch.embeddings)
        if count >= (len(samples) * 2 + 1) * images / 4 and len(samples) < 2:
            samples.append((count, processor_seconds(names)))
    (some, before), (more, after) = samples
    spent = {key: after[key] - before.get(key, 0.0) for key in after}
    if not workers:  # what the idle cluster takes is not the local executor's
        spent = {key: value for key, value in spent.items() if key[1]}
    of_ray = sum(value for (_, embeds), value in spent.items() if not embeds)
    per_image, of_ray = (value / (more - some) for value in (sum(spent.values()), of_ray))
    return {"first": first, "per_image": per_image, "of_ray": of_ray}


if __name__ == "__main__":
    main()
