"""BLAS threads of numpy, limited for products that are too small to share."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import Any


def one_blas_thread() -> AbstractContextManager[object]:
    """Keep numpy's BLAS from waking its threads: they spin on for some 30 ms after a product.

    That is longer than a small product takes, and slows the forward pass of the next query.
    """
    pools = _blas_pools()
    alone = all(pool.get_num_threads() == 1 for pool in pools.lib_controllers)
    limit: AbstractContextManager[object] = nullcontext() if alone else pools.limit(limits=1)
    return limit


@lru_cache(maxsize=1)
def _blas_pools() -> Any:  # noqa: ANN401 (threadpoolctl has no types)
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="blas")
