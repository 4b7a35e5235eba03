"""Put a library on a Milvus server or cluster, or into a Lite file; later, only what changed.

Rows are only ever added under new numbers. One record says up to which number they count, and
which of them are superseded: writing it makes a version visible, whole. What a version no longer
needs goes when the one after it is published, so that open readers are not cut off at once.
"""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from tqdm.auto import tqdm

from simsearch.backbones.heads import save_head
from simsearch.cluster.milvus.filters import cells, columns_of, numbers_of, to_text, words_of
from simsearch.cluster.milvus.remote_library import ORDER, key_of
from simsearch.cluster.milvus.store import FORMAT, TEXT, Store, batches, pack
from simsearch.errors import LibraryError, RemoteError
from simsearch.library.paths import in_folder

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Mapping
    from typing import Any

    from numpy.typing import NDArray

    from simsearch.library.library import ImageLibrary


Kind = Literal["hnsw", "hnsw_sq8", "ivf", "flat"]
_KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "hnsw": ("HNSW", {"M": 32, "efConstruction": 200}),
    "hnsw_sq8": ("HNSW_SQ", {"M": 32, "efConstruction": 200, "sq_type": "SQ8"}),
    "ivf": ("IVF_FLAT", {"nlist": 1024}),
    "flat": ("FLAT", {}),
}
_BATCH_BYTES = 2**23  # of vectors, sent together
_SCANNED = 5_000  # rows that are compared together
_IDS = 1_000  # rows that are deleted together


