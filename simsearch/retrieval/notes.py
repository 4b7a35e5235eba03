"""Notes on an answer: only the centre of a query was seen, EXIF left aside, what was folded."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from simsearch.errors import SimsearchError
from simsearch.images.address import is_uri, local_path
from simsearch.images.orientation import orientation_left

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from simsearch.retrieval.matches import Matches

logger = logging.getLogger("simsearch")

MIN_CENTRE = 0.65  # of the longer side; a photo of 3:2 is no long picture


def notes_of(matches: Matches) -> tuple[str, ...]:
    """Return what there is to say of how a query was read, and its matches folded."""
    image = matches.image
    pictures = image if isinstance(image, tuple) else () if image is None else (image,)
    turned = sum(orientation_left(picture) > 0 for picture in pictures)
    found_by_parts = any(match.box for match in matches)
    notes = [] if found_by_parts else list(_centre_notes(matches.library, pictures))
    if turned:
        words = "the query carries" if len(pictures) == 1 else f"{turned} of the queries carry"
        notes.append(f"{words} an EXIF orientation that was not applied")
    if any(match.duplicates for match in matches):
        from simsearch.retrieval.confirmed import unconfirmed_note

        notes += unconfirmed_note(matches)
    if found_by_parts:
        from simsearch.retrieval.parts import missing_note

        notes += missing_note(matches)
    return tuple(notes)


def log_centres(library: object, pictures: Sequence[Any]) -> None:
    """Warn, in one line, of pictures of which only the centre is embedded."""
    for note in _centre_notes(library, pictures):
        logger.warning("Note: %s", note)


def _centre_notes(library: object, pictures: Sequence[Any]) -> Iterator[str]:
    """Yield one note on pictures that are so long that the square in their middle is no more."""
    if getattr(library, "sees_all", False):  # of queries that are compared with parts
        return
    sizes = [size for size in map(_size, pictures) if size]
    long = [size for size in sizes if min(size) < MIN_CENTRE * max(size)]
    if not long:
        return
    from simsearch.backbones.long_pictures import unseen_of
    from simsearch.backbones.whole_view import sees_whole
    from simsearch.library.parts import has_parts

    long = [] if sees_whole(library) else unseen_of(library, long)
    if not long:
        return

    width, height = min(long, key=lambda size: min(size) / max(size))
    share = max(1, round(100 * min(width, height) / max(width, height)))
    words = "the query" if len(pictures) == 1 else f"{len(long)} of {len(pictures)} queries"
    how = "by parts (parts=True, --parts)" if has_parts(library) else "with parts (box, regions)"
    yield (
        f"of {words} only the centre was seen, at most {share}% of {width}×{height} pixels: "
        f"search {how} to see the rest"
    )


def _size(picture: Any) -> tuple[int, int] | None:  # noqa: ANN401
    """Return width and height of a picture at hand, without decoding it; None if unknown."""
    if isinstance(picture, Image.Image):
        return getattr(picture, "full_size", picture.size)  # of a part that was averaged down
    if isinstance(picture, np.ndarray):
        return picture.shape[1], picture.shape[0]
    if is_uri(local_path(picture)):  # it would be fetched again
        return None
    from simsearch.images.header import read_header

    try:
        header = read_header(picture)
    except SimsearchError:  # it has gone since
        return None
    return header.width, header.height
