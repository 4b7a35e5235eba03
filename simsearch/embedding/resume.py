"""The log of an unfinished run: rows that no library holds yet."""

from __future__ import annotations

import json
import zlib
from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np

from simsearch.files import open_plain
from simsearch.images.find import ImageFile
from simsearch.library.files import LOG
from simsearch.library.source import Source

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import Self

    from numpy.typing import NDArray

    from simsearch.backbones.backbone import Backbone


class ResumeLog:
    """Rows that no library holds yet, appended batch by batch; a stopped run leaves them behind.

    `unfinished.f32` holds the rows; `unfinished.jsonl` names them, one line per row with a
    checksum, written after the row. What a dying machine leaves is therefore good up to the first
    line that is cut or does not fit its row, and nothing after that is used.
    """

    def __init__(self, folder: Path, network: Backbone) -> None:
        self.folder = folder
        self._places = (folder / LOG, folder / "unfinished.f32")
        self._source, self._dim = Source.of(network), network.dim
        self.rows: dict[ImageFile, int] = {}

    def __enter__(self) -> Self:
        self._index = open_plain(self._places[0])
        try:
            self._data = open_plain(self._places[1])
        except OSError:
            self._index.close()
            raise
        header = json.dumps(asdict(self._source)).encode() + b"\n"
        if self._index.readline() == header:
            from simsearch.embedding.recovery import recover

            recover(self._index, self._data, self._dim, self.rows)
            return self
        for stream in (self._index, self._data):  # new, or another backbone's
            stream.seek(0)
            stream.truncate()
        self._index.write(header)
        return self

    def __exit__(self, *_: object) -> None:
        self._index.close()
        self._data.close()

    def append(self, files: Sequence[ImageFile], embeddings: NDArray[np.float32]) -> None:
        """Add a batch; once this returns, killing the process does not lose it."""
        start = self._data.tell() // (4 * self._dim)
        self._data.write(embeddings.data)
        self._data.flush()
        for position, (file, row) in enumerate(zip(files, embeddings, strict=True), start):
            self._index.write(json.dumps([*file, zlib.crc32(row.data)]).encode() + b"\n")
            self.rows[file] = position
        self._index.flush()

    def read(self, file: ImageFile) -> NDArray[np.float32]:
        """Return the embedding of a file: (D,) float32."""
        self._data.seek(4 * self._dim * self.rows[file])
        return np.frombuffer(self._data.read(4 * self._dim), np.float32)

    def discard(self) -> None:
        """Delete the log: a library holds its rows now."""
        self.__exit__()
        for place in self._places:
            place.unlink()
