"""How many pictures of a library are so long that a network sees the middle of them alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from simsearch.backbones.long_pictures import WINDOWS, way_of
from simsearch.backbones.whole_view import sees_whole
from simsearch.errors import SimsearchError
from simsearch.images.address import is_uri, local_path
from simsearch.images.decode import LONG_RATIO
from simsearch.images.header import read_header
from simsearch.library.parts import BOXES, open_parts
from simsearch.library.signatures import STORE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from simsearch.library.library import ImageLibrary

READ_HEADERS = 2000  # of files, at most; the sizes of others are known from their signatures


class LongPictures(NamedTuple):
    """Pictures whose sides are more than 2:1.

    Attributes
    ----------
    number : int
        Of those that are known to be.
    looked_at : int
        Pictures whose size is known.
    """

    number: int
    looked_at: int


def count_long(library: ImageLibrary) -> LongPictures:
    """Count the long pictures of a library of which only the centre is compared.

    None where nothing is known to be unseen: with parts of a grid or of regions, with a backbone
    that squeezes whole pictures, or with a transform of one's own. Files far away are not read.
    """
    parts = open_parts(library)
    source = library.source
    seen = parts is not None and parts.record.kind != BOXES and not parts.missing
    by_windows = source is not None and way_of(source.fingerprint) == WINDOWS
    if seen or by_windows or sees_whole(library):
        return LongPictures(0, 0)
    sizes = _known_sizes(library)
    unknown = [row for row in np.flatnonzero(sizes.min(axis=1) == 0) if _is_near(library, int(row))]
    rng = np.random.default_rng(0)
    for row in rng.permutation(np.array(unknown, np.intp))[:READ_HEADERS].tolist():
        try:
            header = read_header(str(library.paths[row]))
        except SimsearchError:  # it has gone since
            continue
        sizes[row] = header.width, header.height
    known = sizes[sizes.min(axis=1) > 0]
    long = known.max(axis=1) > LONG_RATIO * known.min(axis=1)
    return LongPictures(int(np.count_nonzero(long)), len(known))


def describe_long(library: ImageLibrary) -> str:
    """Say how many pictures are long, and what sees all of them; "" if none is."""
    long = count_long(library)
    if not long.number:
        return ""
    least = "" if long.looked_at == len(library) else "at least "
    of = f"{least}{long.number:,} picture{'s are' if long.number > 1 else ' is'} longer than 2:1"
    whose, them = ("their", "them") if long.number > 1 else ("its", "it")
    return (
        f'{of}: only {whose} centre square is compared; parts="grid" (--parts grid) sees all of '
        f'{them}, long="windows" (--long windows) embeds a mean of all'
    )


def _known_sizes(library: ImageLibrary) -> NDArray[np.int64]:
    """Sizes of pictures from their stored signatures: (N, 2), zeros where there is none."""
    if library.stats is None or library.stored is None:
        return np.zeros((len(library), 2), np.int64)
    rows = STORE.rows_of(library, library.stats[:, 0], library.stats[:, 1])
    signed = rows["signature"]
    return np.stack([signed["width"], signed["height"]], axis=1).astype(np.int64)


def _is_near(library: ImageLibrary, row: int) -> bool:
    return not is_uri(local_path(str(library.paths[row])))