@dataclass(frozen=True)
class Published:
    """What `publish` did.

    Attributes
    ----------
    version : int
        What readers see from now on.
    added, changed, deleted, kept : int
        Images that were new, had another embedding, file or metadata, were gone, or stayed.
    """

    version: int
    added: int
    changed: int
    deleted: int
    kept: int

    def __str__(self) -> str:
        return (
            f"version {self.version}: {self.added:,} added, {self.changed:,} changed, "
            f"{self.deleted:,} deleted, {self.kept:,} kept"
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
    """Put a library on a Milvus server or cluster, or into a Milvus Lite file.

    Publishing again sends only what is new or has changed, and drops what has gone. Readers see
    the last complete version throughout: if it is stopped at any instant, nothing has happened for
    them, and the next call clears up. The attached metadata goes along. One writer at a time.

    Parameters
    ----------
    library
        From `embed_dataset` or `ImageLibrary.load`.
    uri
        A file for Milvus Lite, or ``http(s)://host:port`` of a server or cluster.
    collection
        Name for it there; letters, digits and _. It makes collections of that name with
        ``_rows_N`` and ``_meta`` behind it.
    replace
        Whether a collection whose embeddings come from another backbone or head, or that has
        another kind of index, may be made anew.
    keep_previous
        Whether open readers may go on with the version before. If not, what is superseded is
        deleted at once rather than by the next call.
    kind
        The engine's index: "hnsw", a graph of the whole rows; "hnsw_sq8", of rows of 8
        bits, a quarter of the memory; "ivf", lists; "flat", none.
    token
        "user:password" or an API key; by default the environment's ``MILVUS_TOKEN``.
    timeout
        Seconds that a call to the engine may take, with up to six attempts.
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
    if kind not in _KINDS:
        raise RemoteError(f"kind={kind!r}: choose {', '.join(_KINDS)}")
    store = Store(uri, collection, token, timeout)
    try:
        return _Writer(store, library, _KINDS[kind][0], progress=progress).run(
            replace=replace, keep_previous=keep_previous
        )
    finally:
        store.close()


class _Row(NamedTuple):
    """One image as it is sent, but for its numbers."""

    key: int
    digest: int
    about: str
    words: str
    numbers: dict[str, float | None]


class _Plan(NamedTuple):
    """What has to be done: rows of the library with the row numbers that they get."""

    fresh: NDArray[np.int64]  # (F,) rows of the library to send
    rows: NDArray[np.int64]  # (F,) their numbers for readers
    ids: NDArray[np.int64]  # (N,) number of the state of each row of the library, then
    dead: NDArray[np.int64]  # states that no longer count
    changed: int
    next: int


class _Writer:
    """One publication."""

    def __init__(self, store: Store, library: ImageLibrary, index: str, *, progress: bool) -> None:
        self.store, self.library, self.index, self.progress = store, library, index, progress
        self.columns = columns_of(library.metadata)

    def run(self, *, replace: bool, keep_previous: bool) -> Published:
        self.store.make_meta()
        last = self.store.read_state()
        if last is not None and not self._continues(last):
            if not replace:
                raise self._refused(last)
            self._sweep(last)
            state = self._described(last["version"] + 1, max(self.store.generations()) + 1)
        elif last is not None:
            self._sweep(last)
            state = self._described(last["version"] + 1, last["generation"])
        else:
            self._clear()
            state = self._described(1, 1)
        fresh = last is None or state["generation"] != last["generation"]
        if fresh:
            self._make(state["generation"])
        plan = self._plan(None if fresh else last, state["generation"])
        self._send(plan, state["generation"])
        state |= {"next": plan.next, "rows": len(self.library)}
        state["parts"] = self._parts(state["version"], plan)
        added = len(plan.fresh) - plan.changed
        told = Published(
            state["version"],
            added,
            plan.changed,
            len(plan.dead) - plan.changed,
            len(self.library) - len(plan.fresh),
        )
        if not fresh and last and not len(plan.fresh) and not len(plan.dead) and _same(last, state):
            self.store.call("delete", self.store.meta, filter=f"version > {last['version']}")
            return Published(last["version"], 0, 0, 0, told.kept)
        self._commit(last, state)
        if not keep_previous:
            self._sweep(state)
        return told

    def _described(self, version: int, generation: int) -> dict[str, Any]:
        library = self.library
        return {
            "format": FORMAT,
            "complete": True,
            "version": version,
            "floor": max(version - 1, 0),
            "generation": generation,
            "dim": library.dim,
            "index": self.index,
            "root": library.root,
            "start": 0 if library.root is None else len(in_folder(library.root, "")),
            "source": asdict(library.source) if library.source else None,
            "head": library.head.fingerprint if library.head else None,
            "fingerprint": library.fingerprint,
            "captions": library.captions,
        }

    def _continues(self, last: Mapping[str, Any]) -> bool:
        new = self._described(0, 0)
        return all(last[name] == new[name] for name in ("fingerprint", "dim", "index"))

    def _refused(self, last: Mapping[str, Any]) -> RemoteError:
        there, here = last["fingerprint"], self.library.fingerprint
        return RemoteError(
            f"{self.store!r} holds {last['dim']}-d rows of {there or 'unknown origin'} in an index "
            f"of kind {last['index']}, and these are {self.library.dim}-d, of "
            f"{here or 'unknown origin'}, for {self.index}: publish under another name, or with "
            "replace=True"
        )

    def _make(self, generation: int) -> None:
        from pymilvus import DataType, MilvusClient

        schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("id", DataType.INT64, is_primary=True)
        for name in ("row", "key", "digest"):
            schema.add_field(name, DataType.INT64)
        for name in ("about", "words"):
            schema.add_field(name, DataType.VARCHAR, max_length=TEXT)
        for name in numbers_of({}, []):
            schema.add_field(name, DataType.DOUBLE, nullable=True)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=self.library.dim)
        index = MilvusClient.prepare_index_params()
        params = next(params for name, params in _KINDS.values() if name == self.index)
        index.add_index("vector", index_type=self.index, metric_type="COSINE", params=params)
        self.store.make(self.store.rows_name(generation), schema, index)

    # What is there, and what has to change

    def _plan(self, last: dict[str, Any] | None, generation: int) -> _Plan:
        """Compare the library with what was published last."""
        count = len(self.library)
        digests, keys = np.empty(count, np.int64), np.empty(count, np.int64)
        for block, rows in self._rows(np.arange(count), "Comparing"):
            keys[block], digests[block] = [r.key for r in rows], [r.digest for r in rows]
        numbers, counts = np.unique(keys, return_counts=True)
        if (counts > 1).any():
            twice = self.library.paths[keys == numbers[counts.argmax()]][0]
            raise LibraryError(f"two rows have the path {str(twice)!r}; publish each image once")
        known = self._known(last, generation)  # (M, 4) id, row, key, digest
        first = 0 if last is None else int(last["next"])
        at = _places(known[:, 2], keys)  # (N,) where each row of the library is known, or -1
        same = (at >= 0) & (known[at, 3] == digests) if len(known) else np.zeros(count, bool)
        fresh = np.flatnonzero(~same)
        ids = np.where(same, known[at, 0], 0) if len(known) else np.zeros(count, np.int64)
        ids[fresh] = first + np.arange(len(fresh))
        numbered = np.where(at[fresh] >= 0, known[at[fresh], 1], ids[fresh]) if len(known) else ids
        dead = np.setdiff1d(known[:, 0], ids[same])
        changed = int(np.count_nonzero(at[fresh] >= 0))
        return _Plan(fresh, numbered, ids, dead, changed, first + len(fresh))

    def _known(self, last: dict[str, Any] | None, generation: int) -> NDArray[np.int64]:
        """Read number, row, key and digest of each state that counts: (M, 4) int64."""
        if last is None:
            return np.empty((0, 4), np.int64)
        dead = np.frombuffer(self.store.read_part(last, "dead"), np.int64)
        fields = ["id", "row", "key", "digest"]
        blocks = [np.empty((0, 4), np.int64)]
        for start, stop in batches(0, last["next"], _SCANNED):
            lines = self.store.call(
                "query",
                self.store.rows_name(generation),
                filter=f"id >= {start} and id < {stop}",
                output_fields=fields,
            )
            table = [[line[field] for field in fields] for line in lines]
            blocks.append(np.array(table, np.int64).reshape(-1, 4))
        known = np.concatenate(blocks)
        return known[~np.isin(known[:, 0], dead)]

    def _rows(self, chosen: NDArray[np.int64], words: str) -> Iterator[tuple[slice, list[_Row]]]:
        """Prepare rows of the library block by block, with a progress bar."""
        size = max(1, min(2_000, _BATCH_BYTES // (4 * self.library.dim)))
        with tqdm(
            desc=words, total=len(chosen), unit="image", disable=not self.progress, delay=1
        ) as bar:
            for start in range(0, len(chosen), size):
                block = slice(start, min(start + size, len(chosen)))
                yield block, list(self._prepared(chosen[block]))
                bar.update(block.stop - block.start)

    def _prepared(self, chosen: NDArray[np.int64]) -> Iterator[_Row]:
        library = self.library
        paths, vectors = library.paths[chosen].tolist(), np.asarray(library.embeddings[chosen])
        table = library.metadata
        stored = (
            {}
            if table is None
            else {name: cells(table[name].iloc[chosen]) for name in table.columns}
        )
        for i, row in enumerate(chosen.tolist()):
            facts = {name: line[i] for name, line in stored.items() if line[i] is not None}
            about: dict[str, Any] = {"path": paths[i]}
            about |= {"facts": facts} if facts else {}
            if library.stats is not None:
                about["stat"] = library.stats[row].tolist()
            words = words_of(library.names[row], facts, self.columns)
            text = to_text(about)
            if len(text) > TEXT:
                raise LibraryError(
                    f"the metadata of {paths[i]!r} takes {len(text):,} bytes, and an engine's "
                    f"field {TEXT:,}: attach a table with less of it"
                )
            numbers = numbers_of(facts, self.columns)
            digest = blake2b(f"{text}\n{words}\n{numbers}\n".encode(), digest_size=8)
            digest.update(vectors[i].data)
            number = int.from_bytes(digest.digest(), "big") >> 1
            yield _Row(key_of(paths[i]), number, text, words, numbers)

    # Writing

    def _send(self, plan: _Plan, generation: int) -> None:
        name = self.store.rows_name(generation)
        for block, rows in self._rows(plan.fresh, "Publishing"):
            chosen = plan.fresh[block]
            vectors = np.asarray(self.library.embeddings[chosen])
            numbered = zip(plan.ids[chosen].tolist(), plan.rows[block].tolist(), strict=True)
            lines = [
                {
                    "id": number,
                    "row": row,
                    "key": one.key,
                    "digest": one.digest,
                    "about": one.about,
                    "words": one.words,
                    "vector": vector,
                    **one.numbers,
                }
                for (number, row), one, vector in zip(numbered, rows, vectors, strict=True)
            ]
            # By number, so that a batch whose answer was lost may be sent again.
            self.store.call("upsert", name, lines)
        if len(plan.fresh):
            self.store.call("flush", name)

    def _parts(self, version: int, plan: _Plan) -> dict[str, Any]:
        """Store what readers need beside the rows."""
        library, parts = self.library, {}
        order = plan.ids[np.argsort(library.paths, kind="stable")]
        overview = library.overview()
        data = {
            "dead": plan.dead.tobytes(),
            "columns": pack(self.columns),
            "overview": pack([overview.folders, overview.columns]),
            "background": library.background.tobytes(),
            "order": order.astype(np.int64).tobytes(),
        }
        if library.head:
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder) / "head.safetensors"
                save_head(library.head, file)
                data["head"] = file.read_bytes()
        for name, content in data.items():
            parts[name] = self.store.write_part(version, name, content, 8 * ORDER)
        return parts

    def _commit(self, last: dict[str, Any] | None, state: dict[str, Any]) -> None:
        now = self.store.read_state()
        if (now and now["version"]) != (last and last["version"]):
            raise RemoteError(
                f"{self.store!r} was published by another process meanwhile: publish again"
            )
        self.store.write_state(state)

    # Clearing up

    def _sweep(self, state: dict[str, Any]) -> None:
        """Delete what this version does not need: of earlier ones, and of unfinished ones."""
        version = state["version"]
        if state["floor"] < version:
            state["floor"] = version  # readers of earlier ones learn it before anything goes
            self.store.write_state(state)
        for generation in self.store.generations():
            if generation != state["generation"]:
                self.store.call("drop_collection", self.store.rows_name(generation))
        name = self.store.rows_name(state["generation"])
        dead = np.frombuffer(self.store.read_part(state, "dead"), np.int64).tolist()
        self.store.call("load_collection", name)
        for start, stop in batches(0, len(dead), _IDS):
            self.store.call("delete", name, filter=f"id in {dead[start:stop]}")
        self.store.call("delete", name, filter=f"id >= {state['next']}")
        others = f"version > 0 and version != {version}"
        self.store.call("delete", self.store.meta, filter=others)

    def _clear(self) -> None:
        """Drop what a first publication has left unfinished."""
        for generation in self.store.generations():
            self.store.call("drop_collection", self.store.rows_name(generation))
        self.store.call("delete", self.store.meta, filter="version > 0")


def _places(known: NDArray[np.int64], wanted: NDArray[np.int64]) -> NDArray[np.intp]:
    """Tell where each of some keys is among the known ones, -1 for nowhere: (N,)."""
    if not len(known):
        return np.full(len(wanted), -1)
    order = np.argsort(known, kind="stable")
    at = order[np.searchsorted(known[order], wanted).clip(max=len(known) - 1)]
    return np.where(known[at] == wanted, at, -1)


def _same(last: Mapping[str, Any], state: Mapping[str, Any]) -> bool:
    """Tell whether readers would see no difference."""
    plain = {"version", "floor", "parts"}
    seals = [{**one["parts"], "dead": None} for one in (last, state)]
    return seals[0] == seals[1] and all(
        last[name] == state[name] for name in state if name not in plain
    )
