"""A library in LanceDB: one table in a folder or an object store, searched where it lies.

Embedded, without a server. Paths and metadata are in memory, embeddings are not.
"""

from __future__ import annotations

import os
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from simsearch.errors import LibraryError, MissingExtraError
from simsearch.images.address import is_uri
from simsearch.library.foreign import confined, without_weights
from simsearch.library.incoming_rows import parquet_table
from simsearch.library.library import ImageLibrary
from simsearch.library.parquet import EMBEDDING, attach_stored, load_pyarrow, read_facts
from simsearch.library.parquet_export import arrow_groups
from simsearch.library.paths import as_root, in_folder
from simsearch.retrieval.exact import TopK, rescore, rounding_error

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

    from numpy.typing import NDArray

    from simsearch.backbones.backbone import Backbone

ROW, SIZE, TIME = "simsearch_row", "simsearch_size", "simsearch_time_ns"
GATHERED_ROWS = 4096  # that are allowed: so few are read, and the table is not searched
SPARE_ROWS = 32  # that a search finds beyond k, as float32 scores may be in another order
WIDER = 4  # times as many rows, where those were too few


class LanceLibrary(ImageLibrary):
    """A library that was published as a table of LanceDB; `search` and the rest take it as any.

    It stays at the version that it was opened at, also while the next one is published. What is
    found is what the library of files gives: the table is scanned whole, and the best rows are
    ranked by float64 scores. Paths and metadata are held in memory.

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

    Attributes
    ----------
    version : int
        Grows with each publication.

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
    ) -> None:
        self._place = os.fspath(uri), table
        self._given = root, backbone
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
        self.index = LanceIndex(opened)

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

    def refresh(self) -> LanceLibrary:
        """Return the newest version: this library itself, if nothing was published since."""
        newest = int(_open(*self._place).version)
        return self if newest == self.version else type(self)(*self._place, *self._given)

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


class LanceIndex:
    """Ranks the rows of a table: LanceDB's scan in float32 selects, float64 scores rank."""

    exact = True

    def __init__(self, table: Any) -> None:  # noqa: ANN401
        self._table = table

    def check(self, library: Any) -> None:  # noqa: ANN401
        """Accept the library that it belongs to."""

    def top_k(
        self,
        library: LanceLibrary,
        vectors: NDArray[np.float32],
        k: int,
        mask: NDArray[np.bool_] | None = None,
    ) -> Iterator[TopK]:
        """Rank the best rows for each of several embeddings, as `Index.top_k` says."""
        count = len(library) if mask is None else int(np.count_nonzero(mask))
        k = min(int(k), count)
        for vector in vectors:
            if not k:
                yield TopK(np.empty(0, np.intp), np.empty(0))
            elif mask is not None and count <= GATHERED_ROWS:
                rows = np.flatnonzero(mask)
                yield rescore(library, vector, library.row_lookup[rows] @ vector, k, rows=rows)
            else:
                yield self._rank(library, vector, k, mask, len(library) / count)

    def _rank(
        self,
        library: LanceLibrary,
        vector: NDArray[np.float32],
        k: int,
        mask: NDArray[np.bool_] | None,
        rarity: float,
    ) -> TopK:
        error = rounding_error(library.dim + 2)  # of the sum, and of 1 - score, which comes back
        limit = int((k + SPARE_ROWS) * rarity) + 1
        while True:
            rows, scores = self._search(vector, min(limit, len(library)))
            lowest = scores.min()
            if mask is not None:
                rows, scores = rows[mask[rows]], scores[mask[rows]]
            complete = len(scores) >= k and lowest < np.partition(scores, -k)[-k] - 2 * error
            if complete or limit >= len(library):
                return rescore(library, vector, scores, k, rows=rows, error=error)
            limit *= WIDER

    def _search(
        self, vector: NDArray[np.float32], limit: int
    ) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
        query = self._table.search(vector, vector_column_name=EMBEDDING).distance_type("dot")
        query = query.bypass_vector_index()  # which somebody may have made, and is approximate
        found = query.select([ROW, "_distance"]).limit(limit).to_arrow()
        distances = found["_distance"].to_numpy()
        return found[ROW].to_numpy().astype(np.intp), (1 - distances).astype(np.float32)


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
