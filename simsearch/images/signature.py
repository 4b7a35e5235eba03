"""Pixel signatures of whole pictures: perceptual hashes and a small thumbnail, 1.1 KB each.

They tell which pairs may show one picture; `alignment` says where, and `confirm` decides.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from simsearch.errors import QueryError
from simsearch.images.content_box import content_box

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from simsearch.images.content_box import Box


SIGNATURE_VERSION = 2  # of what a row holds: rows of two versions cannot be compared
THUMBNAIL_SIDE = 32  # pixels of the luminance, whatever the aspect ratio
CHROMA_SIDE = 4
DCT_SIDE = 8  # frequencies of each axis in the hash
BLANK_DETAIL = 0.5  # mean step between neighbouring pixels of a thumbnail, in levels of 0 to 255
BAND_BITS = 16
MAX_DISTANCE = 7  # of hashes, in bits: all pairs up to it are found
PAIRS_AT_ONCE = 1 << 22  # 100 MB

SIGNATURE = np.dtype(
    [
        ("hash", np.uint64),  # signs of the 63 lowest frequencies of the whole picture
        ("inner_hash", np.uint64),  # the same of what lies on plain ground, in a border or screen
        ("content", np.float32, (4,)),  # where: left, top, right, bottom as fractions
        ("width", np.uint32),
        ("height", np.uint32),
        ("detail", np.float32),  # mean step between neighbours of the thumbnail, in levels
        ("entropy", np.float32),  # of the luminance, in bits
        ("color", np.uint8, (3,)),  # mean RGB
        ("luma", np.uint8, (THUMBNAIL_SIDE, THUMBNAIL_SIDE)),
        ("chroma", np.int8, (2, CHROMA_SIDE, CHROMA_SIDE)),  # Cb, Cr
    ]
)
"""One signature; an (N,) array of it can be saved with `np.save`, without pickle."""


def signature(image: Image.Image, size: tuple[int, int] | None = None) -> np.void:
    """Make the signature of a picture.

    Parameters
    ----------
    image
        The whole picture, upright and RGB, as `load_image` gives it. A JPEG may have been decoded
        at a part of its size (`min_side` of 128 or more).
    size
        Width and height of the upright picture in its file, if it was decoded at a part of these.

    Returns
    -------
    numpy.void
        One row of dtype `SIGNATURE`.

    Raises
    ------
    QueryError
        If the image is not RGB.
    """
    if image.mode != "RGB":
        raise QueryError(f"a signature is made of an RGB image, not {image.mode}: use load_image")
    medium = image.resize((128, 128), Image.Resampling.BOX, reducing_gap=2.0)
    small = medium.reduce(2)
    y, cb, cr = small.convert("YCbCr").split()
    luma = y.resize((THUMBNAIL_SIDE,) * 2, Image.Resampling.BOX)
    row = np.zeros((), SIGNATURE)
    row["width"], row["height"] = size or image.size
    pixels = np.asarray(y, np.float32)
    row["hash"] = _dct_hash(pixels)
    row["inner_hash"], row["content"] = _content(image, int(row["hash"]))
    row["luma"] = np.asarray(luma)
    row["detail"] = _detail(np.asarray(luma, np.float32))
    row["entropy"] = y.entropy()
    row["color"] = np.asarray(small).mean(axis=(0, 1)).round()
    for i, channel in enumerate((cb, cr)):
        values = np.asarray(channel.resize((CHROMA_SIDE,) * 2, Image.Resampling.BOX), np.int16)
        row["chroma"][i] = (values - 128).clip(-128, 127)
    made: np.void = row[()]  # type: ignore[assignment]
    return made


def is_blank(signatures: NDArray[np.void] | np.void) -> Any:  # noqa: ANN401 (an array of bool, or one)
    """Tell which signatures show (nearly) nothing, such as white on white: (N,).

    They are alike whatever their files hold, so nothing is said about them.
    """
    return signatures["detail"] < BLANK_DETAIL


def orient(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Mirror an (H, W, ...) array if the orientation is 4 to 7, then turn it left by quarters."""
    return np.rot90(pixels[:, ::-1] if orientation >= 4 else pixels, orientation % 4)


