"""Hostile pictures: whatever the bytes, the outcome is a picture or one typed error.

    python trials/hostile_pictures.py --mutants 20000 --seed 0

Each family of formats is fuzzed in a process of its own, of limited memory and time: by `atheris`,
which looks for mutants that reach new code of Pillow and simsearch, where it is installed; by the
mutator alone otherwise. Crafted files come first: bombs, lies, loops. A crash, another exception,
a picture that is none, too much time or memory is a fault; its file is kept. Linux.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from crafted_files import crafted, family_of
from hostile_mutator import mutate
from picture_files import ordinary

ROOT = Path(__file__).parents[1]
MEMORY_BYTES = 2 * 2**30  # of private memory in a process, of which its modules take a part
SECONDS = 20.0  # of the processor for one file, at most
KILLED_AFTER = 60  # seconds of the processor, after which a process is ended from outside
STORED_EVERY = 100  # files, after which the tallies are written
SUFFIXES = {"jpeg": ".jpg", "tiff": ".tif", "heic": ".heic", "other": ".png"}


# One process: reads files, and tells what came of each


class Judge:
    """Reads files in turn, one of several ways each, and counts the outcomes.

    Parameters
    ----------
    folder
        For the tallies, the file at hand, and the files of faults.
    family
        Of formats.
    """

    def __init__(self, folder: Path, family: str) -> None:
        self.folder, self.family = folder, family
        self.outcomes, self.slowest = Counter[str](), 0.0
        self.faults: dict[str, str] = {}  # where and what; the name of its file
        self._now = folder / "now.bin"
        self._ways = _ways(folder / f"now{SUFFIXES.get(family, '.' + family)}")

    @property
    def count(self) -> int:
        """Files that were read."""
        return self.outcomes.total()

    def read(self, data: bytes) -> str:
        """Read a file; return its outcome, and note a fault."""
        self._now.write_bytes(data)  # so that it is known if this process ends
        number = hashlib.sha256(data).digest()[0] % len(self._ways)
        signal.setitimer(signal.ITIMER_VIRTUAL, KILLED_AFTER)
        start = time.process_time()
        outcome, fault = outcome_of(self._ways[number], data)
        took = time.process_time() - start
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        self.slowest = max(self.slowest, took)
        if took > SECONDS:
            fault = fault or f"slow: {took:.0f} s of the processor"
        self.outcomes["fault" if fault else outcome.partition(":")[0]] += 1
        if fault and fault not in self.faults:
            self.faults[fault] = keep(self.folder, data)
        if self.count % STORED_EVERY == 0:
            self.store()
        return outcome

    def store(self) -> None:
        """Write the tallies for the process above."""
        text = json.dumps(
            {"outcomes": self.outcomes, "faults": self.faults, "slowest": self.slowest}
        )
        part = self.folder / "tallies.part"
        part.write_text(text)
        part.replace(self.folder / "tallies.json")


def outcome_of(way: Callable[[bytes], Any], data: bytes) -> tuple[str, str]:
    """Read a file; return what came of it, and what is wrong with that."""
    from PIL import Image

    from simsearch.errors import ImageError
    from simsearch.images import decode

    try:
        found = way(data)
    except ImageError as error:
        return f"refused: {error.reason}", ""
    except BaseException as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(last.filename).name}:{last.lineno}"
        return "raised", f"{type(error).__name__} in {place}: {str(error)[:80]}"
    if found is None:  # by `read_signature`, which raises nothing
        return "refused", ""
    if not isinstance(found, Image.Image):
        return "read: facts", ""
    if found.mode != "RGB" or not 0 < found.width * found.height <= decode.MAX_PIXELS:
        return "read", f"a picture of mode {found.mode} and size {found.size}"
    return f"read: {found.width.bit_length()} {found.height.bit_length()}", ""


def _ways(file: Path) -> list[Callable[[bytes], Any]]:
    """Return the ways from bytes, or a file, to a picture or what is known of it."""
    from simsearch.images.crop import load_parts
    from simsearch.images.decode import load_image
    from simsearch.images.header import measure
    from simsearch.images.read_signature import read_signature
    from simsearch.web.jpeg import make_thumbnail

    def of_file(read: Callable[[str], Any]) -> Callable[[bytes], Any]:
        def read_file(data: bytes) -> Any:
            file.write_bytes(data)
            return read(str(file))

        return read_file

    return [
        load_image,
        lambda data: load_image(data, 224),
        lambda data: make_thumbnail(data, 128),
        of_file(load_image),
        of_file(lambda path: load_image(path, 8)),
        of_file(read_signature),
        lambda data: load_parts(data, [(0, 0, 1, 1)])[0],
        measure,
    ]


def keep(folder: Path, data: bytes) -> str:
    name = f"fault-{hashlib.sha256(data).hexdigest()[:12]}.bin"
    (folder / name).write_bytes(data)
    return name


def limit_memory() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def work(options: argparse.Namespace) -> None:
    """Read mutants of a family in this process, whose end is expected at any time."""
    corpus = options.folder / "corpus"
    if options.guided:
        import atheris

        with atheris.instrument_imports(include=["PIL", "simsearch.images"]):
            import simsearch.images.decode  # noqa: F401
    limit_memory()
    warnings.simplefilter("ignore")
    judge = Judge(options.folder, options.family)
    files = [file.read_bytes() for file in sorted(corpus.iterdir())]
    if options.whole:
        for data in files:
            judge.read(data)
    elif options.guided:
        _guided(judge, options, corpus)
    else:
        _by_outcome(judge, options, files)
    judge.store()


def _guided(judge: Judge, options: argparse.Namespace, corpus: Path) -> None:
    """Let atheris choose, by the code that is reached, what is changed further."""
    import atheris

    known = [file.read_bytes() for file in sorted(corpus.iterdir())]

    def read(data: bytes) -> None:
        judge.read(data)
        if judge.count >= options.mutants:
            judge.store()
            os._exit(0)

    def change(data: bytes, most: int, seed: int) -> bytes:
        return mutate(data, random.Random(seed), known)[:most]

    settings = [f"-seed={options.seed + 1}", "-max_len=65536", "-timeout=600", "-rss_limit_mb=0"]
    quiet = ["-verbosity=0", "-print_final_stats=0", f"-artifact_prefix={options.folder}/"]
    atheris.Setup([sys.argv[0], str(corpus), *settings, *quiet], read, custom_mutator=change)
    atheris.Fuzz()


def _by_outcome(judge: Judge, options: argparse.Namespace, files: list[bytes]) -> None:
    """Change further what had an outcome that was not seen before."""
    rng = random.Random(f"{options.seed} {options.family}")
    seen, corpus = set[str](), [data for data in files if len(data) < 2**16]
    while judge.count < options.mutants:
        data = mutate(rng.choice(corpus), rng, corpus)
        outcome = judge.read(data)
        if outcome not in seen and len(corpus) < 2000:
            seen.add(outcome)
            corpus.append(data)


# The process above: gives each family to a process, and counts those that end


def run_family(
    family: str, files: dict[str, bytes], mutants: int, seed: int, *, guided: bool = False
) -> dict:
    """Read every file of a family, then mutants; a process that ends is a fault."""
    whole = in_processes(family, files, len(files), seed, whole=True)
    small = {name: data for name, data in files.items() if len(data) < 2**16}
    fuzzed = in_processes(family, small, mutants, seed, guided=guided)
    return {
        "files": len(files),
        "mutants": sum(fuzzed["outcomes"].values()),
        "outcomes": dict(Counter(whole["outcomes"]) + Counter(fuzzed["outcomes"])),
        "slowest_s": round(max(whole["slowest"], fuzzed["slowest"]), 2),
        "faults": whole["faults"] | fuzzed["faults"],
        "seconds": whole["seconds"] + fuzzed["seconds"],
    }


def in_processes(
    family: str,
    files: dict[str, bytes],
    count: int,
    seed: int,
    *,
    guided: bool = False,
    whole: bool = False,
) -> dict:
    """Have so many files read, by one process after the other if they end too early."""
    total: dict[str, Any] = {"outcomes": Counter(), "faults": {}, "slowest": 0.0, "seconds": 0}
    start, left = time.monotonic(), dict(files)
    with tempfile.TemporaryDirectory(prefix="simsearch-hostile-") as place:
        for attempt in range(50):
            folder = Path(place, str(attempt))
            (folder / "corpus").mkdir(parents=True)
            for i, data in enumerate(left.values()):
                (folder / "corpus" / f"{i:04}").write_bytes(data)
            wanted = count - sum(total["outcomes"].values())
            given = ["--mutants", str(wanted), "--seed", str(seed + attempt), "--family", family]
            status = work_apart(folder, given + ["--guided"] * guided + ["--whole"] * whole)
            found = _tallies(folder)
            total["outcomes"].update(found["outcomes"])
            total["slowest"] = max(total["slowest"], found["slowest"])
            for fault, name in found["faults"].items():
                total["faults"][fault] = (folder / name).read_bytes()
            if status == 0:
                break
            last = (folder / "now.bin").read_bytes() if (folder / "now.bin").exists() else b""
            total["faults"][f"the process ended: {status}"] = last
            total["outcomes"]["ended"] += 1
            left = {name: data for name, data in left.items() if data != last}
    return total | {"seconds": round(time.monotonic() - start)}


def work_apart(folder: Path, given: list[str]) -> int:
    """Run a process, and return its status: minus a signal's number if that ended it."""
    command = [sys.executable, str(Path(__file__)), "--folder", str(folder), *given]
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    with (folder / "log.txt").open("w") as log:
        done = subprocess.run(
            command, env=os.environ | {"PYTHONPATH": path}, stdout=log, stderr=log, check=False
        )
    if done.returncode:
        sys.stderr.write((folder / "log.txt").read_text()[-2000:])
    return done.returncode


