"""The library that is served: opened, looked after, and replaced whole when it changes.

A request takes `Keeper.state` once and keeps to it, so that none sees half of two libraries.
"""

from __future__ import annotations

import hashlib
import logging
import os
import posixpath
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from simsearch.cluster.milvus.remote_library import RemoteLibrary, published_at
from simsearch.errors import BackboneError, LibraryError, QueryError
from simsearch.library.files import MANIFEST, NEXT, read_skipped
from simsearch.library.library import ImageLibrary
from simsearch.library.types import Browsable
from simsearch.retrieval.faiss import RECORD, FaissIndex, load_index
from simsearch.retrieval.search import search
from simsearch.web.batching import BatchedBackbone, best_size
from simsearch.web.settings import Settings

logger = logging.getLogger("simsearch.web")


@dataclass(frozen=True)
class State:
    """A library as it is served at one moment.

    Attributes
    ----------
    library : Gallery
    version : str
        Names this state; a row number means something only with it.
    index : FaissIndex or None
        What searches it, where that is not the library's own way.
    index_kind : str or None
        What that is, in a word.
    skipped : int
        Files that are not in it.
    """

    library: Browsable
    version: str
    index: FaissIndex | None = None
    index_kind: str | None = None
    skipped: int = 0


class Keeper:
    """Opens a library, and again when another has taken its place.

    Parameters
    ----------
    settings
        Says which.
    observe
        Is told the size of each batch of images that pass through the network.

    Attributes
    ----------
    state : State
        What is served now.
    cache : Path
        Where thumbnails are kept.

    Raises
    ------
    LibraryError
        If there is none.
    QueryError
        If the table cannot be attached, or the settings do not go together.
    """

    def __init__(self, settings: Settings, observe: Callable[[int], object]) -> None:
        self._settings, self._observe = settings, observe
        place = published_at(settings.outputs)
        self._origin = _Collection(settings, *place) if place else _Folder(settings)
        self.cache = Path(settings.cache).expanduser() if settings.cache else self._origin.cache
        self._network: BatchedBackbone | None = None
        self._refreshing, self._trouble = threading.Lock(), ""
        self._seen = self._origin.look()
        self.state = self._open()

    def refresh(self) -> bool:
        """Open the library that is there now, if it is another one; the last one otherwise stays.

        Returns
        -------
        bool
            Whether there is a new state.
        """
        with self._refreshing:
            try:
                seen = self._origin.look()
                if seen == self._seen:
                    return False
                self._seen = seen  # what cannot be opened is tried again when something changes
                state = self._open()
            except Exception as error:  # whatever it is, the last library can be served
                if self._trouble != str(error):  # said once, and not at every look
                    logger.warning("still serving the last library: %s", error)
                self._trouble = str(error)
                return False
            self.state, self._trouble = state, ""
            logger.info("serving %r, version %s", state.library, state.version)
            return True

    def close(self) -> None:
        """Stop the network's thread, and let go of the library."""
        if self._network:
            self._network.close()
        self._origin.close()

    def _open(self) -> State:
        state = self._origin.open()
        state = replace(state, library=self._networked(state.library))
        for row in state.library.page(0, 1):  # what the first search makes is made now
            search(state.library, row, k=1, index=state.index)
        return state

    def _networked(self, library: Browsable) -> Browsable:
        """Give a library the network, loaded once; without it, images in the library still find."""
        made_by = library.source.fingerprint if library.source else None
        if self._network is None or self._network.fingerprint != made_by:
            try:
                backbone = library.backbone
            except BackboneError as error:
                logger.warning("new images cannot be searched with: %s", error)
                return library
            if self._network:
                self._network.close()
            most = self._settings.max_batch or best_size(backbone)
            self._network = BatchedBackbone(backbone, most, self._observe)
        return library.with_backbone(self._network)


class _Folder:
    """A library of files."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._folder = Path(settings.outputs).expanduser()
        self.cache = self._folder / ".thumbnails"

    def look(self) -> object:
        """Tell states apart, by what is quick to ask."""
        files = [self._folder / name for name in (f"{NEXT}/{MANIFEST}", MANIFEST, RECORD)]
        table = self._settings.metadata
        return [_mark(file) for file in (*files, *([Path(table).expanduser()] if table else []))]

    def open(self) -> State:
        """Open the library that is there now."""
        settings = self._settings
        library = _rooted(ImageLibrary.load(self._folder, settings.root))
        if settings.metadata:
            library.attach(settings.metadata)
        index = self._index(library) if settings.index else None
        kind = index.report.kind if index else None
        return State(library, _version(library), index, kind, len(read_skipped(self._folder)))

    def close(self) -> None:
        """Do nothing: its files are closed when nobody reads them any more."""

    def _index(self, library: ImageLibrary) -> FaissIndex | None:
        try:
            index = load_index(self._folder)
            index.check(library)
        except LibraryError as error:
            logger.warning("searching without an index: %s", error)
            return None
        return index


class _Collection:
    """A library that was published."""

    cache = Path("~/.cache/simsearch/thumbnails").expanduser()

    def __init__(self, settings: Settings, uri: str, collection: str) -> None:
        if settings.root or settings.metadata or settings.index:
            raise QueryError(
                f"root, metadata and index belong to what is published: {settings.outputs} has "
                "them already"
            )
        self._open = [RemoteLibrary(uri, collection)]

    def look(self) -> object:
        """Tell states apart: by the version."""
        newest = self._open[-1].refresh()
        if newest is not self._open[-1]:
            self._open.append(newest)
        return newest.version

    def open(self) -> State:
        """Open the newest version; the one before it may still have questions to answer."""
        while len(self._open) > 2:
            self._open.pop(0).close()
        library = self._open[-1]
        version = hashlib.sha256(repr((library, library.version)).encode()).hexdigest()[:12]
        return State(library, version, index_kind="milvus")

    def close(self) -> None:
        """Close all that is open."""
        for library in self._open:
            library.close()


def _mark(file: Path) -> tuple[int, ...] | None:
    """Tell files in one place apart, without reading them."""
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def _rooted(library: ImageLibrary) -> ImageLibrary:
    """Give a library of unknown origin a root, so that its names do not tell the server's."""
    if library.root is None:
        with suppress(ValueError):  # some paths are absolute and some are not
            library.root = os.path.commonpath([posixpath.dirname(path) for path in library.paths])
    return library


def _version(library: ImageLibrary) -> str:
    """Digest of the embeddings and the paths, short enough for an address."""
    digest = hashlib.sha256(library.stored[1].encode() if library.stored else b"")
    digest.update(library.paths.tobytes())
    return digest.hexdigest()[:12]
