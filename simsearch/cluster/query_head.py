"""A head for queries of libraries whose rows are elsewhere: its neighbours are found by search."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    from simsearch.cluster.milvus.remote_library import RemoteLibrary
    from simsearch.cluster.shards import Shards


def apply_head(
    library: RemoteLibrary | Shards, embeddings: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Pass the backbone's embeddings, (Q, D) of unit norm, through a library's head."""
    head = library.head
    if head is None or not head.whole:
        return embeddings if head is None else head(embeddings)
    index: Any = library.index  # of its own kind of library
    moved = np.empty((len(embeddings), library.dim), np.float32)
    for i, near in enumerate(index.top_k(library, head(embeddings), head.reach)):
        moved[i : i + 1] = head.query(embeddings[i : i + 1], library.embeddings[near.rows])
    return moved
