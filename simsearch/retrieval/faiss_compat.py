"""FAISS, imported on use: its number of threads, and its methods beside PyTorch extensions."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from simsearch.errors import MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any


def import_faiss() -> Any:  # noqa: ANN401 (FAISS has no types)
    """Import FAISS.

    Raises
    ------
    MissingExtraError
        If it is not installed.
    """
    try:
        import faiss
    except ImportError as error:
        raise MissingExtraError('an index needs: pip install "simsearch[faiss]"') from error
    return faiss


@contextmanager
def faiss_threads(count: int) -> Iterator[None]:
    """Let FAISS use this many threads."""
    faiss = import_faiss()
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(count)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def keep_search_parameters() -> None:
    """Let arrays be searched with parameters, whatever else has been imported.

    `faiss.contrib.torch_utils`, which pytorch-metric-learning imports, replaces FAISS's search
    methods in the whole process by ones without parameters. Milvus Lite is affected, too.
    """
    if "faiss.contrib.torch_utils" not in sys.modules:
        return
    import faiss

    if faiss.Index.search.__name__ == _dispatch_search.__name__:
        return
    for kind in vars(faiss).values():
        if isinstance(kind, type) and issubclass(kind, faiss.Index) and "search" in vars(kind):
            kind.search = _dispatch_search(kind.search_numpy, kind.search)  # type: ignore[attr-defined]


def _dispatch_search(
    search_arrays: Callable[..., Any], search_tensors: Callable[..., Any]
) -> Callable[..., Any]:
    """Return a method that searches numpy arrays by one method and tensors by the other."""

    def search(self: Any, x: object, *args: Any, **options: Any) -> Any:  # noqa: ANN401
        method = search_arrays if isinstance(x, np.ndarray) else search_tensors
        return method(self, x, *args, **options)

    search.__name__ = _dispatch_search.__name__
    return search
