"""Pixel signatures of whole pictures: a perceptual hash and a small thumbnail, 1.1 KB each.

They tell which pairs may show one picture, and in what position; `confirm` decides on the pixels.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

from simsearch.errors import QueryError

if TYPE_CHECKING:
    from numpy.typing import NDArray


SIGNATURE_VERSION = 1  # of what a row holds: rows of two versions cannot be compared
THUMBNAIL_SIDE = 32  # pixels of the luminance, whatever the aspect ratio
CHROMA_SIDE = 4
DCT_SIDE = 8  # frequencies of each axis in the hash
BLANK_DETAIL = 0.5  # mean step between neighbouring pixels of a thumbnail, in levels of 0 to 255
BAND_BITS = 16
MAX_DISTANCE = 7  # of hashes, in bits: all pairs up to it are found
PAIRS_AT_ONCE = 1 << 22  # 100 MB
WHOLE_CORRELATION, PART_CORRELATION = 0.5, 0.7  # least of two thumbnails that are worth a decode
ASPECT_TOLERANCE = 0.08  # of two pictures that are compared whole, as a logarithm
SEARCH_SIDE = 40  # pixels of the longer side, for the search of one picture within the other
SCALE_STEP, LEAST_SCALE = 0.92, 0.38

SIGNATURE = np.dtype(
    [
        ("hash", np.uint64),  # signs of the 63 lowest frequencies of the whole picture
        ("inner_hash", np.uint64),  # the same without a margin of one colour
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


class Alignment(NamedTuple):
    """Where one of two pictures may lie in the other.

    Attributes
    ----------
    score : float
        Correlation of the thumbnails there, in [-1, 1].
    orientation : int
        What `orient` does to the second picture first: 0 to 7.
    swapped : bool
        Whether the second picture lies in the first.
    box : tuple of float
        (left, top, right, bottom) of the one in the other, as fractions of width and height.
    """

    score: float
    orientation: int
    swapped: bool
    box: tuple[float, float, float, float]


def signature(image: Image.Image) -> np.void:
    """Make the signature of a picture.

    Parameters
    ----------
    image
        The whole picture, upright and RGB, as `load_image` gives it. A JPEG that was decoded at a
        half or a quarter of its size (`min_side` of 64 or more) gives nearly the same signature,
        but for its width and height.

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
    small = image.resize((64, 64), Image.Resampling.BOX, reducing_gap=2.0)
    y, cb, cr = small.convert("YCbCr").split()
    luma = y.resize((THUMBNAIL_SIDE,) * 2, Image.Resampling.BOX)
    row = np.zeros((), SIGNATURE)
    row["width"], row["height"] = image.size
    pixels = np.asarray(y, np.float32)
    row["hash"] = _dct_hash(pixels)
    row["inner_hash"] = _inner_hash(image, pixels, int(row["hash"]))
    row["luma"] = np.asarray(luma)
    row["detail"] = _detail(np.asarray(luma, np.float32))
    row["entropy"] = y.entropy()
    row["color"] = np.asarray(small).mean(axis=(0, 1)).round()
    for i, channel in enumerate((cb, cr)):
        values = np.asarray(channel.resize((CHROMA_SIDE,) * 2, Image.Resampling.BOX), np.int16)
        row["chroma"][i] = (values - 128).clip(-128, 127)
    return row[()]


def is_blank(signatures: NDArray[np.void]) -> NDArray[np.bool_]:
    """Tell which signatures show (nearly) nothing, such as white on white: (N,).

    They are alike whatever their files hold, so nothing is said about them.
    """
    return signatures["detail"] < BLANK_DETAIL


def orient(pixels: NDArray[np.generic], orientation: int) -> NDArray[np.generic]:
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


