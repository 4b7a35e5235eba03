"""A crasher: embed runs that are killed or refused at any step, on a dataset that changes.

    python trials/crash.py --minutes 20 --seed 1 --report outputs/trials/crash.json

Two invariants are checked after every fault: nothing that a run has acknowledged (by returning) is
lost, and nothing is served that was not embedded: the library is the one before the run or the one
that the run was making, whole, and every row is the embedding of its picture. The next run then
has to complete. Three parts take turns: a fault at every single step of one embed, of every kind
(`faults.py`), processes that are killed by the system at random instants, and flipped bits in files
that keep their size and time, which must be refused or mended and never be served.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import faults
import world as worlds
from faults import Faults, Killed, injected
from world import World

import simsearch as ss
from simsearch import registry
from simsearch.library import files

ERRORS = (ss.SimsearchError, Killed)


def main() -> int:
    """Run for so many minutes; 1 if an invariant was broken."""
    options = parse()
    logging.getLogger("simsearch").setLevel(logging.ERROR)  # it says what it mends, at length
    counts: Counter[str] = Counter()
    broken: list[str] = []
    end = time.monotonic() + 60 * options.minutes
    for seed in itertools.count(options.seed):
        for part in (crash_at_every_step, kill_at_random, flip_bits):
            with tempfile.TemporaryDirectory() as folder:
                found = part(World(Path(folder), seed), end)
                for step, fault in found:
                    counts[f"{part.__name__}: {step}"] += 1
                    broken += [f"seed {seed}, {part.__name__}, {step}: {fault}"] if fault else []
        if time.monotonic() > end:
            break
    report = {"first_seed": options.seed, "last_seed": seed, "minutes": options.minutes}
    report |= {"counts": dict(sorted(counts.items())), "broken": broken}
    write_report(Path(options.report), report)
    return 1 if broken else 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--report", default="outputs/trials/crash.json")
    return parser.parse_args()


def write_report(file: Path, report: dict) -> None:
    """Write a report as JSON, and as Markdown beside it; print the latter."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(report, indent=2))
    text = f"# {file.stem}: seeds {report['first_seed']} to {report['last_seed']}\n\n"
    text += worlds.summary(report["counts"]) + "\n\n"
    text += "\n".join(f"- **broken**: {each}" for each in report["broken"]) or "Nothing broken."
    file.with_suffix(".md").write_text(text + "\n")
    print(text)


def crash_at_every_step(
    world: World, end: float, kinds: tuple[str, ...] = faults.KINDS, every: int = 1
) -> Iterator[tuple[str, str]]:
    """Embed, change the dataset, and fail at each step of the next embed in turn.

    Yields
    ------
    tuple
        What was done, and what of the invariants was broken, "" if nothing.
    """
    world.act(12)
    with SmallLibraries(world.random):
        world.embed()
        for kind, mode in itertools.product(kinds, faults.MODES):
            for number in itertools.count(world.random.randint(1, every), every):
                if time.monotonic() > end:
                    return
                fault = Faults(kind, number, mode, seed=number)
                before = dict(world.pictures)
                world.act(world.random.randint(1, 4))
                try:
                    with injected(fault):
                        world.embed()
                except ERRORS:
                    acknowledged = False
                else:
                    acknowledged = True
                yield f"{kind} {mode}", check(world, before, acknowledged=acknowledged)
                if not fault.happened:
                    break


def kill_at_random(world: World, end: float, rounds: int = 12) -> Iterator[tuple[str, str]]:
    """Kill a process that embeds, at a random instant, again and again."""
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["world", "simsearch.embedding.dataset"])
    world.act(12)
    world.embed()
    for _ in range(rounds):
        if time.monotonic() > end:
            return
        before = dict(world.pictures)
        world.act(world.random.randint(1, 12))
        process = processes.Process(target=_embed, args=(world.dataset, world.outputs))
        process.start()
        process.join(world.random.uniform(0.0, 1.5))
        done = process.exitcode == 0
        if process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
        process.join()
        yield "killed" if not done else "completed", check(world, before, acknowledged=done)


def _embed(dataset: Path, outputs: Path) -> None:
    backbone = worlds.make_backbone()
    ss.embed_dataset(dataset, outputs, backbone, progress=False, allow_shrink=True)


def flip_bits(world: World, end: float, rounds: int = 30) -> Iterator[tuple[str, str]]:
    """Flip a bit of a file, keeping its size and time; it is refused or mended, never served."""
    world.act(12)
    names = [files.EMBEDDINGS, files.PATHS, files.STATS, files.DIGESTS, files.BLOCKS]
    with SmallLibraries(world.random):
        for _ in range(rounds):
            if time.monotonic() > end:
                return
            world.act(world.random.randint(1, 4))
            world.embed()
            name = world.random.choice([n for n in names if (world.outputs / n).exists()])
            flip(world.outputs / name, world.random)
            yield f"bit of {name}", _served(world) or _mended(world)


def _served(world: World) -> str:
    """Say what a search and `verify_library` make of a damaged library; "" if they refuse it."""
    try:
        if ss.verify_library(world.outputs, progress=False).ok:
            return "verify_library has not seen it"
    except ss.LibraryError:
        pass
    try:
        library = ss.ImageLibrary.as_stored(world.outputs)
        return world.fault_of(library, world.pictures)
    except ss.LibraryError:
        return ""


def _mended(world: World) -> str:
    world.embed()
    report = ss.verify_library(world.outputs, progress=False)
    fault = world.fault_of(ss.ImageLibrary.as_stored(world.outputs), world.pictures)
    return fault or ("" if report.ok else f"not mended: {report}")


def flip(file: Path, draw: random.Random) -> None:
    """Flip one bit of a file, and nothing of its size and times."""
    status = file.stat()
    data = bytearray(file.read_bytes())
    data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    file.write_bytes(data)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


def check(world: World, before: dict[str, int], *, acknowledged: bool) -> str:
    """Check both invariants, then that the next run completes; say what is broken."""
    after = dict(world.pictures)
    try:
        library = ss.ImageLibrary.as_stored(world.outputs)
    except ss.LibraryError as error:
        return f"lost: {error}"
    fault = world.fault_of(library, after)
    if fault and not acknowledged:
        fault = world.fault_of(library, before) and f"neither before nor after: {fault}"
    if fault:
        return fault
    try:
        library = world.embed()
    except ss.SimsearchError as error:
        return f"the next run does not complete: {error}"
    leftovers = [path.name for path in world.outputs.iterdir() if path.name.endswith(".part")]
    return world.fault_of(library, after) or (f"left behind: {leftovers}" if leftovers else "")


class SmallLibraries:
    """Have small libraries written and opened as larger ones are, by the draw of the seed."""

    def __init__(self, draw: random.Random) -> None:
        self._choice = draw.choice([(2**20, 10**8), (0, 10**8), (0, 0)])

    def __enter__(self) -> None:
        self._before = files.BLOCKS_FROM_BYTES, registry.LARGE_BYTES
        files.BLOCKS_FROM_BYTES, registry.LARGE_BYTES = self._choice

    def __exit__(self, *_: object) -> None:
        files.BLOCKS_FROM_BYTES, registry.LARGE_BYTES = self._before


if __name__ == "__main__":
    sys.path.insert(0, os.fspath(Path(__file__).parent))
    sys.exit(main())
