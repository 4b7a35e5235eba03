"""Reader of one version of a published library: rows are read, filtered, cached and complete."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np

from simsearch.cluster.milvus.changes import deleted_ids, path_key
from simsearch.cluster.milvus.filters import check_filter, filter_expression, filter_mask
from simsearch.cluster.milvus.schema import COLUMNS, ORDER, ORDER_CHUNK_ROWS, PAYLOAD
from simsearch.cluster.milvus.store import unpack
from simsearch.errors import QueryError, RemoteError, StaleVersionError
from simsearch.files import iter_blocks

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence
    from typing import Any

    from numpy.typing import NDArray

    from simsearch.cluster.milvus.schema import VersionRecord
    from simsearch.cluster.milvus.store import Store
    from simsearch.library.types import Rows


_T = TypeVar("_T")

BATCH_ROWS = 1_000  # that are read together
CACHED_ROWS = 4_096
FIELDS = ["id", "row", PAYLOAD]


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
        vector = np.array(line.get("vector", ()), np.float32)
        facts, stat = payload.get("facts", {}), payload.get("stat")
        return cls(int(line["id"]), int(line["row"]), payload["path"], facts, stat, vector)


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

    def __len__(self) -> int:
        return self.version.rows

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
        return self._or_stale(lambda: self.store.read_part(self.version, name))

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
        chosen: Any = where
        if hasattr(where, "items"):
            chosen = dict(chosen)
        elif where is not None and not isinstance(where, str):
            chosen = self._row_numbers(where)
        if not isinstance(chosen, np.ndarray):
            check_filter(chosen, self.columns)
        return RowFilter(chosen, frozenset(exclude), filter_expression(chosen, self.columns))

    def _row_numbers(self, where: Any) -> NDArray[np.int64]:  # noqa: ANN401
        rows = np.asarray(where)
        whole = rows.ndim == 1 and (rows.dtype.kind in "iu" or not len(rows))
        if not whole or not ((rows >= 0) & (rows < self.version.next_id)).all():
            raise QueryError(
                f"an array of shape {rows.shape} and dtype {rows.dtype} chooses no rows of "
                f"{self.store!r}: give row numbers, such as those of matches"
            )
        return rows.astype(np.int64)

    def apply(self, found: Sequence[PublishedRow], row_filter: RowFilter) -> list[PublishedRow]:
        """Keep the rows that are part of this version and pass a filter."""
        where, exclude, _ = row_filter
        current = (entry for entry in found if entry.id < self.version.next_id)
        current = (entry for entry in current if entry.id not in self._deleted)
        seen = [entry for entry in current if entry.row not in exclude]
        if where is None:
            return seen
        if isinstance(where, np.ndarray):
            chosen = set(where.tolist())
            return [entry for entry in seen if entry.row in chosen]
        paths, facts = [entry.path for entry in seen], [entry.facts for entry in seen]
        met = filter_mask(where, paths, facts, self.version.root, self.columns)
        return [entry for entry, meets in zip(seen, met.tolist(), strict=True) if meets]

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
        for block in iter_blocks(len(wanted), BATCH_ROWS):
            read = self._query(f"row in {wanted[block]}")
            found.update((entry.row, entry) for entry in self.apply(read, ALL_ROWS))
        if wanted:
            self.check_current()
        return found

    def rows_by_id(self, ids: Sequence[int]) -> list[PublishedRow]:
        """Read images by the id of their state, in any order."""
        with self._lock:
            cached = {entry.id: entry for entry in self._cache.values()}
        found = [cached[key] for key in ids if key in cached]
        missing = [key for key in ids if key not in cached]
        for block in iter_blocks(len(missing), BATCH_ROWS):
            found += self._query(f"id in {missing[block]}")
        return found

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
        stop = min(stop, len(self))
        while start < stop:
            chunk, inside = divmod(start, ORDER_CHUNK_ROWS)
            ids = self._ordered_ids(chunk)[inside : inside + min(BATCH_ROWS, stop - start)]
            found = self._query(row_filter.within(f"id in {ids}"), vectors=False)
            places = {key: place for place, key in enumerate(ids)}
            yield from sorted(self.apply(found, row_filter), key=lambda entry: places[entry.id])
            start += len(ids)
            self.check_current()

    def _ordered_ids(self, chunk: int) -> list[int]:
        data = self._or_stale(lambda: self.store.read_chunk(self.version, ORDER, chunk))
        ids: list[int] = np.frombuffer(data, np.int64).tolist()
        return ids

    def matching_ids(self, row_filter: RowFilter, limit: int) -> list[int]:
        """Read ids of images that the engine lets through a filter, up to a limit."""
        options = {"output_fields": ["id"], "limit": limit}
        lines = self.ask("query", filter=self.visible(row_filter), **options)
        return [int(line["id"]) for line in lines]

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
        return self._or_stale(lambda: self.store.call(method, self._collection, **options))
