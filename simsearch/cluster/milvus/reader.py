"""One version of a published library: its rows are read, filtered, cached, complete, and ranked.

Milvus proposes rows, which are checked and scored exactly here: scores, conditions and the order of
equal scores are those of a library of files.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from itertools import compress
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

from simsearch.cluster.milvus.changes import deleted_ids, path_key
from simsearch.cluster.milvus.early import early_expression
from simsearch.cluster.milvus.filters import filter_expression, filter_mask
from simsearch.cluster.milvus.schema import COLUMNS, ORDER, ORDER_CHUNK_ROWS, PAYLOAD, VersionRecord
from simsearch.cluster.milvus.store import Store, unpack
from simsearch.errors import QueryError, RemoteError, StaleVersionError
from simsearch.files import iter_blocks
from simsearch.retrieval.exact import TopK

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from simsearch.library.types import Rows
    from simsearch.retrieval.index import Index


_T = TypeVar("_T")

BATCH_ROWS = 1_000  # that are read together
CACHED_ROWS = 4_096
FIELDS = ["id", "row", PAYLOAD]
MAX_FETCHED_ROWS = 500  # up to which all allowed rows are read rather than searched
MAX_DEPTH_ROWS = 16_384  # that Milvus ranks for one query
SPARE_ROWS = 20  # ranked beyond k: the engine's float32 may confuse the last ones
DEPTH_FACTOR = 8  # by which the depth grows where too few rows are allowed
BATCH_QUERIES = 64
MIN_EF, MIN_FILTERED_EF, MAX_EF = 256, 4096, 32_768  # of an HNSW search
NPROBE = 256  # of 1,024 lists of each segment, that an IVF search reads


class PublishedRow(NamedTuple):
    """One image as it is stored."""

    id: int  # of this state of the image
    row: int  # of the image
    path: str
    facts: dict[str, Any]
    stat: list[int] | None
    vector: NDArray[np.float32]  # (D,); empty where it was not asked for

    @classmethod
    def parse(cls, line: dict[str, Any]) -> PublishedRow:
        """Read a line of the engine's answer."""
        payload = json.loads(line[PAYLOAD])
        return cls(
            id=int(line["id"]),
            row=int(line["row"]),
            path=payload["path"],
            facts=payload.get("facts", {}),
            stat=payload.get("stat"),
            vector=np.array(line.get("vector", ()), np.float32),
        )


class RowFilter(NamedTuple):
    """The rows that may be found, as a condition and as an expression of the engine."""

    where: Rows
    exclude: frozenset[int]
    expression: str  # as far as the engine can evaluate it; "" lets all through

    def within(self, expression: str) -> str:
        """Return an expression and this one."""
        return f"{expression} and ({self.expression})" if self.expression else expression


ALL_ROWS = RowFilter(None, frozenset(), "")


