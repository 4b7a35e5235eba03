"""What a publication has to send: rows in their stored form, compared with the last version."""

from __future__ import annotations

import json
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from hashlib import blake2b
from itertools import chain
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
from simsearch.library.metadata import attached_table, name_slice
from simsearch.plain_json import plain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from simsearch.cluster.milvus.store import Store
    from simsearch.library.library import ImageLibrary


BATCH_BYTES = 2**23  # of embeddings, prepared and sent together
BATCH_ROWS = 2_000  # at most
BATCHES_UNDER_WAY = 2
SCAN_BLOCK_ROWS = 5_000  # that are read together for the comparison
KNOWN_FIELDS = ["id", "row", "key", "digest"]
JSON = json.JSONEncoder(separators=(",", ":"), allow_nan=False, default=str).encode


class RowEncoder:
    """The rows of a library in their stored form, but for `id` and `row`."""

    def __init__(self, library: ImageLibrary, *, progress: bool) -> None:
        self.library, self.progress = library, progress
        self.columns = describe_columns(library.metadata, attached_table(library))
        self.name = name_slice(library.root)  # within a path
        self.batch_rows = max(1, min(BATCH_ROWS, BATCH_BYTES // (4 * library.dim)))

    def keys(self) -> NDArray[np.int64]:
        """Return the number by which each row's path is looked up: (N,).

        Raises
        ------
        LibraryError
            If two rows have the same path.
        """
        paths = self.library.paths
        blocks = (paths[block].tolist() for block in iter_blocks(len(paths), BATCH_ROWS))
        keys = np.fromiter(map(path_key, chain.from_iterable(blocks)), np.int64, len(paths))
        if len(firsts := np.unique(keys, return_index=True)[1]) < len(keys):
            twice = str(np.delete(paths, firsts)[0])
            raise LibraryError(f"two rows have the path {twice!r}; publish each image once")
        return keys

    def batches(self) -> Iterator[tuple[slice, list[dict[str, Any]]]]:
        """Encode all rows batch by batch, with a progress bar."""
        count, off = len(self.library), not self.progress
        with tqdm(desc="Publishing", total=count, unit="image", disable=off, delay=1) as bar:
            for block in iter_blocks(count, self.batch_rows):
                yield block, list(self._encode(block))
                bar.update(block.stop - block.start)

    def _encode(self, block: slice) -> Iterator[dict[str, Any]]:
        library, table = self.library, self.library.metadata
        given = () if table is None else table.iloc[block].items()
        columns = {str(name): plain_cells(column) for name, column in given}
        vectors, stats = np.asarray(library.embeddings[block]), library.stats
        states = None if stats is None else stats[block].tolist()
        for i, path in enumerate(library.paths[block].tolist()):
            facts = {name: cells[i] for name, cells in columns.items() if cells[i] is not None}
            payload = _payload(path, facts, states and states[i])
            tokens = filter_tokens(path[self.name], facts, self.columns)
            numbers = number_fields(facts, self.columns)
            texts = f"{payload}\n{tokens}\n{numbers}\n".encode()
            yield {
                "key": path_key(path),
                "digest": _digest(texts + vectors[i].tobytes()),
                PAYLOAD: payload,
                FILTER_TOKENS: tokens,
                "vector": vectors[i],
                **numbers,
            }


class Changes(NamedTuple):
    """What a publication has sent, and the states that it leaves behind."""

    ids: NDArray[np.int64]  # (N,) id of the state of each row of the library
    deleted_ids: NDArray[np.int64]  # of states that are superseded or gone
    added: int  # images that were not known
    changed: int  # images whose state was another
    next_id: int


class _Sender:
    """Sends batches in threads: one is packed while another is stored and the next one is made."""

    def __init__(self, send: Callable[[list[dict[str, Any]]], None]) -> None:
        self._send = send
        self._threads = ThreadPoolExecutor(BATCHES_UNDER_WAY, "simsearch-publish")
        self._under_way: deque[Future[None]] = deque()

    def send(self, rows: list[dict[str, Any]]) -> None:
        """Send rows, once there is room for them; raise what went wrong with earlier ones."""
        while len(self._under_way) >= BATCHES_UNDER_WAY:
            self._under_way.popleft().result()
        self._under_way.append(self._threads.submit(self._send, rows))

    def close(self) -> None:
        """Wait for all rows; raise what went wrong with some."""
        self._threads.shutdown()
        for batch in self._under_way:
            batch.result()


def send_changes(
    encoder: RowEncoder,
    store: Store,
    last: VersionRecord | None,
    send: Callable[[list[dict[str, Any]]], None],
) -> Changes:
    """Send the rows that differ from the last version, whose row numbers stay with their images.

    One pass over the library: beside one batch, memory holds numbers alone, 100 bytes per row.

    Raises
    ------
    LibraryError
        If two rows have the same path, or the metadata of an image cannot be stored.
    """
    keys = encoder.keys()
    with phase("Reading what is published", progress=encoder.progress):
        known = _read_known(store, last)  # (M, 4) id, row, key, digest
    by_key = known[np.unique(known[:, 2], return_index=True)[1]]
    by_key = np.vstack([by_key, np.full((1, 4), -1)])  # the last line for what is unknown
    ids, numbers, known_keys, digests = by_key[np.searchsorted(by_key[:-1, 2], keys)].T
    new = known_keys != keys
    digests[new] = -1  # of no row
    unchanged = np.ones(len(keys), bool)
    first = next_id = last.next_id if last else 0
    waiting: list[dict[str, Any]] = []
    with closing(_Sender(send)) as sender:
        for block, rows in encoder.batches():
            for place, row in enumerate(rows, block.start):
                if row["digest"] == digests[place]:
                    continue
                unchanged[place], ids[place] = False, next_id
                number = next_id if new[place] else int(numbers[place])
                waiting.append({"id": next_id, "row": number, **row})
                next_id += 1
            if len(waiting) >= encoder.batch_rows:
                sender.send(waiting)
                waiting = []
        if waiting:
            sender.send(waiting)
    deleted = np.setdiff1d(known[:, 0], ids[unchanged])
    added = int(np.count_nonzero(new))
    return Changes(ids, deleted, added, next_id - first - added, next_id)


def _payload(path: str, facts: dict[str, Any], stat: list[int] | None) -> str:
    """Return path, metadata and file state as JSON in ASCII, whatever bytes a path has."""
    known = {"path": path, "facts": plain(facts), "stat": stat}
    text = JSON({name: value for name, value in known.items() if value})
    if len(text) > TEXT_BYTES:
        raise LibraryError(
            f"the metadata of {path!r} takes {len(text):,} bytes, and an engine's "
            f"field {TEXT_BYTES:,}: attach a table with less of it"
        )
    return text


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