def _tallies(folder: Path) -> dict:
    file = folder / "tallies.json"
    if not file.exists():
        return {"outcomes": {}, "faults": {}, "slowest": 0.0}
    return json.loads(file.read_text())


def run(options: argparse.Namespace) -> dict:
    guided = importlib.util.find_spec("atheris") is not None
    print("guided by coverage" if guided else "without atheris: guided by outcomes", flush=True)
    files = ordinary() | crafted()
    families = sorted({family_of(name) for name in files})
    report: dict[str, Any] = {"seed": options.seed, "guided": guided, "families": {}}
    for family in families:
        if options.only and family not in options.only:
            continue
        own = {name: each for name, each in files.items() if family_of(name) == family}
        found = run_family(family, own, options.mutants, options.seed, guided=guided)
        for fault, data in list(found["faults"].items()):
            options.report.parent.mkdir(parents=True, exist_ok=True)
            found["faults"][fault] = keep(options.report.parent, data)
        report["families"][family] = found
        print(family, found, flush=True)
    report["load"] = os.getloadavg()[0]
    return report


def to_markdown(report: dict) -> str:
    """Put a report as a table."""
    how = "by coverage (atheris)" if report["guided"] else "by outcomes"
    lines = [f"# Hostile pictures: guided {how}, seed {report['seed']}", ""]
    lines += ["| family | files | mutants | read | refused | slowest, s | faults |"]
    lines += ["|---|" + "---:|" * 6]
    for family, found in report["families"].items():
        counts = [found["outcomes"].get(each, 0) for each in ("read", "refused")]
        cells = [
            found["files"],
            found["mutants"],
            *counts,
            found["slowest_s"],
            len(found["faults"]),
        ]
        lines.append(f"| {family} | " + " | ".join(f"{cell:,}" for cell in cells) + " |")
    faults = [
        f"- **{family}**: {fault} ({name})"
        for family, found in report["families"].items()
        for fault, name in found["faults"].items()
    ]
    return "\n".join([*lines, "", *faults]) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--mutants", type=int, default=20_000, help="of each family of formats")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", metavar="FAMILY")
    parser.add_argument(
        "--report", type=Path, default=ROOT / "outputs/trials/hostile_pictures.json"
    )
    inner = parser.add_argument_group("of one process")
    inner.add_argument("--folder", type=Path)
    inner.add_argument("--family")
    inner.add_argument("--guided", action="store_true")
    inner.add_argument("--whole", action="store_true", help="the files as they are")
    options = parser.parse_args()
    if options.folder:
        work(options)
        return 0
    report = run(options)
    options.report.parent.mkdir(parents=True, exist_ok=True)
    options.report.write_text(json.dumps(report, indent=1) + "\n")
    options.report.with_suffix(".md").write_text(to_markdown(report))
    print(to_markdown(report))
    return 1 if any(found["faults"] for found in report["families"].values()) else 0


if __name__ == "__main__":
    sys.exit(main())
