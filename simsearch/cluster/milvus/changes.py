"""What a publication has to send: rows in their stored form, compared with the last version."""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from tqdm.auto import tqdm

from simsearch.cluster.milvus.filters import (
    describe_columns,
    filter_tokens,
    number_fields,
    plain_cells,
)
from simsearch.cluster.milvus.phases import phase
from simsearch.cluster.milvus.schema import (
    DELETED_IDS,
    FILTER_TOKENS,
    PAYLOAD,
    TEXT_BYTES,
    VersionRecord,
)
from simsearch.errors import LibraryError
from simsearch.files import iter_blocks
from simsearch.library.metadata import attached_table
from simsearch.plain_json import dumps

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from simsearch.cluster.milvus.store import Store
    from simsearch.library.library import ImageLibrary


BATCH_BYTES = 2**23  # of embeddings, prepared and sent together
BATCH_ROWS = 2_000  # at most
SCAN_BLOCK_ROWS = 5_000  # that are read together for the comparison
KNOWN_FIELDS = ["id", "row", "key", "digest"]


class RowEncoder:
    """The rows of a library in their stored form, but for `id` and `row`."""

    def __init__(self, library: ImageLibrary, *, progress: bool) -> None:
        self.library, self.progress = library, progress
        self.columns = describe_columns(library.metadata, attached_table(library))

    def batches(
        self, rows: NDArray[np.intp], title: str
    ) -> Iterator[tuple[slice, list[dict[str, Any]]]]:
        """Encode rows batch by batch, with a progress bar."""
        size = max(1, min(BATCH_ROWS, BATCH_BYTES // (4 * self.library.dim)))
        with tqdm(
            desc=title, total=len(rows), unit="image", disable=not self.progress, delay=1
        ) as bar:
            for block in iter_blocks(len(rows), size):
                yield block, list(self._encode(rows[block]))
                bar.update(block.stop - block.start)

    def _encode(self, rows: NDArray[np.intp]) -> Iterator[dict[str, Any]]:
        library, table = self.library, self.library.metadata
        given = () if table is None else table.iloc[rows].items()
        columns = {str(name): plain_cells(column) for name, column in given}
        vectors = np.asarray(library.embeddings[rows])
        for i, row in enumerate(rows.tolist()):
            facts = {name: cells[i] for name, cells in columns.items() if cells[i] is not None}
            payload = self._payload(row, facts)
            tokens = filter_tokens(library.names[row], facts, self.columns)
            numbers = number_fields(facts, self.columns)
            texts = f"{payload}\n{tokens}\n{numbers}\n".encode()
            yield {
                "key": path_key(str(library.paths[row])),
                "digest": _digest(texts + vectors[i].tobytes()),
                PAYLOAD: payload,
                FILTER_TOKENS: tokens,
                "vector": vectors[i],
                **numbers,
            }

    def _payload(self, row: int, facts: dict[str, Any]) -> str:
        """Return path, metadata and file state as JSON in ASCII, whatever bytes a path has."""
        path, stats = str(self.library.paths[row]), self.library.stats
        stat = None if stats is None else stats[row].tolist()
        payload = {"path": path, "facts": facts or None, "stat": stat}
        known = {key: value for key, value in payload.items() if value is not None}
        text = dumps(known, separators=(",", ":"))
        if len(text) > TEXT_BYTES:
            raise LibraryError(
                f"the metadata of {path!r} takes {len(text):,} bytes, and an engine's "
                f"field {TEXT_BYTES:,}: attach a table with less of it"
            )
        return text


class Changes(NamedTuple):
    """Rows of the library to send, with the numbers that they get, and states to delete."""

    sent: NDArray[np.intp]  # (F,) rows of the library
    row_numbers: NDArray[np.int64]  # (F,) their numbers for readers
    ids: NDArray[np.int64]  # (N,) id of the state of each row of the library, afterwards
    deleted_ids: NDArray[np.int64]  # of states that are superseded or gone
    changed: int  # rows among those sent whose image is known
    next_id: int


def find_changes(encoder: RowEncoder, store: Store, last: VersionRecord | None) -> Changes:
    """Compare a library with the last version, whose row numbers stay with their images.

    Raises
    ------
    LibraryError
        If two rows have the same path, or the metadata of an image cannot be stored.
    """
    count, paths = len(encoder.library), encoder.library.paths
    keys, digests = np.empty(count, np.int64), np.empty(count, np.int64)
    for block, rows in encoder.batches(np.arange(count), "Comparing"):
        keys[block] = [row["key"] for row in rows]
        digests[block] = [row["digest"] for row in rows]
    if len(firsts := np.unique(keys, return_index=True)[1]) < count:
        twice = str(np.delete(paths, firsts)[0])
        raise LibraryError(f"two rows have the path {twice!r}; publish each image once")
    next_id = last.next_id if last else 0
    with phase("Reading what is published", progress=encoder.progress):
        known = _read_known(store, last)  # (M, 4) id, row, key, digest
    by_key = known[np.unique(known[:, 2], return_index=True)[1]]
    by_key = np.vstack([by_key, np.full((1, 4), -1)])  # the last line for what is unknown
    ids, numbers, known_keys, known_digests = by_key[np.searchsorted(by_key[:-1, 2], keys)].T
    new = known_keys != keys
    unchanged = ~new & (known_digests == digests)
    sent = np.flatnonzero(~unchanged)
    ids[sent] = next_id + np.arange(len(sent))
    numbers[new] = ids[new]
    deleted = np.setdiff1d(known[:, 0], ids[unchanged])
    changed = int(np.count_nonzero(~new[sent]))
    return Changes(sent, numbers[sent], ids, deleted, changed, next_id + len(sent))


def _read_known(store: Store, last: VersionRecord | None) -> NDArray[np.int64]:
    """Read id, row, key and digest of each state in the last version: (M, 4) int64."""
    known = [np.empty((0, 4), np.int64)]
    for block in iter_blocks(last.next_id if last else 0, SCAN_BLOCK_ROWS):
        lines = store.call(
            "query",
            store.rows_name(last.generation),  # type: ignore[union-attr]
            filter=f"id >= {block.start} and id < {block.stop}",
            output_fields=KNOWN_FIELDS,
        )
        table = [[line[field] for field in KNOWN_FIELDS] for line in lines]
        known.append(np.array(table, np.int64).reshape(-1, 4))
    found = np.concatenate(known)
    return found[~np.isin(found[:, 0], deleted_ids(store, last))] if last else found


def deleted_ids(store: Store, version: VersionRecord) -> NDArray[np.int64]:
    """Read the ids below `next_id` that are not part of a version."""
    return np.frombuffer(store.read_part(version, DELETED_IDS), np.int64)


def path_key(path: str) -> int:
    """Return the 63-bit number by which a path is looked up."""
    return _digest(path.encode("utf-8", "surrogatepass"))


def _digest(data: bytes) -> int:
    """Return 63 bits of a digest, which fit in a signed field."""
    return int.from_bytes(blake2b(data, digest_size=8).digest(), "big") >> 1
