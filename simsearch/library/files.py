"""The files in outputs/: opened, checked, memory-mapped, and replaced all at once or not at all.

A library is written into `.next/` beside its place. The arrival of `.next/manifest.json` commits
it: from then on readers take what lies in `.next/` first, and the moves that follow may be cut
short at any instruction and finished by the next writer. Nothing here opens an image.
"""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np
from filelock import FileLock

from simsearch import registry
from simsearch.errors import DamagedLibraryError, LibraryError
from simsearch.files import check_plain, sha256_file, write_text
from simsearch.library.paths import absolute_root, root_of
from simsearch.library.source import Source
from simsearch.library.user_key import signed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from typing import Any

    from numpy.typing import NDArray

    from simsearch.backbones.heads import Head
    from simsearch.images.find import Skipped


_T = TypeVar("_T")

FORMAT = 1
EMBEDDINGS, PATHS, STATS = "embeddings.npy", "image_paths.npy", "file_stats.npy"
DIGESTS, BLOCKS = "file_digests.npy", "block_digests.json"
CHECKED_ROWS = 512
BLOCKS_FROM_BYTES = 2**20  # of a file, from which on blocks are digested; less is checked whole
HEAD, MANIFEST, SKIPPED, NEXT = "head.safetensors", "manifest.json", "skipped.csv", ".next"
PARTS, LOG = "parts.json", "unfinished.jsonl"  # the log names the rows of a stopped run


@contextmanager
def writing(outputs: str | os.PathLike[str]) -> Iterator[Path]:
    """Hold a folder for one writer, and finish what the last one left unfinished."""
    folder = Path(outputs).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock", timeout=0):
            finish_commit(folder)
            try:
                yield folder
            finally:
                finish_commit(folder)  # half a library would keep a full disk full
    except OSError as error:  # of which a Timeout is one
        from simsearch.library.refusals import cannot_write

        raise cannot_write(outputs, error) from error


def replace_library(
    folder: Path,
    blocks: Iterable[NDArray[np.float32]],
    paths: NDArray[np.str_],
    *,
    stats: NDArray[np.int64] | None,
    digests: NDArray[np.uint8] | None = None,
    root: str | None,
    source: Source | None,
    head: Head | None = None,
) -> None:
    """Write a library's files in place of the old ones; call it inside `writing`.

    The embeddings come in `blocks`, as (n, D) float32 arrays, so that they never have to lie in
    memory together; the others are those of `ImageLibrary`.
    """
    part = folder / NEXT
    part.mkdir(exist_ok=True)
    dim = write_array(part / EMBEDDINGS, blocks, len(paths))
    write_array(part / PATHS, [paths], len(paths))
    for name, facts in ((STATS, stats), (DIGESTS, digests)):
        if facts is not None:
            write_array(part / name, [facts], len(paths))
    if head is not None:
        from simsearch.backbones.heads import save_head

        save_head(head, part / HEAD)
    manifest: dict[str, Any] = {
        "format": FORMAT,
        "rows": len(paths),
        "dim": dim,
        "root": root,
        "absolute_root": absolute_root(root_of(paths) if root is None else root),
        "source": asdict(source) if source else None,
        "head": head.fingerprint if head else None,
        **record_files(part, _contents(part)),
    }
    write_manifest(part, manifest, paths)  # from here on it counts
    finish_commit(folder)
    optional = {STATS: stats, DIGESTS: digests, HEAD: head, BLOCKS: manifest.get("blocks")}
    for name, kept in optional.items():
        if kept is None:
            (folder / name).unlink(missing_ok=True)


def write_manifest(folder: Path, manifest: Mapping[str, Any], paths: NDArray[np.str_]) -> None:
    """Write a manifest with this user's mark, which says that these are its paths."""
    facts = {**manifest, "paths": sha256(paths.tobytes()).hexdigest()}
    write_text(folder / MANIFEST, json.dumps(signed(facts, MANIFEST), indent=2))


