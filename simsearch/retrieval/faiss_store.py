"""The files of a FAISS index beside its library, and what ties them to its rows.

A new index is written under names that the record does not use, and the record comes last: until
then the last index stands, and a kill leaves nothing that is half one and half the other.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from filelock import FileLock, Timeout

from simsearch.errors import LibraryBusyError, LibraryError
from simsearch.files import atomic_write, check_plain, write_text
from simsearch.library.block_digests import damaged_in_file, file_record
from simsearch.library.files import matches_record
from simsearch.library.row_digests import DIGEST_BYTES, digests_of
from simsearch.retrieval.faiss import FaissIndex, logger
from simsearch.retrieval.faiss_candidates import CandidateIndex, Margins, SearchEffort
from simsearch.retrieval.faiss_compat import import_faiss
from simsearch.retrieval.faiss_report import IndexReport
from simsearch.retrieval.faiss_seal import (
    NAMES,
    RECORD_FILE,
    check_mark,
    identity,
    matches_seal,
    rows_file,
    signed_text,
)

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    from simsearch.library.library import ImageLibrary

FORMAT = 3
EARLIER_FORMATS = (1, 2)  # without the digests of rows; recall of the first is of own rows alone
LOCK, LOCK_SECONDS = ".index.lock", 60


class IndexedRows(NamedTuple):
    """The rows that an index was made of, by content, so that it can follow their library."""

    digests: NDArray[np.uint8]  # (P, 16), by position in the index
    asked: NDArray[np.float32]  # (Q, D), the user's own queries, to measure with again
    built: int  # positions that were there when it was built
    measured: int  # rows of the library when recall was measured

    @classmethod
    def of(
        cls, library: ImageLibrary, order: NDArray[np.intp], asked: NDArray[np.float32] | None
    ) -> IndexedRows:
        """Describe an index that holds the rows of a library in this order."""
        own = np.empty((0, library.dim), np.float32) if asked is None else asked
        return cls(digests_of(library)[order], own, len(library), len(library))


def store_index(index: FaissIndex, folder: Path, *, wait: float = LOCK_SECONDS) -> None:
    """Write an index into its library's folder; it counts once its record is written.

    Raises
    ------
    LibraryBusyError
        If another process is writing its own for longer than `wait`, in seconds.
    LibraryError
        If it cannot be written.
    """
    try:
        with FileLock(folder / LOCK, timeout=wait):
            _store(index, folder)
    except Timeout:
        raise LibraryBusyError(
            f"another process is writing the index in {os.fspath(folder)!r}; wait for it"
        ) from None
    except OSError as error:
        raise LibraryError(
            f"cannot write the index in {os.fspath(folder)!r}: {error.strerror or error}"
        ) from error


def _store(index: FaissIndex, folder: Path) -> None:
    """Write the files under names that are free, then the record, and drop the last ones."""
    last = _name_in_use(folder)
    name = NAMES[1] if last == NAMES[0] else NAMES[0]
    candidates, origin = index.candidates, index.origin
    try:
        with atomic_write(folder / name) as stream:
            import_faiss().write_index(candidates.raw, stream.name)
    except RuntimeError as error:  # FAISS hides the reason in its message
        raise LibraryError(f"cannot write {os.fspath(folder / name)!r}: {error}") from error
    record: dict[str, Any] = {
        "format": FORMAT,
        "digest": index.digest,
        "file": name,
        "seal": file_record(folder / name) | identity(folder / name),
        "effort": index.effort,
        "margins": candidates.margins,
        "report": asdict(index.report),
    }
    if origin is not None:
        rows = np.arange(candidates.raw.ntotal) if candidates.rows is None else candidates.rows
        with atomic_write(_rows_file(folder, name)) as stream:
            np.savez(stream, digests=origin.digests, rows=rows, asked=origin.asked)
        record["rows"] = file_record(_rows_file(folder, name))
        record |= {"built": origin.built, "measured": origin.measured}
    write_text(folder / RECORD_FILE, signed_text(record))  # from here on it counts
    for other in set(NAMES) - {name}:
        for file in (folder / other, _rows_file(folder, other)):
            file.unlink(missing_ok=True)


def _rows_file(folder: Path, name: str) -> Path:
    return folder / rows_file(name)


def _name_in_use(folder: Path) -> str | None:
    """Return the name of the file that the record in a folder is of."""
    try:
        record = json.loads((folder / RECORD_FILE).read_text("utf-8"))
        name: str = record.get("file", NAMES[0])
    except (OSError, ValueError, AttributeError):
        return None
    return name


def open_index(folder: Path, *, mapped: bool = True) -> FaissIndex:
    """Open the index in a folder, even while a writer replaces it.

    Parameters
    ----------
    folder
        Of the library.
    mapped
        Memory-map it where its kind allows: rows cannot be added then.

    Raises
    ------
    LibraryError
        If there is none, or its files are damaged.
    MissingExtraError
        If FAISS is not installed.
    """
    import_faiss()
    while True:
        try:
            check_plain(folder / RECORD_FILE)
            text = (folder / RECORD_FILE).read_text("utf-8")
        except (OSError, ValueError) as error:
            raise _unreadable(folder, error) from error
        try:
            return _open(folder, text, mapped=mapped)
        except LibraryError:
            raise
        except Exception as error:
            if _text_now(folder) == text:  # otherwise the next one has just been put in place
                raise _unreadable(folder, error) from error


def _text_now(folder: Path) -> str | None:
    try:
        return (folder / RECORD_FILE).read_text("utf-8")
    except (OSError, ValueError):
        return None


def _open(folder: Path, text: str, *, mapped: bool) -> FaissIndex:
    """Open what a record describes; errors of all kinds if it is damaged."""
    record = json.loads(text)
    check_mark(record, folder)
    if record["format"] not in {FORMAT, *EARLIER_FORMATS}:
        raise _damaged(folder, f"its format is {record['format']!r}, not {FORMAT}")
    name = record.get("file", NAMES[0])
    if name not in NAMES:
        raise _damaged(folder, f"its file is named {name!r}")
    report = IndexReport(**record["report"])
    effort = SearchEffort(*map(int, record["effort"]))
    margins = Margins.read(some) if (some := record.get("margins")) else None
    origin, rows = _open_rows(folder, record, name, report)
    if not matches_seal(folder / name, record["seal"]):
        raise _damaged(folder, f"{name} is damaged, or belongs to another index")
    if blocks := damaged_in_file(folder / name, record["seal"]):
        raise _damaged(folder, f"{name} is damaged in {len(blocks):,} of its blocks")
    faiss = import_faiss()
    # Windows cannot replace a file that is mapped: there it is read.
    flags = int(faiss.IO_FLAG_MMAP_IFC) if mapped and os.name != "nt" else 0
    raw = faiss.read_index(os.fspath(folder / name), flags)
    expected = report.rows if origin is None else len(origin.digests)
    if raw.ntotal != expected:
        raise _damaged(folder, f"it holds {raw.ntotal} rows, and not {expected}")
    _warn_of_old_recall(folder, record["format"], report)
    candidates = CandidateIndex(raw, report.kind, rows, margins)
    return FaissIndex(candidates, effort, report, digest=record["digest"], origin=origin)


def _open_rows(
    folder: Path, record: dict[str, Any], name: str, report: IndexReport
) -> tuple[IndexedRows | None, NDArray[np.int64] | None]:
    """Return what the index was made of, and the row at each position, if it is not the same."""
    if record["format"] in EARLIER_FORMATS:
        held_out = record.get("held_out", [])
        return None, rows_in_order(report.rows, held_out) if held_out else None
    file = _rows_file(folder, name)
    if not matches_record(file, record["rows"]):
        raise _damaged(folder, f"{file.name} is damaged, or belongs to another index")
    with np.load(file, allow_pickle=False) as arrays:
        digests, rows, asked = arrays["digests"], arrays["rows"], arrays["asked"]
    if digests.shape != (len(rows), DIGEST_BYTES) or np.count_nonzero(rows >= 0) != report.rows:
        raise _damaged(folder, f"{file.name} does not describe {report.rows} rows")
    origin = IndexedRows(digests, asked, int(record["built"]), int(record["measured"]))
    same = np.array_equal(rows, np.arange(len(rows)))
    return origin, None if same else rows.astype(np.int64)


def _warn_of_old_recall(folder: Path, version: int, report: IndexReport) -> None:
    if version == EARLIER_FORMATS[0] and report.kind != "flat":
        logger.warning(
            "the index in %r is of an earlier version, which measured recall on images of the "
            "library alone: new images may get less. Build it again with "
            "simsearch.build_index(library)",
            os.fspath(folder),
        )


def rows_in_order(count: int, held_out: list[int]) -> NDArray[np.int64]:
    """Return the row at each position of an index to which some rows were added last."""
    last = np.asarray(held_out, np.int64)
    wrong = last.ndim != 1 or len(set(held_out)) < len(last)
    if wrong or (len(last) and (last.min() < 0 or last.max() >= count)):
        raise ValueError("rows that were held out are wrong")
    first = np.ones(count, np.bool_)
    first[last] = False
    return np.concatenate([np.flatnonzero(first), last])


def _unreadable(folder: Path, error: Exception) -> LibraryError:
    if isinstance(error, FileNotFoundError):
        return LibraryError(
            f"no index in {os.fspath(folder)!r} ({Path(error.filename).name} is missing): make "
            "one with simsearch.build_index(library)"
        )
    return _damaged(folder, f"it cannot be read ({error})")


def _damaged(folder: Path, reason: str) -> LibraryError:
    return LibraryError(
        f"the index in {os.fspath(folder)!r} cannot be used: {reason}; build it again with "
        "simsearch.build_index(library)"
    )
