"""The served library: opened, watched, and replaced whole when it changes.

A request takes `LibraryManager.state` once and keeps to it, so that none sees half of two.
"""

from __future__ import annotations

import hashlib
import logging
import os
import posixpath
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from simsearch.cluster.milvus.address import split_address
from simsearch.cluster.milvus.remote_library import RemoteLibrary
from simsearch.cluster.shards import Shards
from simsearch.errors import BackboneError, LibraryError, QueryError
from simsearch.files import user_folder
from simsearch.library.files import MANIFEST, NEXT, PARTS
from simsearch.library.library import ImageLibrary
from simsearch.library.parts import INDEX_FOLDER, has_parts
from simsearch.library.refusals import if_yours
from simsearch.library.skipped import read_skipped
from simsearch.library.types import Browsable
from simsearch.retrieval.faiss import FaissIndex, load_index
from simsearch.retrieval.faiss_seal import RECORD_FILE
from simsearch.retrieval.search import search
from simsearch.web.batching import BatchedBackbone, fastest_batch_size
from simsearch.web.settings import Settings

logger = logging.getLogger("simsearch.web")


@dataclass(frozen=True)
class State:
    """One version of the served library.

    Attributes
    ----------
    library : ImageLibrary, RemoteLibrary or Shards
    version : str
        Names this state; row numbers are valid for this version only.
    index : FaissIndex or None
        The FAISS index that searches it, if any.
    index_kind : str or None
        Kind of the index.
    skipped : int
        Number of files that could not be embedded.
    embeds : bool
        Whether new images can be searched with; without a backbone, rows alone can.
    part_index : FaissIndex or None
        That of the parts of its pictures.
    """

    library: Browsable
    version: str
    index: FaissIndex | None = None
    index_kind: str | None = None
    skipped: int = 0
    embeds: bool = True
    part_index: FaissIndex | None = None

    def index_for(self, options: Mapping[str, Any]) -> FaissIndex | None:
        """Return the index for a search with some options; None for the exact search."""
        by_parts = options.get("parts") or (options.get("regions") and has_parts(self.library))
        return self.part_index if by_parts else self.index


class LibraryManager:
    """Opens a library, and opens it again when it has been replaced.

    Parameters
    ----------
    settings
        Which library.
    observe
        Called with the size of each batch of images that pass through the network.

    Attributes
    ----------
    state : State
        The newest version that could be opened.
    cache : Path
        Folder of the thumbnails.

    Raises
    ------
    LibraryError
        If there is no library, or it is damaged.
    QueryError
        If the table cannot be attached, or settings contradict each other.
    """

    def __init__(self, settings: Settings, observe: Callable[[int], object]) -> None:
        self._settings, self._observe = settings, observe
        self._source = _SeveralSources(settings) if settings.others else _source_of(settings)
        self.cache = Path(settings.cache or user_folder("cache") / "thumbnails").expanduser()
        self._backbone: BatchedBackbone | None = None
        self._refreshing, self._last_error = threading.Lock(), ""
        self._key = self._source.state_key()
        self.state = self._open()

    def refresh(self) -> bool:
        """Open the library if it has changed; keep the last one if the new one is damaged.

        Returns
        -------
        bool
            Whether the state is new.
        """
        with self._refreshing:
            try:
                key = self._source.state_key()
                if key == self._key:
                    return False
                self._key = key  # a damaged library is tried again when it changes
                state = self._open()
            except Exception as error:  # the last library can be served in any case
                if self._last_error != str(error):  # log it once
                    logger.warning("still serving the last library: %s", error)
                self._last_error = str(error)
                return False
            self.state, self._last_error = state, ""
            logger.info("serving %r, version %s", state.library, state.version)
            return True

    def close(self) -> None:
        """Stop the batching thread, and close the library."""
        if self._backbone:
            self._backbone.close()
        self._source.close()

    def _open(self) -> State:
        state = self._source.open()
        library = self._with_batched_backbone(state.library)
        state = replace(state, library=library or state.library, embeds=library is not None)
        for row in state.library.page(0, 1):  # warm-up for the first request
            search(state.library, row, k=1, index=state.index)
        return state

    def _with_batched_backbone(self, library: Browsable) -> Browsable | None:
        """Give a library the batched backbone; None without one: it is searched by row only."""
        fingerprint = library.source.fingerprint if library.source else None
        if self._backbone is None or self._backbone.fingerprint != fingerprint:
            try:
                backbone = library.backbone
            except BackboneError as error:
                logger.warning("new images cannot be searched with: %s", error)
                return None
            if self._backbone:
                self._backbone.close()
            max_images = self._settings.max_batch or fastest_batch_size(backbone)
            self._backbone = BatchedBackbone(backbone, max_images, self._observe)
        return library.with_backbone(self._backbone)


