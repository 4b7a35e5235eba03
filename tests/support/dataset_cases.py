"""Datasets painted for tests, and what a run leaves of them."""

import re
import time
from pathlib import Path

import numpy as np
from PIL import Image

LOG = "unfinished.jsonl"


FILES = ("embeddings.npy", "image_paths.npy", "file_stats.npy")


def paint(path, seed):
    """Write a small picture of random colours."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def paint_forty():
    """Paint a dataset of forty pictures in three folders, here."""
    for i in range(40):
        paint(Path("dataset") / "abc"[i % 3] / f"{i:02d}.png", i)
    return Path("dataset")


def counts(capsys):
    """Read embedded, reused, removed and skipped off the summary."""
    pattern = r"(\d+) embedded.*, (\d+) reused, (\d+) removed, (\d+) skipped"
    return tuple(int(count) for count in re.findall(pattern, capsys.readouterr().out)[-1])


def contents(outputs):
    return {name: (Path(outputs) / name).read_bytes() for name in FILES}


def names(folder):
    return {path.name for path in Path(folder).iterdir()}


def wait_for_rows(process, outputs, rows):
    """Wait until so many rows lie in the log, or the run has ended."""
    log = Path(outputs) / LOG
    while process.poll() is None:
        if log.exists() and log.read_bytes().count(b"\n") > rows:
            return
        time.sleep(0.002)


def stored(outputs):
    """Count the rows that a killed run has left, whole."""
    log = Path(outputs) / LOG
    return max(0, log.read_bytes().count(b"\n") - 1) if log.exists() else 0
