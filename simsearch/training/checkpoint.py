"""Checkpoints of a fine-tuning: written after each epoch, resumed by the same training alone."""

from __future__ import annotations

import io
import json
import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from filelock import FileLock, Timeout

from simsearch.errors import TrainingError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from typing import Any, TypeAlias

    import torch
    from numpy.typing import NDArray

    Loss: TypeAlias = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    Plan: TypeAlias = Callable[[int], Iterable[tuple[NDArray[np.intp], NDArray[np.intp]]]]


CHECKPOINT = "checkpoint.pt"


class Checkpoint:
    """One file that holds a training after its last whole epoch.

    Written beside its place and renamed over it; it holds tensors and plain values, no code.

    Parameters
    ----------
    folder
        Made if need be.
    settings
        All that decides how the training goes, ready for JSON: another training's file is refused.

    Raises
    ------
    TrainingError
        If the file cannot be read or written, or is another training's.
    """

    def __init__(self, folder: str | os.PathLike[str], settings: Mapping[str, Any]) -> None:
        self.file = Path(folder).expanduser() / CHECKPOINT
        self._settings: dict[str, Any] = json.loads(json.dumps(settings, default=str))

    @contextmanager
    def hold(self) -> Iterator[dict[str, Any] | None]:
        """Keep other processes out; give the state that was written last, None if there is none."""
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
            raise self._unwritable(error) from error
        try:
            yield self._read()
        finally:
            lock.release()

    def _unwritable(self, error: OSError) -> TrainingError:
        return TrainingError(
            f"cannot write {self.file.as_posix()!r}: {error.strerror or error}; the epochs that "
            "were written are kept: make room and run again"
        )

    def _read(self) -> dict[str, Any] | None:
        import torch

        if not self.file.exists():
            return None
        try:
            stored = torch.load(self.file, map_location="cpu", weights_only=True)
            settings, state = json.loads(stored["settings"]), stored["state"]
        except Exception as error:  # torch, pickle and zip each raise their own
            raise self._refused(f"is damaged ({type(error).__name__})") from error
        names = sorted(settings.keys() | self._settings.keys())
        changed = [
            f"{name} was {settings.get(name)!r} and is {self._settings.get(name)!r}"
            for name in names
            if settings.get(name) != self._settings.get(name)
        ]
        if changed:
            raise self._refused(f"is of another training ({'; '.join(changed)})")
        found: dict[str, Any] = state
        return found

    def _refused(self, what: str) -> TrainingError:
        return TrainingError(
            f"the checkpoint {self.file.as_posix()!r} {what}; delete it to start anew, or choose "
            "another checkpoint="
        )

    def write(self, state: Mapping[str, Any]) -> None:
        """Replace the state; once this returns, killing the process does not lose it."""
        import torch

        part = self.file.with_name(f"{CHECKPOINT}.part")
        whole = io.BytesIO()  # torch.save hides what a full disk says
        torch.save({"settings": json.dumps(self._settings), "state": dict(state)}, whole)
        try:
            with part.open("wb") as stream:
                stream.write(whole.getbuffer())
                stream.flush()
                os.fsync(stream.fileno())
            part.replace(self.file)
        except OSError as error:
            part.unlink(missing_ok=True)  # half a checkpoint would keep a full disk full
            raise self._unwritable(error) from error
