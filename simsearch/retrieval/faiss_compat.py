"""FAISS beside PyTorch extensions: searches with parameters keep working for NumPy arrays."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np


def keep_parameters() -> None:
    """Let arrays be searched with parameters, whatever else has been imported.

    `faiss.contrib.torch_utils`, which pytorch-metric-learning imports, replaces FAISS's search
    methods in the whole process by ones without parameters; Milvus Lite is affected, too.
    """
    if "faiss.contrib.torch_utils" not in sys.modules:
        return
    import faiss

    if faiss.Index.search.__name__ == _search_either.__name__:
        return
    for kind in vars(faiss).values():
        if isinstance(kind, type) and issubclass(kind, faiss.Index) and "search" in vars(kind):
            kind.search = _search_either(kind.search_numpy, kind.search)  # type: ignore[attr-defined]


def _search_either(arrays: Callable[..., Any], tensors: Callable[..., Any]) -> Callable[..., Any]:
    def search(self: Any, x: object, *args: Any, **options: Any) -> Any:  # noqa: ANN401
        return (arrays if isinstance(x, np.ndarray) else tensors)(self, x, *args, **options)

    search.__name__ = _search_either.__name__
    return search
