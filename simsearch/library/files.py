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
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np
from filelock import FileLock, Timeout

from simsearch.errors import LibraryBusyError, LibraryError
from simsearch.files import sha256_file, write_text
from simsearch.library.paths import absolute_root, root_of
from simsearch.library.source import Source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from typing import Any, Literal

    from numpy.typing import NDArray

    from simsearch.backbones.heads import Head
    from simsearch.images.find import Skipped


_T = TypeVar("_T")

FORMAT = 1
EMBEDDINGS, PATHS, STATS = "embeddings.npy", "image_paths.npy", "file_stats.npy"
DIGESTS = "file_digests.npy"
CHECKED_ROWS = 512
HEAD, MANIFEST, SKIPPED, NEXT = "head.safetensors", "manifest.json", "skipped.csv", ".next"
PARTS = "parts.json"


@contextmanager
def writing(outputs: str | os.PathLike[str]) -> Iterator[Path]:
    """Hold a folder for one writer, and finish what the last one left unfinished.

    Raises
    ------
    LibraryBusyError
        If another process holds it.
    LibraryError
        If the folder cannot be written.
    """
    folder = Path(outputs).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock", timeout=0):
            finish_commit(folder)
            try:
                yield folder
            finally:
                finish_commit(folder)  # half a library would keep a full disk full
    except Timeout:
        raise LibraryBusyError(
            f"another process is writing {os.fspath(outputs)!r}; wait for it, or choose "
            "another outputs folder"
        ) from None
    except OSError as error:
        raise LibraryError(
            f"cannot write {os.fspath(outputs)!r}: {error.strerror or error}; the last complete "
            "library is untouched and the work so far is kept: make room and run again"
        ) from error


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

    Parameters
    ----------
    folder
        The outputs.
    blocks
        The embeddings in order, as (n, D) float32 arrays, so that they never have to lie in
        memory together.
    paths, stats, digests, root, source, head
        As in `ImageLibrary`.
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
    manifest = {
        "format": FORMAT,
        "rows": len(paths),
        "dim": dim,
        "root": root,
        "absolute_root": absolute_root(root_of(paths) if root is None else root),
        "source": asdict(source) if source else None,
        "head": head.fingerprint if head else None,
        "files": {file.name: file_record(file) for file in _contents(part)},
    }
    write_text(part / MANIFEST, json.dumps(manifest, indent=2))  # from here on it counts
    finish_commit(folder)
    for name, kept in ((STATS, stats), (DIGESTS, digests), (HEAD, head)):
        if kept is None:
            (folder / name).unlink(missing_ok=True)


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
    return [file for file in sorted(part.iterdir()) if file.suffix in {".npy", ".safetensors"}]


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
    status = file.stat()
    if (status.st_size, status.st_mtime_ns) == (record["size"], record["mtime_ns"]):
        return True
    # A copy has another time, so it is read whole, once a load, to see that it is the same.
    return bool(status.st_size == record["size"] and sha256_file(file) == record["sha256"])


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read the manifest of the library that is committed in a folder."""
    for place in (folder / NEXT, folder):
        try:
            manifest: dict[str, Any] = json.loads((place / MANIFEST).read_text("utf-8"))
        except FileNotFoundError:
            continue
        except (OSError, ValueError, RecursionError) as error:
            raise _unusable(folder, f"manifest.json cannot be read ({error})") from error
        found = manifest.get("format") if isinstance(manifest, dict) else None
        if found != FORMAT:
            raise _unusable(folder, f"its format is {found!r}, not {FORMAT}")
        return manifest
    if (folder / EMBEDDINGS).exists():
        arrays = "(to search arrays made elsewhere: ImageLibrary(np.load(...), np.load(...)))"
        raise _unusable(folder, f"it has no manifest.json {arrays}")
    make = f"make one with simsearch.embed_dataset(dataset, {os.fspath(folder)!r})"
    raise LibraryError(f"no library in {os.fspath(folder)!r}; {make}")


def _unusable(folder: Path, reason: str) -> LibraryError:
    """Return the error for files that make no library."""
    return LibraryError(
        f"the library in {os.fspath(folder)!r} cannot be used: {reason}; put the files back as "
        "they were, or run embed_dataset again to make them anew"
    )


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


def version_of(manifest: dict[str, Any]) -> str:
    """Name the contents of a library's files."""
    return " ".join(sorted(f"{file['sha256']}" for file in manifest["files"].values()))


def open_latest(folder: Path) -> LibraryFiles:
    """Open the library that is committed in a folder, even while a writer replaces it.

    Raises
    ------
    LibraryError
        If files are missing, damaged, or do not belong together.
    """
    while True:
        manifest = read_manifest(folder)
        try:
            files = _open_files(folder, manifest)
        except (KeyError, TypeError, AttributeError) as error:
            raise _unusable(folder, f"manifest.json is incomplete ({error!r})") from error
        except LibraryError:
            if read_manifest(folder) == manifest:
                raise
        else:
            if read_manifest(folder) == manifest:
                return files
        # Otherwise a writer has just put the next library in place: open that one.


def _open_files(folder: Path, manifest: dict[str, Any]) -> LibraryFiles:
    embeddings = _open_array(folder, EMBEDDINGS, manifest, mapped=True)
    paths = _open_array(folder, PATHS, manifest)
    stats, digests = (
        _open_array(folder, name, manifest) if name in manifest["files"] else None
        for name in (STATS, DIGESTS)
    )
    head = _open_head(folder, manifest) if manifest["head"] else None
    if embeddings.shape != (manifest["rows"], manifest["dim"]) or len(paths) != len(embeddings):
        raise _unusable(folder, "its two arrays are of different lengths")
    if embeddings.dtype != np.float32 or paths.dtype.kind != "U" or not _are_unit_rows(embeddings):
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
    return LibraryFiles(folder.absolute(), digest, *parts)


def _are_unit_rows(embeddings: NDArray[np.float32]) -> bool:
    """Look at the first and the last rows: all of a large library would take seconds."""
    ends = np.concatenate([embeddings[:CHECKED_ROWS], embeddings[-CHECKED_ROWS:]])
    with np.errstate(all="ignore"):
        norms = np.einsum("nd,nd->n", ends, ends)
    return bool((np.abs(norms - 1) <= 1e-3).all())


def _open_head(folder: Path, manifest: dict[str, Any]) -> Head:
    from simsearch.backbones.heads import read_head

    return _open_file(folder, HEAD, manifest, read_head)


def _open_array(
    folder: Path, name: str, manifest: dict[str, Any], *, mapped: bool = False
) -> NDArray[Any]:
    """Open an array, and check that it is the one that the manifest describes."""
    # Windows cannot replace a file that is mapped, so there the rows are read instead.
    mode: Literal["r"] | None = "r" if mapped and os.name != "nt" else None

    def read(file: Path) -> NDArray[Any]:
        array: NDArray[Any] = np.load(file, mmap_mode=mode, allow_pickle=False)
        return array

    return _open_file(folder, name, manifest, read)


def _open_file(folder: Path, name: str, manifest: dict[str, Any], read: Callable[[Path], _T]) -> _T:
    """Read a file of a library, and check that it is the one that the manifest describes."""
    places = [folder / NEXT] if (folder / NEXT / MANIFEST).exists() else []
    record = manifest["files"][name]
    for file in (place / name for place in (*places, folder)):
        try:
            if not matches_record(file, record):
                raise _unusable(folder, f"{name} is damaged, or belongs to another library")
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
