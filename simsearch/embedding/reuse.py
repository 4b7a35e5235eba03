"""The last library of a run: opened, and its rows taken over where the same backbone made them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from simsearch.backbones.spec import OWN_WEIGHTS
from simsearch.errors import BackboneError, LibraryError
from simsearch.images.find import ImageFile
from simsearch.library.library import ImageLibrary

if TYPE_CHECKING:
    from pathlib import Path

    from simsearch.backbones.backbone import Backbone
    from simsearch.backbones.heads import Head
    from simsearch.embedding.rows import EmbeddedRows

logger = logging.getLogger("simsearch")


def open_last(folder: Path) -> ImageLibrary | None:
    """Open the library that is to be brought up to date; a damaged one is made anew."""
    try:
        return ImageLibrary.as_stored(folder)
    except LibraryError as error:
        logger.warning("Embedding every image again: %s", error)
        return None


def backbone_of(old: ImageLibrary | None) -> tuple[str, str | None]:
    """Name and weights to load for "auto", which stays with what made the library."""
    if old and old.source and old.source.weights != OWN_WEIGHTS:
        return old.source.backbone, old.source.weights_file
    return "auto", None


def reuse_rows(rows: EmbeddedRows, library: ImageLibrary) -> None:
    """Take over the rows of the last library, and its head, where this backbone made it.

    Raises
    ------
    BackboneError
        If the library's head was made for the embeddings of another backbone.
    LibraryError
        If its head works on all rows together.
    """
    rows.head = _head_of(library, rows.backbone)
    source = library.source
    if source and source.fingerprint != rows.backbone.fingerprint:
        logger.warning(
            "Embedding every image again: the library was made by %s (%s), not by %s (%s).",
            *(source.backbone, source.fingerprint),
            *(rows.backbone.name, rows.backbone.fingerprint),
        )
    elif source and library.stats is not None:
        files = zip(library.names, *library.stats.T.tolist(), strict=True)
        rows.reused = {ImageFile(*file): row for row, file in enumerate(files)}
        rows.embeddings = library.embeddings


def _head_of(library: ImageLibrary, backbone: Backbone) -> Head | None:
    """Return the head that new images have to pass through."""
    head, source = library.head, library.source
    if head and head.whole:
        raise LibraryError(
            f"new images cannot join a library with {head!r}, which works on all rows together: "
            "bring the library that it was made from up to date, and derive it again"
        )
    if head and (source is None or source.fingerprint != backbone.fingerprint):
        raise BackboneError(
            f"{head!r} of this library was made for the embeddings of {source}, not of "
            f"{backbone!r}: choose another outputs folder"
        )
    return head
