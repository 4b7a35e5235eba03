"""The writer of parts: appends to their files, takes up what a stopped run left, and commits."""

from __future__ import annotations

import json
import os
import zlib
from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from filelock import FileLock, Timeout

from simsearch.errors import LibraryBusyError, LibraryError
from simsearch.files import check_plain, open_plain, write_text
from simsearch.library.parts import (
    PICTURE,
    PartRecord,
    copy_blocks,
    part_dtype,
    read_files,
    read_record,
    write_record,
)
from simsearch.library.user_key import MAC, signed

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import Self

    from numpy.typing import NDArray

LOCK = ".parts.lock"
DEAD_SHARE = 0.5  # of the parts, from which on the files are written anew without them


class PartWriter:
    """Appends parts, picture by picture.

    Once `append` returns, killing the process does not lose the picture; `commit` makes all count.
    The parts that counted before are readable throughout.

    Parameters
    ----------
    folder
        The library's.
    wanted
        How the rows are made. Rows that were made otherwise stay until `commit`.

    Attributes
    ----------
    pictures : list of numpy.void
        What is there, of dtype `PICTURE`.
    """

    def __init__(self, folder: Path, wanted: PartRecord) -> None:
        self.folder, self._dtype = folder, part_dtype(wanted.dim)
        self._wanted, self._opened = wanted, ExitStack()
        self.pictures: list[np.void] = []

    def __enter__(self) -> Self:
        """Open the files, and take up what is good of a stopped run.

        Raises
        ------
        LibraryBusyError
            If another process makes parts of this library.
        """
        with ExitStack() as opened:
            try:
                opened.enter_context(FileLock(self.folder / LOCK, timeout=0))
            except Timeout:
                raise LibraryBusyError(
                    f"another process makes parts of {os.fspath(self.folder)!r}: wait for it"
                ) from None
            self._stored = read_record(self.folder)
            self.record = self._choose_files()
            self._rows, self._log = (
                opened.enter_context(open_plain(file)) for file in self.record.files(self.folder)
            )
            self._recover()
            self._opened = opened.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def _choose_files(self) -> PartRecord:
        """Go on with the files that count if their rows are made as wanted; or take a new pair."""
        stored, wanted = self._stored, self._wanted
        if stored and stored.made_as(wanted):
            with suppress(OSError, ValueError):
                self.pictures = list(read_files(self.folder, stored)[1])
                return stored
        fresh = replace(wanted, generation=stored.generation + 1 if stored else 0)
        self._label_unfinished(fresh)
        return fresh

    def _label_unfinished(self, fresh: PartRecord) -> None:
        """Drop what lies in a new pair of files, unless it was begun in the way that is wanted."""
        note = self.folder / f"parts-{fresh.generation}.json"
        way = {"made_as": [fresh.kind, fresh.version, fresh.space, fresh.dim]}
        own = signed(way, note.name)  # so that nobody else's rows are taken up
        made = json.dumps(own)
        with suppress(OSError, ValueError):
            check_plain(note)
            if MAC in own and note.read_text("utf-8") == made:
                return
        for file in fresh.files(self.folder):
            file.unlink(missing_ok=True)
        write_text(note, made)

    def _recover(self) -> None:
        """Read the pictures after those that count, and cut off what is not whole."""
        width, good = self._dtype.itemsize, self.record.parts
        self._rows.seek(good * width)
        self._log.seek(len(self.pictures) * PICTURE.itemsize)
        while len(entry := self._log.read(PICTURE.itemsize)) == PICTURE.itemsize:
            picture = np.frombuffer(entry, PICTURE)[0]
            rows = self._rows.read(int(picture["count"]) * width)
            whole = len(rows) == int(picture["count"]) * width
            if not whole or zlib.crc32(rows) != picture["crc"]:
                break
            self.pictures.append(picture)
            good += int(picture["count"])
        self._parts = good
        for stream, end in (
            (self._rows, good * width),
            (self._log, len(self.pictures) * PICTURE.itemsize),
        ):
            stream.seek(end)
            stream.truncate()

    def append(
        self,
        key: NDArray[np.uint8],
        size: tuple[int, int],
        parts: NDArray[np.void],
        boxes: int = 0,
    ) -> None:
        """Add the parts of a picture: its key, its size, (n,) of `part_dtype`, and `boxes`."""
        data = np.ascontiguousarray(parts).tobytes()
        self._rows.write(data)
        self._rows.flush()
        entry = np.zeros(1, PICTURE)
        entry[0] = key, boxes, size, len(parts), zlib.crc32(data)
        self._log.write(entry.tobytes())
        self._log.flush()
        self.pictures.append(entry[0])
        self._parts += len(parts)

    def commit(self, live: NDArray[np.intp], labels: Sequence[str]) -> PartRecord:
        """Make everything count, and drop the files of before; `live` are the pictures in use."""
        for stream in (self._rows, self._log):
            stream.flush()
            os.fsync(stream.fileno())
        counts = np.array([picture["count"] for picture in self.pictures], np.int64)
        self.record = self._count(self.record, self._parts, len(counts), labels)
        if counts.sum() and counts[live].sum() <= (1 - DEAD_SHARE) * counts.sum():
            self.record = self._compact(live)
        write_record(self.folder, self.record)  # from here on it counts
        self._sweep()
        return self.record

    def _count(
        self, record: PartRecord, parts: int, pictures: int, labels: Sequence[str]
    ) -> PartRecord:
        modified = record.files(self.folder)[0].stat().st_mtime_ns
        return replace(
            record, parts=parts, pictures=pictures, modified=modified, labels=list(labels)
        )

    def _compact(self, live: NDArray[np.intp]) -> PartRecord:
        """Copy the pictures in use to a new pair of files."""
        parts, pictures, starts = read_files(self.folder, self.record)
        fresh = replace(self.record, generation=self.record.generation + 1)
        places = fresh.files(self.folder)
        for place in places:
            place.unlink(missing_ok=True)
        count = 0
        with places[0].open("xb") as rows, places[1].open("xb") as log:
            for picture in np.sort(live).tolist():
                some = parts[starts[picture] : starts[picture + 1]]
                for block in copy_blocks(len(some)):
                    rows.write(some[block].tobytes())
                log.write(pictures[picture].tobytes())
                count += len(some)
            for stream in (rows, log):
                stream.flush()
                os.fsync(stream.fileno())
        return self._count(fresh, count, len(live), fresh.labels)

    def _sweep(self) -> None:
        """Delete what does not count any more, as far as the system lets it go now."""
        kept = {file.name for file in self.record.files(self.folder)}
        kept |= {f"parts-{self.record.generation}.short{end}" for end in ("", ".json")}
        for file in self.folder.glob("parts-*.*"):
            if file.name not in kept:
                with suppress(OSError):
                    file.unlink()


def check_folder(folder: Path) -> Path:
    """Return a folder that parts can be written to.

    Raises
    ------
    LibraryError
        If it cannot.
    """
    if not os.access(folder, os.W_OK):
        raise LibraryError(f"cannot write parts to {os.fspath(folder)!r}: it is read-only")
    return folder
