"""Pictures in memory that still carry an EXIF orientation: taken as they are, and said once."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from PIL import ExifTags, ImageFile, TiffImagePlugin

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
    found = _stated(source)
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


def lies_on_its_side(image: Image.Image) -> bool:
    """Tell whether a file that is open has to be turned by a quarter to be upright."""
    return _stated(image) in range(5, 9)


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Return the width and height of a file that is open, once it is upright.

    Pillow states those of a TIFF as they will be, and those of other files as they are stored.
    """
    is_turned = isinstance(image, TiffImagePlugin.TiffImageFile) or not lies_on_its_side(image)
    return image.size if is_turned else image.size[::-1]


def _stated(image: Any) -> Any:  # noqa: ANN401 (a picture with EXIF, which may hold anything)
    try:
        return image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # broken EXIF: there is no orientation
        return None
