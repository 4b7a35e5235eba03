"""A library embedded again, by another backbone and head."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from simsearch.embedding.batching import embed_batches
from simsearch.embedding.resume import ResumeLog
from simsearch.embedding.rows import EmbeddedRows
from simsearch.errors import DatasetError
from simsearch.files import modified_ns
from simsearch.images.address import is_uri, local_path
from simsearch.images.find import ImageFile
from simsearch.library.files import write_skipped, writing
from simsearch.library.library import ImageLibrary
from simsearch.library.save import check_not_stale

if TYPE_CHECKING:
    import os

    from simsearch.backbones.backbone import Backbone
    from simsearch.backbones.heads import Head


def reembed(
    library: ImageLibrary,
    outputs: str | os.PathLike[str],
    backbone: Backbone,
    head: Head | None = None,
    *,
    progress: bool = True,
) -> ImageLibrary:
    """Embed the images of a library anew, by another backbone and then a head.

    May be stopped and run again, as `embed_dataset`. What was in `outputs` is replaced in the end;
    images that cannot be read any more are left out, and listed in `skipped.csv`.

    Parameters
    ----------
    library
        Whose images are meant.
    outputs
        Folder of the new library.
    backbone, head
        What makes the embeddings.
    progress
        Show a progress bar.

    Returns
    -------
    ImageLibrary
        The library in `outputs`, opened.

    Raises
    ------
    DatasetError
        If no image can be read.
    LibraryBusyError, LibraryError
        As `embed_dataset`; or if `library` was opened in `outputs`, and what lies there now is
        newer.
    """
    files = [_stat_row(library, row) for row in range(len(library))]
    with writing(outputs) as folder:
        check_not_stale(library, folder)
        rows = EmbeddedRows(library.root or "", backbone, ResumeLog(folder, backbone), head=head)
        with rows.log:
            # A path that is listed twice is embedded once, and keeps its two rows.
            missing = [file for file in dict.fromkeys(files) if file not in rows]
            skipped = rows.embed(missing, embed_batches, progress=progress)
            write_skipped(folder, sorted(skipped))
            kept = [file for file in files if file in rows]
            if not kept:
                raise DatasetError(
                    f"none of the {len(files):,} images can be read: {skipped[0].name}: "
                    f"{skipped[0].reason}; "
                    'ImageLibrary.load(outputs, root="new/place") opens a library that has moved'
                )
            rows.replace_library(folder, kept)
            rows.log.discard()
        return ImageLibrary.as_stored(folder, backbone=backbone)


def _stat_row(library: ImageLibrary, row: int) -> ImageFile:
    """Return name, size and time of the file of a row as they are now."""
    name, path = library.names[row], local_path(str(library.paths[row]))
    try:
        status = Path(path).stat()
    except OSError:  # an address, or gone: reading it will tell
        known = None if library.stats is None or not is_uri(path) else library.stats[row].tolist()
        return ImageFile(name, *(known or (-1, -1)))
    return ImageFile(name, status.st_size, modified_ns(status))
