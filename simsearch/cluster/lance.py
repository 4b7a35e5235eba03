"""A library in LanceDB: one table in a folder or an object store, searched where it lies.

Embedded, without a server. Paths and metadata are in memory, embeddings are not.
"""

from __future__ import annotations

import os
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from simsearch.cluster.lance_index import Kind, build_in_table, stored_index
from simsearch.cluster.lance_scan import ROW, LanceIndex
from simsearch.errors import LibraryError, MissingExtraError
from simsearch.images.address import is_uri
from simsearch.library.foreign import confined, without_weights
from simsearch.library.incoming_rows import parquet_table
from simsearch.library.library import ImageLibrary
from simsearch.library.parquet import EMBEDDING, attach_stored, load_pyarrow, read_facts
from simsearch.library.parquet_export import arrow_groups
from simsearch.library.paths import as_root, in_folder

if TYPE_CHECKING:
    from typing import Self

    from numpy.typing import NDArray

    from simsearch.backbones.backbone import Backbone

SIZE, TIME = "simsearch_size", "simsearch_time_ns"


class LanceLibrary(ImageLibrary):
    """A library that was published as a table of LanceDB; `search` and the rest take it as any.

    It stays at the version that it was opened at, also while the next one is published. What is
    found is what the library of files gives: the table is scanned whole, and the best rows are
    ranked by float64 scores. Paths and metadata are held in memory. `build_index` makes an index,
    for large tables, with which searches are approximate.

    Parameters
    ----------
    uri
        The database: a folder, or an address that LanceDB opens, such as `s3://bucket/images`.
    table
        Name under which it was published.
    root
        Where the pictures lie now; needed for a table that you have not written.
    backbone
        What made the embeddings, if it cannot be loaded by name.
    use_index
        Whether the index of `build_index` is used, if there is one; False scans the table.

    Attributes
    ----------
    version : int
        Grows with each publication.
    index : LanceIndex or LanceListIndex
        What ranks: exact, or approximate with a `report`.

    Raises
    ------
    LibraryError
        If there is no such table, or it holds no library.
    MissingExtraError
        If LanceDB is not installed.

    Examples
    --------
    >>> library = ImageLibrary([[1, 0], [0.8, 0.6], [0, 1]], ["a.jpg", "b.jpg", "c.jpg"])
    >>> published = LanceLibrary.publish(library, "images.lancedb", "shop")  # doctest: +SKIP
    """

    def __init__(
        self,
        uri: str | os.PathLike[str],
        table: str,
        root: str | os.PathLike[str] | None = None,
        backbone: Backbone | str | None = None,
        *,
        use_index: bool = True,
    ) -> None:
        self._place = os.fspath(uri), table
        self._open = partial(type(self), *self._place, root, backbone, use_index=use_index)
        opened = _open(*self._place)
        self.version = int(opened.version)
        opened.checkout(self.version)
        read = parquet_table(_Columns(opened), str(self))
        if read.facts is None or {ROW, SIZE, TIME} - {*read.frame.columns}:
            raise LibraryError(f"{self!s} is a table of something else: publish a library there")
        facts = read_facts(read.facts, read.paths, str(self))
        order = np.argsort(read.frame[ROW].to_numpy(np.int64), kind="stable")
        self._source_of(facts.source, own=facts.own)
        self.head, self._backbone = facts.head, backbone
        self.root = self._root(facts, root)
        names = [read.paths[i] for i in order]
        if not facts.own:
            names = confined(names, self.root or ".")
        self.paths = np.array([in_folder(self.root or "", name) for name in names], "U")
        stats = read.frame[[SIZE, TIME]].to_numpy(np.int64)[order]
        self.stats = None if (stats < 0).all() else stats
        frame = read.frame.drop(columns=[ROW, SIZE, TIME]).iloc[order].reset_index(drop=True)
        attach_stored(self, frame, facts)
        self._rows = _Rows(opened, len(names))
        self.embeddings = self._rows  # type: ignore[assignment]
        made = stored_index(opened, len(names)) if use_index else None
        self.index = made or LanceIndex(opened)

    @classmethod
    def publish(cls, library: ImageLibrary, uri: str | os.PathLike[str], table: str) -> Self:
        """Publish a library as a table, in place of the one of that name, and open it.

        All rows are sent. Readers see the whole new version from one moment on, and those that are
        open stay at theirs, whose rows LanceDB keeps.

        Raises
        ------
        LibraryError
            If a column of its metadata cannot be stored, or the database refuses.
        MissingExtraError
            If LanceDB is not installed.
        """
        pa = load_pyarrow()
        lance = _import()
        stats = np.full((len(library), 2), -1) if library.stats is None else library.stats
        columns = {ROW: np.arange(len(library)), SIZE: stats[:, 0], TIME: stats[:, 1]}
        extra = {name: pa.array(np.ascontiguousarray(c), pa.int64()) for name, c in columns.items()}
        schema, groups = arrow_groups(library, extra)
        batches = (batch for group in groups for batch in group.to_batches())
        reader = pa.RecordBatchReader.from_batches(schema, batches)
        try:
            lance.connect(os.fspath(uri)).create_table(table, data=reader, mode="overwrite")
        except (OSError, RuntimeError, ValueError) as error:
            raise LibraryError(
                f"cannot publish {table!r} in {os.fspath(uri)!r}: {error}"
            ) from error
        return cls(uri, table, library.root, library._backbone)

    def build_index(self, kind: Kind = "ivf_hnsw_sq", recall: float = 0.99) -> LanceLibrary:
        """Build an approximate index in the table, measure it, and open the table with it.

        Whoever opens the table from now on searches with it, or exactly with `use_index=False`.
        Conditions hold as before: where they allow less than a tenth of the rows, the table is
        scanned. The next publication has no index.

        Parameters
        ----------
        kind
            "ivf_hnsw_sq": graphs of the rows in 8 bits a number, quicker. "ivf_pq": lists of rows
            in one bit a number, smaller and sooner built.
        recall
            Share of the ten nearest that is to be found. `index.report` says what is reached, by
            other queries than those that set the effort.

        Raises
        ------
        LibraryError
            If the table has few rows, was replaced meanwhile, or LanceDB refuses.
        QueryError
            If there is no such kind, or the recall is none.
        """
        if self.refresh() is not self:
            raise LibraryError(f"{self!s} has a newer version: call refresh() first")
        build_in_table(self, _open(*self._place), kind, recall)
        return self._open(use_index=True)

    def refresh(self) -> LanceLibrary:
        """Return the newest version: this library itself, if nothing was published since."""
        newest = int(_open(*self._place).version)
        return self if newest == self.version else self._open()

    def __str__(self) -> str:
        return "#".join(self._place)

    def __repr__(self) -> str:
        return f"LanceLibrary({self!s}, {len(self):,} images, {self.dim}-d)"

    @property
    def row_lookup(self) -> Any:  # noqa: ANN401
        """The embeddings, read from the table by number."""
        return self.embeddings

    def _source_of(self, source: Any, *, own: bool) -> None:  # noqa: ANN401
        self.own, self.source = own, source if own else without_weights(source)

    def _root(self, facts: Any, root: str | os.PathLike[str] | None) -> str | None:  # noqa: ANN401
        if root is not None:
            return as_root(root)
        if facts.own:
            return None if facts.root is None else str(facts.root)
        raise LibraryError(
            f"{self!s} was not written by you: give root=, the folder that holds its pictures"
        )


