"""A stored FAISS index of a library that has changed: rows come and go, and the rest stays.

Rows are known by their content. Those that are gone keep their positions, and are passed over;
where too many have changed since, recall is measured again, and at last the index is refused.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from simsearch.errors import LibraryError, MissingExtraError, StaleIndexError
from simsearch.library.files import EMBEDDINGS, read_manifest
from simsearch.library.library import ImageLibrary
from simsearch.library.row_digests import digests_of, match_rows
from simsearch.retrieval.faiss import FaissIndex, logger
from simsearch.retrieval.faiss_build import add_rows
from simsearch.retrieval.faiss_candidates import CandidateIndex
from simsearch.retrieval.faiss_held_out import ask_questions, hold_out
from simsearch.retrieval.faiss_report import warn_if_low
from simsearch.retrieval.faiss_seal import RECORD_FILE
from simsearch.retrieval.faiss_store import open_index, store_index
from simsearch.retrieval.faiss_tune import measure_cost, measure_recall, tune

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from simsearch.retrieval.faiss_report import IndexReport
    from simsearch.retrieval.faiss_store import IndexedRows

MEASURED_SHARE = 0.1  # of the rows that may come and go until recall is measured again
KEPT_SHARE = 0.5  # of the rows that have to be those that the index was built of


def open_followed(source: ImageLibrary | str | os.PathLike[str]) -> FaissIndex:
    """Open the index of a library, and bring it up to date; see `load_index`."""
    if isinstance(source, ImageLibrary):
        if source.stored is None:
            raise LibraryError(
                f"{source!r} was not loaded from a folder, so that no index is stored beside it: "
                "make one with simsearch.build_index(library)"
            )
        folder: Path = source.stored[0]
        digest: str | None = source.stored[1]
    else:
        folder = Path(source).expanduser()
        digest = _committed_digest(folder)
    index = open_index(folder)
    if digest is None or index.digest == digest:
        return index
    library = source if isinstance(source, ImageLibrary) else ImageLibrary.load(folder)
    return follow(library, folder)


def keep_up(library: ImageLibrary) -> None:
    """Bring the index beside a library up to date if there is one; say so if that is impossible."""
    if library.stored is None or not (library.stored[0] / RECORD_FILE).exists():
        return
    try:
        open_followed(library)
    except (LibraryError, MissingExtraError) as error:
        logger.warning("the index is not brought up to date: %s", error)


def _committed_digest(folder: Path) -> str | None:
    """Return the digest of the rows that are committed in a folder; None if there are none."""
    try:
        digest: str = read_manifest(folder)["files"][EMBEDDINGS]["sha256"]
    except (LibraryError, KeyError, TypeError):
        return None
    return digest


def follow(library: ImageLibrary, folder: Path) -> FaissIndex:
    """Bring the index in a folder up to date with a library that was loaded from there.

    Raises
    ------
    LibraryError
        If there is no index, or it is damaged.
    StaleIndexError
        If too many rows are others, or an earlier version has built it.
    """
    index = open_index(folder, mapped=False)
    origin = index.origin
    if origin is None or index.candidates.raw.d != library.dim:
        index.check(library)
        return index
    places = match_rows(origin.digests, digests_of(library))  # (N,) of each row, or -1
    _check_kept(index, library, places, origin)
    followed = _moved(index, library, places)
    changed = followed.report.added + followed.report.removed
    if changed > MEASURED_SHARE * min(origin.measured, len(library)):
        measure_again(followed, library)
    _keep(followed, folder)
    return followed


def _moved(index: FaissIndex, library: ImageLibrary, places: NDArray[np.intp]) -> FaissIndex:
    """Return an index of the rows of today, by the position that each had, after adding others."""
    origin: IndexedRows = index.origin  # type: ignore[assignment]
    last = index.candidates
    rows = np.full(len(origin.digests), -1, np.int64)
    rows[places[places >= 0]] = np.flatnonzero(places >= 0)
    new = np.flatnonzero(places < 0)
    add_rows(last.raw, library, new, progress=False)
    candidates = CandidateIndex(last.raw, last.kind, np.concatenate([rows, new]), last.margins)
    origin = origin._replace(digests=np.concatenate([origin.digests, digests_of(library)[new]]))
    report = _count_changes(index, rows, len(new))
    digest = library.stored[1] if library.stored else None
    return FaissIndex(candidates, index.effort, report, library.embeddings, digest, origin)


def _count_changes(index: FaissIndex, rows: NDArray[np.int64], new: int) -> IndexReport:
    """Return the report with what has changed: rows that come back have come, too."""
    before, report = index.candidates.rows, index.report
    was = np.ones(len(rows), np.bool_) if before is None else before >= 0
    back, gone = (int(np.count_nonzero(some)) for some in (~was & (rows >= 0), was & (rows < 0)))
    total = int(np.count_nonzero(rows >= 0)) + new
    return replace(
        report, rows=total, added=report.added + new + back, removed=report.removed + gone
    )


def _check_kept(
    index: FaissIndex, library: ImageLibrary, places: NDArray[np.intp], origin: IndexedRows
) -> None:
    """Refuse an index that has become another one than that which was built."""
    kept = int(np.count_nonzero((places >= 0) & (places < origin.built)))
    if kept < KEPT_SHARE * max(len(library), origin.built):
        raise StaleIndexError(
            f"{index!r} was built of {origin.built:,} rows, and {kept:,} of them are in {library!r}"
            ", which has changed since: build it again with simsearch.build_index(library)"
        )


def measure_again(index: FaissIndex, library: ImageLibrary) -> None:
    """Set the effort and measure the recall of an index anew, with rows of today held out."""
    report, origin, whole = index.report, index.origin, index.candidates
    logger.info("measuring the index again: %s came, %s went", report.added, report.removed)
    new, held = hold_out(library) if not index.exact else np.empty((2, 0), np.intp)
    tuning, measured = ask_questions(library, new, held, origin and origin.asked)
    index.candidates = _without(whole, held)
    index.effort, index.candidates.margins = tune(index.candidates, library, tuning)
    recalls = measure_recall(index, library, measured)
    whole.margins, index.candidates = index.candidates.margins, whole
    costs = measure_cost(index, library, measured)
    index.origin = origin and origin._replace(measured=len(library))
    index.report = replace(report, **recalls, **costs, added=0, removed=0)
    warn_if_low(index.report)


def _without(candidates: CandidateIndex, held: NDArray[np.intp]) -> CandidateIndex:
    """Return an index of the same rows but some, as if these were gone."""
    rows = np.where(np.isin(candidates.rows, held), -1, candidates.rows)  # type: ignore[arg-type]
    return CandidateIndex(candidates.raw, candidates.kind, rows)


def _keep(index: FaissIndex, folder: Path) -> None:
    """Store an index that was brought up to date; where that is impossible it serves for now."""
    index.report = replace(index.report, size_bytes=index.candidates.size_bytes())
    try:
        store_index(index, folder, wait=0)
    except LibraryError as error:
        logger.info("the index is brought up to date in memory only: %s", error)
