"""Paths of a library, which lead to the same files when another folder becomes the current one."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray


class PlacedPaths:
    """`paths` and `root` of a library, absolute as soon as the current folder is another."""

    _paths: NDArray[Any]
    _root: str | None = None
    _opened_in: str | None = None  # the folder that they are relative to

    @property
    def paths(self) -> NDArray[Any]:
        self._stay()
        return self._paths

    @paths.setter
    def paths(self, paths: NDArray[Any]) -> None:
        self._paths, self._opened_in = paths, _current_folder()

    @property
    def root(self) -> str | None:
        self._stay()
        return self._root

    @root.setter
    def root(self, root: str | None) -> None:
        self._root = root

    def _stay(self) -> None:
        if self._opened_in and self._opened_in != (_current_folder() or self._opened_in):
            from simsearch.library.location import make_absolute

            folder, self._opened_in = self._opened_in, None
            self._paths, self._root = make_absolute(folder, self._paths, self._root)
            self.__dict__.pop("_by_path", None)  # an order that may have changed


def _current_folder() -> str | None:
    try:
        return os.getcwd()  # noqa: PTH109
    except OSError:  # it is gone
        return None
