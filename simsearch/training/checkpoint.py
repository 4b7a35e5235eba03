"""Checkpoints of a fine-tuning: one file, replaced after each epoch, held by one process."""

from __future__ import annotations

import io
import json
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from filelock import FileLock, Timeout

from simsearch.errors import TrainingError
from simsearch.files import atomic_write
from simsearch.plain_json import dumps, plain

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Mapping
    from typing import Any

FILE_NAME = "checkpoint.pt"


class Checkpoint:
    """One file with the state of a training after its last complete epoch.

    Replaced atomically; it holds tensors and plain values, no code.

    Parameters
    ----------
    folder
        Created if it does not exist.
    settings
        All that determines the training, ready for JSON: the file of another training is refused.

    Raises
    ------
    TrainingError
        If the file cannot be read or written, or is of another training.
    """

    def __init__(self, folder: str | os.PathLike[str], settings: Mapping[str, Any]) -> None:
        self.file = Path(folder).expanduser() / FILE_NAME
        self._settings: dict[str, Any] = json.loads(dumps(settings))

    @contextmanager
    def hold(self) -> Iterator[dict[str, Any] | None]:
        """Lock the folder for this process; give the state that was last written, or None."""
        lock = FileLock(self.file.with_name(".lock"), timeout=0)
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except Timeout:
            raise TrainingError(
                f"another process is training in {self.file.parent.as_posix()!r}; wait for it, "
                "or choose another checkpoint="
            ) from None
        except OSError as error:
            raise self._write_error(error) from error
        try:
            yield self._read()
        finally:
            lock.release()

    def _write_error(self, error: OSError) -> TrainingError:
        return TrainingError(
            f"cannot write {self.file.as_posix()!r}: {error.strerror or error}; the epochs that "
            "were written are kept: free disk space and run again"
        )

    def _read(self) -> dict[str, Any] | None:
        if not self.file.exists():
            return None
        try:
            stored = torch.load(self.file, map_location="cpu", weights_only=True)
            settings, state = plain(json.loads(stored["settings"])), stored["state"]
        except Exception as error:  # torch, pickle and zip each raise their own
            raise self._refuse(f"is damaged ({type(error).__name__})") from error
        names = sorted(settings.keys() | self._settings.keys())
        changed = [
            f"{name} was {settings.get(name)!r} and is {self._settings.get(name)!r}"
            for name in names
            if settings.get(name) != self._settings.get(name)
        ]
        if changed:
            raise self._refuse(f"is of another training ({'; '.join(changed)})")
        return dict(state)

    def _refuse(self, what: str) -> TrainingError:
        return TrainingError(
            f"the checkpoint {self.file.as_posix()!r} {what}; delete it to start anew, or choose "
            "another checkpoint="
        )

    def write(self, state: Mapping[str, Any]) -> None:
        """Replace the state: once this returns, a killed process does not lose it."""
        buffer = io.BytesIO()  # torch.save hides the message of a full disk
        torch.save({"settings": dumps(self._settings), "state": dict(state)}, buffer)
        try:
            with atomic_write(self.file) as stream:
                stream.write(buffer.getbuffer())
        except OSError as error:
            raise self._write_error(error) from error