class _Rows:
    """The embeddings of a table by row number: `rows[3]`, `rows[[3, 5]]`, `rows[3:5]`."""

    def __init__(self, table: Any, count: int) -> None:  # noqa: ANN401
        self._table = table
        self.shape = count, int(table.schema.field(EMBEDDING).type.list_size)
        self.nbytes, self.dtype = 4 * count * self.shape[1], np.dtype(np.float32)

    def __len__(self) -> int:
        return self.shape[0]

    @cached_property
    def _offsets(self) -> NDArray[np.int64]:
        """Place of each row in the table: (N,)."""
        rows = self._table.search().select([ROW]).to_arrow()[ROW].to_numpy()
        return np.argsort(rows, kind="stable")

    def __getitem__(self, rows: Any) -> Any:  # noqa: ANN401
        if isinstance(rows, (int, np.integer)):
            return self[[int(rows)]][0]
        wanted = np.arange(len(self))[rows]
        places = np.unique(self._offsets[wanted])
        if not len(places):
            return np.empty((0, self.shape[1]), np.float32)
        found = self._table.take_offsets(places.tolist()).select([ROW, EMBEDDING]).to_arrow()
        known = found[ROW].to_numpy()
        vectors = found[EMBEDDING].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        order = np.argsort(known, kind="stable")
        at = order[np.searchsorted(known[order], wanted)]
        return vectors.reshape(-1, self.shape[1])[at]

    def __array__(self, dtype: Any = None, *_: object, **__: object) -> NDArray[Any]:  # noqa: ANN401
        return np.asarray(self[:], dtype)


class _Columns:
    """A table as `parquet_table` reads one."""

    def __init__(self, table: Any) -> None:  # noqa: ANN401
        self._table, self.schema_arrow = table, table.schema

    def read(self, columns: list[str]) -> Any:  # noqa: ANN401
        return self._table.search().select(columns).to_arrow()


def _import() -> Any:  # noqa: ANN401
    try:
        import lancedb
    except ImportError as error:
        raise MissingExtraError('LanceDB needs: pip install "simsearch[lance]"') from error
    return lancedb


def _open(uri: str, table: str) -> Any:  # noqa: ANN401
    lance = _import()
    if not is_uri(uri) and not os.path.isdir(uri):  # noqa: PTH112 (LanceDB would make it)
        raise LibraryError(f"no LanceDB database at {uri!r}: LanceLibrary.publish makes one")
    try:
        return lance.connect(uri).open_table(table)
    except (OSError, RuntimeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise LibraryError(f"cannot open the table {table!r} in {uri!r}: {reason}") from error
