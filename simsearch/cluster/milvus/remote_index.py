"""Search by Milvus: the engine proposes rows, which are checked and scored exactly here.

Scores, conditions and the order of equal scores are those of a library of files.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from simsearch.cluster.milvus.reader import ALL_ROWS
from simsearch.files import iter_blocks
from simsearch.retrieval.exact import TopK

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from numpy.typing import NDArray

    from simsearch.cluster.milvus.reader import PublishedRow, RowFilter, VersionReader
    from simsearch.retrieval.index import Index


MAX_FETCHED_ROWS = 500  # up to which all allowed rows are read rather than searched
MAX_DEPTH_ROWS = 16_384  # that Milvus ranks for one query
SPARE_ROWS = 20  # ranked beyond k: the engine's float32 may confuse the last ones
DEPTH_FACTOR = 8  # by which the depth grows where too few rows are allowed
BATCH_QUERIES = 64
MIN_EF, MIN_FILTERED_EF, MAX_EF = 256, 4096, 32_768  # of an HNSW search
NPROBE = 128  # lists that an IVF search reads


class MilvusIndex:
    """Index of a `RemoteLibrary`: an `Index` whose candidates come from Milvus.

    Parameters
    ----------
    reader
        Of the library's version.
    """

    exact = False

    def __init__(self, reader: VersionReader) -> None:
        self.reader = reader

    def check(self, library: Any) -> None:  # noqa: ANN401
        """Do nothing: each remote library makes its own index."""

    def top_k(
        self,
        library: Any,  # noqa: ANN401, ARG002
        vectors: NDArray[np.float32],
        k: int,
        mask: RowFilter | None = None,
    ) -> Iterator[TopK]:
        """Rank the k best rows for each of several embeddings, as `Index.top_k` says."""
        row_filter = mask or ALL_ROWS
        few = self._few_rows(row_filter)
        for block in iter_blocks(len(vectors), BATCH_QUERIES):
            if few is not None:
                found = [rank_rows(vector, few, k) for vector in vectors[block]]
            else:
                found = self._rank(vectors[block], k, row_filter)
            self.reader.check_current()
            yield from found

    def _few_rows(self, row_filter: RowFilter) -> list[PublishedRow] | None:
        """Read all allowed rows if these are few: recall of a graph is low there."""
        if len(self.reader) <= MAX_FETCHED_ROWS:
            return [entry for block in self.reader.scan(row_filter) for entry in block]
        if not row_filter.expression:
            return None
        ids = self.reader.matching_ids(row_filter, MAX_FETCHED_ROWS + 1)
        if len(ids) > MAX_FETCHED_ROWS:
            return None
        return self.reader.apply(self.reader.rows_by_id(ids), row_filter)

    def _rank(self, vectors: NDArray[np.float32], k: int, row_filter: RowFilter) -> list[TopK]:
        # Rows of an unfinished publication are rare: at first they are only sorted out here.
        text = f"({row_filter.expression})" if row_filter.expression else ""
        depth = min(MAX_DEPTH_ROWS, k + SPARE_ROWS + len(row_filter.exclude))
        proposed = self._nearest(vectors, depth, text)
        return [
            self._rank_proposed(vector, ids, k, row_filter)
            for vector, ids in zip(vectors, proposed, strict=True)
        ]

    def _rank_proposed(
        self, vector: NDArray[np.float32], ids: list[int], k: int, row_filter: RowFilter
    ) -> TopK:
        """Check and score the proposed rows; where too few are allowed, search deeper."""
        wanted, depth = min(k, len(self.reader)), len(ids)
        while True:
            allowed = self.reader.apply(self.reader.rows_by_id(ids), row_filter)
            found = rank_rows(vector, allowed, k)
            if len(found.rows) >= wanted:
                return found
            if depth >= MAX_DEPTH_ROWS:
                return self._rank_all(vector, k, row_filter)
            depth = min(MAX_DEPTH_ROWS, DEPTH_FACTOR * max(depth, k))
            (ids,) = self._nearest(vector[None], depth, self.reader.visible(row_filter))

    def _rank_all(self, vector: NDArray[np.float32], k: int, row_filter: RowFilter) -> TopK:
        """Rank by reading all allowed rows, of which the k best are kept."""
        kept: list[PublishedRow] = []
        for block in self.reader.scan(row_filter):
            best = set(rank_rows(vector, kept + block, k).rows.tolist())
            kept = [entry for entry in kept + block if entry.row in best]
        return rank_rows(vector, kept, k)

    def _nearest(
        self, vectors: NDArray[np.float32], depth: int, expression: str
    ) -> list[list[int]]:
        """Let the engine rank: ids of images, best first, for each of (Q, D) embeddings."""
        answers = self.reader.ask(
            "search",
            data=list(vectors),
            anns_field="vector",
            filter=expression,
            limit=depth,
            output_fields=["id"],
            search_params={"metric_type": "COSINE", "params": self._effort(depth, expression)},
        )
        return [[int(hit["id"]) for hit in hits] for hits in answers]

    def _effort(self, depth: int, expression: str) -> dict[str, int]:
        """Return search parameters for high recall; larger ones where a condition filters."""
        index = self.reader.version.index
        if index.startswith("HNSW"):
            least = MIN_FILTERED_EF if "(" in expression else MIN_EF  # only conditions bring one
            return {"ef": min(MAX_EF, max(4 * depth, least))}
        return {"nprobe": NPROBE} if index == "IVF_FLAT" else {}


if TYPE_CHECKING:
    _index: type[Index] = MilvusIndex  # checked by mypy


def rank_rows(vector: NDArray[np.float32], found: Sequence[PublishedRow], k: int) -> TopK:
    """Score images exactly, and return the k best in order."""
    if not found:
        return TopK(np.empty(0, np.intp), np.empty(0))
    rows = np.stack([entry.vector for entry in found]).astype(np.float64)
    scores = np.clip((rows * vector).sum(axis=1), -1, 1)
    order = np.lexsort(([entry.path for entry in found], -scores))[:k]
    return TopK(np.array([found[i].row for i in order], np.intp), scores[order])
