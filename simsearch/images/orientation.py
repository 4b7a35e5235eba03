"""Pictures in memory that still carry an EXIF orientation: taken as they are, and said once."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from PIL import ExifTags, ImageFile

if TYPE_CHECKING:
    from PIL import Image

logger = logging.getLogger("simsearch")

_told: WeakValueDictionary[int, Image.Image] = WeakValueDictionary()  # by id


def orientation_left(source: object) -> int:
    """Return the EXIF orientation that a picture in memory carries, 2 to 8; 0 for none.

    A file that Pillow has opened has none left: `load_image` turns it.
    """
    if isinstance(source, ImageFile.ImageFile) or not hasattr(source, "getexif"):
        return 0
    try:
        found = source.getexif().get(ExifTags.Base.Orientation, 0)
    except Exception:  # broken EXIF: there is no orientation
        return 0
    return found if isinstance(found, int) and 2 <= found <= 8 else 0


def warn_of_orientation(image: Image.Image) -> None:
    """Warn, once for each picture, of an orientation that is not applied."""
    if _told.get(id(image)) is image or not (found := orientation_left(image)):
        return
    _told[id(image)] = image
    logger.warning(
        "PIL image %d×%d carries EXIF orientation %d and is taken as it is, since it may have been "
        "turned already; to turn it, give ImageOps.exif_transpose(image)",
        *image.size,
        found,
    )


def orientation_of_file(image: Image.Image) -> int:
    """Return the EXIF orientation of a file that is open, 0 for none; from 5 on it lies."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 0))
    except Exception:  # broken EXIF: there is no orientation
        return 0
