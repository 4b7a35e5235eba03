"""Rows of texts that are asked for again and again, kept in the user's own cache directory."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np

from simsearch.files import atomic_write, user_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray


def keep_rows(
    made_of: Sequence[str], shape: tuple[int, ...], make: Callable[[], NDArray[np.float32]]
) -> NDArray[np.float32]:
    """Return rows of unit norm: those that are kept, if they are whole, or else made now.

    Parameters
    ----------
    made_of
        All that decides the rows.
    shape
        Of the array; what else is in the file counts as damage.
    make
        Makes them.
    """
    digest = hashlib.sha256("\n".join(made_of).encode()).hexdigest()[:32]
    file = user_folder("cache") / "words" / f"{digest}.npy"
    with suppress(OSError, ValueError):
        kept: NDArray[np.float32] = np.load(file, allow_pickle=False)
        if kept.shape == shape and kept.dtype == np.float32 and _are_units(kept):
            return kept
    made = make()
    with suppress(OSError):  # a full or a read-only disk
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with atomic_write(file) as stream:
            np.save(stream, made, allow_pickle=False)
    return made


def _are_units(rows: NDArray[np.float32]) -> bool:
    return bool((np.abs(np.linalg.norm(rows, axis=-1) - 1) < 1e-3).all())
