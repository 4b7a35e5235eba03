"""Other packages that find near-duplicates, on the pictures of `duplicates.py`, as files.

Each runs in an environment of its own, made for example with

    python -m venv /tmp/fastdup && /tmp/fastdup/bin/pip install fastdup

and with its own thresholds. fastdup is not free for commercial use: a yardstick, no dependency.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import tempfile
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

SCRIPTS = {
    "cleanvision": """
import json, sys
from cleanvision import Imagelab
lab = Imagelab(data_path=sys.argv[1], verbose=False)
lab.find_issues({"exact_duplicates": {}, "near_duplicates": {}}, n_jobs=1, verbose=False)
groups = [lab.info[kind]["sets"] for kind in ("exact_duplicates", "near_duplicates")]
found = {"groups": [each for some in groups for each in some]}
""",
    "imagededup": """
import json, sys
from imagededup.methods import PHash
method = PHash(verbose=False)
codes = method.encode_images(image_dir=sys.argv[1], num_enc_workers=0)
near = method.find_duplicates(encoding_map=codes, num_dist_workers=0)
found = {"pairs": [(a, b) for a, others in near.items() for b in others]}
""",
    "imagededup-cnn": """
import json, sys
from imagededup.methods import CNN
method = CNN(verbose=False)
near = method.find_duplicates(image_dir=sys.argv[1], num_enc_workers=0)
found = {"pairs": [(a, b) for a, others in near.items() for b in others]}
""",
    "fastdup": """
import json, sys
import fastdup
run = fastdup.create(work_dir=sys.argv[2], input_dir=sys.argv[1])
run.run(ccthreshold=0.9, threshold=0.9, num_threads=1, overwrite=True)
near = run.similarity()
found = {"pairs": near[["filename_from", "filename_to"]].values.tolist()}
""",
}
ANSWER = '\nprint("\\n" + json.dumps(found, default=str))\n'


def compare_peers(pictures: Sequence[Any], peers: Sequence[str], seed: int) -> None:
    """Print recall, precision and processor time of each peer: `NAME=PYTHON`.

    Parameters
    ----------
    pictures
        Of `duplicates.py`: each with an image, a group and an edit.
    """
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "pictures")
        root.mkdir()
        for i, picture in enumerate(pictures):
            picture.image.save(root / f"{i:06}.png")
        for peer in peers:
            name, _, python = peer.partition("=")
            print(f"seed {seed}, {name}", flush=True)
            try:
                pairs, seconds = run_peer(name, python, root, Path(folder, name))
            except (subprocess.CalledProcessError, json.JSONDecodeError) as error:
                print(f"      failed: {str(getattr(error, 'stderr', error))[-500:]}")
                continue
            report(pictures, pairs)
            print(f"      processor time: {seconds:.0f} s")


def run_peer(name: str, python: str, root: Path, work: Path) -> tuple[set[tuple[int, int]], float]:
    """Return the pairs that a peer finds, and its seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [python, "-c", SCRIPTS[name] + ANSWER, str(root), str(work)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = json.loads(done.stdout.strip().splitlines()[-1])
    pairs = [pair for group in found.get("groups", []) for pair in combinations(group, 2)]
    numbers = [
        [int(Path(str(each)).stem) for each in pair] for pair in pairs + found.get("pairs", [])
    ]
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {(min(pair), max(pair)) for pair in numbers if pair[0] != pair[1]}, seconds


def report(pictures: Sequence[Any], pairs: set[tuple[int, int]]) -> None:
    originals = {each.group: i for i, each in enumerate(pictures) if not each.edit}
    tried: dict[str, list[bool]] = {}
    for i, picture in enumerate(pictures):
        if picture.edit not in ("", "distractor"):
            original = originals[picture.group]
            pair = min(original, i), max(original, i)
            tried.setdefault(picture.edit, []).append(pair in pairs)
    wrong = sum(pictures[i].group != pictures[j].group for i, j in pairs)
    found = [each for some in tried.values() for each in some]
    shares = ", ".join(f"{edit} {sum(some) / len(some):.2f}" for edit, some in tried.items())
    print(f"      {shares}")
    print(f"      recall, all edits {sum(found) / len(found):.3f}")
    print(f"      precision {1 - wrong / max(1, len(pairs)):.4f}: {wrong} of {len(pairs)} wrong")
