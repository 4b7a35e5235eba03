"""Several libraries searched as one: rows numbered through, rankings merged exactly."""

from __future__ import annotations

import logging
from bisect import bisect_right
from collections.abc import Mapping
from functools import cached_property
from itertools import accumulate, chain
from typing import TYPE_CHECKING, Any

import numpy as np

from simsearch.backbones.long_pictures import describe_difference
from simsearch.cluster.query_head import apply_head
from simsearch.errors import QueryError, RemoteError
from simsearch.library.filters import mask_of
from simsearch.library.library import SAMPLE_ROWS
from simsearch.library.source import EmbeddingSpace
from simsearch.library.types import Browsable, Overview, Rows
from simsearch.retrieval.exact import TopK, exact_index

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Collection, Iterator, Sequence

    from numpy.typing import NDArray

    from simsearch.retrieval.index import Index

logger = logging.getLogger("simsearch")


class Shards(EmbeddingSpace):
    """Several libraries that `search`, `recommend` and the page take as one.

    Each is asked, and the best of all answers are ranked by the same exact scores: what is found
    is what one library of all rows would give, as far as each part is exact. Rows are numbered
    through: those of the second library follow those of the first.

    Parameters
    ----------
    libraries
        Of files or published ones, all with embeddings of the same origin.
    partial
        Whether to answer without a published library that cannot be reached. Each such answer is
        logged, and `missing` names the libraries. Otherwise that is an error.

    Attributes
    ----------
    missing : dict of str to str
        What did not answer last, and why.

    Raises
    ------
    QueryError
        If there are none, or their embeddings differ in origin.

    Examples
    --------
    >>> from simsearch import ImageLibrary, search
    >>> one = ImageLibrary([[1, 0], [0.8, 0.6]], ["a.jpg", "b.jpg"])
    >>> other = ImageLibrary([[0.6, 0.8]], ["c.jpg"])
    >>> [(match.path, match.row) for match in search(Shards([one, other]), "a.jpg", k=2)]
    [('b.jpg', 1), ('c.jpg', 2)]
    """

    def __init__(self, libraries: Sequence[Browsable], *, partial: bool = False) -> None:
        given: Any = libraries
        self.libraries: list[Any] = [given] if isinstance(given, str) else list(given)
        self.partial, self.missing = partial, dict[str, str]()
        if not self.libraries:
            raise QueryError("Shards([]) holds no library: give one or more")
        for library in self.libraries:
            if not isinstance(library, EmbeddingSpace):
                raise QueryError(
                    f"{library!r:.80} is no library: open it first, with ImageLibrary.load, or "
                    "RemoteLibrary for one that was published"
                )
        first = self.libraries[0]
        for other in self.libraries[1:]:
            if (other.fingerprint, other.dim) != (first.fingerprint, first.dim):
                why = describe_difference(other.fingerprint, first.fingerprint)
                raise QueryError(
                    f"{other!r} has other embeddings than {first!r}: shards of one collection "
                    f"come from one backbone and head{why}"
                )
        limits = [getattr(library, "row_limit", len(library)) for library in self.libraries]
        self._starts = [0, *accumulate(limits)]
        self.source, self.head = first.source, first.head
        self._backbone = getattr(first, "_backbone", None)
        self.root = first.root if len({library.root for library in self.libraries}) == 1 else None
        self.index = ShardsIndex()
        self.paths = _ShardLookup(self, lambda library: library.paths)
        self.names = _ShardLookup(self, lambda library: library.names)
        self.embeddings = _ShardLookup(self, lambda library: library.row_lookup)
        self.row_lookup = self.embeddings

    def __len__(self) -> int:
        return sum(map(len, self.libraries))

    def __repr__(self) -> str:
        return f"Shards({', '.join(map(repr, self.libraries))})"

    @property
    def dim(self) -> int:
        """Width of an embedding."""
        return int(self.libraries[0].dim)

    def place(self, row: int) -> tuple[Any, int]:
        """Return the library that holds a row, and its number there.

        Raises
        ------
        QueryError
            If there is no such row.
        """
        if not 0 <= row < self._starts[-1]:
            raise QueryError(f"row {row}: {self!r} has no such row")
        number = bisect_right(self._starts, row) - 1
        return self.libraries[number], row - self._starts[number]

    def parts(self) -> Iterator[tuple[int, Any]]:
        """Yield each library with the number of its first row."""
        yield from zip(self._starts, self.libraries, strict=False)

    @cached_property
    def random_pair_scores(self) -> NDArray[np.float32]:
        """Cosines of random pairs of images, sorted; of published libraries, of their own pairs."""
        if any(hasattr(library, "row_limit") for library in self.libraries):
            return np.sort(np.concatenate([each.random_pair_scores for each in self.libraries]))
        rng = np.random.default_rng(0)
        rows = np.sort(rng.choice(len(self), min(SAMPLE_ROWS, len(self)), replace=False))
        sample = self.embeddings[rows]
        return np.sort((sample @ sample.T)[np.triu_indices(len(rows), k=1)])

    def has_row(self, row: int) -> bool:
        """Tell whether there is such a row."""
        if not 0 <= row < self._starts[-1]:
            return False
        library, number = self.place(row)
        return bool(library.has_row(number))

    def find(self, path: str | os.PathLike[str]) -> int | None:
        """Row of the image at a path; None if no library holds it."""
        for start, library in self.parts():
            if (row := library.find(path)) is not None:
                return int(start + row)
        return None

    def is_current(self, row: int) -> bool:
        """Tell whether the file of a row is still the one that was embedded, or is gone."""
        library, number = self.place(row)
        return bool(library.is_current(number))

    def facts(self, row: int) -> dict[str, Any]:
        """Return the metadata of an image by column, without what is empty."""
        library, number = self.place(row)
        return dict(library.facts(number))

    def caption(self, row: int) -> str:
        """Put the metadata of an image in words; "" without any."""
        library, number = self.place(row)
        return str(library.caption(number))

    def row_filter(self, where: Rows, exclude: Collection[int] = ()) -> list[Any] | None:
        """Return the rows that may be found, as each library takes them; None for all."""
        if where is None and not exclude:
            return None
        left_out = np.fromiter(exclude, np.int64)
        return [
            library.row_filter(condition, self._own(left_out, start).tolist())
            for start, library, condition in self._asked(where)
        ]

    def _asked(self, where: Rows) -> Iterator[tuple[int, Any, Any]]:
        """Yield each library with the number of its first row, and a condition for it."""
        rows = None
        if where is not None and not isinstance(where, (str, Mapping)):
            rows = np.flatnonzero(mask_of(np.asarray(where), self._starts[-1]))
        for start, library in self.parts():
            yield start, library, where if rows is None else self._own(rows, start)

    def _own(self, rows: NDArray[np.int64], start: int) -> NDArray[np.int64]:
        """Return the numbers that rows have in the library which starts here."""
        stop = self._starts[bisect_right(self._starts, start)]
        return rows[(rows >= start) & (rows < stop)] - start

    def page(self, offset: int = 0, limit: int = 50, where: Rows = None) -> list[int]:
        """Return rows of images that meet a condition, in the order of their paths."""
        found = [
            (str(library.paths[row]), start + row)
            for start, library, condition in self._asked(where)
            for row in library.page(0, offset + limit, condition)
        ]
        return [row for _, row in sorted(found)[offset : offset + limit]]

    def count(self, where: Rows = None) -> int:
        """Count the images that meet a condition."""
        return sum(library.count(condition) for _, library, condition in self._asked(where))

    def overview(self) -> Overview:
        """Summarise folders, and the columns that every library has alike."""
        each = [library.overview() for library in self.libraries]
        folders: dict[str, int] = {}
        for name, count in chain.from_iterable(one.folders for one in each):
            folders[name] = folders.get(name, 0) + count
        common = [
            column
            for column in each[0].columns
            if all(column["name"] in {c["name"] for c in other.columns} for other in each[1:])
        ]
        return Overview(sorted(folders.items()), common)

    def _apply_head(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        return apply_head(self, embeddings)


if TYPE_CHECKING:
    _browsable: type[Browsable] = Shards  # checked by mypy


class ShardsIndex:
    """Ranks the rows of each library of `Shards` by that library's own index, and merges."""

    exact = True

    def check(self, library: Any) -> None:  # noqa: ANN401
        """Note whether every part is exact."""
        self.exact = all(each.index is None or each.index.exact for each in library.libraries)

    def top_k(
        self,
        library: Shards,
        vectors: NDArray[np.float32],
        k: int,
        mask: list[Any] | None = None,
    ) -> Iterator[TopK]:
        """Rank the k best rows for each of several embeddings, as `Index.top_k` says."""
        rankings, library.missing = [], {}
        for number, (start, shard) in enumerate(library.parts()):
            try:
                allowed = None if mask is None else mask[number]
                found = list(_index_of(shard).top_k(shard, vectors, k, allowed))
            except RemoteError as error:
                if not library.partial:
                    raise
                library.missing[repr(shard)] = str(error)
                logger.warning("The answer is partial: %s", error)
                continue
            rankings.append([TopK(one.rows + start, one.scores) for one in found])
        for i in range(len(vectors)):
            yield _merge(library, [one[i] for one in rankings], k)


def _index_of(library: Any) -> Index:  # noqa: ANN401
    index: Index = library.index or exact_index(library)
    return index


def _merge(library: Shards, rankings: Sequence[TopK], k: int) -> TopK:
    """Rank the best rows of several rankings, equal scores by path."""
    if not rankings:
        return TopK(np.empty(0, np.intp), np.empty(0))
    rows = np.concatenate([one.rows for one in rankings])
    scores = np.concatenate([one.scores for one in rankings])
    if len(scores) > k:
        kept = scores >= np.partition(scores, len(scores) - k)[len(scores) - k]
        rows, scores = rows[kept], scores[kept]
    order = np.lexsort((library.paths[rows], -scores))[:k]
    return TopK(rows[order].astype(np.intp), scores[order])


class _ShardLookup:
    """One field of the rows of all libraries, by row number: `paths[row]`, `paths[rows]`.

    Several rows of a library are looked up at once, as a published one is asked over a network.
    """

    def __init__(self, shards: Shards, field: Callable[[Any], Any]) -> None:
        self._shards, self._field = shards, field

    def __getitem__(self, rows: Any) -> Any:  # noqa: ANN401
        if isinstance(rows, (int, np.integer)):
            library, number = self._shards.place(int(rows))
            return self._field(library)[number]
        places = [self._shards.place(row) for row in np.asarray(rows, np.int64).tolist()]
        found: dict[int, Any] = {}
        for library in self._shards.libraries:
            own = {i: number for i, (owner, number) in enumerate(places) if owner is library}
            if own:
                found |= zip(own, _look_up(self._field(library), list(own.values())), strict=True)
        return np.array([found[i] for i in range(len(places))])

    def __array__(self, *_: object, **__: object) -> NDArray[Any]:
        raise QueryError("rows of Shards lie in several libraries: look up some by number")


def _look_up(field: Any, rows: list[int]) -> Any:  # noqa: ANN401
    return [field[row] for row in rows] if isinstance(field, list) else field[np.array(rows)]
