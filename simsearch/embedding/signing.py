"""Signatures of pictures, made of the decoded image on its way to the network, and logged.

They spare `duplicates` and `unique=True` a second look at every file. Fewer pictures than
`SIGNED_FILES` are read again when they are asked for, which takes a moment.
"""

from __future__ import annotations

from contextlib import ExitStack, closing, suppress
from inspect import signature as parameters_of
from typing import TYPE_CHECKING

import numpy as np
from filelock import Timeout

from simsearch.images.read_signature import sign
from simsearch.library.signatures import ROW, STORE
from simsearch.library.stored_rows import RowLog, picture_key

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from pathlib import Path
    from typing import Any

    from numpy.typing import NDArray

    from simsearch.embedding.batching import Batch, Executor
    from simsearch.embedding.rows import EmbeddedRows
    from simsearch.images.find import ImageFile

MIN_SIDE = 128  # pixels: of images decoded smaller, a signature would lack detail


def with_signatures(
    executor: Executor, rows: EmbeddedRows, files: Sequence[ImageFile], folder: Path
) -> Executor:
    """Have an executor sign what it decodes, where it can, and log that beside the library.

    An executor can if it has a parameter `sign`, as the ones of this package do. What is not
    signed is read again when its signature is asked for.
    """
    side = rows.backbone.min_side
    if "sign" not in parameters_of(executor).parameters or (side and side < MIN_SIDE):
        return executor

    def embed(*arguments: Any) -> Generator[Batch]:  # noqa: ANN401 (those of an executor)
        signing: dict[str, Any] = {"sign": sign}
        with ExitStack() as opened:
            log = RowLog(STORE, folder)
            try:
                opened.enter_context(log)
            except (OSError, Timeout):  # read-only, or another process stores its own
                signing = {}
            batches = opened.enter_context(closing(executor(*arguments, **signing)))
            for batch in batches:
                if batch.signed:
                    with suppress(OSError):  # of a full disk, the run itself will tell
                        log.append(_rows(batch, rows, files))
                yield batch

    return embed


def _rows(batch: Batch, rows: EmbeddedRows, files: Sequence[ImageFile]) -> NDArray[np.void]:
    """Rows of `signatures.log` for a batch that was signed."""
    made = np.zeros(len(batch.signed), ROW)
    for i, (position, signed) in enumerate(batch.signed.items()):
        key = rows.read_digest(files[position]) or picture_key(*files[position])
        made[i] = np.frombuffer(key, np.uint8), signed.frames, signed.signature
    return made
