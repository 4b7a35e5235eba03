"""Two picture files compared: equal bytes, equal pixels, or one an edited copy of the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from simsearch.errors import SimsearchError
from simsearch.images.confirm import confirm
from simsearch.images.decode import DECODER, has_16_bit_colour, load_image, open_image
from simsearch.images.read import read_file
from simsearch.images.read_signature import read_signature

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from PIL import Image

    from simsearch.images.alignment import Alignment

COMPARED_SIDE = 1024  # pixels: least side of a JPEG that is decoded for a comparison


class Verdict(NamedTuple):
    """How one picture is a copy of another.

    Attributes
    ----------
    level, edit : str
        "identical" or "near", and what was edited.
    derived : int or None
        Which of the two was made of the other, where that is seen; see `confirm.Edit`.
    """

    level: str
    edit: str
    derived: int | None = None

    @property
    def second_may_go(self) -> bool:
        """Tell whether the first picture shows all that the second does, and as well."""
        return self.derived == 1 if self.edit == "crop" else self.derived != 0


def compare_files(a: str, b: str) -> Verdict | None:
    """Compare the pictures of two files on their pixels; None if neither is a copy of the other.

    Of animations and files of several pages, and of pictures that show nothing, only equal bytes
    are copies.

    Raises
    ------
    ImageError
        If one cannot be read.
    """
    if decoder := DECODER.get():
        return decoder.compare(a, b)
    first, second = read_file(a), read_file(b)
    if first == second:
        return Verdict("identical", "identical")
    pictures = load_image(a, COMPARED_SIDE), load_image(b, COMPARED_SIDE)
    read = read_signature(a), read_signature(b)
    if read[0] is None or read[1] is None or max(read[0][1], read[1][1]) > 1:
        return None
    return judge((a, b), pictures, (read[0][0], read[1][0]))


def judge(
    paths: tuple[str, str],
    pictures: tuple[Image.Image, Image.Image],
    signatures: tuple[np.void, np.void],
    positions: Sequence[Alignment] | None = None,
) -> Verdict | None:
    """Compare two pictures that are decoded, perhaps at a part of their size; see `confirm`."""
    edit = confirm(*pictures, signatures, positions)
    if edit is None:
        return None
    if edit.level != "identical":
        return Verdict("near", edit.kind, edit.derived)
    same = equal_pixels(*paths)
    return Verdict("identical", "identical") if same else Verdict("near", "recompressed")


def equal_pixels(a: str, b: str) -> bool:
    """Tell whether two whole pictures, as they are in their files, have equal pixels."""
    if decoder := DECODER.get():
        return decoder.equal(a, b)
    try:
        first, second = load_image(a), load_image(b)
        if first.size != second.size or first.tobytes() != second.tobytes():
            return False
        return _pixels_of_file(a) == _pixels_of_file(b) is not None
    except SimsearchError:
        return False


def _pixels_of_file(path: str) -> tuple[bool, bytes] | None:
    """Return what a picture has beyond 8-bit RGB: its transparency; None for deeper pixels."""
    with open_image(path) as image:
        if has_16_bit_colour(image) or image.mode[0] in "IF":
            return None
        if not image.has_transparency_data:
            return False, b""
        return True, image.convert("RGBA").tobytes()
