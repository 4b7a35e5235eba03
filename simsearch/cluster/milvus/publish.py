"""Publication of a library on Milvus; when it is published again, only what has changed is sent.

Rows are only ever added, under new ids. One record says up to which id they count, and which of
them are deleted: writing it makes a version visible, whole. Rows that a version does not need are
deleted when the next one is published, so that open readers can go on with the version before.
"""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from simsearch.backbones.heads import head_bytes
from simsearch.cluster.milvus.changes import Changes, RowEncoder, deleted_ids, send_changes
from simsearch.cluster.milvus.early import early_row, is_early
from simsearch.cluster.milvus.phases import phase
from simsearch.cluster.milvus.schema import (
    COLUMNS,
    DELETED_IDS,
    HEAD,
    INDEX_TYPES,
    ORDER,
    ORDER_CHUNK_ROWS,
    OVERVIEW,
    RANDOM_PAIR_SCORES,
    Kind,
    VersionRecord,
    records_schema,
    rows_schema,
)
from simsearch.cluster.milvus.store import Store, pack
from simsearch.errors import RemoteError
from simsearch.files import iter_blocks
from simsearch.library.parts import has_parts
from simsearch.library.paths import in_folder
from simsearch.library.recorded import source_to_record

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping
    from contextlib import AbstractContextManager

    from simsearch.library.library import ImageLibrary


logger = logging.getLogger("simsearch")

ID_BYTES = 8
DELETED_ROWS_PER_CALL = 1_000
FLUSHED_SHARE = 0.1  # of all rows; a server has fewer new ones on disk in its log already


@dataclass(frozen=True)
class Published:
    """Result of `publish`.

    Attributes
    ----------
    version : int
        The version that readers see from now on.
    added, changed, deleted, kept : int
        Images that were new; had another embedding, file or metadata; were gone; or are unchanged.
    unindexed : int
        Rows that the server has not indexed yet, which it does by itself: they are found all the
        same, one by one, so that searches are slower until it is done.
    """

    version: int
    added: int
    changed: int
    deleted: int
    kept: int
    unindexed: int = field(default=0, compare=False)

    def __str__(self) -> str:
        counts = (
            f"version {self.version}: {self.added:,} added, {self.changed:,} changed, "
            f"{self.deleted:,} deleted, {self.kept:,} kept"
        )
        if not self.unindexed:
            return counts
        return (
            f"{counts}; the server is still indexing {self.unindexed:,} rows, and searches are "
            "slower until it is done"
        )


def publish(
    library: ImageLibrary,
    uri: str | os.PathLike[str],
    collection: str,
    *,
    replace: bool = False,
    keep_previous: bool = True,
    kind: Kind = "hnsw",
    token: str | None = None,
    timeout: float = 60.0,
    progress: bool = True,
) -> Published:
    """Publish a library on a Milvus server or cluster, or in a Milvus Lite file.

    Publishing again sends only what is new or has changed, and deletes what is gone. Readers see
    the last complete version throughout: if it is stopped at any instant, nothing has changed for
    them, and the next call cleans up. The attached metadata is published too. One writer at a time.

    Parameters
    ----------
    library
        From `embed_dataset` or `ImageLibrary.load`.
    uri
        A file for Milvus Lite, or ``http(s)://host:port`` of a server or cluster.
    collection
        Its name there: letters, digits and _. Two collections are created, with ``_rows_N`` and
        ``_meta`` added to the name.
    replace
        Whether a collection whose embeddings come from another backbone or head, or that has
        another kind of index, may be replaced.
    keep_previous
        Whether open readers may go on with the version before. If not, superseded rows are
        deleted at once rather than by the next call.
    kind
        The engine's index: "hnsw", a graph of the rows in full; "hnsw_sq8", of rows in 8 bits per
        number, a quarter of the memory; "ivf", inverted lists; "flat", none.
    token
        "user:password" or an API key; by default the environment's ``MILVUS_TOKEN``.
    timeout
        Seconds that a call to the engine may take, all attempts together: a server that is down
        for less, or starts again, is waited for.
    progress
        Whether to show progress bars.

    Returns
    -------
    Published

    Raises
    ------
    RemoteError
        If the engine cannot be reached or refuses, or holds embeddings of another origin.
    LibraryBusyError
        If a Lite file is open in another process.
    LibraryError
        If the metadata of an image cannot be stored.
    MissingExtraError
        If pymilvus is not installed.
    """
    if kind not in INDEX_TYPES:
        raise RemoteError(f"kind={kind!r}: choose {', '.join(INDEX_TYPES)}")
    if has_parts(library):
        logger.warning(
            "the parts of the pictures are not published: search(parts=True) finds them in the "
            "library's folder alone"
        )
    with closing(Store(uri, collection, token, timeout)) as store:
        publication = Publication(store, library, INDEX_TYPES[kind], progress=progress)
        return publication.run(may_replace=replace, keep_previous=keep_previous)


