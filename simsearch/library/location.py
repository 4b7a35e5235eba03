"""Where the images of a library are now: at the recorded place, beside the outputs, or elsewhere.

A few files are looked at; nothing is opened.
"""

from __future__ import annotations

import logging
import os
from itertools import chain
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

import numpy as np

from simsearch.images.address import is_uri, local_path
from simsearch.library.foreign import distrust, is_own, locate_foreign
from simsearch.library.paths import absolute_root, as_root, in_folder, root_of
from simsearch.printable import valid_unicode

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from simsearch.library.library import ImageLibrary

logger = logging.getLogger("simsearch")

SAMPLE_FILES = 16  # that are looked at
MAX_DEPTH = 8  # folders above the outputs, and of the end of a path, that are tried


def locate(library: ImageLibrary, root: str | os.PathLike[str] | None = None) -> None:
    """Point every path at its file, and log a warning where files are not there.

    The paths of a library that does not bear this user's mark are read by `foreign`.

    Without `root`, the first place counts at which most of a sample of files lie, with the sizes
    that were recorded: the recorded absolute folder; the folder as it was given, seen from here;
    and the ends of its path below each folder above the outputs, since a project may have moved as
    a whole. If there is none, the first stays.

    Parameters
    ----------
    library
        As its files list it.
    root
        Where the dataset lies now, as the caller knows.
    """
    if not is_own(library):
        distrust(library, Path(library.stored[0] if library.stored else ""))
        locate_foreign(library, root)
        return
    sample = rows_to_look_at(library)
    given = root_of(library.paths) if library.root is None else library.root
    if root is not None:
        _move(library, as_root(root))
    elif given is not None and not is_uri(local_path(given)):
        here = absolute_root(os.fspath(local_path(given))) or ""
        first = library.absolute_root or here
        places = chain((first, here), _places_beside(library, first))
        names = library.names
        found = next((each for each in places if sizes_match(library, names, each, sample)), first)
        if Path(found).resolve() != Path(here).resolve():
            _move(library, found)
    warn_if_missing(library, sample)


def rows_to_look_at(library: ImageLibrary) -> list[int]:
    """Choose a sample of rows, spread evenly."""
    rows = np.unique(np.linspace(0, len(library) - 1, SAMPLE_FILES).astype(int))
    return list(map(int, rows))


def make_absolute(library: ImageLibrary) -> None:
    """Make paths and root absolute, since the current folder is no longer the one of the library.

    Without a root, the folder in which it was opened becomes the root of relative paths.
    """
    folder, library.opened_in = PurePath(library.opened_in).as_posix(), ""
    paths, root = library.paths, library.root
    root = root_of(paths) if root is None else root
    whole = [path if is_uri(path) else in_folder(folder, path) for path in paths.tolist()]
    library.paths = np.array(whole, "U")
    if root is not None and not is_uri(root):
        library.root = folder if root in {"", "."} else in_folder(folder, root)
    library.__dict__.pop("_by_path", None)  # an order that may have changed


def _places_beside(library: ImageLibrary, root: str) -> Iterator[str]:
    """Yield folders near the outputs whose paths end as that of the root, the likeliest first."""
    parts = PurePath(root).parts[1:]
    folders = library.stored[0].parents if library.stored else ()
    for folder in folders[:MAX_DEPTH]:
        for start in range(max(0, len(parts) - MAX_DEPTH), len(parts)):
            place = folder.joinpath(*parts[start:])
            if place.is_dir():
                yield place.as_posix()


def _move(library: ImageLibrary, root: str) -> None:
    names = library.names  # relative to the root as it was
    library.paths = np.array([in_folder(root, name) for name in names], "U")
    library.root = root


def sizes_match(
    library: ImageLibrary, names: Sequence[str], root: str, sample: Sequence[int]
) -> bool:
    """Tell whether more than half of these rows have files below a folder, of the same size."""
    sizes = [_size(os.path.join(root, names[row])) for row in sample]  # noqa: PTH118
    stats = library.stats
    recorded: list[int | None] = sizes if stats is None else stats[sample, 0].tolist()
    same = sum(a is not None and a == b for a, b in zip(sizes, recorded, strict=True))
    return 2 * same > len(sample)


def _size(path: str) -> int | None:
    try:
        return Path(path).stat().st_size
    except OSError:
        return None


def warn_if_missing(library: ImageLibrary, sample: Sequence[int], *, foreign: bool = False) -> None:
    """Say which files are not there, and what mends it."""
    paths = [local_path(str(library.paths[row])) for row in sample]
    missing = [path for path in paths if not is_uri(path) and _size(os.fspath(path)) is None]
    if missing:
        logger.warning(
            "%d of %d images of the library that were looked for are not there, such as %s. If "
            'they have moved: ImageLibrary.load(outputs, root="new/place"), or --root new/place.%s',
            *(len(missing), len(paths), valid_unicode(os.fspath(missing[0]))),
            _note(library) if foreign else "",
        )


def _note(library: ImageLibrary) -> str:
    from simsearch.library.refusals import if_yours

    why = if_yours(library.stored[0] if library.stored else "OUTPUTS")
    return f" They are looked for in this project alone, as the library has no mark of yours: {why}"