class VersionReader:
    """Reads the rows of one version. Safe to share between threads.

    Parameters
    ----------
    store
        Where it is published.
    version
        Its record.

    Raises
    ------
    RemoteError
        If a part of it cannot be read.
    """

    def __init__(self, store: Store, version: VersionRecord) -> None:
        self.store, self.version = store, version
        self.columns: list[dict[str, Any]] = unpack(store.read_part(version, COLUMNS))
        self._deleted = frozenset(deleted_ids(store, version).tolist())
        self._cache: OrderedDict[int, PublishedRow] = OrderedDict()  # by row, last used at the end
        self._lock = threading.Lock()
        self._collection = store.rows_name(version.generation)
        store.call("load_collection", self._collection)

    # Whether the version is complete

    def check_current(self) -> None:
        """Raise an error if rows of this version may have been deleted; call it after reading.

        Raises
        ------
        StaleVersionError
            If so: what was read just now may lack some.
        """
        now = self.store.read_version()
        if now is None or now.oldest_readable > self.version.version:
            readable = f"only since version {now.oldest_readable}" if now else "no longer"
            raise StaleVersionError(
                f"{self.store!r} is open at version {self.version.version}, and can be read "
                f"{readable}: call refresh()"
            )

    def read_part(self, name: str) -> bytes:
        """Read a part of the version."""
        return self._or_stale(partial(self.store.read_part, self.version, name))

    def _or_stale(self, read: Callable[[], _T]) -> _T:
        """Read; if that fails because the version is stale, raise `StaleVersionError`."""
        try:
            return read()
        except RemoteError:
            self.check_current()
            raise

    # Filters

    def make_filter(self, where: Rows, exclude: Collection[int] = ()) -> RowFilter:
        """Make a filter of a condition.

        Raises
        ------
        QueryError
            If there is no such column, or the condition is a mask.
        """
        if where is None or isinstance(where, (str, Mapping)):  # checked on an example
            example = {column["name"]: column["example"] for column in self.columns}
            filter_mask(where, ["example"], [example], None, self.columns)
        else:
            rows = np.asarray(where)
            numbers = rows.ndim == 1 and (rows.dtype.kind in "iu" or not len(rows))
            if not numbers or not ((rows >= 0) & (rows < self.version.next_id)).all():
                raise QueryError(
                    f"an array of shape {rows.shape} and dtype {rows.dtype} chooses no rows of "
                    f"{self.store!r}: give row numbers, such as those of matches"
                )
            where = rows.astype(np.int64)
        expression = filter_expression(where, self.columns)
        if self.version.early:
            expression = early_expression(expression)
        return RowFilter(where, frozenset(exclude), expression)

    def apply(self, found: Sequence[PublishedRow], row_filter: RowFilter) -> list[PublishedRow]:
        """Keep the rows that are part of this version and pass a filter."""
        where, exclude, _ = row_filter
        seen = [
            entry
            for entry in found
            if entry.id < self.version.next_id
            and entry.id not in self._deleted
            and entry.row not in exclude
        ]
        if where is None:
            return seen
        if isinstance(where, np.ndarray):
            met = np.isin([entry.row for entry in seen], where)
        else:
            paths, facts = [entry.path for entry in seen], [entry.facts for entry in seen]
            met = filter_mask(where, paths, facts, self.version.root, self.columns)
        return list(compress(seen, met))

    def visible(self, row_filter: RowFilter) -> str:
        """Return the expression of a filter within this version."""
        return row_filter.within(f"id < {self.version.next_id}")

    # Rows

    def rows_at(self, rows: Sequence[int]) -> list[PublishedRow]:
        """Read images by row number, in the order given.

        Raises
        ------
        QueryError
            If there is no such row.
        """
        found = self.find_rows(rows)
        missing = [row for row in rows if row not in found]
        if missing:
            raise QueryError(f"row {missing[0]}: {self.store!r} has no such row")
        return [found[row] for row in rows]

    def find_rows(self, rows: Sequence[int]) -> dict[int, PublishedRow]:
        """Read images by row number, without those that do not exist."""
        with self._lock:
            found = {row: self._cache[row] for row in rows if row in self._cache}
            for row in found:
                self._cache.move_to_end(row)
        wanted = sorted({int(row) for row in rows}.difference(found))
        if wanted:
            read = self._read_all("row", wanted)
            found |= {entry.row: entry for entry in self.apply(read, ALL_ROWS)}
            self.check_current()
        return found

    def rows_by_id(self, ids: Sequence[int]) -> list[PublishedRow]:
        """Read images by the id of their state, in any order."""
        with self._lock:
            cached = {entry.id: entry for entry in self._cache.values()}
        found = [cached[key] for key in ids if key in cached]
        return found + self._read_all("id", [key for key in ids if key not in cached])

    def rows_by_path(self, paths: Sequence[str]) -> dict[str, int]:
        """Return row by path, without paths that do not exist; of two rows, the lower."""
        keys = sorted({path_key(path) for path in paths})
        found = self.apply(self._query(f"key in {keys}"), ALL_ROWS)
        self.check_current()
        return {entry.path: entry.row for entry in sorted(found, key=lambda entry: -entry.row)}

    def scan(self, row_filter: RowFilter) -> Iterator[list[PublishedRow]]:
        """Read all images that meet a filter, block by block."""
        for block in iter_blocks(self.version.next_id, BATCH_ROWS):
            text = row_filter.within(f"id >= {block.start} and id < {block.stop}")
            yield self.apply(self._query(text), row_filter)
        self.check_current()

    def scan_by_path(
        self, start: int, stop: int, row_filter: RowFilter = ALL_ROWS
    ) -> Iterator[PublishedRow]:
        """Read images, without vectors, in the order of their paths, from one place to another."""
        stop = min(stop, self.version.rows)
        while start < stop:
            chunk, inside = divmod(start, ORDER_CHUNK_ROWS)
            data = self._or_stale(partial(self.store.read_chunk, self.version, ORDER, chunk))
            page = slice(inside, inside + min(BATCH_ROWS, stop - start))
            ids = np.frombuffer(data, np.int64)[page].tolist()
            found = self._query(row_filter.within(f"id in {ids}"), vectors=False)
            places = {key: place for place, key in enumerate(ids)}
            yield from sorted(self.apply(found, row_filter), key=lambda entry: places[entry.id])
            start += len(ids)
            self.check_current()

    def _read_all(self, field: str, values: Sequence[int]) -> list[PublishedRow]:
        blocks = iter_blocks(len(values), BATCH_ROWS)
        return [entry for block in blocks for entry in self._query(f"{field} in {values[block]}")]

    def _query(self, expression: str, *, vectors: bool = True) -> list[PublishedRow]:
        fields = [*FIELDS, "vector"] if vectors else FIELDS
        lines = self.ask("query", filter=expression, output_fields=fields)
        found = [PublishedRow.parse(line) for line in lines]
        if vectors:
            with self._lock:
                self._cache.update((entry.row, entry) for entry in self.apply(found, ALL_ROWS))
                while len(self._cache) > CACHED_ROWS:
                    self._cache.popitem(last=False)
        return found

    def ask(self, method: str, **options: Any) -> Any:  # noqa: ANN401
        """Call a method of the engine for the collection of rows."""
        return self._or_stale(partial(self.store.call, method, self._collection, **options))


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
            found = (
                self._rank(vectors[block], k, row_filter)
                if few is None
                else [rank_rows(vector, few, k) for vector in vectors[block]]
            )
            self.reader.check_current()
            yield from found

    def _few_rows(self, row_filter: RowFilter) -> list[PublishedRow] | None:
        """Read all allowed rows if these are few: recall of a graph is low there."""
        if self.reader.version.rows <= MAX_FETCHED_ROWS:
            return [entry for block in self.reader.scan(row_filter) for entry in block]
        if not row_filter.expression:
            return None
        options = {"output_fields": ["id"], "limit": MAX_FETCHED_ROWS + 1}
        hits = self.reader.ask("query", filter=self.reader.visible(row_filter), **options)
        if len(hits) > MAX_FETCHED_ROWS:
            return None
        found = self.reader.rows_by_id([int(hit["id"]) for hit in hits])
        return self.reader.apply(found, row_filter)

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
        wanted, depth = min(k, self.reader.version.rows), len(ids)
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
        least = MIN_FILTERED_EF if "(" in expression else MIN_EF  # only conditions bring one
        of_graph = {"ef": min(MAX_EF, max(4 * depth, least))}
        others = {"IVF_FLAT": {"nprobe": NPROBE}, "FLAT": {}}
        return others.get(self.reader.version.index, of_graph)


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
