"""Arrays told apart by shape, dtype and values: pixels of a picture, or embeddings."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from simsearch.errors import ArrayError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    from numpy.typing import NDArray

UNIT_NORM_ERROR = 1e-2  # by which the norm of a float16 unit row may be off


def pixel_fault(array: NDArray[Any]) -> str | None:
    """Say why an array is not the pixels of a picture; None if it can be."""
    if array.ndim not in (2, 3) or array.shape[2:] not in {(), (1,), (3,), (4,)} or not array.size:
        return "the shape must be (H, W), (H, W, 1), (H, W, 3) or (H, W, 4)"
    if array.dtype.kind == "f":
        fits = array.min() >= 0 and array.max() <= 1  # False with a NaN
        return None if fits else "float values must lie in [0, 1]; give uint8 for [0, 255]"
    if array.dtype.kind == "b" or array.dtype.newbyteorder("=") in (np.uint8, np.uint16):
        return None
    return f"dtype {array.dtype} is not bool, uint8, uint16 or float"


def has_unit_rows(array: NDArray[Any]) -> bool:
    """Tell whether all vectors along the last axis are floats of unit L2 norm."""
    if array.dtype.kind != "f" or not array.size:
        return False
    with np.errstate(over="ignore", invalid="ignore"):
        norms = np.linalg.norm(array.astype(np.float64), axis=-1)
        return bool((np.abs(norms - 1) <= UNIT_NORM_ERROR).all())


def embedding_sign(array: NDArray[Any], dim: int) -> str | None:
    """Say why an array that can be a picture looks like embeddings instead; None if it does not.

    Parameters
    ----------
    array
        Without a `pixel_fault`.
    dim
        Width of the embeddings that might be meant.
    """
    grey = array.reshape(array.shape[:2]) if array.shape[2:] == (1,) else array
    if grey.ndim == 3:
        unit = grey.shape[2] == dim and has_unit_rows(grey)
        return "each of its pixels has unit norm, as an embedding has" if unit else None
    if 1 in grey.shape:
        return "a picture one pixel high or wide looks like an embedding"
    if has_unit_rows(grey):
        return "its rows have unit norm, as embeddings have"
    if len(grey) == dim and has_unit_rows(grey.T):
        return "its columns have unit norm, as transposed embeddings have"
    return None


def check_pictures(images: Sequence[Any] | NDArray[Any], dim: int) -> None:
    """Refuse arrays among images that are, or may be, embeddings of `dim` numbers.

    Raises
    ------
    ArrayError
        If an array is one pixel high or wide, has rows of unit norm, or is a grey picture of
        floats that is `dim` pixels wide; or if the images are themselves one array of pixels, or
        one image.
    """
    if isinstance(images, (str, bytes, Mapping)) or not hasattr(images, "__getitem__"):
        raise ArrayError(f"give a list of images, such as [image], not {reprlib.repr(images)}")
    if isinstance(images, np.ndarray) and pixel_fault(images) is None:
        raise ArrayError(
            f"array {images.shape} is one picture, or embeddings: give a list of images, such as "
            "[Image.fromarray(array)]; embeddings need not be embedded, search takes them"
        )
    for array in _arrays(images):
        if pixel_fault(array) is None:
            wide = array.ndim == 2 and array.shape[1] == dim and array.dtype.kind == "f"
            sign = "it may be a picture or embeddings" if wide else None
            if sign := embedding_sign(array, dim) or sign:
                raise refuse(array, sign, dim)


def _arrays(images: Iterable[Any]) -> list[NDArray[Any]]:
    return [image for image in images if isinstance(image, np.ndarray)]


def refuse(array: NDArray[Any], reason: str, dim: int) -> ArrayError:
    """Return the error for an array, with the two ways to say what is meant."""
    return ArrayError(
        f"{reason}; say what is meant: Image.fromarray(array) is a picture, array[0] of shape "
        f"({dim},) an embedding",
        f"array {array.shape} of {array.dtype}",
    )
