"""The rows of a run: those of the last library, those of the log, and those still to embed."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import numpy as np
from tqdm.auto import tqdm

from simsearch.files import DIGEST_BYTES, digest_unchanged, iter_blocks
from simsearch.images.address import is_uri, local_path
from simsearch.images.find import ImageFile, Skipped
from simsearch.library.files import replace_library
from simsearch.library.paths import in_folder
from simsearch.library.source import Source

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from simsearch.backbones.backbone import Backbone
    from simsearch.backbones.heads import Head
    from simsearch.embedding.batching import Executor
    from simsearch.embedding.resume import ResumeLog
    from simsearch.library.types import RowLookup

BLOCK_ROWS = 1024  # copied together
SIGNED_FILES = 256  # from so many on, a second look at them for their signatures takes a while


class EmbeddedRows:
    """Every embedding that is at hand for a dataset; new rows are appended to the log.

    New rows pass through `head` when they are written.
    """

    def __init__(
        self, root: str, backbone: Backbone, log: ResumeLog, head: Head | None = None
    ) -> None:
        self.root, self.backbone, self.log, self.head = root, backbone, log, head
        self.reused: dict[ImageFile, int] = {}  # row of the last library of each file
        self.moved: dict[ImageFile, int] = {}  # the same, of files known by their content
        self.digests: dict[ImageFile, bytes] = {}  # of the bytes of each file that was read
        self.embeddings: RowLookup | None = None  # of the last library

    def __contains__(self, file: ImageFile) -> bool:
        return file in self.reused or file in self.moved or file in self.log.rows

    def embed(
        self,
        files: Sequence[ImageFile],
        executor: Executor,
        batch_size: int | None = None,
        workers: int | None = None,
        *,
        strict: bool = False,
        progress: bool,
    ) -> list[Skipped]:
        """Embed files into the log; return those that cannot be embedded."""
        if len(files) >= SIGNED_FILES:
            from simsearch.embedding.signing import with_signatures

            executor = with_signatures(executor, self, files, self.log.folder)
        sources = [in_folder(self.root, file.name) for file in files]
        skipped: list[Skipped] = []
        hidden = not (progress and files)
        with (
            tqdm(desc="Embedding", total=len(files), unit="image", disable=hidden) as bar,
            closing(executor(sources, self.backbone, batch_size, workers)) as batches,
        ):
            for batch in batches:
                self.log.append([files[i] for i in batch.positions], batch.embeddings)
                for i in batch.positions:  # just read, so that this is quick
                    self.read_digest(files[i])
                if strict and batch.failures:
                    raise batch.failures[0][1]
                skipped += [Skipped(sources[i], error.reason) for i, error in batch.failures]
                bar.update(len(batch.positions) + len(batch.failures))
        return skipped

    def read_digest(self, file: ImageFile) -> bytes:
        """Return the digest of a file's content; b"" at an address, or if it has just changed."""
        path = local_path(in_folder(self.root, file.name))
        if not self.digests.get(file) and not is_uri(path):
            self.digests[file] = digest_unchanged(path, *file[1:])
        return self.digests.get(file, b"")

    def stored_digests(self, files: Sequence[ImageFile]) -> NDArray[np.uint8]:
        """Return what is known of the content of files: (N, 16) uint8, zeros where nothing is."""
        data = b"".join(self.digests.get(file) or bytes(DIGEST_BYTES) for file in files)
        return np.frombuffer(data, np.uint8).reshape(len(files), DIGEST_BYTES)

    def replace_library(self, folder: Path, files: Sequence[ImageFile]) -> None:
        """Write these files' embeddings as the library, a block at a time."""
        replace_library(
            folder,
            (self._read(files[block]) for block in iter_blocks(len(files), BLOCK_ROWS)),
            np.array([in_folder(self.root, file.name) for file in files], "U"),
            stats=np.array([file[1:] for file in files], np.int64),
            digests=self.stored_digests(files),
            root=self.root,
            source=Source.of(self.backbone),
            head=self.head,
        )

    def _read(self, files: Sequence[ImageFile]) -> NDArray[np.float32]:
        """Return the rows of files: those of the library as they are, new ones by the head."""
        dim = self.head.dim if self.head else self.backbone.dim
        block = np.empty((len(files), dim), np.float32)
        rows = [self.reused.get(file, self.moved.get(file)) for file in files]
        new, known = (
            [i for i, row in enumerate(rows) if (row is None) == is_new] for is_new in (True, False)
        )
        if self.embeddings is not None and known:
            block[known] = self.embeddings[[rows[i] for i in known]]
        if new:
            embedded = np.stack([self.log.read(files[i]) for i in new])
            block[new] = self.head(embedded) if self.head else embedded
        return block
