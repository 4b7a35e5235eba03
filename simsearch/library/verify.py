"""Checks of all that a library's folder holds, block by block, against the digests of its files."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm.auto import tqdm

from simsearch.errors import LibraryError
from simsearch.files import check_plain, iter_blocks, sha256_file
from simsearch.library.block_digests import damaged_in_file, recorded_blocks
from simsearch.library.files import (
    BLOCKS,
    BLOCKS_FROM_BYTES,
    EMBEDDINGS,
    MANIFEST,
    NEXT,
    open_latest,
    read_manifest,
    with_blocks,
)
from simsearch.library.parts import INDEX_FOLDER
from simsearch.library.row_file import rows_of_blocks

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from simsearch.library.library import ImageLibrary

BLOCK_ROWS = 4096  # read together
UNIT_NORM_ERROR = 1e-3  # of a squared norm; see `simsearch.library.files`
SHOWN_ROWS = 5  # whose paths a report lists
SMALL_FILE = "as a whole, as every file under 1 MiB"
UNKNOWN_BLOCKS = "as a whole: an earlier version recorded no blocks"
MENDS = {
    "library": "embed the dataset again, which makes what is damaged anew",
    "derived": "it is made anew when it is needed; an index by build_index",
}


@dataclass(frozen=True)
class FileCheck:
    """What became of one file.

    Attributes
    ----------
    name : str
    blocks : int
        How many blocks of 64 KiB it has; 0 where only the digest of the whole file is known.
    damaged : tuple of int
        Numbers of the blocks that are not what was written; (0,) for a file known as a whole.
    reason : str
        "damaged", "missing", or "" for a file that is right.
    of_library : bool
        Whether the library cannot do without it; other files are made anew from it.
    size : int
        Bytes that it was recorded with.
    """

    name: str
    blocks: int
    damaged: tuple[int, ...] = ()
    reason: str = ""
    of_library: bool = True
    size: int = 0

    def __str__(self) -> str:
        blocks = f"{self.blocks:,} block{'s' * (self.blocks != 1)}"
        if not self.reason:
            whole = SMALL_FILE if self.size < BLOCKS_FROM_BYTES else UNKNOWN_BLOCKS
            return f"{self.name}: right ({blocks if self.blocks else whole})"
        mend = MENDS["library" if self.of_library else "derived"]
        known = self.blocks and self.damaged
        where = f" in block {_ranges(self.damaged)} of {blocks}, counted from 0" if known else ""
        return f"{self.name}: {self.reason}{where}; {mend}"


@dataclass(frozen=True)
class VerifyReport:
    """What `verify_library` has found; prints as a list of files.

    Attributes
    ----------
    files : tuple of FileCheck
    rows : tuple of int
        Rows of the library that lie in damaged blocks of `embeddings.npy`.
    paths : tuple of str
        Their images.
    """

    files: tuple[FileCheck, ...]
    rows: tuple[int, ...] = ()
    paths: tuple[str, ...] = field(default=(), repr=False)

    @property
    def damaged(self) -> tuple[FileCheck, ...]:
        """The files that are not right."""
        return tuple(file for file in self.files if file.reason)

    @property
    def ok(self) -> bool:
        """Whether every file is what was written."""
        return not self.damaged

    def __str__(self) -> str:
        from simsearch.printable import valid_unicode

        lines = [str(file) for file in self.files]
        if self.rows:
            more = f" and {len(self.rows) - SHOWN_ROWS:,} more" * (len(self.rows) > SHOWN_ROWS)
            named = ", ".join(self.paths[:SHOWN_ROWS])
            lines.append(f"damaged rows: {_ranges(self.rows)}" + f" ({named}{more})" * bool(named))
        return valid_unicode("\n".join(lines))


def verify_library(
    outputs: str | os.PathLike[str] = "outputs", *, progress: bool = True
) -> VerifyReport:
    """Read every file of a library, and of what is made from it, and check it block by block.

    Finds damage that leaves a file's size and time as they were: flipped bits, a careless copy.
    Nothing is changed.

    Parameters
    ----------
    outputs
        Folder of the library.
    progress
        Show a progress bar.

    Returns
    -------
    VerifyReport
        True in `ok` if all is right.

    Raises
    ------
    LibraryError
        If there is no library, or the list of its files is damaged itself.
    """
    folder = Path(outputs).expanduser()
    manifest = read_manifest(folder)
    try:
        records = with_blocks(folder, manifest)["files"]
        known = {**records, **({BLOCKS: manifest["blocks"]} if "blocks" in manifest else {})}
        listed = [(name, record, True) for name, record in known.items()]
        listed += [(name, record, False) for name, record in derived_records(folder)]
        total = sum(int(record["size"]) for _, record, _ in listed)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise LibraryError(
            f"the library in {os.fspath(folder)!r} cannot be checked: {MANIFEST} is incomplete "
            f"({error!r}); embed the dataset again to make it anew"
        ) from error
    with tqdm(
        desc="Checking", total=total, unit="B", unit_scale=True, delay=1, disable=not progress
    ) as bar:
        files = tuple(_check(folder, *each, bar) for each in listed)
    damaged = next((file.damaged for file in files if file.name == EMBEDDINGS), ())
    rows = _damaged_rows(manifest, records[EMBEDDINGS], damaged)
    return VerifyReport(files, rows, _paths(folder, rows))


def derived_records(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Find the records of files that are made from a library: in NAME.json, of NAME.* and others.

    A record is what `file_record` returns, with the name of its file.
    """
    places = [*folder.glob("*.json"), *folder.glob(f"{INDEX_FOLDER}/*.json")]
    for place in sorted(places):
        if place.name in {MANIFEST, BLOCKS}:
            continue
        try:
            check_plain(place)
            found = json.loads(place.read_text("utf-8"))
        except (OSError, ValueError, RecursionError):
            continue
        for record in found.values() if isinstance(found, dict) else ():
            if isinstance(record, dict) and {"name", "size", "sha256", "blocks"} <= record.keys():
                inside = f"{INDEX_FOLDER}/" if place.parent != folder else ""
                yield inside + str(record["name"]), record


