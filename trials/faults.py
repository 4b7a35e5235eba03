"""A fault in the file system at a chosen step: a write, a sync, a rename or another one fails.

In this process: the calls through which simsearch changes files are counted, and the one of a given
number raises. `Killed` stands for the end of the process: no later call does anything any more, and
buffers are lost. After a power cut, files that were not synced are cut at random, too.
"""

from __future__ import annotations

import errno
import os
import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

KINDS = ("open", "write", "fsync", "rename", "unlink", "mkdir", "rmdir")
MODES = ("refused", "half", "killed", "power")


class Killed(BaseException):
    """The process dies here: no handler of the package takes this for an error."""


class Faults:
    """Counts what changes files, and fails at one step.

    Parameters
    ----------
    kind
        Of `KINDS`; None counts alone.
    number
        Which call of this kind fails, from 1 on.
    mode
        "refused" raises an `OSError` (a full disk, or one that fails); "half" as well, after half
        of a write; "killed" and "power" end the process at this step.
    seed
        Of what a power cut leaves of files that were not synced.
    """

    def __init__(self, kind: str | None, number: int = 0, mode: str = "killed", seed: int = 0):
        self.kind, self.number, self.mode = kind, number, mode
        self.steps: Counter[str] = Counter()
        self.happened = self.dead = False
        self._random = random.Random(seed)
        self._unsynced: dict[str, int] = {}  # size on the disk at the last sync, by path

    def step(self, kind: str, half: Callable[[], object] = lambda: None) -> None:
        """Count a call, and fail if it is the one."""
        if self.dead:
            raise Killed
        self.steps[kind] += 1
        if (kind, self.steps[kind]) != (self.kind, self.number):
            return
        self.happened = True
        if self.mode == "refused":
            code = errno.EIO if kind == "fsync" else errno.ENOSPC
            raise OSError(code, os.strerror(code))
        half()
        if self.mode == "half":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.dead = True
        if self.mode == "power":
            self._cut_power()
        raise Killed

    def wrote(self, path: str) -> None:
        """Note that a file has bytes that may not be on the disk yet."""
        self._unsynced.setdefault(path, 0)

    def synced(self, path: str) -> None:
        """Note that a file is on the disk."""
        self._unsynced.pop(path, None)

    def renamed(self, path: str, target: str) -> None:
        """Note that a file has another name."""
        if path in self._unsynced:
            self._unsynced[target] = self._unsynced.pop(path)

    def _cut_power(self) -> None:
        for path in self._unsynced:
            if Path(path).is_file():
                os.truncate(path, self._random.randint(0, Path(path).stat().st_size))


class Stream:
    """An open file without a buffer of this process, whose writes are counted."""

    def __init__(self, raw: Any, path: str, faults: Faults) -> None:
        self._raw, self._path, self._faults = raw, path, faults

    def write(self, data: Any) -> int:
        """Write all, or fail."""
        view = memoryview(data).cast("B") if memoryview(data).nbytes else memoryview(b"")
        self._faults.step("write", lambda: self._raw.write(view[: len(view) // 2]))
        self._faults.wrote(self._path)
        while len(view):
            view = view[self._raw.write(view) :]
        return memoryview(data).nbytes

    def truncate(self, size: int | None = None) -> int:
        """Cut the file."""
        self._faults.step("write")
        return self._raw.truncate(size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self._raw.close()

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._raw)


@contextmanager
def injected(faults: Faults) -> Iterator[Faults]:
    """Have every call of this process that changes a file go through `faults`."""
    streams = _Streams(faults)
    methods = {"replace": "rename", "unlink": "unlink", "mkdir": "mkdir", "rmdir": "rmdir"}
    with ExitStack() as stack:
        for owner, name, call in (
            (Path, "open", streams.open),
            (os, "fdopen", streams.fdopen),
            (os, "fsync", streams.fsync),
            *((Path, name, _counted(faults, kind, name)) for name, kind in methods.items()),
        ):
            stack.enter_context(mock.patch.object(owner, name, call))
        stack.callback(streams.close)
        yield faults


class _Streams:
    """What opens files for writing, and syncs them."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self._names: dict[int, str] = {}
        self._opened: list[Any] = []
        plain_open, self._fdopen, self._fsync = Path.open, os.fdopen, os.fsync

        def open_counted(path: Path, mode: str = "r", *args: Any, **kw: Any) -> Any:
            if not set(mode) & set("wxa+") or "b" not in mode:
                return plain_open(path, mode, *args, **kw)
            faults.step("open")
            return self._named(plain_open(path, mode, 0), os.fspath(path))

        self.open = open_counted  # a function, so that it becomes a method of `Path`

    def fdopen(self, descriptor: int, mode: str = "r", *args: Any, **kw: Any) -> Any:
        if "+" not in mode and "w" not in mode:
            return self._fdopen(descriptor, mode, *args, **kw)
        path = os.fspath(Path(f"/proc/self/fd/{descriptor}").readlink())
        return self._named(self._fdopen(descriptor, mode, 0), path)

    def fsync(self, descriptor: int) -> None:
        self._faults.step("fsync")
        self._fsync(descriptor)
        self._faults.synced(self._names.get(descriptor, ""))

    def close(self) -> None:
        """Close what the dead have left open."""
        for raw in self._opened:
            raw.close()

    def _named(self, raw: Any, path: str) -> Stream:
        self._names[raw.fileno()] = path
        self._opened.append(raw)
        return Stream(raw, path, self._faults)


def _counted(faults: Faults, kind: str, name: str) -> Callable[..., Any]:
    plain = getattr(Path, name)

    def call(path: Path, *args: Any, **kw: Any) -> Any:
        faults.step(kind)
        result = plain(path, *args, **kw)
        if kind == "rename":
            faults.renamed(os.fspath(path), os.fspath(args[0]))
        return result

    return call
