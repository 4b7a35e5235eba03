"""The library that is served: opened, looked after, and replaced whole when it changes.

A request takes `Gallery.state` once and keeps to it, so that none sees half of two libraries.
"""

from __future__ import annotations

import hashlib
import logging
import os
import posixpath
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from simsearch.errors import BackboneError, LibraryError, MissingExtraError, SimsearchError
from simsearch.faiss_index import FaissIndex, load_index
from simsearch.library import MANIFEST, NEXT, ImageLibrary, read_skipped
from simsearch.search import search
from simsearch.web.batching import BatchedBackbone

if TYPE_CHECKING:
    from simsearch.web.settings import Settings

logger = logging.getLogger("simsearch.web")


@dataclass(frozen=True)
class State:
    """A library as it is served at one moment.

    Attributes
    ----------
    library : ImageLibrary
    version : str
        Names this state; a row number means something only with it.
    index : FaissIndex or None
        What searches it, where that is not the exact search.
    skipped : int
        Files that are not in it.
    """

    library: ImageLibrary
    version: str
    index: FaissIndex | None
    skipped: int


class Gallery:
    """Opens the library of a folder, and again when another has taken its place.

    Parameters
    ----------
    settings
        Says which.
    observe
        Is told the size of each batch of images that pass through the network.

    Raises
    ------
    LibraryError
        If there is none.
    QueryError
        If the table cannot be attached.
    """

    def __init__(self, settings: Settings, observe: Callable[[int], object]) -> None:
        self._settings, self._observe = settings, observe
        self._network: BatchedBackbone | None = None
        self._refreshing = threading.Lock()
        self._seen = self._look()
        self.state = self._open()
        self.reloads = 0

    def refresh(self) -> bool:
        """Open the library that is there now, if it is another one; the last one otherwise stays.

        Returns
        -------
        bool
            Whether there is a new state.
        """
        with self._refreshing:
            seen = self._look()
            if seen == self._seen:
                return False
            try:
                state = self._open()
            except SimsearchError as error:
                logger.warning("still serving the last library: %s", error)
                return False
            finally:
                self._seen = seen  # said once, and tried again when something changes
            self.state = state
            self.reloads += 1
            logger.info("serving %r, version %s", state.library, state.version)
            return True

    def close(self) -> None:
        """Stop the network's thread."""
        if self._network:
            self._network.close()

    def _look(self) -> tuple[tuple[int, int, int], ...]:
        """Tell whether anything has changed, by what is quick to ask."""
        folder = Path(self._settings.outputs).expanduser()
        found = []
        for file in (folder / NEXT / MANIFEST, folder / MANIFEST, folder / "index.json"):
            try:
                status = file.stat()
                found.append((status.st_ino, status.st_size, status.st_mtime_ns))
            except OSError:
                found.append((0, 0, 0))
        return tuple(found)

    def _open(self) -> State:
        settings = self._settings
        library = _rooted(ImageLibrary.load(settings.outputs, settings.root))
        if settings.metadata:
            library.attach(settings.metadata)
        library = self._networked(library)
        index = self._index(library)
        search(library, 0, k=1, index=index)  # what is made at the first search is made now
        return State(library, _version(library), index, len(read_skipped(settings.outputs)))

    def _networked(self, library: ImageLibrary) -> ImageLibrary:
        """Give a library the network, loaded once; without it, images in the library still find."""
        made_by = library.source.fingerprint if library.source else None
        if self._network is None or self._network.fingerprint != made_by:
            try:
                backbone = library.backbone
            except BackboneError as error:
                logger.warning("new images cannot be searched with: %s", error)
                return library
            self.close()
            self._network = BatchedBackbone(backbone, self._settings.max_batch, self._observe)
        return library.with_backbone(self._network)

    def _index(self, library: ImageLibrary) -> FaissIndex | None:
        if not self._settings.index:
            return None
        try:
            index = load_index(self._settings.outputs)
            index.check(library)
        except MissingExtraError:
            raise
        except LibraryError as error:
            logger.warning("searching without an index: %s", error)
            return None
        return index


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