class Publication:
    """One call of `publish`."""

    def __init__(self, store: Store, library: ImageLibrary, index: str, *, progress: bool) -> None:
        self.store, self.library, self.index = store, library, index
        self.encoder = RowEncoder(library, progress=progress)

    def run(self, *, may_replace: bool, keep_previous: bool) -> Published:
        """Publish what has changed since the last version, if there is one."""
        last = self.store.read_version()
        new = self._prepare(last, may_replace=may_replace)
        base = last if last and last.generation == new.generation else None
        rows = self.store.rows_name(new.generation)
        if base is None:
            self._create(rows, rows_schema(new.dim, new.index, early=new.early))
        send = partial(self._send, rows, early=new.early)
        changes = send_changes(self.encoder, self.store, base, send)
        sent = changes.added + changes.changed
        if sent and (base is None or self.store.file or sent > FLUSHED_SHARE * len(self.library)):
            # Few rows wait in the server's log for more: a segment of their own slows searches.
            with self._phase("Writing rows to storage"):
                self.store.call("flush", rows)
        with self._phase("Storing what readers need beside the rows"):
            parts = self._write_parts(new.version, changes)
        new = replace(new, next_id=changes.next_id, parts=parts)
        published = Published(
            new.version,
            changes.added,
            changes.changed,
            deleted=len(changes.deleted_ids) - changes.changed,
            kept=len(self.library) - sent,
        )
        if base and not (sent or len(changes.deleted_ids)) and _same_content(base, new):
            self.store.call("delete", self.store.meta, filter=f"version > {base.version}")
            return replace(published, version=base.version)
        with self._phase("Making the version visible"):
            self.commit(last, new)
        if not keep_previous:
            self._clean_up(new)
        index = self.store.call("describe_index", rows, index_name="vector")
        return replace(published, unindexed=_unindexed(index))

    def _phase(self, title: str) -> AbstractContextManager[None]:
        return phase(title, progress=self.encoder.progress)

    def _prepare(self, last: VersionRecord | None, *, may_replace: bool) -> VersionRecord:
        """Clean up after the last publication; return the record of the next version."""
        library, source = self.library, source_to_record(self.library)
        new = VersionRecord(
            version=last.version + 1 if last else 1,
            oldest_readable=last.version if last else 0,
            generation=last.generation if last else 1,
            next_id=0,
            rows=len(library),
            dim=library.dim,
            index=self.index,
            root=library.root,
            name_start=0 if library.root is None else len(in_folder(library.root, "")),
            source=asdict(source) if source else None,
            head=library.head.fingerprint if library.head else None,
            fingerprint=library.fingerprint,
            captions=list(library.captions),
            parts={},
        )
        here = is_early(self.store.call("get_server_version"))
        if last is None:
            self._delete_others(0, 0)
            return replace(new, early=here)
        known = (last.fingerprint, last.dim, last.index)
        extends = known == (new.fingerprint, new.dim, new.index)
        if not extends and not may_replace:
            raise RemoteError(
                f"{self.store!r} holds {last.dim}-d rows of {last.fingerprint or 'unknown origin'} "
                f"in an index of kind {last.index}, and these are {new.dim}-d, of "
                f"{new.fingerprint or 'unknown origin'}, for {new.index}: publish under another "
                "name, or with replace=True"
            )
        self._clean_up(last)
        if extends:
            return replace(new, early=last.early)
        return replace(new, early=here, generation=last.generation + 1)

    def _create(self, name: str, schema: tuple[Any, Any]) -> None:
        """Create the collection of the rows, and that of the records where there is none."""
        schemas = {name: schema}
        if not self.store.call("has_collection", self.store.meta):
            schemas[self.store.meta] = records_schema()
        # At once: a server takes seconds for each.
        with self._phase("Creating the collection"), ThreadPoolExecutor(len(schemas)) as pool:
            list(pool.map(lambda each: self.store.create(each, *schemas[each]), schemas))

    def _send(self, name: str, lines: list[dict[str, Any]], *, early: bool) -> None:
        # By id, so that a batch whose answer was lost may be sent again.
        self.store.call("upsert", name, [*map(early_row, lines)] if early else lines)

    def _write_parts(self, version: int, changes: Changes) -> dict[str, dict[str, Any]]:
        """Store what readers need beside the rows."""
        overview = self.library.overview()
        data = {
            DELETED_IDS: changes.deleted_ids.tobytes(),
            COLUMNS: pack(self.encoder.columns),
            OVERVIEW: pack([overview.folders, overview.columns]),
            RANDOM_PAIR_SCORES: self.library.random_pair_scores.tobytes(),
            ORDER: changes.ids[np.argsort(self.library.paths, kind="stable")].tobytes(),
        }
        if self.library.head:
            data[HEAD] = head_bytes(self.library.head)
        size = ID_BYTES * ORDER_CHUNK_ROWS
        return {
            name: self.store.write_part(version, name, content, size)
            for name, content in data.items()
        }

    def commit(self, last: VersionRecord | None, new: VersionRecord) -> None:
        """Make the new version the current one, unless another process has published since."""
        now = self.store.read_version()
        if (now and now.version) != (last and last.version):
            raise RemoteError(
                f"{self.store!r} was published by another process meanwhile: publish again"
            )
        self.store.write_version(new)

    def _clean_up(self, current: VersionRecord) -> None:
        """Delete rows and records of earlier versions and of unfinished publications."""
        store = self.store
        if current.oldest_readable < current.version:
            # Readers of earlier versions learn it before anything is deleted.
            store.write_version(replace(current, oldest_readable=current.version))
        self._delete_others(current.generation, current.version)
        name = store.rows_name(current.generation)
        deleted = deleted_ids(store, current).tolist()
        with self._phase("Loading rows and their index"):
            store.call("load_collection", name)
        with self._phase("Deleting superseded rows"):
            for block in iter_blocks(len(deleted), DELETED_ROWS_PER_CALL):
                store.call("delete", name, filter=f"id in {deleted[block]}")
            store.call("delete", name, filter=f"id >= {current.next_id}")

    def _delete_others(self, generation: int, version: int) -> None:
        """Delete rows of other generations, and records of other versions; 0 for no exception."""
        store = self.store
        for other in store.generations():
            if other != generation:
                store.call("drop_collection", store.rows_name(other))
        if store.call("has_collection", store.meta):
            store.call("delete", store.meta, filter=f"version > 0 and version != {version}")


def _unindexed(index: Mapping[str, Any]) -> int:
    """Return the rows without an index; those that are indexed anew, together, still have one."""
    pending, total = index.get("pending_index_rows", 0), index.get("total_rows", 0)
    return max(0, min(int(pending), int(total) - int(index.get("indexed_rows", 0))))


def _same_content(one: VersionRecord, other: VersionRecord) -> bool:
    """Tell whether readers would see no difference between two versions."""
    one, other = (
        replace(each, version=0, oldest_readable=0, parts=each.parts | {DELETED_IDS: {}})
        for each in (one, other)
    )
    return one == other
