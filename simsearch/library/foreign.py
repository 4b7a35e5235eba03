"""Libraries that this user has not written: what they name is opened only below known folders.

A row of one is a name below a folder that the call gives, or else that lies in the project: the
current folder, or the one that holds the outputs. No absolute path, address or `..` is followed.
"""

from __future__ import annotations

import logging
import os
import re
from dataclasses import replace
from hashlib import sha256
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING

import numpy as np

from simsearch.errors import BackboneError
from simsearch.images.address import is_uri
from simsearch.images.links import is_below
from simsearch.library.files import MANIFEST
from simsearch.library.ownership import is_signed
from simsearch.library.paths import as_root, in_folder
from simsearch.library.source import Source

if TYPE_CHECKING:
    from collections.abc import Sequence

    from simsearch.library.library import ImageLibrary

logger = logging.getLogger("simsearch")

LINK_OUT = "behind a link out of the dataset"
_HARMLESS = re.compile(r"(?!~)(?!\.\.?(/|$))[^/:\\\0]+(/(?!\.\.?(/|$))[^/:\\\0]+)*")
_SEPARATORS = re.compile(r"[/\\]" if os.name == "nt" else "/")


def is_own(library: ImageLibrary) -> bool:
    """Tell whether this user wrote the files that a library was opened from, as they are."""
    manifest = library.manifest
    if manifest is None:
        return True  # made of arrays
    known = is_signed(manifest, MANIFEST)
    return known and manifest.get("paths") == sha256(library.paths.tobytes()).hexdigest()


class ForeignSource(Source):
    """A source whose weights lie in a file that a stranger may have named."""

    @property
    def weights_file(self) -> str | None:
        """Raise, rather than open such a file."""
        if super().weights_file is None:
            return None
        raise BackboneError(
            f"the weights {self.weights!r} are named by a library that does not bear your mark: "
            "give the backbone yourself (backbone=, weights=), or call "
            "simsearch.trust_library(outputs) (`simsearch trust OUTPUTS`) if the library is yours"
        )


def distrust(library: ImageLibrary, folder: Path) -> None:
    """Note that a library is foreign; of weights, only its own safetensors file is read."""
    library.own, source = False, library.source
    if source and source.weights_file:
        file = Path(source.weights_file)
        inside = file.parent == folder.resolve() and file.suffix == ".safetensors"
        if not inside or file.is_symlink():
            library.source = ForeignSource(**vars(source))


def without_weights(source: Source | None) -> Source | None:
    """Return a source that names no file of weights, for a library to be written."""
    name = PureWindowsPath(source.weights).name if source else ""
    return Source(**vars(replace(source, weights=name))) if source else None


def confined(names: Sequence[str], root: str) -> list[str]:
    """Return names as below a root: neither absolute nor an address, without `..`."""
    chained = is_uri(root)
    return [
        name if _HARMLESS.fullmatch(name) else _confine(name, chained=chained) for name in names
    ]


def _confine(name: str, *, chained: bool) -> str:
    name = name.replace("::", "__") if chained else name
    name = name.replace(":", "_") if os.name == "nt" else name
    parts = [part for part in _SEPARATORS.split(name) if part not in {"", ".", ".."}]
    return "/".join(parts) or "_"


def names_below(library: ImageLibrary, root: str) -> list[str]:
    """Return the names of a library's rows below a root that the call gives."""
    top = f"{root.rstrip('/')}/"
    listed = library.names if library.root is not None else library.paths.tolist()
    return confined([name.removeprefix(top) for name in listed], root)


def project_folders(outputs: Path | None) -> list[str]:
    """Return the folders that a call stands in: the current one, and that of the outputs.

    The top of the file system and the home folder, which hold everything, do not count.
    """
    given = [Path(), *([outputs.parent] if outputs else [])]
    found = [os.path.realpath(folder) for folder in given]
    home = os.path.realpath(os.path.expanduser("~"))  # noqa: PTH111
    return [each for each in found if each not in {os.path.dirname(each), home}]  # noqa: PTH120


def locate_foreign(library: ImageLibrary, root: str | os.PathLike[str] | None) -> None:
    """Point the rows of a foreign library below the root that the call gives, or the project."""
    from simsearch.library.location import rows_to_look_at, sizes_match, warn_if_missing

    outputs = library.stored[0] if library.stored else None
    sample = rows_to_look_at(library)
    if root is not None:
        place = as_root(root)
        names = names_below(library, place)
    else:
        places = _places(library, outputs)
        names = confined(library.names, places[0])
        place = next((one for one in places if sizes_match(library, names, one, sample)), places[0])
    if place in {"", "."}:
        place = Path.cwd().as_posix()
    library.__dict__.pop("names", None)
    paths = [in_folder(place, name) for name in names]
    inside = [os.path.realpath(place), *([] if root else project_folders(outputs))]
    library.paths = np.array(paths if is_uri(place) else without_links_out(paths, inside), "U")
    library.root = place
    warn_if_missing(library, sample, foreign=root is None)


def _places(library: ImageLibrary, outputs: Path | None) -> list[str]:
    """List where the dataset may be: each in a project folder, the recorded place first."""
    folders = project_folders(outputs)
    recorded = [each for each in (library.root, library.absolute_root) if each and not is_uri(each)]
    last = PureWindowsPath(recorded[-1]).name if recorded else ""
    places = [*recorded, *((Path(folder) / (last or "dataset")).as_posix() for folder in folders)]
    near = [each for each in places if is_below(each, folders)]
    return near or [f"{last or 'dataset'} of somebody else"]


def without_links_out(paths: Sequence[str], inside: Sequence[str]) -> list[str]:
    """Return paths, those that links take out of some folders so that they lead nowhere."""
    known: dict[str, bool] = {}
    checked = []
    for path in paths:
        folder = os.path.dirname(path)  # noqa: PTH120
        if folder not in known:
            known[folder] = is_below(folder, inside)
        stays = known[folder] and (not os.path.islink(path) or is_below(path, inside))  # noqa: PTH114
        checked.append(path if stays else f"{path}/{LINK_OUT}")
    return checked
