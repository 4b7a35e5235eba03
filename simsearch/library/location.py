"""Where the images of a library are now: at the recorded place, beside the outputs, or elsewhere.

A few files are looked at; nothing is opened.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from simsearch.files import valid_unicode
from simsearch.images.address import is_uri, local_path
from simsearch.library.paths import absolute_root, as_root, in_folder

if TYPE_CHECKING:
    from simsearch.library.library import ImageLibrary

logger = logging.getLogger("simsearch")

SAMPLE_FILES = 16  # that are looked at


def locate(library: ImageLibrary, root: str | os.PathLike[str] | None = None) -> None:
    """Point every path at its file, and log a warning where files are not there.

    Without `root`, the first place counts at which most of a sample of files lie, with the sizes
    that were recorded: the recorded absolute folder, the same way from the outputs, the folder as
    it was given, from the current folder and from the outputs. If there is none, the recorded
    folder stays.

    Parameters
    ----------
    library
        As its files list it.
    root
        Where the dataset lies now, as the caller knows.
    """
    sample = np.unique(np.linspace(0, len(library) - 1, SAMPLE_FILES).astype(int)).tolist()
    given = library.root
    if root is not None:
        _move(library, as_root(root))
    elif given is not None and not is_uri(local_path(given)):
        places = [*library.places, *_likely_places(library, given)]
        found = next((each for each in places if _lie_at(library, each, sample)), places[0])
        if Path(found).resolve() != Path(local_path(given)).resolve():
            _move(library, Path(os.path.normpath(found)).as_posix())
    _warn_if_missing(library, sample)


def _likely_places(library: ImageLibrary, given: str) -> list[str]:
    """Return the folder as it was given, from the current folder and from the outputs' own."""
    here = absolute_root(os.fspath(local_path(given))) or ""
    if Path(given).is_absolute() or library.stored is None:
        return [here]
    return [here, (library.stored[0].parent / given).as_posix()]


def _move(library: ImageLibrary, root: str) -> None:
    names = library.names  # relative to the root as it was
    library.paths = np.array([in_folder(root, name) for name in names], "U")
    library.root = root


def _lie_at(library: ImageLibrary, root: str, sample: list[int]) -> bool:
    """Tell whether more than half of these rows have files below a folder, of the same size."""
    sizes = [_size(os.path.join(root, library.names[row])) for row in sample]  # noqa: PTH118
    recorded = None if library.stats is None else library.stats[sample, 0].tolist()
    same = [size is not None for size in sizes] if recorded is None else map(_eq, sizes, recorded)
    return 2 * sum(same) > len(sample)


def _eq(size: int | None, recorded: int) -> bool:
    return size == recorded


def _size(path: str) -> int | None:
    try:
        return Path(path).stat().st_size
    except OSError:
        return None


def _warn_if_missing(library: ImageLibrary, sample: list[int]) -> None:
    """Say which files are not there, and what mends it."""
    paths = [local_path(str(library.paths[row])) for row in sample]
    missing = [path for path in paths if not is_uri(path) and _size(os.fspath(path)) is None]
    if missing:
        logger.warning(
            "%d of %d images of the library that were looked for are not there, such as %s. If "
            'they have moved: ImageLibrary.load(outputs, root="new/place"), or --root new/place.',
            *(len(missing), len(paths), valid_unicode(os.fspath(missing[0]))),
        )
