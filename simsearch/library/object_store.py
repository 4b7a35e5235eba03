"""A library at an address, such as `s3://bucket/outputs`: read and written through local folders.

What travels is the library itself: not the resume log, parts, or copies that make searches faster.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import socket
import time
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from simsearch.errors import LibraryBusyError, LibraryError, MissingExtraError
from simsearch.files import atomic_write, user_folder, write_text
from simsearch.images.address import is_uri, local_path
from simsearch.images.remote import open_system, refusal
from simsearch.library.files import (
    BLOCKS,
    DIGESTS,
    EMBEDDINGS,
    HEAD,
    MANIFEST,
    NEXT,
    PATHS,
    SKIPPED,
    STATS,
    matches_record,
    version_of,
    with_blocks,
    writing,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any

    from simsearch.library.library import ImageLibrary

logger = logging.getLogger("simsearch")

RECORDED = (EMBEDDINGS, PATHS, STATS, DIGESTS, HEAD)
SEEN = "seen.txt"  # beside the copy that is written: digest of the manifest that the address had
WRITER = "writing.json"  # at the address, while a library is uploaded
WRITER_SECONDS = 3600.0  # after which such a mark was left by an upload that was cut off
STAYS = {"parts.json": "the parts of the pictures", "index.json": "the index"}  # by file
ATTEMPTS, PAUSE_SECONDS = 5, 2.0  # at a library that is being replaced
LOCK_SECONDS = 3600.0  # for another process that fetches the same


def fetch(outputs: str | os.PathLike[str]) -> Path:
    """Bring the newest version of a library here, unless it is; return its folder.

    Raises
    ------
    LibraryError
        If there is none, it cannot be read, or it is being replaced.
    MissingExtraError
        If the storage needs a package that is not installed.
    """
    plain = local_path(outputs)
    if not is_uri(plain):
        return Path(plain).expanduser()
    with _Copy(str(plain), "read").locked() as copy:
        if copy.fetch() is None:
            raise LibraryError(
                f"no library at {copy.address!r}: write one there with embed_dataset(dataset, "
                f"{copy.address!r})"
            )
    return copy.folder


def embed_to_address(
    embed: Callable[..., ImageLibrary], *, outputs: str, options: Mapping[str, Any], **given: object
) -> ImageLibrary:
    """Embed into a folder of this machine, and upload the library: `embed_dataset` to an address.

    Raises
    ------
    LibraryError
        If the storage refuses, or another machine has written there in the meantime.
    """
    plain = local_path(outputs)
    if not is_uri(plain):
        return embed(outputs=plain, **given, **options)
    with _Copy(str(plain), "written").locked() as copy:
        copy.follow()
        library = embed(outputs=copy.folder, **given, **options)
        copy.upload()
        copy.tell_what_stays(copy.folder)
    return library


def save_to_address(library: ImageLibrary, outputs: str, *, overwrite: bool) -> None:
    """Save a library at an address; see `ImageLibrary.save`.

    Raises
    ------
    LibraryError
        If the library there is newer than the one that was opened, or the storage refuses.
    """
    opened = _Copy(outputs, "read").folder
    known = library.versions.get(os.path.realpath(opened))
    with _Copy(outputs, "written").locked() as copy:
        manifest = copy.follow()
        if known and manifest and not overwrite and version_of(copy.parse(manifest)) != known:
            raise copy.changed()
        library.save(copy.folder, overwrite=True)
        copy.upload()
        if library.stored:
            copy.tell_what_stays(library.stored[0])


class _Copy:
    """A folder of this machine that stands for an address."""

    def __init__(self, address: str, use: str) -> None:
        self.address = address.rstrip("/")
        name = sha256(self.address.encode("utf-8", "surrogateescape")).hexdigest()[:16]
        self._place = user_folder("cache") / "libraries" / name / use
        self.folder = self._place / "outputs"

    @contextmanager
    def locked(self) -> Iterator[_Copy]:
        self._place.mkdir(parents=True, exist_ok=True)
        with FileLock(self._place / ".lock", timeout=LOCK_SECONDS):
            yield self

    def fetch(self) -> bytes | None:
        """Bring the newest version here; return its manifest, None if there is no library."""
        for attempt in range(ATTEMPTS):
            if attempt:
                time.sleep(PAUSE_SECONDS)
            manifest = self._read()
            if manifest is None or manifest == self._own() or self._download(manifest):
                return manifest
        raise LibraryError(
            f"the library at {self.address!r} is being replaced, or an upload was cut off: try "
            "again, or write it again"
        )

    def follow(self) -> bytes | None:
        """Fetch what another machine has written since this copy was uploaded."""
        manifest = self._read()
        if manifest is not None and _digest(manifest) != self._seen():
            manifest = self.fetch()
        self._see(manifest)
        return manifest

    def upload(self) -> None:
        """Put what has changed at the address, the manifest last."""
        own = (self.folder / MANIFEST).read_bytes()
        names = [n for n in (*RECORDED, BLOCKS, SKIPPED) if (self.folder / n).is_file()]
        with self._errors("write") as (system, root), self._alone(system, root) as check:
            if _digest(self._read()) != self._seen():
                raise self.changed()
            for name in names:
                system.put_file(str(self.folder / name), f"{root}/{name}")
            check()
            system.put_file(str(self.folder / MANIFEST), f"{root}/{MANIFEST}")
        self._see(own)

    @contextmanager
    def _alone(self, system: Any, root: str) -> Iterator[Callable[[], None]]:  # noqa: ANN401
        """Mark the address as being written; give what checks that nobody else has marked it.

        Raises
        ------
        LibraryBusyError
            If another process is writing there.
        """
        mark, token = f"{root}/{WRITER}", secrets.token_hex(8)
        who = {"token": token, "host": socket.gethostname(), "since": time.time()}
        ours = {token, self._recall(WRITER)}  # and that of an upload from here that was cut off

        def check() -> None:
            other = _writer(system, mark)
            if other["token"] not in ours and time.time() - other["since"] < WRITER_SECONDS:
                raise LibraryBusyError(
                    f"{other['host']} is writing a library at {self.address!r}: try again when it "
                    f"is done; remove {WRITER} there if it was cut off"
                )

        check()
        write_text(self._place / WRITER, token)
        system.makedirs(root, exist_ok=True)
        system.pipe_file(mark, json.dumps(who).encode())
        try:
            check()
            yield check
        finally:
            if _writer(system, mark)["token"] == token:
                system.rm_file(mark)

    def tell_what_stays(self, folder: Path) -> None:
        """Say which files beside a library are not at the address."""
        beside = [name for file, name in STAYS.items() if (folder / file).exists()]
        if beside:
            logger.warning(
                "%s of the library stay in %s, and are not at %r: make them where it is opened",
                " and ".join(beside),
                folder,
                self.address,
            )

    def changed(self) -> LibraryError:
        return LibraryError(
            f"the library at {self.address!r} has changed since it was opened, and its newer rows "
            "would be lost: load it again, or save it elsewhere"
        )

    def parse(self, text: bytes) -> dict[str, Any]:
        """Return a manifest that records its files."""
        try:
            manifest: dict[str, Any] = json.loads(text)
            version_of(manifest)
        except (ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
            raise LibraryError(
                f"{self.address}/{MANIFEST} is no manifest of a library, or damaged ({error!r}): "
                "give another address, or remove it and write the library again"
            ) from error
        return manifest

    def _download(self, text: bytes) -> bool:
        """Fetch a version's files; tell whether they are there and belong together."""
        manifest, part = self.parse(text), self.folder / NEXT
        with writing(self.folder), self._errors("read") as (system, root):
            part.mkdir()
            try:
                if not self._download_files(manifest, system, root, part):
                    return False
            except FileNotFoundError:
                return False
            if system.exists(f"{root}/{SKIPPED}"):
                system.get_file(f"{root}/{SKIPPED}", str(self.folder / SKIPPED))
            with atomic_write(part / MANIFEST) as stream:
                stream.write(text)
        return True

    @staticmethod
    def _download_files(manifest: dict[str, Any], system: Any, root: str, part: Path) -> bool:  # noqa: ANN401
        if "blocks" in manifest:
            system.get_file(f"{root}/{BLOCKS}", str(part / BLOCKS))
            if not matches_record(part / BLOCKS, manifest["blocks"]):
                return False
        records = with_blocks(part, manifest)["files"]
        for name in [name for name in RECORDED if name in records]:
            system.get_file(f"{root}/{name}", str(part / name))
            if not matches_record(part / name, records[name]):
                return False
            os.utime(part / name, ns=(records[name]["mtime_ns"],) * 2)  # spares another check
        return True

    def _read(self) -> bytes | None:
        with self._errors("read") as (system, root):
            try:
                text: bytes = system.cat_file(f"{root}/{MANIFEST}")
            except FileNotFoundError:
                return None
        return text

    def _own(self) -> bytes | None:
        try:
            return (self.folder / MANIFEST).read_bytes()
        except FileNotFoundError:
            return None

    def _seen(self) -> str:
        return self._recall(SEEN)

    def _recall(self, name: str) -> str:
        try:
            return (self._place / name).read_text("ascii")
        except FileNotFoundError:
            return ""

    def _see(self, manifest: bytes | None) -> None:
        write_text(self._place / SEEN, _digest(manifest))

    @contextmanager
    def _errors(self, what: str) -> Iterator[tuple[Any, str]]:
        """Open the storage; tell what it refuses in one line."""
        try:
            system, root = open_system(self.address)
            system.invalidate_cache()
            yield system, root.rstrip("/")
        except (FileNotFoundError, LibraryError, MissingExtraError):
            raise
        except Exception as error:  # every file system raises its own
            raise LibraryError(
                f"cannot {what} {self.address!r}: {refusal(error, self.address)}"
            ) from error


def _writer(system: Any, mark: str) -> dict[str, Any]:  # noqa: ANN401
    """Return who is writing, as far as a mark tells: its token, host and time."""
    try:
        system.invalidate_cache()
        read = json.loads(system.cat_file(mark))
        host = str(read["host"])
        return {"token": str(read["token"]), "host": host, "since": float(read["since"])}
    except FileNotFoundError:
        return {"token": "", "host": "", "since": 0.0}
    except (ValueError, KeyError, TypeError):  # cut off, or somebody else's
        return {"token": "?", "host": "Another program", "since": time.time()}


def _digest(manifest: bytes | None) -> str:
    return sha256(manifest).hexdigest() if manifest else ""
