"""What is derived from a library: the same images through a head, and its description."""

from __future__ import annotations

import copy
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from simsearch.backbones.heads import chain
from simsearch.errors import BackboneError
from simsearch.library.unit_rows import unit_rows
from simsearch.printable import valid_unicode

if TYPE_CHECKING:
    from simsearch.backbones.heads import Head
    from simsearch.library.library import ImageLibrary


def apply_head(library: ImageLibrary, head: Head) -> ImageLibrary:
    """Derive a library through a head; see `ImageLibrary.with_head`.

    Examples
    --------
    >>> from simsearch import ImageLibrary, ProjectionHead
    >>> library = ImageLibrary([[0.6, 0.8]], ["a.jpg"])
    >>> head = ProjectionHead([(np.diag([4.0, 3.0]), np.zeros(2))])
    >>> library.with_head(head).embeddings.round(3)
    array([[0.707, 0.707]], dtype=float32)
    """
    if head.dim_in != library.dim or (
        head.source and library.fingerprint and head.source != library.fingerprint
    ):
        raise BackboneError(
            f"{head!r} takes {head.dim_in}-d embeddings of {head.source or 'any'}, and these "
            f"are {library.dim}-d, of {library.fingerprint or 'unknown origin'}: use the library "
            "that it was trained on, or train one on this library; a fine-tuned one comes with "
            "its backbone, by trained.apply(library, outputs)"
        )
    derived = copy.copy(library)
    derived.__dict__.pop("random_pair_scores", None)  # of the rows as they were
    derived.head = chain(library.head, head)
    embeddings, start = np.empty((len(library), head.dim), np.float32), 0
    for block in head.rows(library.embeddings):
        embeddings[start : start + len(block)] = block
        start += len(block)
    derived.embeddings = unit_rows(embeddings)
    return derived


def describe_library(library: ImageLibrary) -> str:
    """Say what a library holds and what made it; see `ImageLibrary.describe`."""
    lines = [f"{len(library):,} images, {library.dim}-d embeddings"]
    if made_by := library.source:
        lines += [
            f"backbone   {made_by.backbone} ({made_by.weights}, {made_by.precision})",
            f"made from  {library.root}",
        ]
    lines += [f"head       {library.head!r}"] if library.head else []
    counts = sorted(Counter(library.folders.tolist()).items())
    lines += [f"{count:>9,}  {folder}" for folder, count in counts]
    return valid_unicode("\n".join(lines))


def name_library(library: ImageLibrary) -> str:
    """Put a library in one line; see `ImageLibrary.__repr__`."""
    made_by = f", made by {library.source.backbone}" if library.source else ""
    made_by += f" with {library.head!r}" if library.head else ""
    return f"ImageLibrary({len(library):,} images, {library.dim}-d{made_by})"
