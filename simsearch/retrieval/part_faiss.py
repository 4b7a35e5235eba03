"""FAISS indexes of parts in `parts-index/`, opened and followed as those of whole pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simsearch.errors import LibraryError, MissingExtraError
from simsearch.library.library import ImageLibrary
from simsearch.retrieval.faiss import logger
from simsearch.retrieval.faiss_follow import follow
from simsearch.retrieval.faiss_seal import RECORD_FILE
from simsearch.retrieval.faiss_store import open_index
from simsearch.retrieval.part_rows import rows_to_index

if TYPE_CHECKING:
    import os

    from simsearch.retrieval.faiss import FaissIndex


def open_part_index(source: ImageLibrary | str | os.PathLike[str]) -> FaissIndex:
    """Open the index of a library's parts, and bring it up to date; see `load_index`."""
    library = source if isinstance(source, ImageLibrary) else ImageLibrary.load(source)
    rows = rows_to_index(library)
    folder = rows.stored[0]
    if not (folder / RECORD_FILE).exists():
        raise LibraryError(
            f"no index of parts in {str(folder.parent)!r}: make one with "
            "simsearch.build_index(library, parts=True) (`simsearch index OUTPUTS --parts`)"
        )
    index = open_index(folder)
    return index if index.digest == rows.digest else follow(rows, folder)  # type: ignore[arg-type]


def keep_up_parts(library: ImageLibrary) -> None:
    """Bring the index of parts up to date if there is one; say so if that is impossible."""
    try:
        open_part_index(library)
    except (LibraryError, MissingExtraError) as error:
        logger.warning("the index of parts is not brought up to date: %s", error)
