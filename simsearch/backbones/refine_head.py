"""`RefineHead`: database-side augmentation and query expansion as a head; no training, no images.

Made by `simsearch.refine`, which documents the method and its sources.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from tqdm.auto import tqdm

from simsearch.backbones.heads import BLOCK_ROWS, Head, unit
from simsearch.files import iter_blocks

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any, Self

    from numpy.typing import NDArray


BLOCK_BYTES = 2**25  # of scores, and of neighbours' rows, held at once
MIN_CENTRED_NORM = 1e-5  # below it, a centred row is rounding error


class RefineHead(Head):
    """Centres embeddings on a mean, and moves them towards their neighbours in a library.

    Parameters
    ----------
    mean
        (D,) float32, subtracted from each embedding.
    neighbours, alpha
        As in `refine`.
    source
        Fingerprint of what made the embeddings that it takes.

    Attributes
    ----------
    progress : bool
        Whether `rows` shows a progress bar.
    """

    kind = "refine"
    whole = True

    def __init__(
        self, mean: NDArray[np.float32], neighbours: int, alpha: float, source: str = ""
    ) -> None:
        self.mean = np.ascontiguousarray(mean, np.float32)
        self.neighbours, self.alpha = int(neighbours), float(alpha)
        self.source = source
        (self.dim_in,) = (self.dim,) = self.mean.shape
        self.progress = False

    @property
    def reach(self) -> int:
        """How many of the nearest rows a query depends on."""
        return self.neighbours

    def __call__(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """Centre embeddings, without neighbours; one that equals the mean stays as it is."""
        centred = embeddings - self.mean
        lost = np.linalg.norm(centred, axis=1) < MIN_CENTRED_NORM
        centred[lost] = embeddings[lost]
        return unit(centred)

    def rows(self, embeddings: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
        """Refine a library's rows, in order, as (n, D) blocks; no row is its own neighbour."""
        gallery = np.empty(embeddings.shape, np.float32)
        for block in iter_blocks(len(gallery), BLOCK_ROWS):
            gallery[block] = self(embeddings[block])
        with tqdm(
            desc="Refining", total=len(gallery), unit="image", disable=not self.progress
        ) as bar:
            for block in self._blocks(gallery, gallery):
                yield self._expand(gallery[block], gallery, block)
                bar.update(block.stop - block.start)

    def query(
        self, embeddings: NDArray[np.float32], gallery: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Refine new queries, (Q, D), with neighbours among refined rows, (N, D)."""
        queries, gallery = self(embeddings), np.asarray(gallery)
        for block in self._blocks(queries, gallery):
            queries[block] = self._expand(queries[block], gallery)
        return queries

    def _blocks(self, rows: NDArray[np.float32], gallery: NDArray[np.float32]) -> Iterator[slice]:
        """Cut rows into blocks whose scores, and whose neighbours, fit in `BLOCK_BYTES`."""
        row_bytes = 4 * max(len(gallery), min(self.neighbours, len(gallery)) * self.dim)
        return iter_blocks(len(rows), max(1, BLOCK_BYTES // row_bytes))

    def _expand(
        self, rows: NDArray[np.float32], gallery: NDArray[np.float32], own: slice | None = None
    ) -> NDArray[np.float32]:
        """Move (n, D) rows towards their neighbours; `own` is their place in the gallery."""
        scores = rows @ gallery.T  # (n, N)
        if own is not None:
            np.fill_diagonal(scores[:, own], -1)
        k = min(self.neighbours, len(gallery))
        nearest = np.argpartition(scores, -k, axis=1)[:, -k:]  # (n, k), unsorted
        cosines = np.take_along_axis(scores, nearest, axis=1).clip(-1, 1)
        weights = np.where(cosines > 0, abs(cosines) ** self.alpha, 0).astype(np.float32)
        return unit(rows + (weights[:, None] @ gallery[nearest])[:, 0])

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return `mean`, `neighbours` and `alpha`."""
        return {
            "mean": self.mean,
            "neighbours": np.array([self.neighbours], np.int64),
            "alpha": np.array([self.alpha], np.float64),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]], source: str) -> Self:
        """Make a head from `arrays()`."""
        neighbours, alpha = arrays["neighbours"].item(), arrays["alpha"].item()
        return cls(arrays["mean"], neighbours, alpha, source)
