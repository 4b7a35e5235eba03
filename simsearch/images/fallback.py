"""Image files that Pillow alone does not open: repaired, very large, raw, or of rare TIFF kinds."""

from __future__ import annotations

import io
from contextlib import suppress

import numpy as np
from PIL import Image, JpegImagePlugin, UnidentifiedImageError

from simsearch.errors import ImageError
from simsearch.images.repair import JPEG_START, PNG_START, TIFF_STARTS, open_clean_png
from simsearch.images.sniff import RAW_REASON, RAW_SUFFIXES, can_read_raw, suffix_of

HEAD_BYTES = 64


def open_otherwise(file: str | io.BytesIO, name: str, error: Exception) -> Image.Image:
    """Open a file of this name for which Pillow raised an error.

    Raises
    ------
    ImageError
        If it is not of a format that is read.
    Exception
        The error of Pillow, if there is no other way.
    """
    if isinstance(error, OSError) and not isinstance(error, UnidentifiedImageError):
        raise error
    head = _read(file, HEAD_BYTES)
    if isinstance(error, Image.DecompressionBombError):
        if head.startswith(JPEG_START):  # is decoded at a reduced scale
            if isinstance(file, io.BytesIO):
                file.seek(0)
            return JpegImagePlugin.JpegImageFile(file)
        raise error
    with suppress(UnidentifiedImageError):
        image = _open_raw(file, name) or _open_png(file, head) or _open_tiff(file, head)
        if image:
            return image
    if isinstance(error, UnidentifiedImageError):
        raise ImageError("not a supported image format") from None
    raise error


def describe_in_memory(source: object) -> str:
    """Name a picture that is no file; see `describe`."""
    if isinstance(source, Image.Image):
        return getattr(source, "filename", "") or f"PIL image {source.width}×{source.height}"
    if isinstance(source, np.ndarray):
        return f"array {source.shape}"
    if isinstance(source, bytes):
        return f"{len(source):,} bytes"
    return " ".join(repr(source)[:60].split())


def prefer_preview(image: Image.Image, file: str | io.BytesIO, name: str) -> Image.Image:
    """Return a TIFF as Pillow opened it, or otherwise where that is wrong.

    Of a raw file, the preview in it is taken; of a TIFF that Pillow misreads, the first page.
    """
    try:
        preview = _open_raw(file, name)
    except ImageError:
        image.close()
        raise
    if preview is None:
        from simsearch.images.tiff import open_tiff, read_as_written

        if read_as_written(image):
            if _is_mapped_wrongly(image):
                image.filename = ""  # type: ignore[attr-defined]
            return image
        preview = open_tiff(file)
    image.close()
    return preview


def copy_of(image: Image.Image) -> Image.Image:
    """Copy a caller's image, decoded; of a TIFF that lies on its side with its rows in order."""
    if image.format == "TIFF" and _is_mapped_wrongly(image):
        name = image.filename  # type: ignore[attr-defined]
        image.filename = ""  # type: ignore[attr-defined]
        try:
            image.load()
        finally:
            image.filename = name  # type: ignore[attr-defined]
    return image.copy()


def _is_mapped_wrongly(image: Image.Image) -> bool:
    """Tell whether an image lies on its side, in a file that Pillow may map into memory.

    Pillow maps uncompressed TIFFs by their upright size, which mixes up the rows of such a one. It
    maps no image without a file name.
    """
    from simsearch.images.orientation import lies_on_its_side

    return lies_on_its_side(image) and bool(getattr(image, "filename", ""))


def _open_raw(file: str | io.BytesIO, name: str) -> Image.Image | None:
    """Open the preview in a raw file of a camera; None if the file's name is not that of one.

    Raises
    ------
    ImageError
        If rawpy is not installed, or the file has no preview.
    """
    if suffix_of(name) not in RAW_SUFFIXES:
        return None
    if not can_read_raw():
        raise ImageError(RAW_REASON)
    from simsearch.images.raw import open_preview

    return open_preview(file)


def _open_png(file: str | io.BytesIO, head: bytes) -> Image.Image | None:
    """Open a PNG without its text and its damaged extras."""
    if not head.startswith(PNG_START):
        return None
    return open_clean_png(_read(file))


def _open_tiff(file: str | io.BytesIO, head: bytes) -> Image.Image | None:
    """Open a TIFF of a kind that Pillow does not know."""
    if head[:4] not in TIFF_STARTS:
        return None
    from simsearch.images.tiff import open_tiff

    return open_tiff(file)


def _read(file: str | io.BytesIO, size: int = -1) -> bytes:
    if isinstance(file, str):
        with open(file, "rb") as stream:  # noqa: PTH123
            return stream.read(size)
    file.seek(0)
    return file.read(size)