def candidates(
    signatures: NDArray[np.void], max_distance: int = MAX_DISTANCE
) -> NDArray[np.int64]:
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
    codes = [np.empty(0, np.int64)]
    for shift in range(0, 64, BAND_BITS):
        codes.append(np.unique(_near_in_band(hashes, owners, shift, max_distance, count)))
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
    found = []
    flips = [0] + [1 << bit for bit in range(BAND_BITS)] if max_distance > 3 else [0]
    for orientation in range(8):
        keys = ((variants[:, orientation] >> np.uint64(shift)) & mask).astype(np.int64)
        for flip in flips:
            left, bucket = starts[keys ^ flip], starts[(keys ^ flip) + 1]
            for block in _blocks(bucket - left):
                i, j = _expand(left[block], bucket[block], block.start)
                near = owners[order[j]] < owners[i]
                i, j = i[near], order[j[near]]
                apart = np.bitwise_count(variants[i, orientation] ^ hashes[j])
                close = apart <= max_distance
                found.append(owners[j[close]] * count + owners[i[close]])
    return np.concatenate(found) if found else np.empty(0, np.int64)


def _blocks(sizes: NDArray[np.int64]) -> list[slice]:
    """Cut rows into runs of about `PAIRS_AT_ONCE` pairs."""
    total = np.cumsum(sizes)
    cuts = np.searchsorted(total, np.arange(PAIRS_AT_ONCE, total[-1] if len(total) else 0,
                                            PAIRS_AT_ONCE))
    edges = np.unique(np.concatenate([[0], cuts, [len(sizes)]]))
    return [slice(int(a), int(b)) for a, b in zip(edges[:-1], edges[1:], strict=True)]


