"""Rows of the parts of pictures, beside a library: `parts.json`, `parts-N.rows`, `parts-N.log`.

The rows are appended and never changed. `parts.json` says how much of them counts; what a stopped
run has appended after that is checked, and taken up by the next. All may be deleted at any time.
"""

from __future__ import annotations

import json
import os
import threading
import zlib
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from simsearch.files import check_plain, iter_blocks, write_text
from simsearch.library.files import PARTS as RECORD
from simsearch.library.ownership import is_signed
from simsearch.library.stored_rows import KEY, KEY_BYTES, picture_key
from simsearch.library.user_key import MAC, signed

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any, Literal

    from numpy.typing import NDArray

    from simsearch.library.library import ImageLibrary

FORMAT = 1
INDEX_FOLDER = "parts-index"  # of a FAISS index of parts, in the library's
BOXES = "boxes"  # the kind whose boxes are given
CHECKED_PARTS = 4096  # read together, to be checked or copied

PICTURE = np.dtype(
    [
        KEY,  # of the picture, as `picture_keys` gives it
        ("boxes", "<u4"),  # checksum of boxes of one's own; 0 where the kind chooses them
        ("size", "<u4", (2,)),  # width and height of the upright picture
        ("count", "<u4"),  # of its parts
        ("crc", "<u4"),  # of its parts' bytes
    ]
)
"""A picture in `parts-N.log`; its parts come next in `parts-N.rows`."""


def part_dtype(dim: int) -> np.dtype[Any]:
    """Return the type of a part: its box in pixels, its label's number or -1, its float16 row."""
    return np.dtype([("box", "<i4", (4,)), ("label", "<i4"), ("row", "<f2", (dim,))])


@dataclass(frozen=True)
class PartRecord:
    """What `parts.json` holds.

    Attributes
    ----------
    kind : str
        Of the parts: "grid", "regions" or "boxes".
    version : int
        Of the way that the kind makes them.
    space : str
        Fingerprint of what made the rows, the backbone and the head.
    dim : int
        Width of a row.
    generation : int
        The number in the names of the two files.
    pictures, parts : int
        How many count.
    modified : int
        Time of the file of rows in ns, when it was complete: another is checked as it is opened.
    labels : list of str
        Of boxes of one's own.
    """

    kind: str
    version: int
    space: str
    dim: int
    generation: int = 0
    pictures: int = 0
    parts: int = 0
    modified: int = 0
    labels: list[str] = field(default_factory=list)
    format: int = FORMAT

    def made_as(self, other: PartRecord) -> bool:
        """Tell whether the rows of two records are made in the same way."""
        return (self.kind, self.version, self.space, self.dim) == (
            *(other.kind, other.version, other.space, other.dim),
        )

    def files(self, folder: Path) -> tuple[Path, Path]:
        """Return the places of the rows and of the log."""
        name = f"parts-{self.generation}"
        return folder / f"{name}.rows", folder / f"{name}.log"

    def to_json(self) -> str:
        """Return the text of `parts.json`."""
        return json.dumps(asdict(self), indent=2)


class Parts(NamedTuple):
    """The parts of a library's pictures.

    Attributes
    ----------
    record : PartRecord
    parts : (P,) array of `part_dtype`
        Memory-mapped; those of one picture are together.
    pictures : (M,) array of `PICTURE`
        In the order of their parts; some may have left the library.
    starts : (M + 1,) int
        The first part of each picture.
    stored : (N,) int
        For each row of the library its number in `pictures`; -1 where it has no parts.
    """

    record: PartRecord
    parts: NDArray[np.void]
    pictures: NDArray[np.void]
    starts: NDArray[np.int64]
    stored: NDArray[np.intp]

    @property
    def missing(self) -> int:
        """How many rows of the library have no parts."""
        return int(np.count_nonzero(self.stored < 0))

    def of(self, row: int) -> slice:
        """Return the range of the parts of a row of the library; an empty one where it has none."""
        picture = self.stored[row]
        if picture < 0:
            return slice(0, 0)
        return slice(int(self.starts[picture]), int(self.starts[picture + 1]))


_lock = threading.Lock()
_known: WeakKeyDictionary[ImageLibrary, tuple[str, Any, Parts]] = WeakKeyDictionary()


def picture_keys(library: ImageLibrary, kind: str) -> NDArray[np.uint8]:
    """Return what each picture of a library is known by, (N, 16): its content, or name and time.

    Boxes of one's own go with a name, too: two files of the same content may have others.
    """
    if library.digests is not None:
        keys = np.array(library.digests)
        unknown = np.flatnonzero(~keys.any(axis=1))
    else:
        keys, unknown = np.zeros((len(library), KEY_BYTES), np.uint8), np.arange(len(library))
    for row in unknown.tolist():
        stat = (0, 0) if library.stats is None else library.stats[row].tolist()
        keys[row] = np.frombuffer(picture_key(library.names[row], *stat), np.uint8)
    if kind == BOXES:
        named = [
            picture_key(f"{key.tobytes().hex()} {name}", 0, 0)
            for key, name in zip(keys, library.names, strict=True)
        ]
        keys = np.frombuffer(b"".join(named), np.uint8).reshape(-1, KEY_BYTES)
    return keys