def oriented_hashes(hashes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Hashes of the same pictures in the eight orientations of `orient`: (N, 8)."""
    bits = np.unpackbits(hashes.astype("<u8").view(np.uint8).reshape(-1, 8), axis=1)
    orders, flips = _orientation_tables()
    variants = bits[:, orders] ^ flips  # (N, 8, 64)
    variants[:, :, 0] = 0
    packed: NDArray[np.uint64] = np.packbits(variants, axis=2).view("<u8")[:, :, 0]
    return packed.astype(np.uint64)


def candidates(signatures: NDArray[np.void], max_distance: int = MAX_DISTANCE) -> NDArray[np.int64]:
    """Find the pairs whose hashes are near in any of the eight orientations.

    By multi-index hashing: four bands of 16 bits, each looked up as it is and with any one bit
    changed. Two hashes that differ in at most seven bits agree, but for one bit, in one band.

    Parameters
    ----------
    signatures : (N,) array of dtype `SIGNATURE`
    max_distance
        Most bits that differ, in 0 to 7, of 63.

    Returns
    -------
    (P, 2) int64
        Row numbers, the smaller first, in rising order. Blank pictures are in no pair.

    Raises
    ------
    QueryError
        If the distance is out of range.
    """
    if not 0 <= max_distance <= MAX_DISTANCE:
        raise QueryError(f"max_distance={max_distance} is not between 0 and {MAX_DISTANCE}")
    rows = np.flatnonzero(~is_blank(signatures))
    hashes = np.concatenate([signatures["hash"][rows], signatures["inner_hash"][rows]])
    owners = np.concatenate([rows, rows])
    hashes, first = np.unique(np.stack([hashes, owners.astype(np.uint64)], 1), axis=0).T
    owners = first.astype(np.int64)
    count = max(len(signatures), 1)
    shifts = range(0, 64, BAND_BITS)
    bands = [_near_in_band(hashes, owners, each, max_distance, count) for each in shifts]
    codes = [np.unique(each) for each in bands]
    return np.stack(np.divmod(np.unique(np.concatenate(codes)), count), axis=1)


def _near_in_band(
    hashes: NDArray[np.uint64],
    owners: NDArray[np.int64],
    shift: int,
    max_distance: int,
    count: int,
) -> NDArray[np.int64]:
    """Find pairs that agree, but for one bit, in one band; each as smaller * count + larger."""
    variants = oriented_hashes(hashes)  # (M, 8)
    mask = np.uint64(0xFFFF)
    order = np.argsort(hashes >> np.uint64(shift) & mask, kind="stable")
    sorted_keys = (hashes[order] >> np.uint64(shift)) & mask
    starts = np.searchsorted(sorted_keys, np.arange(1 << BAND_BITS, dtype=np.uint64))
    starts = np.append(starts, len(order))
    hashes, sorted_owners = hashes[order], owners[order]
    found = []
    flips = [0] + [1 << bit for bit in range(BAND_BITS)] if max_distance > 3 else [0]
    for orientation in range(8):
        keys = ((variants[:, orientation] >> np.uint64(shift)) & mask).astype(np.int64)
        for flip in flips:
            left, bucket = starts[keys ^ flip], starts[(keys ^ flip) + 1]
            for block in _blocks(bucket - left):
                i, j = _expand(left[block], bucket[block], block.start)
                close = count_bits(variants[i, orientation] ^ hashes[j]) <= max_distance
                i, j = owners[i[close]], sorted_owners[j[close]]
                found.append((j * count + i)[j < i])
    return np.concatenate(found) if found else np.empty(0, np.int64)


def count_bits(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Count the bits of each number."""
    if hasattr(np, "bitwise_count"):  # numpy 2.0
        return np.bitwise_count(values).astype(np.uint64)
    pairs = values - ((values >> np.uint64(1)) & np.uint64(0x5555555555555555))
    fours = (pairs & np.uint64(0x3333333333333333)) + (
        (pairs >> np.uint64(2)) & np.uint64(0x3333333333333333)
    )
    bytes_ = (fours + (fours >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    counts: NDArray[np.uint64] = (bytes_ * np.uint64(0x0101010101010101)) >> np.uint64(56)
    return counts


def _blocks(sizes: NDArray[np.int64]) -> list[slice]:
    """Cut rows into runs of about `PAIRS_AT_ONCE` pairs."""
    total = np.cumsum(sizes)
    cuts = np.searchsorted(
        total, np.arange(PAIRS_AT_ONCE, total[-1] if len(total) else 0, PAIRS_AT_ONCE)
    )
    edges = np.unique(np.concatenate([[0], cuts, [len(sizes)]]))
    return [slice(int(a), int(b)) for a, b in pairwise(edges)]


def _expand(
    left: NDArray[np.int64], right: NDArray[np.int64], first: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """List (row, place) for every place in left[row] to right[row]."""
    sizes = right - left
    row = np.repeat(np.arange(len(left)), sizes)
    place = np.arange(len(row)) - np.repeat(np.cumsum(sizes) - sizes, sizes) + left[row]
    return row + first, place


@lru_cache(maxsize=1)
def _orientation_tables() -> tuple[NDArray[np.intp], NDArray[np.uint8]]:
    """Order of the bits and bits to invert for each orientation: (8, 64) each.

    A mirrored picture has the same cosine coefficients, those of odd order with the other sign;
    a picture turned over its diagonal has them transposed.
    """
    number = np.arange(64).reshape(8, 8)
    odd = np.arange(8) % 2
    orders, flips = [], []
    for orientation in range(8):
        order: NDArray[Any] = number
        sign: NDArray[Any] = np.zeros((8, 8), np.uint8)
        if orientation >= 4:
            sign = sign ^ odd[None, :]
        for _ in range(orientation % 4):  # a quarter to the left: transpose, then upside down
            order, sign = order.T, sign.T ^ odd[:, None]
        orders.append(order.ravel())
        flips.append(sign.ravel())
    return np.array(orders), np.array(flips, np.uint8)


@lru_cache(maxsize=1)
def _dct_matrix() -> NDArray[np.float32]:
    angles = np.pi / 64 * (np.arange(64) + 0.5) * np.arange(DCT_SIDE)[:, None]
    matrix: NDArray[np.float32] = np.cos(angles).astype(np.float32)
    return matrix


def _dct_hash(pixels: NDArray[np.float32]) -> np.uint64:
    """Signs of the lowest cosine coefficients of (64, 64) luminances, but for the mean."""
    dct = _dct_matrix()
    bits = (dct @ (pixels - pixels.mean()) @ dct.T > 0).ravel()
    bits[0] = False
    return np.uint64(np.packbits(bits).view("<u8")[0])


def _content(image: Image.Image, whole: int) -> tuple[np.uint64, Box]:
    """Hash and rectangle of what lies on plain ground; those of the whole if there is none."""
    found = content_box(image)
    if found is None:
        return np.uint64(whole), (0.0, 0.0, 1.0, 1.0)
    left, top, right, bottom = found
    box = left * image.width, top * image.height, right * image.width, bottom * image.height
    inner = image.resize((64, 64), Image.Resampling.BOX, box, reducing_gap=2.0).convert("L")
    return _dct_hash(np.asarray(inner, np.float32)), found


def _detail(luma: NDArray[np.float32]) -> float:
    steps = np.abs(np.diff(luma, axis=0)).mean() + np.abs(np.diff(luma, axis=1)).mean()
    return float(steps) / 2
