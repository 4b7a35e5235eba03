"""Pixel signatures of a library's pictures: those that `embed` has not made are made once."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from filelock import Timeout

from simsearch.analysis.picture_files import read_pictures
from simsearch.images.read_signature import read_signature
from simsearch.library.signatures import STORE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from simsearch.analysis.picture_files import PictureFiles
    from simsearch.library.library import ImageLibrary


class PictureSignatures(NamedTuple):
    """Signatures of a library's rows.

    Attributes
    ----------
    rows : (N,) array of dtype `SIGNATURE`
        Zeros where a picture was not read.
    frames : (N,) uint32
        Frames of an animation, or pages; 0 where a picture was not read.
    """

    rows: NDArray[np.void]
    frames: NDArray[np.uint32]


def signatures_of(
    library: ImageLibrary, files: PictureFiles, *, progress: bool
) -> PictureSignatures:
    """Open the signatures of a library; those that are missing are made, and stored.

    A picture that cannot be read has none, and is tried again the next time.
    """
    made = STORE.rows_of(library, files.sizes, files.times)
    first = files.same == np.arange(len(made))
    missing = np.flatnonzero((made["frames"] == 0) & files.there & first)
    paths = library.paths[missing].tolist()
    read = read_pictures(read_signature, paths, "Reading pictures", progress=progress)
    for row, found in zip(missing.tolist(), read, strict=True):
        if found is not None:
            made["signature"][row], made["frames"][row] = found
    if library.stored and len(missing) and made["frames"][missing].any():
        with suppress(OSError, Timeout):  # read-only, full, or another process is storing its own
            STORE.store(library.stored[0], made[made["frames"] > 0])
    shared = made[files.same]
    return PictureSignatures(shared["signature"], shared["frames"])