def read_record(folder: Path, *, any_maker: bool = False) -> PartRecord | None:
    """Read `parts.json`; None if there is none of this format, or another user has made it."""
    try:
        check_plain(folder / RECORD)
        found = json.loads((folder / RECORD).read_text("utf-8"))
        if not (any_maker or is_signed(found, RECORD)):
            return None
        record = PartRecord(**{key: value for key, value in found.items() if key != MAC})
        usable = record.format == FORMAT and all(
            isinstance(each, int) and each >= 0
            for each in (record.dim, record.generation, record.pictures, record.parts)
        )
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return None
    return record if usable else None


def write_record(folder: Path, record: PartRecord) -> None:
    """Write `parts.json` with this user's mark: from here on the parts count."""
    write_text(folder / RECORD, json.dumps(signed(asdict(record), RECORD), indent=2))


def open_parts(library: ImageLibrary) -> Parts | None:
    """Open the parts of a library; None if it has none, or they are damaged or of other rows."""
    if getattr(library, "stored", None) is None:
        return None
    folder = library.stored[0]  # type: ignore[index]
    record = read_record(folder)
    if record is None or (record.space, record.dim) != (library.fingerprint, library.dim):
        return None
    with _lock:
        known, text = _known.get(library), record.to_json()
        if known is None or known[0] != text or known[1] is not library.embeddings:
            parts = _open(library, folder, record)
            if parts is None:
                return None
            known = _known[library] = (text, library.embeddings, parts)
    return known[2]


def has_parts(library: Any) -> bool:  # noqa: ANN401 (an ImageLibrary, or one on a server)
    """Tell whether pictures of a library have parts."""
    return open_parts(library) is not None


def _open(library: ImageLibrary, folder: Path, record: PartRecord) -> Parts | None:
    try:
        read = read_files(folder, record)
    except (OSError, ValueError):
        later = read_record(folder)  # a writer has just begun another pair of files
        return _open(library, folder, later) if later and later != record else None
    return Parts(record, *read, find_keys(read[1]["key"], picture_keys(library, record.kind)))


def read_files(
    folder: Path, record: PartRecord
) -> tuple[NDArray[np.void], NDArray[np.void], NDArray[np.int64]]:
    """Open what counts of the two files: parts, pictures, and the first part of each.

    Raises
    ------
    OSError, ValueError
        If they are missing, shorter than recorded, or damaged.
    """
    rows, log = record.files(folder)
    for file in (rows, log):
        check_plain(file)
    pictures = np.fromfile(log, PICTURE, record.pictures)
    starts = np.concatenate([[0], np.cumsum(pictures["count"], dtype=np.int64)])
    if len(pictures) != record.pictures or starts[-1] != record.parts:
        raise ValueError(f"{log.name} is damaged")
    parts = map_rows(rows, record)
    if rows.stat().st_mtime_ns != record.modified:  # a copy, or a run was stopped since
        check_parts(parts, pictures, starts)
    return parts, pictures, starts


def map_rows(file: Path, record: PartRecord) -> NDArray[np.void]:
    """Open the rows that count, memory-mapped."""
    if not record.parts:
        return np.empty(0, part_dtype(record.dim))
    # Windows cannot delete a file that is mapped, so there the rows are read instead.
    if os.name == "nt":
        return np.fromfile(file, part_dtype(record.dim), record.parts)
    mode: Literal["r"] = "r"
    return np.memmap(file, part_dtype(record.dim), mode, shape=(record.parts,))


def check_parts(
    parts: NDArray[np.void], pictures: NDArray[np.void], starts: NDArray[np.int64]
) -> None:
    """Compare parts with their checksums.

    Raises
    ------
    ValueError
        If some are damaged.
    """
    for picture, start in zip(pictures, starts.tolist(), strict=False):
        if zlib.crc32(parts[start : start + int(picture["count"])].tobytes()) != picture["crc"]:
            raise ValueError("parts are damaged")


def find_keys(stored: NDArray[np.uint8], wanted: NDArray[np.uint8]) -> NDArray[np.intp]:
    """Find the last of the stored keys, (M, 16), that equals each wanted one: (N,) int, or -1."""
    ours, theirs = (
        np.ascontiguousarray(keys).view(f"S{KEY_BYTES}").ravel() for keys in (stored, wanted)
    )
    if not len(ours):
        return np.full(len(theirs), -1, np.intp)
    order = np.argsort(ours, kind="stable")
    place = np.searchsorted(ours[order], theirs, "right") - 1
    found = order[place.clip(0)]
    return np.where((place >= 0) & (ours[found] == theirs), found, -1)


def copy_blocks(count: int) -> list[slice]:
    """Return the ranges in which parts are read or copied."""
    return list(iter_blocks(count, CHECKED_PARTS))
