"""Which library a command works on, and which images its arguments name."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import simsearch as ss
from simsearch.cli.command_parser import did_you_mean

VARIABLE = "SIMSEARCH_LIBRARY"
USUAL = "outputs"
CLOSE_FOLDER = 0.7  # at least, of difflib's ratio
EMBED = "make one with `simsearch embed DATASET {}`"


def is_library(name: str) -> bool:
    """Tell whether an argument names a library: a folder of one, begun or whole; URI#COLLECTION."""
    from simsearch.library.files import EMBEDDINGS, LOG, MANIFEST, NEXT

    folder = Path(name).expanduser()
    if "#" in name and not folder.exists():
        return True
    files = (MANIFEST, EMBEDDINGS, f"{NEXT}/{MANIFEST}", LOG)
    return any((folder / file).is_file() for file in files)


def usual_library() -> str:
    """Return the library that is meant where none is named.

    Raises
    ------
    QueryError
        If there is none.
    """
    named = os.environ.get(VARIABLE)
    if named:
        return named
    if is_library(USUAL):
        return USUAL
    raise ss.QueryError(
        f"no library is named, {VARIABLE} is not set, and there is none in {USUAL}/ here: give "
        f"its folder, or {EMBED.format(USUAL)}"
    )


def place_library(options: dict[str, Any]) -> None:
    """Set `outputs` to the library that is meant; give back what was a query.

    The first argument is the library if it is one, and `--library` goes before that.

    Raises
    ------
    LibraryError
        If the first argument can be neither a library nor a query.
    """
    named, first = options.pop("library", None), options.get("outputs")
    takes_queries = options["run"].__name__ == "search"
    if first is None:
        options["outputs"] = named or usual_library()
    elif named is not None:
        _give_back(options, first, takes_queries=takes_queries)
        options["outputs"] = named
    elif takes_queries and not is_library(first):
        if not may_be_image(first):
            make = EMBED.format(first)
            raise ss.LibraryError(f"no library in {first!r}; {make}, or name a picture that exists")
        options["outputs"] = usual_library()
        _give_back(options, first, takes_queries=True)


def _give_back(options: dict[str, Any], first: str, *, takes_queries: bool) -> None:
    """Take the first argument for what comes after the library."""
    if takes_queries:
        options["queries"] = [first, *options.get("queries", ())]
    elif options["run"].__name__ == "duplicates" and "reference" not in options:
        options["reference"] = first
    else:
        raise ss.QueryError(f"{first!r} and --library are two libraries: give one of them")


def may_be_image(name: str) -> bool:
    """Tell whether an argument can name images: a row, a file, a folder, an address, a name."""
    return (
        name == "-"
        or name.isdecimal()
        or "://" in name
        or Path(name).expanduser().exists()
        or bool(Path(name).suffix)
    )


def read_images(library: Any, names: Sequence[str]) -> list[Any]:  # noqa: ANN401
    """Return the queries that arguments name, in the library's own terms.

    A number is a row unless there is such a file; `-` is what standard input holds; a folder
    stands for its images; a name as the library shows it, below its root, for that image.

    Raises
    ------
    QueryError
        If standard input is empty, or a folder holds no image.
    """
    return [image for name in names for image in _read_image(library, name)]


def _read_image(library: Any, name: str) -> Sequence[Any]:  # noqa: ANN401
    if name == "-":
        return [_read_standard_input()]
    if "://" in name:
        return [name]
    path = Path(name).expanduser()
    if path.is_dir():
        return _images_below(name)
    if path.exists():
        return [name]
    if name.isdecimal():
        return [int(name)]
    known = path_of(library, name)
    if known == name and library.find(name) is None:
        _suggest_names(library, path)
    return [known]


def _suggest_names(library: Any, path: Path) -> None:  # noqa: ANN401
    """Fail with a name close to a mistyped one, if only the folder of the dataset has such."""
    root = getattr(library, "root", None)
    if root is not None and not _neighbours(path) and (close := _neighbours(path, Path(root))):
        raise ss.ImageError(f"cannot read {path}: no such file or directory{close}")


def path_of(library: Any, name: str) -> str:  # noqa: ANN401
    """Return the library's path of a name below its root; any other name as it is."""
    names = getattr(library, "names", ())
    if not isinstance(names, list) or library.find(name) is not None:
        return name
    wanted = Path(name).as_posix()
    return str(library.paths[names.index(wanted)]) if wanted in names else name


def _images_below(folder: str) -> Sequence[str]:
    from simsearch.library.paths import as_posix, in_folder

    files, _ = ss.find_images(folder)
    if not files:
        raise ss.QueryError(f"{folder!r} holds no image to search with")
    return [in_folder(as_posix(folder), file.name) for file in files]


def _read_standard_input() -> bytes:
    content = sys.stdin.buffer.read()
    if not content:
        raise ss.QueryError("standard input is empty: - stands for a picture that is piped in")
    return content


def suggest_paths(message: str, arguments: Mapping[str, Any]) -> str:
    """Return "; did you mean ...?" for a mistyped file or folder that a message is about."""
    values = [v for v in arguments.values() if isinstance(v, (str, list, tuple))]
    texts = [text for v in values for text in ([v] if isinstance(v, str) else v)]
    for text in texts:
        if isinstance(text, str) and text in message and "://" not in text:
            path = Path(text).expanduser()
            if path.name and not path.exists():
                return _neighbours(path)
    return ""


def _neighbours(path: Path, root: Path = Path()) -> str:
    """Return "; did you mean ...?" for a path below a root, any part of which may be mistyped."""
    folder = Path()
    for part in path.parts[:-1]:
        if not (root / folder / part).is_dir():
            close = get_close_matches(part, _listed(root / folder), 1, CLOSE_FOLDER)
            part = close[0] if close else part  # noqa: PLW2901
        folder /= part
    names = _listed(root / folder)
    wanted = [path.name] if path.name in names else names
    return did_you_mean([path.as_posix()], [(folder / each).as_posix() for each in wanted])


def _listed(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)  # noqa: PTH208
    except OSError:
        return []
