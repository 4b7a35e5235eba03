"""Near-duplicates among matches, confirmed on the pixels of their files before they are folded."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from simsearch.errors import SimsearchError
from simsearch.images.address import is_uri, local_path
from simsearch.images.compare import compare_files

if TYPE_CHECKING:
    from collections.abc import Iterator

    from simsearch.retrieval.matches import Matches

COMPARED_PAIRS = 4096  # that are remembered, from one search to the next


def is_copy(a: str, b: str) -> bool:
    """Tell whether one of two files, near in embedding, is a copy of the other.

    Where one of them is not here (it is gone, or lies at an address) the embeddings alone decide,
    and `unconfirmed_note` says so. A file that cannot be read is a copy of no other.
    """
    versions = version(a), version(b)
    if versions[0] is None or versions[1] is None:
        return True
    return _compare(*sorted([(a, versions[0]), (b, versions[1])]))


def version(path: str) -> tuple[int, int] | None:
    """Return size and time of a file; None if it is not here."""
    plain = local_path(path)
    if is_uri(plain):
        return None
    try:
        status = Path(plain).stat()
    except (OSError, ValueError):
        return None
    return status.st_size, status.st_mtime_ns


@lru_cache(maxsize=COMPARED_PAIRS)
def _compare(a: tuple[str, tuple[int, int]], b: tuple[str, tuple[int, int]]) -> bool:
    try:
        return compare_files(a[0], b[0]) is not None
    except SimsearchError:
        return False


def unconfirmed_note(matches: Matches) -> Iterator[str]:
    """Yield one note on near-duplicates that were folded by their embeddings alone."""
    count = 0
    for match in matches:
        if match.duplicates:
            here = version(match.path) is not None
            count += sum(not here or version(path) is None for path in match.duplicates)
    if count:
        yield (
            f"{count:,} of those folded as alike could not be confirmed on the pixels, since the "
            "files are not here: only their embeddings are near"
        )
