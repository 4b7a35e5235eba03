"""Files written whole or not at all, their digests, the user's folders, and ranges of rows."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Literal

_BASES = {  # on a Mac; elsewhere, a variable and what it stands for by default
    "cache": ("~/Library/Caches", "XDG_CACHE_HOME", "~/.cache"),
    "state": ("~/Library/Application Support", "XDG_STATE_HOME", "~/.local/state"),
}
DIGEST_BLOCK_BYTES = 2**22
DIGEST_BYTES = 16  # of a digest that tells whether a file's content is known


@contextmanager
def atomic_write(file: Path, *, shared: bool = False) -> Iterator[IO[bytes]]:
    """Write a file beside its place and rename it over, so that no reader sees half of it.

    Parameters
    ----------
    file
        The file to replace. If the body raises, it is untouched and the part is deleted.
    shared
        Whether several threads or processes may write it at once; each then has its own part.

    Yields
    ------
    io.BufferedRandom
        The part, open for writing and reading; on the disk before it is renamed.
    """
    writer = f".{os.getpid()}-{threading.get_ident()}" if shared else ""
    part = file.with_name(f"{file.name}{writer}.part")
    try:
        part.unlink(missing_ok=True)  # left by a kill, or a link that leads elsewhere
        with part.open("x+b") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(file)
    except BaseException:
        part.unlink(missing_ok=True)  # half a file would keep a full disk full
        raise


def open_plain(file: Path) -> IO[bytes]:
    """Open a file for reading and writing, or make it; a link is an error, and not followed."""
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    return os.fdopen(os.open(file, flags, 0o666), "r+b")


def check_plain(file: Path) -> None:
    """Raise an OSError, before it is opened, for a link, a pipe or a device."""
    if not stat.S_ISREG(file.lstat().st_mode):
        raise OSError(errno.ELOOP, "it is a link, a pipe or a device, and not a file", str(file))


def write_text(file: Path, text: str) -> None:
    """Write a small UTF-8 file atomically; names that are not UTF-8 keep their bytes."""
    with atomic_write(file) as stream:
        stream.write(text.encode("utf-8", sys.getfilesystemencodeerrors()))


def user_folder(kind: Literal["cache", "state"]) -> Path:
    """Return where this user's files of a kind lie; the folder need not exist."""
    base, variable, other = _BASES[kind]
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or "~/AppData/Local"
    elif sys.platform != "darwin":
        base = os.environ.get(variable) or other
    return Path(os.path.expanduser(base)) / "simsearch"  # noqa: PTH111 (never raises)


def modified_ns(status: os.stat_result) -> int:
    """Return a file's time in ns, modulo 2**64: from 2262 on it would not fit into an int64."""
    return (status.st_mtime_ns + 2**63) % 2**64 - 2**63


def sha256_file(file: Path) -> str:
    """Return the SHA-256 digest of a file: 64 hex digits."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(DIGEST_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def digest_unchanged(file: str | os.PathLike[str], size: int, time_ns: int) -> bytes:
    """Return the BLAKE2b digest (16 bytes) of a file of this size and time, b"" of any other."""
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
    try:
        with open(file, "rb") as stream:  # noqa: PTH123 (a name such as "~1.jpg")
            while block := stream.read(DIGEST_BLOCK_BYTES):
                digest.update(block)
            status = os.fstat(stream.fileno())
    except OSError:
        return b""
    return digest.digest() if (status.st_size, modified_ns(status)) == (size, time_ns) else b""


def iter_blocks(count: int, size: int) -> Iterator[slice]:
    """Cut `count` rows into slices of `size`, the last one perhaps shorter.

    Examples
    --------
    >>> list(iter_blocks(5, 2))
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))
