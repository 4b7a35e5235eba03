"""The last library of a run: opened, and its rows taken over where the same backbone made them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from simsearch.backbones.backbone import SUFFIX, load_backbone, with_windows
from simsearch.backbones.long_pictures import as_embedded, made_like
from simsearch.backbones.spec import OWN_WEIGHTS
from simsearch.embedding.recovery import unfinished_source
from simsearch.errors import BackboneError, LibraryError
from simsearch.images.find import ImageFile
from simsearch.library.files import open_latest
from simsearch.library.foreign import distrust, is_own
from simsearch.library.library import ImageLibrary
from simsearch.library.verify import find_damaged_rows

if TYPE_CHECKING:
    import os
    from pathlib import Path

    import torch

    from simsearch.backbones.backbone import Backbone
    from simsearch.backbones.heads import Head
    from simsearch.backbones.precision import Precision
    from simsearch.embedding.rows import EmbeddedRows
    from simsearch.library.source import Source

logger = logging.getLogger("simsearch")

_damaged_rows: WeakKeyDictionary[ImageLibrary, frozenset[int]] = WeakKeyDictionary()


def open_last(folder: Path) -> ImageLibrary | None:
    """Open the library that is to be brought up to date; what is damaged of it is made anew."""
    blocks: list[int] = []
    try:
        files = open_latest(folder, blocks)
        library = ImageLibrary.of_files(files)
        damaged = find_damaged_rows(library, files.record, blocks)
    except LibraryError as error:
        logger.warning("Embedding every image again: %s", error)
        return None
    if not is_own(library):
        distrust(library, folder)
    if damaged:
        _damaged_rows[library] = damaged
        logger.warning(
            "Embedding %d of %d rows again, which are damaged on the disk, such as that of %s.",
            *(len(damaged), len(library), library.paths[min(damaged)]),
        )
    return library


def last_backbone(old: ImageLibrary | None) -> tuple[str, str | None]:
    """Name and weights to load for "auto", which stays with what made the library."""
    if old and old.source and old.source.weights != OWN_WEIGHTS:
        return old.source.backbone, old.source.weights_file
    return "auto", None


def load_network(
    named: tuple[str | Backbone | torch.nn.Module, str | os.PathLike[str] | None, str | None],
    device: str | None,
    precision: Precision,
    old: ImageLibrary | None,
    pictures: tuple[str, list[ImageFile], Path, bool],
) -> Backbone:
    """Load what embeds; in int8, which the pictures of the dataset calibrate, where that is it.

    Raises
    ------
    BackboneError
        If it cannot be loaded, or cannot embed long pictures as it is wanted.
    """
    name, weights, long = named
    if name == "auto" and not weights:
        name, weights = last_backbone(old)
    if precision != "int8" and not (old and old.source and old.source.precision == "int8"):
        network = load_backbone(name, weights, device=device, precision=precision)
    else:
        from simsearch.embedding.quantise import Calibration, load_for_dataset

        calibration = Calibration(*pictures)
        network = load_for_dataset(name, weights, device, precision, old, calibration)
    if long is not None:
        return as_embedded(network, long)
    last = (old and old.source) or _unfinished(pictures[2], network)
    return made_like(network, last.fingerprint) if last else with_windows(network)


def _unfinished(folder: Path, network: Backbone) -> Source | None:
    """Return what embedded in a run that was stopped before it made a library, if it is this."""
    source = unfinished_source(folder)
    plain = network.fingerprint.removesuffix(SUFFIX)
    return source if source and source.fingerprint.removesuffix(SUFFIX) == plain else None


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
        damaged = _damaged_rows.get(library, frozenset())
        rows.reused = {ImageFile(*f): row for row, f in enumerate(files) if row not in damaged}
        rows.embeddings = library.row_lookup


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
