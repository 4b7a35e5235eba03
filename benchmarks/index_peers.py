"""Other packages' indexes on the rows and queries of `index.py`, each in an environment of its own.

Made for example with `python -m venv /tmp/usearch && /tmp/usearch/bin/pip install usearch`. Each is
built once, and asked with growing effort until it reaches a recall@10 of 0.99 for every kind of
query. Their nearest are ranked by whole rows, as ours are. Processor time of one thread.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

GOAL, K = 0.99, 10
HEAD = """
import json, sys, time
import numpy as np
rows, asked = np.load(sys.argv[1]), np.load(sys.argv[2])
started = time.process_time()
"""
SCRIPTS = {
    "usearch": """
from usearch.index import Index
index = Index(ndim=rows.shape[1], metric="cos", dtype="i8", connectivity=16, expansion_add=160)
index.add(np.arange(len(rows)), rows, threads=1)
size, efforts = index.memory_usage, (32, 64, 128, 256, 512)
def search(vector, effort):
    index.expansion_search = effort
    near = index.search(vector, 40, threads=1).keys.astype(int)
    return near[np.argsort(-(rows[near] @ vector))[:10]]
""",
    "voyager": """
import voyager
index = voyager.Index(voyager.Space.InnerProduct, rows.shape[1], M=16, ef_construction=160,
                      storage_data_type=voyager.StorageDataType.Float8)
index.add_items(rows, num_threads=1)
size, efforts = len(index.as_bytes()), (40, 80, 160, 320, 640)
def search(vector, effort):
    near = index.query(vector, 40, num_threads=1, query_ef=effort)[0].astype(int)
    return near[np.argsort(-(rows[near] @ vector))[:10]]
""",
    "ngt": """
import ngtpy, os, tempfile
folder = tempfile.TemporaryDirectory()
place = os.path.join(folder.name, "x").encode()
ngtpy.create(place, rows.shape[1], distance_type="Normalized Cosine", object_type="Float")
index = ngtpy.Index(place)
index.batch_insert(rows, num_threads=1)
index.save()
size = sum(os.path.getsize(os.path.join(place, name)) for name in os.listdir(place))
efforts = (0.02, 0.05, 0.1, 0.2, 0.3)
def search(vector, effort):
    near = np.array(index.search(vector, 40, epsilon=effort, with_distance=False))
    return near[np.argsort(-(rows[near] @ vector))[:10]]
""",
    "lorann": """
import lorann, os, tempfile
lists = max(8, int(len(rows) ** 0.5))
index = lorann.LorannIndex(rows, n_clusters=lists, global_dim=256, quantization_bits=4, rank=32)
index.build(n_threads=1)
with tempfile.TemporaryDirectory() as folder:
    index.save(folder + "/x")
    size = os.path.getsize(folder + "/x") - rows.nbytes
efforts = tuple(max(1, lists * share // 64) for share in (16, 32, 64))
def search(vector, effort):
    return index.search(vector, 10, effort, 800)
""",
}
TAIL = """
built = time.process_time() - started
answers = {}
for effort in efforts:
    near, times = [], []
    for vector in asked:
        started = time.thread_time()
        near.append(np.asarray(search(vector, effort)).tolist())
        times.append(time.thread_time() - started)
    answers[effort] = near, 1e3 * float(np.median(times))
print("\\n" + json.dumps({"built": built, "size": size, "answers": answers}))
"""


def compare_peers(
    peers: Sequence[str],
    rows: np.ndarray,
    kinds: Mapping[str, np.ndarray],
    truth: Mapping[str, np.ndarray],
) -> None:
    """Print recall, processor time and size of each peer: `NAME=PYTHON`.

    Parameters
    ----------
    rows : (N, D) float32
    kinds
        Queries by kind, (Q, D) each.
    truth
        Their ten nearest rows, (Q, 10) each.
    """
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder, "rows.npy"), rows)
        np.save(Path(folder, "asked.npy"), np.concatenate(list(kinds.values())))
        for peer in peers:
            name, _, python = peer.partition("=")
            if name not in SCRIPTS:
                raise SystemExit(f"--peers {peer}: the name is one of {', '.join(SCRIPTS)}")
            print(f"\n{name}", flush=True)
            try:
                report(run_peer(name, python, Path(folder)), kinds, truth)
            except (subprocess.CalledProcessError, json.JSONDecodeError) as error:
                print(f"      failed: {str(getattr(error, 'stderr', error))[-500:]}")


def run_peer(name: str, python: str, folder: Path) -> dict[str, Any]:
    command = [python, "-c", HEAD + SCRIPTS[name] + TAIL]
    command += [str(folder / "rows.npy"), str(folder / "asked.npy")]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def report(
    found: Mapping[str, Any], kinds: Mapping[str, np.ndarray], truth: Mapping[str, np.ndarray]
) -> None:
    print(f"      built in {found['built']:.0f} CPU s, {found['size'] / 1e6:.0f} MB")
    ends = np.cumsum([len(queries) for queries in kinds.values()])
    for effort, (near, taken) in found["answers"].items():
        recalls = {}
        for kind, some in zip(kinds, np.split(np.array(near), ends[:-1]), strict=True):
            hits = [len(np.intersect1d(*pair)) for pair in zip(some, truth[kind], strict=True)]
            recalls[kind] = float(np.mean(hits)) / K
        stated = ", ".join(f"{kind} {value:.3f}" for kind, value in recalls.items())
        print(f"      effort {effort}: {taken:.2f} CPU ms; {stated}", flush=True)
        if min(recalls.values()) >= GOAL:
            return