def _check(
    folder: Path,
    name: str,
    record: Mapping[str, Any],
    of_library: bool,
    bar: Any,  # noqa: ANN401
) -> FileCheck:
    """Check one file, wherever a writer has put it."""
    base = Path(name).name  # whatever a crafted record says
    folder = folder / INDEX_FOLDER if name.startswith(f"{INDEX_FOLDER}/") else folder
    places = [folder / NEXT / base, folder / base] if of_library else [folder / base]
    plain = (place for place in places if place.is_file() and not place.is_symlink())
    file = next(plain, None)
    known = recorded_blocks(record)
    count = 0 if known is None else len(known)
    if file is None:
        return FileCheck(name, count, (), "missing", of_library, int(record["size"]))
    if known is None:
        damaged = [] if sha256_file(file) == record["sha256"] else [0]
        bar.update(int(record["size"]))
    else:
        damaged = damaged_in_file(file, record, bar.update)
    reason = "damaged" * bool(damaged)
    return FileCheck(name, count, tuple(damaged), reason, of_library, int(record["size"]))


def find_damaged_rows(
    library: ImageLibrary, record: Mapping[str, Any], blocks: Collection[int]
) -> frozenset[int]:
    """Return the rows of an opened library that are damaged in its file.

    Parameters
    ----------
    library
        As opened, the damaged blocks included.
    record
        Of its embeddings.
    blocks
        That were found damaged when it was opened; a large library is read now.

    Raises
    ------
    LibraryError
        If the file is damaged and it is not known where, as an earlier version wrote it.
    """
    file = library.row_file
    if file is not None:
        file.keep_nothing()
        blocks = file.damaged_blocks(progress=True)
    if recorded_blocks(record) is None:
        folder = library.stored[0] if library.stored else Path()
        if sha256_file(folder / EMBEDDINGS) != record["sha256"]:
            raise LibraryError(f"{EMBEDDINGS} in {os.fspath(folder)!r} is damaged")
    begin = int(record["size"]) - 4 * len(library) * library.dim
    damaged = set(rows_of_blocks(blocks, begin, library.embeddings.shape).tolist())
    return frozenset(damaged | set(_rows_off_norm(library, damaged)))


def _rows_off_norm(library: ImageLibrary, damaged: Collection[int]) -> Iterator[int]:
    """Yield the rows, besides those that are known to be damaged, that are not of unit norm."""
    rows = np.setdiff1d(np.arange(len(library)), list(damaged))
    for block in iter_blocks(len(rows), BLOCK_ROWS):
        some = library.row_lookup[rows[block]]
        with np.errstate(all="ignore"):
            norms = np.einsum("nd,nd->n", some, some)
        yield from rows[block][~(np.abs(norms - 1) <= UNIT_NORM_ERROR)].tolist()


def _damaged_rows(
    manifest: Mapping[str, Any], record: Mapping[str, Any], blocks: Collection[int]
) -> tuple[int, ...]:
    if "blocks" not in record or not blocks:
        return ()
    shape = int(manifest["rows"]), int(manifest["dim"])
    begin = int(record["size"]) - 4 * shape[0] * shape[1]
    return tuple(rows_of_blocks(blocks, begin, shape).tolist())


def _paths(folder: Path, rows: Collection[int]) -> tuple[str, ...]:
    """Return the images of rows; none where the paths are damaged, too."""
    if not rows:
        return ()
    try:
        paths = open_latest(folder, []).paths
    except LibraryError:
        return ()
    return tuple(paths[np.array(list(rows))].tolist())


def _ranges(numbers: Collection[int]) -> str:
    """Put sorted numbers in words: "3, 7 to 9".

    Examples
    --------
    >>> _ranges([3, 7, 8, 9])
    '3, 7 to 9'
    """
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][-1] == number - 1:
            runs[-1][1:] = [number]
        else:
            runs.append([number])
    return ", ".join(" to ".join(f"{number:,}" for number in run) for run in runs)
