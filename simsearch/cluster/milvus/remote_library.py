"""A published library, searched on a Milvus server or cluster, or in a Lite file; read-only."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from simsearch.backbones.heads import load_head
from simsearch.cluster.milvus.reader import MilvusIndex, PublishedRow, RowFilter, VersionReader
from simsearch.cluster.milvus.schema import HEAD, OVERVIEW, RANDOM_PAIR_SCORES, VersionRecord
from simsearch.cluster.milvus.store import Store, unpack
from simsearch.cluster.query_head import apply_head
from simsearch.errors import QueryError, RemoteError
from simsearch.library.paths import is_unchanged, spellings
from simsearch.library.source import EmbeddingSpace, Source
from simsearch.library.types import Browsable, Overview, Rows, Searchable

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from typing import Self

    from numpy.typing import NDArray

    from simsearch.backbones.backbone import Backbone


class RemoteLibrary(EmbeddingSpace):
    """A library that `publish` has put on a Milvus server or cluster, or in a Lite file.

    It stays at the version that it was opened at, and gives the same answers while the next one is
    published and after that. When yet another is published, rows of its version are deleted: from
    then on it raises a `StaleVersionError`, and `refresh` opens the newest. Safe to share between
    threads. Takes all that `search` and `recommend` take, except a mask of rows: rows have numbers
    that stay with an image, from 0 up, with gaps.

    Parameters
    ----------
    uri
        A file for Milvus Lite, or ``http(s)://host:port`` of a server.
    collection
        Name under which it was published.
    token
        "user:password" or an API key; by default the environment's ``MILVUS_TOKEN``.
    backbone
        What made the embeddings, if it cannot be loaded by name, such as a module of your own.
    timeout
        Seconds that a call to the engine may take, all attempts together: a server that is down
        for less, or starts again, is waited for.

    Attributes
    ----------
    version : int
        Grows by one with each publication that changed something.

    Raises
    ------
    RemoteError
        If there is no such collection, or it cannot be reached or read.
    LibraryBusyError
        If a Lite file is open in another process.
    MissingExtraError
        If pymilvus is not installed.
    """

    def __init__(
        self,
        uri: str | os.PathLike[str],
        collection: str,
        *,
        token: str | None = None,
        backbone: Backbone | str | None = None,
        timeout: float = 60.0,
    ) -> None:
        if "://" not in os.fspath(uri) and not Path(uri).expanduser().exists():
            raise RemoteError(
                f"there is no file {os.fspath(uri)!r}; make it with simsearch.publish(library, "
                f"{os.fspath(uri)!r}, {collection!r})"
            )
        self._use(Store(uri, collection, token, timeout), backbone)

    def _use(self, store: Store, backbone: Backbone | str | None) -> None:
        """Open the newest version, or close the store."""
        try:
            self._open_newest(store, backbone)
        except BaseException:
            store.close()
            raise

    def _open_newest(self, store: Store, backbone: Backbone | str | None) -> None:
        version = store.read_version()
        if version is None:
            raise RemoteError(
                f"{store!r} holds no library; publish one with simsearch.publish(library, "
                f"{store.address!r}, {store.collection!r})"
            )
        try:
            self._open(store, version, backbone)
        except RemoteError:
            if store.read_version() == version:
                raise
            self._open_newest(store, backbone)  # published again while it was opened

    def _open(self, store: Store, version: VersionRecord, backbone: Backbone | str | None) -> None:
        self._store, self._record, self._backbone = store, version, backbone
        self.version, self.root = version.version, version.root
        self.source = Source(**version.source) if version.source else None
        self.head = None
        if version.head:
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder) / "head.safetensors"
                file.write_bytes(store.read_part(version, HEAD))
                self.head = load_head(file)
        if self.fingerprint != version.fingerprint:
            raise store.error("its head is not the one that its rows have passed through")
        self._reader = VersionReader(store, version)
        self.index = MilvusIndex(self._reader)
        start, read = version.name_start, self._reader.rows_at
        self.paths = _FieldLookup(read, lambda entry: entry.path, np.array)
        self.names = _FieldLookup(read, lambda entry: entry.path[start:], np.array)
        self.embeddings = _FieldLookup(read, lambda entry: entry.vector, np.stack)
        self.row_lookup = self.embeddings

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection and, for a Lite file, the file."""
        self._store.close()

    def refresh(self) -> RemoteLibrary:
        """Return the newest version: this library itself, if nothing was published since.

        A new one shares the connection; close both.

        Raises
        ------
        RemoteError
            If the library was deleted.
        """
        version = self._store.read_version()
        if version is None:
            raise self._store.error("the library was deleted")
        if version.version == self.version:
            return self
        newest = RemoteLibrary.__new__(RemoteLibrary)
        newest._use(self._store.share(), self._backbone)
        return newest

    def __len__(self) -> int:
        return self._record.rows

    def __repr__(self) -> str:
        made_by = f", made by {self.source.backbone}" if self.source else ""
        made_by += f" with {self.head!r}" if self.head else ""
        return f"RemoteLibrary({self._store!r}, {len(self):,} images, {self.dim}-d{made_by})"

    @property
    def dim(self) -> int:
        """Width of an embedding."""
        return self._record.dim

    @property
    def row_limit(self) -> int:
        """One more than the highest row number that may be there."""
        return self._record.next_id

    @cached_property
    def random_pair_scores(self) -> NDArray[np.float32]:
        """Cosines of random pairs of images of the library that was published, sorted."""
        return np.frombuffer(self._reader.read_part(RANDOM_PAIR_SCORES), np.float32)

    def has_row(self, row: int) -> bool:
        """Tell whether there is such a row."""
        return bool(0 <= row < self._record.next_id and self._reader.find_rows([row]))

    def find(self, path: str | os.PathLike[str]) -> int | None:
        """Row of the image at a path, in any spelling that leads to the same file."""
        with suppress(ValueError):  # a null character, which is in no path
            forms = list(spellings(os.path.expanduser(path), self.root))  # noqa: PTH111
            found = self._reader.rows_by_path(forms)
            return next((found[form] for form in forms if form in found), None)
        return None

    def is_current(self, row: int) -> bool:
        """Tell whether the file of a row is still the one that was embedded, or is gone."""
        (entry,) = self._reader.rows_at([row])
        return is_unchanged(entry.path, entry.stat)

    def facts(self, row: int) -> dict[str, Any]:
        """Return the metadata of an image by column, without what is empty."""
        (entry,) = self._reader.rows_at([row])
        types = {column["name"]: column["dtype"] for column in self._reader.columns}
        dates = {name for name in entry.facts if types[name].startswith("datetime")}
        if not dates:
            return dict(entry.facts)
        import pandas as pd

        return entry.facts | {name: pd.Timestamp(entry.facts[name]) for name in dates}

    def caption(self, row: int) -> str:
        """Put the metadata of an image in words; "" without any."""
        from simsearch.library.metadata import join_caption

        return join_caption(self.facts(row), self._record.captions)

    def overview(self) -> Overview:
        """Summarise folders and metadata, for a menu of filters, as of the publication."""
        folders, columns = unpack(self._reader.read_part(OVERVIEW))
        return Overview([(name, count) for name, count in folders], columns)

    def _apply_head(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        return apply_head(self, embeddings)

    def row_filter(self, where: Rows, exclude: Collection[int] = ()) -> RowFilter | None:
        """Return the rows that may be found, as the index takes them; None for all.

        Raises
        ------
        QueryError
            If there is no such column, or the condition is a mask.
        """
        every = where is None and not exclude
        return None if every else self._reader.make_filter(where, exclude)

    def page(self, offset: int = 0, limit: int = 50, where: Rows = None) -> list[int]:
        """Return the rows of images that meet a condition, in the order of their paths.

        Without a condition only the page is read; with one, all rows up to the page.
        """
        if where is None:
            return [entry.row for entry in self._reader.scan_by_path(offset, offset + limit)]
        found = self._reader.scan_by_path(0, len(self), self._reader.make_filter(where))
        return [entry.row for entry in islice(found, offset, offset + limit)]

    def count(self, where: Rows = None) -> int:
        """Count the images that meet a condition, by reading all that the engine lets through."""
        if where is None:
            return len(self)
        return sum(map(len, self._reader.scan(self._reader.make_filter(where))))


if TYPE_CHECKING:
    # mypy: a remote library has every member that `search` and the page use
    _searchable: type[Searchable] = RemoteLibrary
    _browsable: type[Browsable] = RemoteLibrary


class _FieldLookup:
    """One field of the rows, by row number: `paths[row]`, `paths[rows]`."""

    def __init__(
        self,
        read: Callable[[list[int]], list[PublishedRow]],
        field: Callable[[PublishedRow], Any],
        join: Callable[[list[Any]], NDArray[Any]],
    ) -> None:
        self._read, self._field, self._join = read, field, join

    def __getitem__(self, rows: Any) -> Any:  # noqa: ANN401
        if isinstance(rows, (int, np.integer)):
            return self._field(self._read([int(rows)])[0])
        found = self._read(np.asarray(rows, np.int64).tolist())
        return self._join([self._field(entry) for entry in found]) if found else np.empty(0, "U1")

    def __array__(self, *_: object, **__: object) -> NDArray[Any]:
        raise QueryError(
            "the rows of a RemoteLibrary are not in memory: look up some by number, or use the "
            "ImageLibrary that was published"
        )
