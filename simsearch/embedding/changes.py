"""What has changed in a dataset since its library was made: files moved, gone, or out of sight.

A file that is new by its name or time is known by its content, where the library has the digest.
A file that is gone loses its row, unless it seems to be out of sight only: below a folder that
cannot be read, on a disk that is not mounted.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
import time
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from simsearch.errors import DatasetError
from simsearch.files import modified_ns
from simsearch.images.address import is_uri, local_path
from simsearch.images.find import ImageFile
from simsearch.library.files import amend_library
from simsearch.library.paths import absolute_root, in_folder
from simsearch.library.report import EmbedReport, describe_kinds

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from simsearch.embedding.rows import EmbeddedRows
    from simsearch.images.find import Skipped
    from simsearch.library.library import ImageLibrary

logger = logging.getLogger("simsearch")

DIGEST_SECONDS = 30.0  # a run spends on files whose digests an older library lacks
UNSEEN_SHARE = 0.5  # of the rows, above which they are not dropped

UNREADABLE = "in folders that cannot be read"
UNKNOWN_STATUS = "whose status cannot be read"
BROKEN_LINK = "behind links that lead nowhere"
EMPTY_FOLDER = "of folders that have become empty"
MOST_ROWS = "gone, which are more than half"


def follow_changes(
    rows: EmbeddedRows,
    library: ImageLibrary,
    files: Sequence[ImageFile],
    unfit: Iterable[Skipped],
    *,
    allow_shrink: bool,
) -> tuple[list[ImageFile], EmbedReport]:
    """Recognise files by their content, and keep rows whose files are out of sight.

    Parameters
    ----------
    rows
        Of this run; `rows.moved` is filled.
    library
        The last one.
    files, unfit
        What was found below the dataset's folder.
    allow_shrink
        Drop the rows of files that are gone, however many.

    Returns
    -------
    files
        All that belong into the library, kept ones included, sorted.
    report
        With `moved`, `kept` and `removed`.

    Raises
    ------
    DatasetError
        If rows should be kept that another backbone has made.
    """
    last = _files_of(library)
    listed = {file.name: _looked_at_again(rows.root, file) for file in files}
    _recognise(rows, set(listed.values()), _former_root(rows.root, library))
    gone = [file for file in last if _is_gone(listed.get(file.name))]
    followed = {rows.digests.get(file) for file in rows.moved} - {None}
    gone = [file for file in gone if rows.digests.get(file) not in followed]
    kept = _out_of_sight(rows.root, library, gone, listed, unfit, allow_shrink=allow_shrink)
    reasons = dict(Counter(kept.values()).most_common())
    if kept and not rows.reused:
        raise DatasetError(
            f"rows would be lost, since another backbone has made them: {describe_kinds(reasons)}; "
            f"see that {rows.root!r} can be read, or choose another outputs folder"
        )
    if kept:
        logger.warning(
            "Rows kept below %r: %s. If the files are meant to be gone, run with allow_shrink=True "
            "(--allow-shrink); rows in folders that cannot be read are kept anyway.",
            *(rows.root, describe_kinds(reasons)),
        )
    for file in kept:
        listed[file.name] = file
    report = EmbedReport(
        moved=len(rows.moved),
        kept=len(kept),
        removed=len(gone) - len(kept),
        kept_reasons=reasons,
    )
    return sorted(listed.values()), report


def _files_of(library: ImageLibrary) -> list[ImageFile]:
    if library.stats is None:
        return [ImageFile(name, -1, -1) for name in library.names]
    facts = zip(library.names, *library.stats.T.tolist(), strict=True)
    return [ImageFile(*file) for file in facts]


def _path(root: str, name: str) -> str:
    return os.fspath(local_path(in_folder(root, name)))


def _looked_at_again(root: str, file: ImageFile) -> ImageFile:
    """Return a file whose status could not be read as it is now, if it can be read by now."""
    path = _path(root, file.name)
    if file.size >= 0 or is_uri(path):
        return file
    try:
        status = Path(path).stat()
    except OSError:
        return file
    return ImageFile(file.name, status.st_size, modified_ns(status))


def _former_root(root: str, library: ImageLibrary) -> str | None:
    """Return the folder of which the library was made, if that is another and is still there."""
    if _same_root(root, library) or not library.places:
        return None
    return library.places[0] if Path(library.places[0]).is_dir() else None


def _recognise(rows: EmbeddedRows, files: set[ImageFile], former: str | None) -> None:
    """Find the rows of files that are new by name or time, of files that have left their place."""
    known: dict[int, dict[bytes, int]] = {}  # row by size and digest
    for file, row in rows.reused.items():
        if file in files or (former and Path(former, file.name).exists()):
            continue
        if digest := rows.digests.get(file):
            known.setdefault(file.size, {})[digest] = row
    for file in files:
        if file.size in known and file not in rows:
            row = known[file.size].get(rows.read_digest(file))
            if row is not None:
                rows.moved[file] = row


def _is_gone(file: ImageFile | None) -> bool:
    return file is None or file.size < 0


def _out_of_sight(
    root: str,
    library: ImageLibrary,
    gone: Sequence[ImageFile],
    listed: dict[str, ImageFile],
    unfit: Iterable[Skipped],
    *,
    allow_shrink: bool,
) -> dict[ImageFile, str]:
    """Return the reason to keep each row whose file is not listed and should be kept."""
    if is_uri(_path(root, "")):
        reasons: dict[ImageFile, str | None] = dict.fromkeys(gone, "")
    else:
        unreadable = tuple(name for name, _ in unfit if name.endswith("/"))
        reasons = {file: _why_missing(root, file.name, unreadable) for file in gone}
    lost = [file for file, reason in reasons.items() if reason == ""]
    if not allow_shrink and _same_root(root, library):
        tops = {_top(name) for name, file in listed.items() if not _is_gone(file)}
        emptied = {top for top in map(_top, (file.name for file in lost)) if top not in tops}
        emptied = {top for top in emptied if top and Path(_path(root, top)).is_dir()}
        most = len(lost) > UNSEEN_SHARE * len(library)
        for file in lost:
            empty = EMPTY_FOLDER if _top(file.name) in emptied else ""
            reasons[file] = empty or (MOST_ROWS if most else "")
    return {file: reason for file, reason in reasons.items() if reason}


def _top(name: str) -> str:
    """Return the top folder of a name; "" right in the root."""
    return name.partition("/")[0] if "/" in name else ""


def _same_root(root: str, library: ImageLibrary) -> bool:
    """Tell whether this is the folder of which the library was made."""
    before = library.places[0] if library.places else absolute_root(library.root)
    here = absolute_root(os.fspath(local_path(root)))
    if before is None or here is None:
        return root == library.root
    return os.path.realpath(before) == os.path.realpath(here)


def _why_missing(root: str, name: str, unreadable: tuple[str, ...]) -> str | None:
    """Say why a file is not listed; "" if it is gone, None if it is there and left out."""
    if name.startswith(unreadable):
        return UNREADABLE
    try:
        Path(_path(root, name)).stat()
    except (FileNotFoundError, NotADirectoryError):
        return BROKEN_LINK if _below_broken_link(root, name) else ""
    except OSError as error:
        return UNKNOWN_STATUS if error.errno != errno.ELOOP else ""
    return None


def _below_broken_link(root: str, name: str) -> bool:
    """Tell whether a folder on the way to a file is a link that leads nowhere."""
    for folder in PurePosixPath(name).parents:
        path = Path(_path(root, folder.as_posix()))
        try:
            if stat.S_ISLNK(path.lstat().st_mode):
                return not path.exists()
        except OSError:
            continue
    return False


def amend(rows: EmbeddedRows, library: ImageLibrary, folder: Path) -> None:
    """Add to an unchanged library what an older version did not record, and its place if it moved.

    Digests are read for some seconds; what is not done then is left to the next run.
    """
    end = time.monotonic() + DIGEST_SECONDS
    known = len(rows.digests)
    for file in rows.reused:
        if time.monotonic() > end:
            break
        rows.read_digest(file)
    digests = rows.stored_digests(list(rows.reused)) if len(rows.digests) > known else None
    recorded = library.places[0] if library.places else None
    if digests is not None or recorded != absolute_root(rows.root):
        amend_library(folder, rows.root, digests)
