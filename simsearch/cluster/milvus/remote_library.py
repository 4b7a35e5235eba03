"""A published library, searched where it lies: on a Milvus server or cluster, or in a Lite file.

The engine proposes rows; what it proposes is checked, scored exactly and put in order here, so
that scores, conditions and ties are those of a library of files. Nothing here writes.
"""

from __future__ import annotations

import json
import os
import tempfile
import threading
from collections import OrderedDict
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

import numpy as np

from simsearch.backbones.heads import load_head
from simsearch.cluster.milvus.filters import checked, expression, meets
from simsearch.cluster.milvus.store import Store, batches, unpack
from simsearch.errors import QueryError, RemoteError, StaleVersionError
from simsearch.library.metadata import join_caption
from simsearch.library.paths import is_unchanged, spellings
from simsearch.library.source import EmbeddingSpace, Source
from simsearch.library.types import Overview
from simsearch.retrieval.exact import TopK

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence
    from typing import Any

    from numpy.typing import NDArray
    from typing_extensions import Self

    from simsearch.backbones.backbone import Backbone
    from simsearch.backbones.heads import Head
    from simsearch.library.types import Rows


ORDER = 4096  # rows whose order is stored together, 8 bytes each
_T = TypeVar("_T")
_FEW = 500  # rows that are all fetched rather than searched, where no more meet a condition
_MOST = 16_384  # rows that Milvus ranks for one query
_SPARE = 20  # rows that are ranked beyond those asked for: float32 may confuse the last
_AT_ONCE = 1_000  # rows that are fetched together
_QUERIES = 64  # that are asked together
_KEPT = 4_096  # rows that are kept in memory
_FIELDS = ["id", "row", "about", "vector"]


class Entity(NamedTuple):
    """One image as it is stored."""

    id: int  # of this state of the image
    row: int  # of the image
    path: str
    facts: dict[str, Any]
    stat: list[int] | None
    vector: NDArray[np.float32]  # (D,)


class Condition(NamedTuple):
    """Which rows may be found."""

    rows: Rows
    without: frozenset[int]
    text: str  # what the engine can tell of it


def published_at(text: str) -> tuple[str, str] | None:
    """Take ``URI#COLLECTION`` apart; None for what is a folder.

    Examples
    --------
    >>> published_at("https://milvus.example.org:19530#shop")
    ('https://milvus.example.org:19530', 'shop')
    >>> published_at("outputs")
    """
    uri, mark, collection = text.rpartition("#")
    return (uri, collection) if mark and not Path(text).exists() else None


