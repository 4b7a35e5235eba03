"""BLAS threads of numpy, limited for products that are too small to share."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from typing import Any


def one_blas_thread() -> AbstractContextManager[object]:
    """Keep numpy's BLAS from waking its threads: they spin on for some 30 ms after a product.

    That is longer than a small product takes, and slows the forward pass of the next query.
    """
    limit: AbstractContextManager[object] = _thread_pools().limit(limits=1, user_api="blas")
    return limit


@lru_cache(maxsize=1)
def _thread_pools() -> Any:  # noqa: ANN401 (threadpoolctl has no types)
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
