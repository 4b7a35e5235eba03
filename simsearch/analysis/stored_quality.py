"""Measures of a library's pictures: made once, and kept beside it as `quality.*`.

The file is derived, and may be deleted at any time: each row of it is tied to a picture by name,
size and time, and to the way of measuring.
"""

from __future__ import annotations

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from filelock import FileLock, Timeout
from tqdm.auto import tqdm

from simsearch.analysis.picture_quality import QUALITY, QUALITY_VERSION, read_quality
from simsearch.files import atomic_write, write_text
from simsearch.library.files import file_record, matches_record

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from simsearch.analysis.picture_files import PictureFiles
    from simsearch.library.library import ImageLibrary


FORMAT = 1
ARRAY, RECORD, LOCK = "quality.npy", "quality.json", ".quality.lock"
KEY_BYTES = 16
ROW = np.dtype([("key", np.uint8, (KEY_BYTES,)), ("quality", QUALITY)])


class LibraryQuality(NamedTuple):
    """Measures of a library's rows.

    Attributes
    ----------
    rows : (N,) array of dtype `QUALITY`
        Zeros where a picture was not read.
    unreadable : dict of int to str
        Rows whose file is there and cannot be read, with the reason.
    """

    rows: NDArray[np.void]
    unreadable: dict[int, str]

    @property
    def measured(self) -> NDArray[np.bool_]:
        """Which rows were read: (N,)."""
        known: NDArray[np.bool_] = self.rows["width"] > 0
        return known


def quality_of(
    library: ImageLibrary, files: PictureFiles, *, workers: int | None, progress: bool
) -> LibraryQuality:
    """Open the measures of a library; those that are missing are made, and stored.

    A picture that cannot be read has none, and is tried again the next time.
    """
    keys = np.array(
        [_key(*row) for row in zip(library.names, files.sizes, files.times, strict=True)]
    ).reshape(-1, KEY_BYTES)
    made = np.zeros(len(library), ROW)
    made["key"] = keys
    folder = library.stored[0] if library.stored else None
    stored = _open(folder) if folder else None
    if stored is not None:
        place = {key.tobytes(): i for i, key in enumerate(stored["key"])}
        for row, key in enumerate(keys):
            made[row] = stored[place[key.tobytes()]] if key.tobytes() in place else made[row]
    missing = np.flatnonzero((made["quality"]["width"] == 0) & files.there)
    failed = _measure(library.paths[missing].tolist(), missing, made, workers, progress=progress)
    if folder and len(missing) > len(failed):
        with suppress(OSError, Timeout):  # read-only, full, or another process is storing its own
            _store(folder, made[made["quality"]["width"] > 0])
    return LibraryQuality(made["quality"], failed)


def _key(name: str, size: int, time: int) -> NDArray[np.uint8]:
    text = f"{size} {time} ".encode() + name.encode("utf-8", "surrogatepass")
    return np.frombuffer(hashlib.blake2b(text, digest_size=KEY_BYTES).digest(), np.uint8)


def _measure(
    paths: list[str],
    rows: NDArray[np.intp],
    made: NDArray[np.void],
    workers: int | None,
    *,
    progress: bool,
) -> dict[int, str]:
    """Read pictures in threads (decoders release Python's lock); return those that failed."""
    failed = {}
    with (
        ThreadPoolExecutor(workers or min(8, os.cpu_count() or 1)) as pool,
        tqdm(
            desc="Measuring", total=len(paths), unit="image", delay=1, disable=not progress
        ) as bar,
    ):
        for row, found in zip(rows.tolist(), pool.map(read_quality, paths), strict=True):
            if isinstance(found, str):
                failed[row] = found
            else:
                made["quality"][row] = found
            bar.update()
    return failed


def _open(folder: Path) -> NDArray[np.void] | None:
    """Open what is stored, if nothing happened to it and it was made in the way of today."""
    try:
        record = json.loads((folder / RECORD).read_text("utf-8"))
        if (record["format"], record["quality"]) != (FORMAT, QUALITY_VERSION):
            return None
        if not matches_record(folder / ARRAY, record["file"]):
            return None
        rows: NDArray[np.void] = np.load(folder / ARRAY, allow_pickle=False)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return rows if rows.dtype == ROW and rows.ndim == 1 else None


def _store(folder: Path, rows: NDArray[np.void]) -> None:
    """Write the rows; the record comes last, and tells whether the file is whole."""
    with FileLock(folder / LOCK, timeout=0):
        with atomic_write(folder / ARRAY) as stream:
            np.save(stream, rows, allow_pickle=False)
        record = {"format": FORMAT, "quality": QUALITY_VERSION}
        text = json.dumps({**record, "file": file_record(folder / ARRAY)}, indent=2)
        write_text(folder / RECORD, text)
