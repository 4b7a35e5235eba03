"""Digests of a file's blocks of 64 KiB: they tell damage that keeps the file's size and time.

BLAKE3, so that a manifest that is trusted vouches for each block.
"""

from __future__ import annotations

import hashlib
import json
import os
from base64 import b64decode, b64encode
from itertools import zip_longest
from typing import TYPE_CHECKING

import numpy as np
from blake3 import blake3

from simsearch.errors import DamagedLibraryError
from simsearch.files import write_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path
    from typing import Any

    from numpy.typing import NDArray

BLOCK_BYTES = 2**16
DIGEST_BYTES = 16


def file_record(file: Path, name: str | None = None) -> dict[str, int | str]:
    """Record a file: size, time, SHA-256, and the digests of its blocks; it is read once.

    `name` is the one that it will have, if it is to be renamed.
    """
    status, whole, blocks = file.stat(), hashlib.sha256(), bytearray()
    with file.open("rb") as stream:
        while block := stream.read(BLOCK_BYTES):
            whole.update(block)
            blocks += blake3(block).digest(DIGEST_BYTES)
    return {
        "name": name or file.name,
        "size": status.st_size,
        "mtime_ns": status.st_mtime_ns,
        "sha256": whole.hexdigest(),
        "blocks": b64encode(blocks).decode(),
    }


def write_blocks(file: Path, contents: Iterable[Path]) -> dict[str, Any]:
    """Write the digests of files into a file of their own; return the records of all of them.

    Returns
    -------
    dict
        `files`, the records by name without digests, and `blocks`, that of the file of digests.
    """
    known = {each.name: file_record(each) for each in contents}
    write_text(file, json.dumps({name: record["blocks"] for name, record in known.items()}))
    for record in known.values():
        record.pop("blocks")
    return {"files": known, "blocks": file_record(file)}


def read_records(record: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """Read the file of digests, which has a record itself."""
    return dict(json.loads(read_checked(file, record).tobytes()))


def add_blocks(manifest: Mapping[str, Any], known: Mapping[str, str]) -> dict[str, Any]:
    """Return a manifest whose records of files have the digests of their blocks."""
    files = {
        name: {**record, "blocks": known[name]} if name in known else record
        for name, record in manifest["files"].items()
    }
    return {**manifest, "files": files}


def recorded_blocks(record: Mapping[str, Any]) -> NDArray[np.uint8] | None:
    """Return the digests in a record, (B, 16) uint8; None for one of an earlier version."""
    if "blocks" not in record:
        return None
    return np.frombuffer(b64decode(record["blocks"]), np.uint8).reshape(-1, DIGEST_BYTES)


def damaged_blocks(data: NDArray[np.uint8], record: Mapping[str, Any]) -> list[int]:
    """Return the numbers of the blocks of a file's bytes that are not what was recorded."""
    known = recorded_blocks(record)
    if known is None:
        return []
    starts = range(0, len(data), BLOCK_BYTES)
    return _differences((data[i : i + BLOCK_BYTES] for i in starts), known)


def damaged_in_file(
    file: Path, record: Mapping[str, Any], update: Callable[[int], object] = int
) -> list[int]:
    """Find damaged blocks as `damaged_blocks` does, of a file that is read a block at a time.

    `update` is called with the number of bytes that were read.
    """
    known = recorded_blocks(record)
    with file.open("rb") as stream:

        def blocks() -> Iterator[bytes]:
            while block := stream.read(BLOCK_BYTES):
                update(len(block))
                yield block

        return [] if known is None else _differences(blocks(), known)


def _differences(blocks: Iterable[Any], known: NDArray[np.uint8]) -> list[int]:
    """Return the numbers of blocks whose digests are not known, of missing and surplus ones."""
    found = (blake3(block).digest(DIGEST_BYTES) for block in blocks)
    pairs = zip_longest(found, map(bytes, known))
    return [i for i, (digest, wanted) in enumerate(pairs) if digest != wanted]


def read_checked(
    file: Path, record: Mapping[str, Any], damaged: list[int] | None = None
) -> NDArray[np.uint8]:
    """Read a file's bytes into memory of this process, where nothing that befalls it matters.

    Raises
    ------
    DamagedLibraryError
        If blocks are not what was recorded, and there is no list for their numbers.
    """
    data = np.fromfile(file, np.uint8)
    if found := damaged_blocks(data, record):
        if damaged is None:
            raise damaged_error(file, len(found), record)
        damaged += found
    data.flags.writeable = False
    return data


def damaged_error(file: Path, count: int, record: Mapping[str, Any]) -> DamagedLibraryError:
    """Return the error for a file of which some blocks are damaged."""
    total = -(-int(record["size"]) // BLOCK_BYTES)
    folder = os.fspath(file.parent.parent if file.parent.name == ".next" else file.parent)
    return DamagedLibraryError(
        f"the library in {folder!r} cannot be used: {file.name} is damaged in {count:,} of its "
        f"{total:,} blocks; put the file back as it was, or run embed_dataset again, which makes "
        "what is damaged anew (`simsearch verify` lists it)"
    )