class _FolderSource:
    """Opens a library from its folder."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._folder = Path(settings.outputs).expanduser()

    def state_key(self) -> object:
        """Return a cheap key that changes when the library does."""
        parts = (PARTS, f"{INDEX_FOLDER}/{RECORD_FILE}")
        names = (f"{NEXT}/{MANIFEST}", MANIFEST, RECORD_FILE, *parts)
        files = [self._folder / name for name in names]
        table = self._settings.metadata
        return [
            _file_state(file) for file in (*files, *([Path(table).expanduser()] if table else []))
        ]

    def open(self) -> State:
        """Open the library as it is now."""
        settings = self._settings
        library = _with_common_root(ImageLibrary.load(self._folder, settings.root))
        if not (library.own or settings.root):
            raise LibraryError(
                f"the library in {settings.outputs!r} does not bear your mark, so say where its "
                f"pictures are (--root DATASET): {if_yours(settings.outputs)}"
            )
        if settings.metadata:
            library.attach(
                settings.metadata,
                decimal=settings.decimal,
                dates=settings.dates,
                missing=settings.missing,
            )
        index = self._index(library) if settings.index else None
        kind = index.report.kind if index else None
        skipped = len(read_skipped(self._folder))
        parts = self._part_index(library) if settings.index else None
        return State(library, _version(library), index, kind, skipped, part_index=parts)

    def close(self) -> None:
        """Do nothing: files are closed when their arrays are freed."""

    def _index(self, library: ImageLibrary) -> FaissIndex | None:
        try:
            index = load_index(library)
        except LibraryError as error:
            logger.warning("searching without an index: %s", error)
            return None
        return index

    @staticmethod
    def _part_index(library: ImageLibrary) -> FaissIndex | None:
        folder = library.stored[0] if library.stored else Path()
        if not (folder / INDEX_FOLDER / RECORD_FILE).exists():
            return None
        try:
            return load_index(library, parts=True)
        except LibraryError as error:
            logger.warning("searching for parts without an index: %s", error)
            return None


class _MilvusSource:
    """Opens a published library from Milvus."""

    def __init__(self, settings: Settings, uri: str, collection: str) -> None:
        if settings.root or settings.metadata or settings.index:
            raise QueryError(
                f"root, metadata and index belong to what is published: {settings.outputs} has "
                "them already"
            )
        self._open = [RemoteLibrary(uri, collection)]

    def state_key(self) -> object:
        """Return the newest version."""
        newest = self._open[-1].refresh()
        if newest is not self._open[-1]:
            self._open.append(newest)
        return newest.version

    def open(self) -> State:
        """Open the newest version; requests may still be using the one before it."""
        while len(self._open) > 2:
            self._open.pop(0).close()
        library = self._open[-1]
        version = hashlib.sha256(repr((library, library.version)).encode()).hexdigest()[:12]
        return State(library, version, index_kind="milvus")

    def close(self) -> None:
        """Close every open version."""
        for library in self._open:
            library.close()


class _SeveralSources:
    """Opens several libraries as one."""

    def __init__(self, settings: Settings) -> None:
        for option in ("root", "metadata", "index"):
            if value := getattr(settings, option):
                raise QueryError(
                    f"{option}={value!r} belongs to one library, and several are served as one"
                )
        names = (settings.outputs, *settings.others)
        self._sources = [_source_of(replace(settings, outputs=name, others=())) for name in names]

    def state_key(self) -> object:
        """Return a key that changes when one of them does."""
        return [source.state_key() for source in self._sources]

    def open(self) -> State:
        """Open them all as they are now."""
        states = [source.open() for source in self._sources]
        library = Shards([state.library for state in states])
        version = hashlib.sha256(" ".join(state.version for state in states).encode())
        skipped = sum(state.skipped for state in states)
        return State(library, version.hexdigest()[:12], skipped=skipped)

    def close(self) -> None:
        """Close them all."""
        for source in self._sources:
            source.close()


def _source_of(settings: Settings) -> _FolderSource | _MilvusSource:
    """Return what opens the library of an address or a folder."""
    place = split_address(settings.outputs)
    return _MilvusSource(settings, *place) if place else _FolderSource(settings)


def _file_state(file: Path) -> tuple[int, ...] | None:
    """Identify the file at a path, without reading it."""
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def _with_common_root(library: ImageLibrary) -> ImageLibrary:
    """Give a library without a root one, so that names reveal no folders of the server."""
    if library.root is None:
        with suppress(ValueError):  # some paths are absolute and some are not
            library.root = os.path.commonpath([posixpath.dirname(path) for path in library.paths])
    return library


def _version(library: ImageLibrary) -> str:
    """Return a short digest of embeddings and paths."""
    digest = hashlib.sha256(library.stored[1].encode() if library.stored else b"")
    digest.update(library.paths.tobytes())
    return digest.hexdigest()[:12]
