"""Measures of a library's pictures: made once, and kept beside it as `quality.*`."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from filelock import Timeout

from simsearch.analysis.picture_files import read_pictures
from simsearch.analysis.picture_quality import QUALITY, QUALITY_VERSION, read_quality
from simsearch.library.stored_rows import KEY, RowStore

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from simsearch.analysis.picture_files import PictureFiles
    from simsearch.library.library import ImageLibrary


STORE = RowStore("quality", QUALITY_VERSION, np.dtype([KEY, ("quality", QUALITY)]))


class LibraryQuality(NamedTuple):
    """Measures of a library's rows.

    Attributes
    ----------
    rows : (N,) array of dtype `QUALITY`
        Zeros where a picture was not read.
    unreadable : dict of int to str
        Rows whose file is there and cannot be read, with the reason.
    """

    rows: NDArray[np.void]
    unreadable: dict[int, str]

    @property
    def measured(self) -> NDArray[np.bool_]:
        """Which rows were read: (N,)."""
        known: NDArray[np.bool_] = self.rows["width"] > 0
        return known


def quality_of(
    library: ImageLibrary, files: PictureFiles, *, workers: int | None, progress: bool
) -> LibraryQuality:
    """Open the measures of a library; those that are missing are made, and stored.

    A picture that cannot be read has none, and is tried again the next time.
    """
    made = STORE.rows_of(library, files.sizes, files.times)
    missing = np.flatnonzero((made["quality"]["width"] == 0) & files.there)
    paths, failed = library.paths[missing].tolist(), {}
    read = read_pictures(read_quality, paths, "Measuring", workers=workers, progress=progress)
    for row, found in zip(missing.tolist(), read, strict=True):
        if isinstance(found, str):
            failed[row] = found
        else:
            made["quality"][row] = found
    if library.stored and len(missing) > len(failed):
        with suppress(OSError, Timeout):  # read-only, full, or another process is storing its own
            STORE.store(library.stored[0], made[made["quality"]["width"] > 0])
    return LibraryQuality(made["quality"], failed)
