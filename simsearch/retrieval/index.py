"""`Index`: what ranks the rows of a library for a query."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    import numpy as np
    from numpy.typing import NDArray

    from simsearch.retrieval.exact import TopK


class Index(Protocol):
    """What ranks the rows of a library: `ExactIndex`, `PrunedIndex`, `FaissIndex`, Milvus."""

    exact: bool

    def check(self, library: Any) -> None:  # noqa: ANN401
        """Raise an error if it was not made for this library."""

    def top_k(
        self,
        library: Any,  # noqa: ANN401
        vectors: NDArray[np.float32],
        k: int,
        mask: Any = None,  # noqa: ANN401
    ) -> Iterator[TopK]:
        """Rank the best rows for each of several embeddings.

        Parameters
        ----------
        library
            What it was made for.
        vectors
            (Q, D) float32, rows of unit L2 norm.
        k
            How many rows to find; fewer if there are fewer.
        mask
            The rows that may be found, as the library's `row_filter` gives them; None for all.

        Yields
        ------
        TopK
            One per vector, in order.
        """
