"""Pixel signatures of a library's pictures: made once, and kept beside it.

The file is derived, and may be deleted at any time: each row of it is tied to a picture by name,
size and time, and to the way that signatures are made.
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

from simsearch.files import atomic_write, write_text
from simsearch.images.compare import read_signature
from simsearch.images.signature import SIGNATURE, SIGNATURE_VERSION
from simsearch.library.files import file_record, matches_record

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from simsearch.analysis.picture_files import PictureFiles
    from simsearch.library.library import ImageLibrary


FORMAT = 1
ARRAY, RECORD, LOCK = "signatures.npy", "signatures.json", ".signatures.lock"
ROW = np.dtype([("key", np.uint8, (16,)), ("frames", np.uint32), ("signature", SIGNATURE)])


class PictureSignatures(NamedTuple):
    """Signatures of a library's rows.

    Attributes
    ----------
    rows : (N,) array of dtype `SIGNATURE`
        Zeros where a picture was not read.
    frames : (N,) uint32
        Frames of an animation, or pages; 0 where a picture was not read.
    """

    rows: NDArray[np.void]
    frames: NDArray[np.uint32]


def signatures_of(
    library: ImageLibrary, files: PictureFiles, *, progress: bool
) -> PictureSignatures:
    """Open the signatures of a library; those that are missing are made, and stored.

    A picture that cannot be read has none, and is tried again the next time.
    """
    keys = [_key(*row) for row in zip(library.names, files.sizes, files.times, strict=True)]
    folder = library.stored[0] if library.stored else None
    stored = _open(folder) if folder else None
    made = np.zeros(len(library), ROW)
    if stored is not None:
        place = {key.tobytes(): i for i, key in enumerate(stored["key"])}
        known = [row for row, key in enumerate(keys) if key in place]
        made[known] = stored[[place[keys[row]] for row in known]]
    first = files.same == np.arange(len(made))
    missing = np.flatnonzero((made["frames"] == 0) & files.there & first)
    _make(library, missing, keys, made, progress=progress)
    if folder and len(missing) and made["frames"][missing].any():
        with suppress(OSError, Timeout):  # read-only, full, or another process is storing its own
            _store(folder, made[made["frames"] > 0])
    shared = made[files.same]
    return PictureSignatures(shared["signature"], shared["frames"])


def _key(name: str, size: int, time: int) -> bytes:
    text = f"{size} {time} ".encode() + name.encode("utf-8", "surrogatepass")
    return hashlib.blake2b(text, digest_size=16).digest()


def _make(
    library: ImageLibrary,
    missing: NDArray[np.intp],
    keys: list[bytes],
    made: NDArray[np.void],
    *,
    progress: bool,
) -> None:
    """Read the pictures of some rows, in threads: decoders release Python's lock."""
    paths = library.paths[missing].tolist()
    with (
        ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool,
        tqdm(
            desc="Reading pictures", total=len(paths), unit="image", delay=1, disable=not progress
        ) as bar,
    ):
        for row, found in zip(missing.tolist(), pool.map(read_signature, paths), strict=True):
            if found is not None:
                made[row] = np.frombuffer(keys[row], np.uint8), found[1], found[0]
            bar.update()


def _open(folder: Path) -> NDArray[np.void] | None:
    """Open what is stored, if nothing happened to it and it was made in the way of today."""
    try:
        record = json.loads((folder / RECORD).read_text("utf-8"))
        if (record["format"], record["signatures"]) != (FORMAT, SIGNATURE_VERSION):
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
        record = {"format": FORMAT, "signatures": SIGNATURE_VERSION}
        text = json.dumps({**record, "file": file_record(folder / ARRAY)}, indent=2)
        write_text(folder / RECORD, text)
