"""Libraries of earlier versions, other machines and other users, made to count as one's own."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from simsearch.errors import LibraryError
from simsearch.files import check_plain, sha256_file, user_folder, write_text
from simsearch.library.files import NEXT, finish_commit, write_manifest, writing
from simsearch.library.library import ImageLibrary
from simsearch.library.parts import INDEX_FOLDER, check_parts, read_files, read_record, write_record
from simsearch.library.user_key import keyed_digest, signed
from simsearch.printable import one_line
from simsearch.retrieval.faiss_seal import NAMES, RECORD_FILE, identity, rows_file
from simsearch.retrieval.pruned_store import ARRAY, RECORD, ROWS

if TYPE_CHECKING:
    from collections.abc import Mapping

_ARRAYS = ("signatures", "quality", "classifier")
# What is derived of a library: its record, the name that it is signed by, the files of its entries.
_DERIVED = {
    "index": (RECORD_FILE, RECORD_FILE, {"seal": NAMES[0]}),
    "shortened copy of rows": (RECORD, RECORD, {"file": ARRAY, "rows": ROWS}),
    **{name: (f"{name}.json", name, {"file": f"{name}.npy"}) for name in _ARRAYS},
}


class TrustReport(NamedTuple):
    """What bears the user's mark by now.

    Attributes
    ----------
    outputs : str
    root : str or None
        The folder whose pictures the library may open.
    rows : int
    weights : str or None
        The file of weights that it may load.
    derived : tuple of str
        What else of the folder is read: an index, a shortened copy of the rows, signatures.
    """

    outputs: str
    root: str | None
    rows: int
    weights: str | None
    derived: tuple[str, ...]

    def __str__(self) -> str:
        facts = {
            "pictures in": self.root or "the places that its paths name",
            "rows": f"{self.rows:,}",
            "weights": self.weights or "",
            "derived": ", ".join(self.derived) or "nothing",
        }
        lines = [f"  {name}: {one_line(text)}" for name, text in facts.items() if text]
        return "\n".join([f"The library in {one_line(self.outputs)} is trusted:", *lines])


def trust_library(outputs: str | os.PathLike[str] = "outputs") -> TrustReport:
    """Make a library count as one's own, and what is derived of it, as an index.

    For a library that an earlier version, another machine, a container or a colleague has made.
    What a library names is then opened wherever it lies, and its index is parsed. Every file is
    read whole first: what is damaged is not trusted.

    Parameters
    ----------
    outputs
        The folder that holds the library.

    Returns
    -------
    TrustReport
        What is trusted; it prints as a few lines.

    Raises
    ------
    LibraryError
        If there is no library, it is damaged, it cannot be written, or no key can be kept.
    LibraryBusyError
        If another process is writing there.

    Examples
    --------
    >>> trust_library("outputs").rows  # doctest: +SKIP
    120
    """
    if not keyed_digest(b""):
        raise LibraryError(
            f"no key can be kept in {os.fspath(user_folder('state'))!r}, so that nothing can bear "
            "your mark: let XDG_STATE_HOME name a folder of your own that stays"
        )
    with writing(outputs) as folder:
        library = ImageLibrary.as_stored(folder)
        manifest = dict(library.manifest or {})
        for name, record in manifest["files"].items():
            if not _is_as_recorded(folder, name, record):
                raise LibraryError(
                    f"{name} in {os.fspath(outputs)!r} is damaged, so that it is not trusted: "
                    "embed the dataset again"
                )
        (folder / NEXT).mkdir()
        write_manifest(folder / NEXT, manifest, library.paths)
        finish_commit(folder)
        derived = tuple(name for name, parts in _DERIVED.items() if _sign_derived(folder, *parts))
        derived += ("parts of pictures",) if _sign_parts(folder) else ()
        parts_index = folder / INDEX_FOLDER, *_DERIVED["index"]
        derived += ("index of parts",) if _sign_derived(*parts_index) else ()
    root = library.absolute_root or library.root
    weights = library.source.weights_file if library.source else None
    return TrustReport(os.fspath(outputs), root, len(library), weights, derived)


def _is_as_recorded(folder: Path, name: str, record: Mapping[str, Any]) -> bool:
    """Tell whether a file of a library, whose name may be crafted, is what was recorded."""
    if Path(name).name != name:
        return False
    check_plain(folder / name)
    return sha256_file(folder / name) == str(record["sha256"])


def _sign_derived(folder: Path, record_file: str, name: str, entries: Mapping[str, str]) -> bool:
    """Mark what is derived of a library; False if it is not there, or its files are others."""
    try:
        record: dict[str, Any] = json.loads((folder / record_file).read_text("utf-8"))
        if name == RECORD_FILE:
            file = next(each for each in NAMES if each == record.get("file", NAMES[0]))
            entries = {"seal": file, "rows": rows_file(file)}
        files = {entry: folder / file for entry, file in entries.items() if record.get(entry)}
        if any(sha256_file(file) != record[entry]["sha256"] for entry, file in files.items()):
            return False
        if "seal" in files:
            record["seal"] |= identity(files["seal"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, StopIteration):
        return False
    write_text(folder / record_file, json.dumps(signed(record, name), indent=2))
    return True


def _sign_parts(folder: Path) -> bool:
    """Mark the parts of a library's pictures; False if there are none, or they are damaged."""
    try:
        record = read_record(folder, any_maker=True)
        if record is None:
            return False
        check_parts(*read_files(folder, record))
        write_record(folder, record)
        short = f"parts-{record.generation}.short"
        _sign_derived(folder, f"{short}.json", f"{short}.json", {"file": short})
    except (OSError, ValueError, TypeError, MemoryError):
        return False
    return True
