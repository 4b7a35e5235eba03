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
from dataclasses import asdict, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from simsearch.errors import DamagedLibraryError, DatasetError, LibraryError
from simsearch.files import check_plain, modified_ns
from simsearch.images.address import is_uri, local_path
from simsearch.images.find import ImageFile, Skipped
from simsearch.images.links import leads_out
from simsearch.images.selection import describe_left_out
from simsearch.library.files import (
    BLOCKS_FROM_BYTES,
    DIGESTS,
    MANIFEST,
    NEXT,
    finish_commit,
    read_manifest,
    record_files,
    with_blocks,
    write_array,
    write_manifest,
)
from simsearch.library.paths import absolute_root, in_folder
from simsearch.library.report import describe_kinds
from simsearch.library.source import Source
from simsearch.library.user_key import keyed_digest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

    import numpy as np
    from numpy.typing import NDArray

    from simsearch.embedding.rows import EmbeddedRows
    from simsearch.library.library import ImageLibrary

logger = logging.getLogger("simsearch")

DIGEST_SECONDS = 30.0  # a run spends on files whose digests an older library lacks
UNSEEN_SHARE = 0.5  # of the rows, above which they are not dropped

UNREADABLE = "in folders that cannot be read"
UNKNOWN_STATUS = "whose status cannot be read"
BROKEN_LINK = "behind links that lead nowhere"
LINKED_OUT = "behind links out of the dataset, which follow= (--follow) does not name"
EMPTY_FOLDER = "of folders that have become empty"
MOST_ROWS = "gone, which are more than half"


def follow_changes(
    rows: EmbeddedRows,
    library: ImageLibrary,
    files: Sequence[ImageFile],
    unfit: Iterable[Skipped],
    *,
    allow_shrink: bool,
) -> tuple[list[ImageFile], dict[str, Any]]:
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
    counts
        `moved`, `kept` and `kept_reasons` of an `EmbedReport`; `renamed`, the rows of other names.

    Raises
    ------
    DatasetError
        If rows should be kept that another backbone has made.
    """
    last = _files_of(library)
    if rows.reused and library.digests is not None:
        digests = map(bytes, library.digests)
        rows.digests = {file: each for file, each in zip(last, digests, strict=True) if any(each)}
    listed = {file.name: _looked_at_again(rows.root, file) for file in files}
    _recognise(rows, set(listed.values()), _former_root(rows.root, library))
    gone = [file for file in last if _is_gone(listed.get(file.name))]
    followed = {rows.digests.get(file) for file in rows.moved} - {None}
    lost = [file for file in gone if rows.digests.get(file) not in followed]
    kept = _out_of_sight(rows.root, library, lost, listed, unfit, allow_shrink=allow_shrink)
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
    renamed = sum(file.name not in listed for file in gone) - sum(
        file.name not in listed for file in lost
    )
    counts = {"moved": len(rows.moved), "renamed": renamed, "kept": len(kept)}
    return sorted(listed.values()), counts | {"kept_reasons": reasons}


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
    former = library.absolute_root
    return former if former and not _same_root(root, library) and Path(former).is_dir() else None


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
            found = known[file.size].get(rows.read_digest(file))
            if found is not None:
                rows.moved[file] = found


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
        if library.own and not allow_shrink:
            inside = [os.path.realpath(_path(root, ""))]
            for file, reason in reasons.items():
                if reason is None and leads_out(_path(root, file.name), inside):
                    reasons[file] = LINKED_OUT
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
    before = library.absolute_root or absolute_root(library.root)
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
    known = sum(map(bool, rows.digests.values()))
    for file in rows.reused:
        if time.monotonic() > end:
            break
        rows.read_digest(file)
    more = sum(map(bool, rows.digests.values())) > known
    digests = rows.stored_digests(list(rows.reused)) if more else None
    manifest, place = read_manifest(folder), absolute_root(rows.root)
    moved, unmarked = library.absolute_root != place, not library.own and keyed_digest(b"")
    if digests is not None or moved or unmarked or _lacks_blocks(manifest):
        manifest["absolute_root"] = place
        if not library.own and library.source:
            source = replace(Source.of(rows.backbone), precision=library.source.precision)
            manifest["source"] = asdict(source)
        _amend_library(folder, manifest, library.paths, digests)


def _lacks_blocks(manifest: dict[str, Any]) -> bool:
    """Tell whether an earlier version made a library that should have digests of blocks."""
    sizes = [record["size"] for record in manifest["files"].values()]
    return "blocks" not in manifest and max(sizes) >= BLOCKS_FROM_BYTES


def _amend_library(
    folder: Path,
    manifest: dict[str, Any],
    paths: NDArray[np.str_],
    digests: NDArray[np.uint8] | None,
) -> None:
    """Record digests of the image files and of the library's own blocks; mark it as one's own."""
    part, files = folder / NEXT, with_blocks(folder, manifest)["files"]
    part.mkdir(exist_ok=True)
    if digests is not None:
        write_array(part / DIGESTS, [digests], len(digests))
        files = {**files, DIGESTS: {}}
    recorded = record_files(part, [_place_of(folder, name) for name in files])
    for name, record in recorded["files"].items():
        if files[name].get("sha256", record["sha256"]) != record["sha256"]:
            raise DamagedLibraryError(
                f"{name} in {os.fspath(folder)!r} has just changed: run again"
            )
    write_manifest(part, {**manifest, **recorded}, paths)
    finish_commit(folder)


def _place_of(folder: Path, name: str) -> Path:
    """Return where a file of a library lies; its name may be crafted."""
    if Path(name).name != name:
        raise LibraryError(f"{name!r} in {os.fspath(folder / MANIFEST)!r} is no name of a file")
    new = folder / NEXT / name
    place = new if new.exists() else folder / name
    check_plain(place)
    return place


def leave_out_long(
    files: Sequence[ImageFile],
    unfit: Sequence[Skipped],
    dataset: str,
    left_out: Mapping[str, int],
    longest: int,
) -> tuple[list[ImageFile], list[Skipped]]:
    """Leave out files of very long paths: each row takes as much room as the longest.

    Parameters
    ----------
    files, unfit, left_out
        What was found below `dataset`.
    longest
        Characters of a path, at most.

    Raises
    ------
    DatasetError
        If no file is left.
    """
    reason = f"its path is longer than {longest:,} characters"
    before = len(in_folder(dataset, ""))
    long = [Skipped(file.name, reason) for file in files if before + len(file.name) > longest]
    kept = [file for file in files if before + len(file.name) <= longest]
    if not kept:
        why = describe_left_out(left_out, [*unfit, *long])
        raise DatasetError(f"no images below {dataset!r}; put some there{why}")
    return kept, [*unfit, *long]
