"""Answers that depend on the version of the library alone, encoded once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from simsearch.web.problems import encode_json

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from simsearch.web.library_manager import State


class AnswerCache:
    """Keeps the answers of one state of the library, those that were asked for last.

    Parameters
    ----------
    size
        Bytes of the answers together.
    """

    def __init__(self, size: int) -> None:
        self._size, self._held = size, 0
        self._state: State | None = None
        self._answers: OrderedDict[Hashable, bytes] = OrderedDict()
        self._making: dict[Hashable, threading.Lock] = {}
        self._lock = threading.Lock()

    def get(self, state: State, key: Hashable, make: Callable[[State], Any]) -> bytes:
        """Return JSON of what `make` gives for a state; made once, whoever else waits for it."""
        with self._lock:
            self._start(state)
            found = self._look_up(key)
            making = self._making.setdefault((state.version, key), threading.Lock())
        if found is not None:
            return found
        try:
            with making:
                with self._lock:
                    found = self._look_up(key) if self._state is state else None
                if found is None:
                    found = encode_json(make(state))
                    self._keep(state, key, found)
        finally:
            with self._lock:
                self._making.pop((state.version, key), None)
        return found

    def _start(self, state: State) -> None:
        """Forget the answers of another state."""
        if self._state is not state:
            self._state, self._held = state, 0
            self._answers.clear()

    def _look_up(self, key: Hashable) -> bytes | None:
        if key in self._answers:
            self._answers.move_to_end(key)
        return self._answers.get(key)

    def _keep(self, state: State, key: Hashable, answer: bytes) -> None:
        """Keep an answer, and forget the oldest beyond the size."""
        with self._lock:
            if self._state is not state or len(answer) > self._size:
                return
            self._answers[key] = answer
            self._held += len(answer)
            while self._held > self._size:
                self._held -= len(self._answers.popitem(last=False)[1])