def write_array(file: Path, blocks: Iterable[NDArray[Any]], count: int) -> int:
    """Write an .npy file of `count` rows block by block; return the length of a row.

    Unlike `np.save`, which only counts items, this says so when the disk is full.
    """
    width = 0
    with file.open("xb") as stream:
        for i, block in enumerate(blocks):
            if not i:
                descr = np.lib.format.dtype_to_descr(block.dtype)
                shape = (count, *block.shape[1:])
                header = {"descr": descr, "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(stream, header)
                width = int(block[0].size)
            stream.write(np.ascontiguousarray(block).data)
        stream.flush()
        os.fsync(stream.fileno())
    return width


def _contents(part: Path) -> list[Path]:
    """List the files that a manifest ties together."""
    kinds = {".npy", ".safetensors"}
    return [file for file in sorted(part.iterdir()) if file.suffix in kinds or file.name == BLOCKS]


def record_files(part: Path, files: Sequence[Path]) -> dict[str, Any]:
    """Record what a manifest ties together; `blocks`, too, is a record, unless all is small."""
    if max(file.stat().st_size for file in files) >= BLOCKS_FROM_BYTES:
        from simsearch.library.block_digests import write_blocks

        return write_blocks(part / BLOCKS, files)
    return {"files": {file.name: file_record(file) for file in files}}


def finish_commit(folder: Path) -> None:
    """Move a committed library into place; the remains of an uncommitted one are dropped."""
    part = folder / NEXT
    if part.is_symlink():  # never of this program, which would write and delete what lies there
        part.unlink()
    if (part / MANIFEST).exists():
        for file in (*_contents(part), part / MANIFEST):  # the manifest last
            file.replace(folder / file.name)
    for rest in part.glob("*"):
        rest.unlink()
    if part.exists():
        part.rmdir()


def file_record(file: Path) -> dict[str, int | str]:
    """Record a file in a manifest: its digest, and what spares computing that again."""
    status = file.stat()
    return {"size": status.st_size, "mtime_ns": status.st_mtime_ns, "sha256": sha256_file(file)}


def matches_record(file: Path, record: Mapping[str, Any]) -> bool:
    """Tell whether a file is the one that was recorded."""
    status, of_time = file.stat(), (record["size"], record["mtime_ns"])
    quick = status.st_size >= BLOCKS_FROM_BYTES and file.suffix != ".safetensors"
    if quick and (status.st_size, status.st_mtime_ns) == of_time:
        return True
    # Read whole once a load: a copy has another time, and damage may keep it (see BLOCKS).
    return bool(status.st_size == record["size"] and sha256_file(file) == record["sha256"])


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read the manifest of the library that is committed in a folder."""
    return _committed(folder)[0]


def _committed(folder: Path) -> tuple[dict[str, Any], Path]:
    for place in (folder / NEXT, folder):
        try:
            check_plain(place / MANIFEST)
            manifest: dict[str, Any] = json.loads((place / MANIFEST).read_text("utf-8"))
        except FileNotFoundError:
            continue
        except (OSError, ValueError, RecursionError) as error:
            raise _unusable(folder, f"manifest.json cannot be read ({error})") from error
        found = manifest.get("format") if isinstance(manifest, dict) else None
        if found != FORMAT:
            raise _unusable(folder, f"its format is {found!r}, not {FORMAT}")
        return manifest, place
    from simsearch.library.refusals import no_library

    raise no_library(folder, has_rows=(folder / EMBEDDINGS).exists())


def _unusable(folder: Path, why: str, kind: type[LibraryError] = LibraryError) -> LibraryError:
    from simsearch.library.refusals import unusable

    return unusable(folder, why, kind)


class LibraryFiles(NamedTuple):
    """A library as its files hold it; see `ImageLibrary` for what each part is."""

    folder: Path
    digest: str  # of the file of the embeddings
    embeddings: NDArray[np.float32]
    paths: NDArray[np.str_]
    stats: NDArray[np.int64] | None
    digests: NDArray[np.uint8] | None
    root: str | None
    absolute_root: str | None
    source: Source | None
    head: Head | None
    version: str  # of all its files
    record: dict[str, Any]  # of the file of the embeddings
    manifest: Mapping[str, Any] = {}  # as it was read


def version_of(manifest: dict[str, Any]) -> str:
    """Name the contents of a library's files."""
    return " ".join(sorted(f"{file['sha256']}" for file in manifest["files"].values()))


def open_latest(folder: Path, damaged: list[int] | None = None) -> LibraryFiles:
    """Open the library that is committed in a folder, even while a writer replaces it.

    With a list, embeddings are opened though blocks are damaged, whose numbers fill the list.

    Raises
    ------
    LibraryError
        If files are missing, damaged, or do not belong together.
    """
    while True:
        manifest, _ = committed = _committed(folder)
        try:
            files = _open_files(folder, manifest, damaged)
        except (KeyError, TypeError, AttributeError) as error:
            raise _unusable(folder, f"manifest.json is incomplete ({error!r})") from error
        except LibraryError:
            if _committed(folder) == committed:
                raise
        else:
            if _committed(folder) == committed:  # or a writer has moved it, or replaced it
                return files._replace(manifest=manifest)


def _open_files(folder: Path, manifest: dict[str, Any], damaged: list[int] | None) -> LibraryFiles:
    manifest = with_blocks(folder, manifest)
    embeddings = _open_array(folder, EMBEDDINGS, manifest, damaged)
    paths = _open_array(folder, PATHS, manifest)
    stats, digests = (
        _open_array(folder, name, manifest) if name in manifest["files"] else None
        for name in (STATS, DIGESTS)
    )
    head = None
    if manifest["head"]:
        from simsearch.backbones.heads import read_head

        head = _open_file(folder, HEAD, manifest, read_head, False)
    if embeddings.shape != (manifest["rows"], manifest["dim"]) or len(paths) != len(embeddings):
        raise _unusable(folder, "its two arrays are of different lengths")
    fits = embeddings.dtype == np.float32 and paths.dtype.kind == "U"
    if not fits or not (damaged is not None or _are_unit_rows(embeddings)):
        raise _unusable(
            folder, f"{EMBEDDINGS} holds no float32 rows of unit norm, or {PATHS} no text"
        )
    if head and (head.fingerprint != manifest["head"] or head.dim != embeddings.shape[1]):
        raise _unusable(folder, f"{HEAD} is not the head that its rows have passed through")
    source = Source(**manifest["source"]).beside(folder) if manifest["source"] else None
    digest = manifest["files"][EMBEDDINGS]["sha256"]
    roots = (manifest["root"], manifest.get("absolute_root"))
    if not all(root is None or isinstance(root, str) for root in roots):
        raise TypeError(f"root={roots[0]!r}, absolute_root={roots[1]!r}")
    parts = embeddings, paths, stats, digests, *roots, source, head, version_of(manifest)
    return LibraryFiles(folder.absolute(), digest, *parts, manifest["files"][EMBEDDINGS])


def with_blocks(folder: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    """Return a manifest whose records of files have the digests of blocks, if there are."""
    if "blocks" not in manifest:
        return manifest
    from simsearch.library.block_digests import add_blocks, read_records

    records = {"files": {BLOCKS: manifest["blocks"]}}
    read = partial(read_records, manifest["blocks"])
    return add_blocks(manifest, _open_file(folder, BLOCKS, records, read, False))


def _are_unit_rows(embeddings: NDArray[np.float32]) -> bool:
    """Look at the first and the last rows: all of a large library would take seconds."""
    ends = np.concatenate([embeddings[:CHECKED_ROWS], embeddings[-CHECKED_ROWS:]])
    with np.errstate(all="ignore"):
        norms = np.einsum("nd,nd->n", ends, ends)
    return bool((np.abs(norms - 1) <= 1e-3).all())


def _open_array(
    folder: Path, name: str, manifest: dict[str, Any], damaged: list[int] | None = None
) -> NDArray[Any]:
    """Read an array, or open large embeddings, and check that it is what the manifest describes."""
    record = manifest["files"][name]
    large = name == EMBEDDINGS and record["size"] >= registry.LARGE_BYTES

    def read(file: Path) -> Any:  # noqa: ANN401 (an array, or what is indexed as one)
        if large or "blocks" in record:
            from simsearch.library.row_file import open_checked

            return open_checked(file, record, large=large, damaged=damaged)
        array: NDArray[Any] = np.load(file, allow_pickle=False)
        array.flags.writeable = False  # as of one that is mapped
        return array

    return _open_file(folder, name, manifest, read, damaged is not None)


def _open_file(
    folder: Path, name: str, manifest: dict[str, Any], read: Callable[[Path], _T], salvaged: bool
) -> _T:
    """Read a file of a library, and check that it is the one that the manifest describes."""
    places = [folder / NEXT] if (folder / NEXT / MANIFEST).exists() else []
    record = manifest["files"][name]
    for file in (place / name for place in (*places, folder)):
        try:
            check_plain(file)
            if not (matches_record(file, record) or (salvaged and "blocks" in record)):
                why = f"{name} is damaged, or belongs to another library"
                raise _unusable(folder, why, DamagedLibraryError)
            return read(file)
        except FileNotFoundError:
            continue
        except (LibraryError, KeyError):  # the latter of the manifest
            raise
        except Exception as error:  # decoders of damaged headers raise nearly anything
            raise _unusable(folder, f"{name} cannot be opened ({error})") from error
    raise _unusable(folder, f"{name} is missing")


def write_skipped(folder: Path, skipped: Sequence[Skipped]) -> None:
    """Write skipped.csv: path and reason of each file that is not in the library."""
    if not skipped:
        write_text(folder / SKIPPED, "path,reason\r\n")
        return
    from simsearch.library.skipped import write_reasons

    write_reasons(folder, skipped)