class RemoteLibrary(EmbeddingSpace):
    """A library that `publish` has put on a Milvus server or cluster, or into a Lite file.

    It stays at the version that it was opened at, and gives the same answers while the next one is
    published and after that. When yet another is published, the rows that it had seen go: from
    then on it raises a `StaleVersionError`, and `refresh` opens the newest. Safe to share between
    threads. Takes all that `search` and `recommend` take, but a mask of rows: rows have numbers
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
        Seconds that a call to the engine may take, with up to six attempts.

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
        store = Store(uri, collection, token, timeout)
        try:
            while True:
                state = store.read_state()
                if state is None:
                    raise RemoteError(
                        f"{store!r} holds no library; publish one with simsearch.publish(library, "
                        f"{store.address!r}, {collection!r})"
                    )
                try:
                    self._open(store, state, backbone)
                    break
                except RemoteError:
                    if store.read_state() == state:
                        raise
                    # Otherwise it was published anew just now, and again: open that.
        except BaseException:
            store.close()
            raise

    def _open(self, store: Store, state: dict[str, Any], backbone: Backbone | str | None) -> None:
        self._store, self._state, self._backbone = store, state, backbone
        self.version, self.root = int(state["version"]), state["root"]
        self.source = Source(**state["source"]) if state["source"] else None
        self.head = self._read_head() if state["head"] else None
        if self.fingerprint != state["fingerprint"]:
            raise store.error("its head is not the one that its rows have passed through")
        self._dead = frozenset(np.frombuffer(store.read_part(state, "dead"), np.int64).tolist())
        self._columns: list[dict[str, Any]] = unpack(store.read_part(state, "columns"))
        self._kept: OrderedDict[int, Entity] = OrderedDict()  # by row, the last used at the end
        self._lock = threading.Lock()
        self._rows = store.rows_name(state["generation"])
        store.call("load_collection", self._rows)
        self.index = MilvusIndex()
        self.paths = _Lookup(self._entities_of, lambda one: one.path, np.array)
        self.names = _Lookup(self._entities_of, lambda one: one.path[self._start :], np.array)
        self.embeddings = _Lookup(self._entities_of, lambda one: one.vector, np.stack)

    def _read_head(self) -> Head:
        data = self._store.read_part(self._state, "head")  # before there is anything to confirm
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "head.safetensors"
            file.write_bytes(data)
            return load_head(file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the connection and, for a Lite file, of the file."""
        self._store.close()

    def refresh(self) -> RemoteLibrary:
        """Return the newest version: this library itself, if nothing was published since.

        A new one shares the connection; close both.
        """
        state = self._store.read_state()
        if state is None:
            raise self._store.error("the library has gone")
        if state["version"] == self.version:
            return self
        newest = RemoteLibrary.__new__(RemoteLibrary)
        newest._open(self._store.share(), state, self._backbone)
        return newest

    def __len__(self) -> int:
        return int(self._state["rows"])

    def __repr__(self) -> str:
        made_by = f", made by {self.source.backbone}" if self.source else ""
        made_by += f" with {self.head!r}" if self.head else ""
        return f"RemoteLibrary({self._store!r}, {len(self):,} images, {self.dim}-d{made_by})"

    @property
    def dim(self) -> int:
        """Width of an embedding."""
        return int(self._state["dim"])

    @cached_property
    def random_pair_scores(self) -> NDArray[np.float32]:
        """Cosines of pairs of random images, sorted: those of the library that was published."""
        return np.frombuffer(self._part("background"), np.float32)

    @property
    def _start(self) -> int:
        """Return where names begin in paths."""
        return int(self._state["start"])

    def has_row(self, row: int) -> bool:
        """Tell whether there is such a row."""
        return bool(0 <= row < self._state["next"] and self._fetched([row]))

    def find(self, path: str | os.PathLike[str]) -> int | None:
        """Row of the image at a path, given in any form that leads to the same file."""
        with suppress(ValueError):  # a null character, which is in no path
            return self._find(list(spellings(os.path.expanduser(path), self.root)))  # noqa: PTH111
        return None

    def _find(self, forms: Sequence[str]) -> int | None:
        keys = sorted({key_of(form) for form in forms})
        entities = self._fits(self._query(f"key in {keys}"), None)
        self.confirm()
        found = {one.path: one.row for one in sorted(entities, key=lambda one: -one.row)}
        return next((found[form] for form in forms if form in found), None)

    def is_current(self, row: int) -> bool:
        """Tell whether the file of a row is still the one that was embedded, or has gone."""
        (one,) = self._entities_of([row])
        return is_unchanged(one.path, one.stat)

    def facts(self, row: int) -> dict[str, Any]:
        """Return the metadata of an image by column, without what is empty."""
        (one,) = self._entities_of([row])
        dates = {each["name"] for each in self._columns if each["dtype"].startswith("datetime")}
        if not dates.intersection(one.facts):
            return dict(one.facts)
        import pandas as pd

        return {
            name: pd.Timestamp(cell) if name in dates else cell for name, cell in one.facts.items()
        }

    def caption(self, row: int) -> str:
        """Put the metadata of an image in words; "" without any."""
        return join_caption(self.facts(row), self._state["captions"])

    def overview(self) -> Overview:
        """Sum up folders and metadata, for a menu of filters, as it was when published."""
        folders, columns = unpack(self._part("overview"))
        return Overview([(name, count) for name, count in folders], columns)

    def _apply_head(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """Pass what the backbone gives, (Q, D) of unit norm, through the head."""
        if self.head is None or not self.head.whole:
            return embeddings if self.head is None else self.head(embeddings)
        moved = np.empty((len(embeddings), self.dim), np.float32)
        for i, near in enumerate(self.index.top_k(self, self.head(embeddings), self.head.reach)):
            moved[i : i + 1] = self.head.query(embeddings[i : i + 1], self.embeddings[near.rows])
        return moved

    # Conditions

    def row_filter(self, rows: Rows, without: Collection[int] = ()) -> Condition | None:
        """Return what the engine takes for a condition; None for all rows.

        Raises
        ------
        QueryError
            If there is no such column, or it is a mask.
        """
        if rows is None and not without:
            return None
        if rows is not None and not isinstance(rows, (str, dict)):
            rows = self._numbers(rows)
        else:
            checked(rows, self._columns)
        return Condition(rows, frozenset(without), expression(rows, self._columns))

    def _numbers(self, rows: Any) -> Any:  # noqa: ANN401
        if hasattr(rows, "items"):
            checked(dict(rows), self._columns)
            return dict(rows)
        numbers = np.asarray(rows)
        whole = numbers.ndim == 1 and (numbers.dtype.kind in "iu" or not len(numbers))
        if not whole or not ((numbers >= 0) & (numbers < self._state["next"])).all():
            raise QueryError(
                f"an array of shape {numbers.shape} and dtype {numbers.dtype} chooses no rows of "
                f"{self!r}: give row numbers, such as those of matches"
            )
        return numbers.astype(np.int64)

    def _fits(self, found: Sequence[Entity], condition: Condition | None) -> list[Entity]:
        """Keep what is part of this version and meets a condition."""
        seen = [one for one in found if one.id < self._state["next"] and one.id not in self._dead]
        if condition is None:
            return seen
        seen = [one for one in seen if one.row not in condition.without]
        if isinstance(condition.rows, np.ndarray):
            chosen = set(condition.rows.tolist())
            return [one for one in seen if one.row in chosen]
        if condition.rows is None:
            return seen
        paths, facts = [one.path for one in seen], [one.facts for one in seen]
        met = meets(condition.rows, paths, facts, self.root, self._columns)
        return [one for one, fit in zip(seen, met.tolist(), strict=True) if fit]

    def page(self, offset: int = 0, limit: int = 50, where: Rows = None) -> list[int]:
        """Return the rows of images that meet a condition, in the order of their paths.

        Without a condition one piece of the order is read; with one, all up to the page.
        """
        if where is None:
            return [one.row for one in self._ordered(offset, offset + limit, None)]
        found = self._ordered(0, len(self), self.row_filter(where))
        return [
            one.row
            for place, one in zip(range(offset + limit), found, strict=False)
            if place >= offset
        ]

    def count(self, where: Rows = None) -> int:
        """Count the images that meet a condition, by reading all that the engine lets through."""
        if where is None:
            return len(self)
        return sum(len(block) for block in self._all(self.row_filter(where)))

    def _ordered(self, start: int, stop: int, condition: Condition | None) -> Iterator[Entity]:
        """Read images in the order of their paths."""
        stop = min(stop, len(self))
        while start < stop:
            chunk, inside = divmod(start, ORDER)
            data = self._current(lambda: self._store.read_chunk(self._state, "order", chunk))  # noqa: B023
            ids = np.frombuffer(data, np.int64)
            ids = ids[inside : inside + min(_AT_ONCE, stop - start)]
            text = f"id in {ids.tolist()}"
            text += f" and ({condition.text})" if condition and condition.text else ""
            places = {number: place for place, number in enumerate(ids.tolist())}
            found = self._fits(self._query(text, vectors=False), condition)
            yield from sorted(found, key=lambda one: places[one.id])
            start += len(ids)
            self.confirm()

    # Rows as they are stored

    def _entities_of(self, rows: Sequence[int]) -> list[Entity]:
        """Read images by row."""
        found = self._fetched(rows)
        missing = [row for row in rows if row not in found]
        if missing:
            raise QueryError(f"row {missing[0]}: {self!r} has no such row")
        return [found[row] for row in rows]

    def _fetched(self, rows: Sequence[int]) -> dict[int, Entity]:
        with self._lock:
            found = {row: self._kept[row] for row in rows if row in self._kept}
            for row in found:
                self._kept.move_to_end(row)
        wanted = sorted({int(row) for row in rows}.difference(found))
        for i in range(0, len(wanted), _AT_ONCE):
            entities = self._query(f"row in {wanted[i : i + _AT_ONCE]}")
            found.update((one.row, one) for one in self._fits(entities, None))
        if wanted:
            self.confirm()
        return found

    def by_id(self, ids: Sequence[int]) -> list[Entity]:
        """Read images by the number of their state, in any order."""
        return [
            one
            for i in range(0, len(ids), _AT_ONCE)
            for one in self._query(f"id in {list(ids[i : i + _AT_ONCE])}")
        ]

    def _query(self, text: str, *, vectors: bool = True) -> list[Entity]:
        fields = _FIELDS if vectors else _FIELDS[:-1]
        answer = self._ask("query", filter=text, output_fields=fields)
        found = [self._entity(line) for line in answer]
        if vectors:
            with self._lock:
                self._kept.update((one.row, one) for one in self._fits(found, None))
                while len(self._kept) > _KEPT:
                    self._kept.popitem(last=False)
        return found

    def _ask(self, method: str, **options: Any) -> Any:  # noqa: ANN401
        return self._current(lambda: self._store.call(method, self._rows, **options))

    def _part(self, name: str) -> bytes:
        return self._current(lambda: self._store.read_part(self._state, name))

    def _current(self, read: Callable[[], _T]) -> _T:
        """Read; where that fails because this version has gone, say so."""
        try:
            return read()
        except RemoteError:
            self.confirm()
            raise

    def _entity(self, line: dict[str, Any]) -> Entity:
        about = json.loads(line["about"])
        vector = np.array(line.get("vector", ()), np.float32)
        return Entity(
            int(line["id"]),
            int(line["row"]),
            about["path"],
            about.get("facts", {}),
            about.get("stat"),
            vector,
        )

    def ids(self, condition: Condition, limit: int) -> list[int]:
        """Read numbers of images that the engine lets through a condition, up to so many."""
        answer = self._ask(
            "query", filter=self.visible(condition), output_fields=["id"], limit=limit
        )
        return [int(line["id"]) for line in answer]

    def _all(self, condition: Condition | None) -> Iterator[list[Entity]]:
        """Read all images that meet a condition, block by block."""
        for start, stop in batches(0, self._state["next"], _AT_ONCE):
            text = f"id >= {start} and id < {stop}"
            text += f" and ({condition.text})" if condition and condition.text else ""
            yield self._fits(self._query(text), condition)
        self.confirm()

    def visible(self, condition: Condition | None) -> str:
        """Return the expression of a condition within this version."""
        text = f"id < {self._state['next']}"
        return f"{text} and ({condition.text})" if condition and condition.text else text

    def nearest(self, vectors: NDArray[np.float32], depth: int, text: str) -> list[list[int]]:
        """Let the engine rank: numbers of images, best first, for each of (Q, D) embeddings."""
        answers = self._ask(
            "search",
            data=list(vectors),
            anns_field="vector",
            filter=text,
            limit=depth,
            output_fields=["id"],
            search_params={"metric_type": "COSINE", "params": self._effort(depth, text)},
        )
        return [[int(hit["id"]) for hit in hits] for hits in answers]

    def _effort(self, depth: int, text: str) -> dict[str, int]:
        """Look so widely that few are missed; more widely among those of a condition."""
        # Only a condition brings a bracket.
        if self._state["index"].startswith("HNSW"):
            return {"ef": min(32_768, max(4 * depth, 4096 if "(" in text else 256))}
        return {"nprobe": 128} if self._state["index"] == "IVF_FLAT" else {}

    def confirm(self) -> None:
        """Raise an error if rows of this version may have been deleted.

        Raises
        ------
        StaleVersionError
            If so: what was read just now may lack some.
        """
        state = self._store.read_state()
        if state is None or state["floor"] > self.version:
            raise StaleVersionError(
                f"{self!r} is of version {self.version}, which has gone since "
                f"{state['floor'] if state else 'the library'} was published: call refresh()"
            )

    def best(self, vector: NDArray[np.float32], found: Sequence[Entity], k: int) -> TopK:
        """Score images exactly, and put the k best in order."""
        if not found:
            return TopK(np.empty(0, np.intp), np.empty(0))
        rows = np.stack([one.vector for one in found]).astype(np.float64)
        scores = np.clip((rows * vector).sum(axis=1), -1, 1)
        order = np.lexsort(([one.path for one in found], -scores))[:k]
        return TopK(np.array([found[i].row for i in order], np.intp), scores[order])

    def kept(self, ids: Sequence[int]) -> list[Entity]:
        """Read images by number, those that are at hand from memory."""
        with self._lock:
            at_hand = {one.id: one for one in self._kept.values()}
        missing = [number for number in ids if number not in at_hand]
        return [at_hand[number] for number in ids if number in at_hand] + self.by_id(missing)

    def everywhere(self, vector: NDArray[np.float32], condition: Condition | None, k: int) -> TopK:
        """Rank by reading all that may be found."""
        rest: list[Entity] = []
        for block in self._all(condition):
            rest += block
            best = set(self.best(vector, rest, k).rows.tolist())
            rest = [one for one in rest if one.row in best]
        return self.best(vector, rest, k)


class MilvusIndex:
    """Ranks the rows of a `RemoteLibrary`, as `ExactIndex` does those of a library of files."""

    exact = False

    def check(self, library: RemoteLibrary) -> None:
        """Do nothing: it is the library's own."""

    def top_k(
        self,
        library: RemoteLibrary,
        vectors: NDArray[np.float32],
        k: int,
        condition: Condition | None = None,
    ) -> Iterator[TopK]:
        """Find the k best rows for each of several embeddings."""
        few = self._few(library, condition)
        for i in range(0, len(vectors), _QUERIES):
            block = vectors[i : i + _QUERIES]
            if few is not None:
                found = [library.best(vector, few, k) for vector in block]
            else:
                found = self._ranked(library, block, k, condition)
            library.confirm()  # after reading: before it would prove nothing
            yield from found

    def _few(self, library: RemoteLibrary, condition: Condition | None) -> list[Entity] | None:
        """Fetch all that may be found, if these are few: a graph serves them badly."""
        if len(library) <= _FEW:
            return [one for block in library._all(condition) for one in block]
        if condition is None or not condition.text:
            return None
        ids = library.ids(condition, _FEW + 1)
        return library._fits(library.kept(ids), condition) if len(ids) <= _FEW else None

    def _ranked(
        self,
        library: RemoteLibrary,
        vectors: NDArray[np.float32],
        k: int,
        condition: Condition | None,
    ) -> list[TopK]:
        # What a publication has left half done is rare: at first its rows are only sorted out.
        text = condition.text and f"({condition.text})" if condition else ""
        depth = min(_MOST, k + _SPARE + (len(condition.without) if condition else 0))
        ranked = library.nearest(vectors, depth, text)
        return [
            self._enough(library, vector, ids, k, condition)
            for vector, ids in zip(vectors, ranked, strict=True)
        ]

    def _enough(
        self,
        library: RemoteLibrary,
        vector: NDArray[np.float32],
        ids: list[int],
        k: int,
        condition: Condition | None,
    ) -> TopK:
        """Check and score what was proposed; where too few of it may be found, look further."""
        wanted, depth = min(k, len(library)), len(ids)
        while True:
            found = library.best(vector, library._fits(library.kept(ids), condition), k)
            if len(found.rows) >= wanted:
                return found
            if depth >= _MOST:
                return library.everywhere(vector, condition, k)
            depth = _MOST if depth * 8 > _MOST else max(depth * 8, 8 * k)
            (ids,) = library.nearest(vector[None], min(depth, _MOST), library.visible(condition))


class _Lookup(Generic[_T]):
    """What `paths[row]` and `paths[rows]` ask of a library that is not in memory."""

    def __init__(
        self,
        read: Callable[[Sequence[int]], list[Entity]],
        part: Callable[[Entity], _T],
        join: Callable[[list[_T]], NDArray[Any]],
    ) -> None:
        self._read, self._part, self._join = read, part, join

    def __getitem__(self, rows: Any) -> Any:  # noqa: ANN401
        if isinstance(rows, (int, np.integer)):
            return self._part(self._read([int(rows)])[0])
        numbers = np.asarray(rows, np.int64).tolist()
        parts = [self._part(one) for one in self._read(numbers)]
        return self._join(parts) if parts else np.empty(0, "U1")

    def __array__(self, *_: object, **__: object) -> NDArray[Any]:
        raise QueryError(
            "the rows of a RemoteLibrary are not in memory: look up some by number, or use the "
            "ImageLibrary that was published"
        )


def key_of(path: str) -> int:
    """Turn a path into the number that it is looked up by."""
    from hashlib import blake2b

    data = path.encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(data, digest_size=8).digest(), "big") >> 1
