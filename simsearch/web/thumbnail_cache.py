"""Files of small copies in the user's own cache folder, limited in bytes and in age."""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from simsearch.backbones.runtime_cache import is_private
from simsearch.files import atomic_write
from simsearch.images.address import is_uri, local_path

if TYPE_CHECKING:
    from collections.abc import Iterator

logger = logging.getLogger("simsearch.web")

MAX_BYTES = 2 * 2**30  # of all small copies; those used longest ago go first
KEPT_SHARE = 0.8  # of that, after a sweep
MAX_DAYS, STALE_PART_SECONDS = 30, 3600  # without use; after which half a file is a dead writer's
SWEEP_STORES = 2000  # between sweeps
COMMENT_OFFSET_BYTES = 24  # of a JPEG that Pillow writes, without ICC profile


class ThumbnailCache:
    """Small copies on the disk, each with a comment that says of which original it is.

    Parameters
    ----------
    folder
        Of the cache. One that others may write into, or that cannot be written, is replaced by a
        temporary one, which `close` removes.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self.folder = self._writable(Path(folder).expanduser())
        self._stores, self._sweeping = 0, threading.Lock()
        self.sweep()

    def close(self) -> None:
        """Remove a temporary folder."""
        if self._temporary:
            self._temporary.cleanup()

    def file(self, path: str, size: int) -> Path:
        """Return the file of a small copy: one for each original, from wherever it is asked."""
        whole = path if is_uri(path) else os.path.abspath(local_path(path))  # noqa: PTH100
        name = hashlib.sha256(os.fsencode(whole)).hexdigest()
        return self.folder / name[:2] / f"{name[2:32]}-{size}.jpg"

    def read(self, file: Path, comment: bytes) -> bytes | None:
        """Return a JPEG if there is one with this comment, which is near its start."""
        with suppress(OSError):
            data = file.read_bytes()
            if comment in data[: len(comment) + COMMENT_OFFSET_BYTES]:
                os.utime(file)  # it is in use
                return data
        return None

    def store(self, file: Path, data: bytes) -> None:
        """Store a JPEG; if the disk is full, it is made again at the next request."""
        with suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(file, shared=True) as stream:
                stream.write(data)
        self._stores += 1
        if self._stores % SWEEP_STORES == 0:
            self.sweep()

    def drop(self, file: Path) -> None:
        """Remove the copy of an original that is gone."""
        with suppress(OSError):
            file.unlink()

    def sweep(self) -> None:
        """Remove what was not used for long, halves of files, and what is too much."""
        if not self._sweeping.acquire(blocking=False):
            return
        try:
            entries = sorted(self._entries())
            left, limit = sum(size for _, size, _ in entries), MAX_BYTES
            limit = int(KEPT_SHARE * limit) if left > limit else limit
            for used, size, file in entries:
                idle = time.time() - used
                stale = file.suffix == ".part" and idle > STALE_PART_SECONDS
                if left > limit or idle > MAX_DAYS * 86400 or stale:
                    self.drop(file)
                    left -= size
        finally:
            self._sweeping.release()

    def _entries(self) -> Iterator[tuple[float, int, Path]]:
        for pattern in ("??/*.jpg", "??/*.part"):
            for file in self.folder.glob(pattern):
                with suppress(OSError):
                    status = file.lstat()
                    yield status.st_mtime, status.st_size, file

    def _writable(self, folder: Path) -> Path:
        with suppress(OSError):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
            if is_private(folder):
                return folder
        self._temporary = tempfile.TemporaryDirectory(prefix="simsearch-thumbnails-")
        logger.warning(
            "small copies of pictures are kept for this run alone: %s is not a folder that only "
            "this user may write",
            folder,
        )
        return Path(self._temporary.name)