def _expand(
    left: NDArray[np.int64], right: NDArray[np.int64], first: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """List (row, place) for every place in left[row] to right[row]."""
    sizes = right - left
    row = np.repeat(np.arange(len(left)), sizes)
    place = np.arange(len(row)) - np.repeat(np.cumsum(sizes) - sizes, sizes) + left[row]
    return row + first, place


def alignments(a: np.void, b: np.void) -> list[Alignment]:
    """Find the positions, by falling score, in which two pictures may be one: at most four.

    Compared whole in eight orientations, and upright one within the other, from its full size down
    to about 40%. An empty list: they are not copies of each other, as far as can be seen at
    32 × 32 pixels.
    """
    if is_blank(a) or is_blank(b):
        return []
    found = _whole_alignments(a, b)
    if not found or found[0].score < 0.95:
        thumbnails = _thumbnail(a), _thumbnail(b)
        for swapped in (False, True):
            score, box = _contained(*(thumbnails[::-1] if swapped else thumbnails))
            if score >= PART_CORRELATION:
                found.append(Alignment(score, 0, swapped, box))
    return sorted(found, key=lambda each: -each.score)


def _whole_alignments(a: np.void, b: np.void) -> list[Alignment]:
    pixels_a, pixels_b = _standardized(a["luma"]), _standardized(b["luma"])
    ratio_a, ratio_b = (float(each["width"]) / float(each["height"]) for each in (a, b))
    found = []
    for orientation in range(8):
        ratio = 1 / ratio_b if orientation % 2 else ratio_b
        if abs(np.log(ratio_a / ratio)) < ASPECT_TOLERANCE:
            score = float((pixels_a * orient(pixels_b, orientation)).mean())
            if score >= WHOLE_CORRELATION:
                found.append(Alignment(score, orientation, False, (0.0, 0.0, 1.0, 1.0)))
    return sorted(found, key=lambda each: -each.score)[:2]


def _standardized(luma: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Take most of the shading away; mean 0, variance 1."""
    image = Image.fromarray(luma).convert("F")
    coarse = image.resize((4, 4), Image.Resampling.BOX).resize(image.size, Image.Resampling.BICUBIC)
    pixels = np.asarray(image) - np.float32(0.7) * np.asarray(coarse)
    pixels = pixels - pixels.mean()
    scaled: NDArray[np.float32] = pixels / (np.sqrt((pixels * pixels).mean()) + np.float32(1e-3))
    return scaled


def _thumbnail(row: np.void) -> Image.Image:
    """Bring a thumbnail back to its aspect ratio."""
    width, height = float(row["width"]), float(row["height"])
    scale = SEARCH_SIDE / max(width, height)
    size = max(4, round(width * scale)), max(4, round(height * scale))
    image = Image.fromarray(row["luma"]).convert("F")
    return image.resize(size, Image.Resampling.BILINEAR)


def _contained(
    inner: Image.Image, outer: Image.Image
) -> tuple[float, tuple[float, float, float, float]]:
    """Search a picture in another at several scales: normalised cross-correlation, and the box."""
    width, height = outer.size
    pixels = np.asarray(outer, np.float32)
    pixels = pixels - pixels.mean()
    spectrum = np.fft.rfft2(pixels)
    sums, squares = (
        np.pad(each, ((1, 0), (1, 0))).cumsum(0).cumsum(1) for each in (pixels, pixels * pixels)
    )
    best, box = 0.0, (0.0, 0.0, 1.0, 1.0)
    largest = min(width / inner.width, height / inner.height)
    for scale in largest * SCALE_STEP ** np.arange(np.log(LEAST_SCALE) / np.log(SCALE_STEP)):
        w, h = round(inner.width * scale), round(inner.height * scale)
        if min(w, h) < 8:
            break
        part = np.asarray(inner.resize((w, h), Image.Resampling.BILINEAR), np.float32)
        part = part - part.mean()
        products = np.fft.irfft2(spectrum * np.fft.rfft2(part, (height, width)).conj(), outer.size[::-1])
        variance = _windows(squares, w, h) - _windows(sums, w, h) ** 2 / (w * h)
        scale_of = np.maximum(variance, w * h) * max(float((part * part).sum()), w * h)
        scores = products[: height - h + 1, : width - w + 1] / np.sqrt(scale_of)
        y, x = np.unravel_index(int(scores.argmax()), scores.shape)
        if scores[y, x] > best:
            best = float(scores[y, x])
            box = (x / width, y / height, (x + w) / width, (y + h) / height)
    return best, box


def _windows(sums: NDArray[np.float32], width: int, height: int) -> NDArray[np.float32]:
    """Sum over every window of a size, from cumulative sums."""
    across = sums[:, width:] - sums[:, :-width]
    down: NDArray[np.float32] = across[height:] - across[:-height]
    return down


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
        order, sign = number, np.zeros((8, 8), np.uint8)
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
    return np.cos(angles).astype(np.float32)


def _dct_hash(pixels: NDArray[np.float32]) -> np.uint64:
    """Signs of the lowest cosine coefficients of (64, 64) luminances, but for the mean."""
    dct = _dct_matrix()
    bits = (dct @ (pixels - pixels.mean()) @ dct.T > 0).ravel()
    bits[0] = False
    return np.packbits(bits).view("<u8")[0].astype(np.uint64)


def _inner_hash(image: Image.Image, pixels: NDArray[np.float32], whole: int) -> np.uint64:
    """Hash of what is left without margins of one colour; that of the whole without margins."""
    flat_rows = np.ptp(pixels, axis=1) <= 8
    flat_columns = np.ptp(pixels, axis=0) <= 8
    rows, columns = np.flatnonzero(~flat_rows), np.flatnonzero(~flat_columns)
    if not (flat_rows[[0, -1]].any() or flat_columns[[0, -1]].any()) or not rows.size * columns.size:
        return np.uint64(whole)
    x, y = image.width / 64, image.height / 64
    box = (columns[0] * x, rows[0] * y, (columns[-1] + 1) * x, (rows[-1] + 1) * y)
    if min(box[2] - box[0], box[3] - box[1]) < 8:
        return np.uint64(whole)
    inner = image.resize((64, 64), Image.Resampling.BOX, box, reducing_gap=2.0).convert("L")
    return _dct_hash(np.asarray(inner, np.float32))


def _detail(luma: NDArray[np.float32]) -> float:
    steps = np.abs(np.diff(luma, axis=0)).mean() + np.abs(np.diff(luma, axis=1)).mean()
    return float(steps) / 2
