"""Pixels that a file's decoder will hold, read from its stream: a container may state fewer.

AV1 and HEVC in AVIF and HEIC files, and the tiles of a TIFF. Nothing is decoded.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from simsearch.errors import ImageError
from simsearch.images import decode

if TYPE_CHECKING:
    from PIL import Image

TILE_WIDTH, TILE_LENGTH = 322, 323  # tags of a TIFF
CONTAINERS = {"meta": 4, "iprp": 0, "moov": 0, "trak": 0, "mdia": 0, "minf": 0, "stbl": 0}
MAX_DEPTH = 8  # of boxes in boxes
MAX_UNITS = 10_000  # of a stream, or boxes of a file, that are looked through
SEQUENCE_HEADER = 1  # type of an AV1 unit
PARAMETER_SET = 33  # type of an HEVC unit
CODED_BY_ITEM = {"av01": "av1C", "hvc1": "hvcC", "hev1": "hvcC"}


class Box(NamedTuple):
    """A box of an ISO base media file."""

    kind: str
    content: bytes


def check_stream(image: Image.Image) -> int:
    """Return how many pixels the decoder of an open file holds, as `coded_pixels` does.

    Raises
    ------
    ImageError
        If it is a JPEG of too many scans, or holds far more pixels than it states and than is read.
    """
    if image.format in {"JPEG", "MPO"}:
        from simsearch.images.scans import check_scans

        check_scans(image)
        return image.width * image.height
    pixels = coded_pixels(image)
    if pixels > decode.MAX_PIXELS >= image.width * image.height:
        raise ImageError(
            f"{pixels:,} pixels in a file that states {image.width}×{image.height}, over the limit "
            f"of {decode.MAX_PIXELS:,}"
        )
    return pixels


def coded_pixels(image: Image.Image) -> int:
    """Return how many pixels the decoder of an open file holds: at least those that it states."""
    stated = image.width * image.height
    if image.format == "TIFF":
        tags = getattr(image, "tag_v2", {})
        return max(stated, int(tags.get(TILE_WIDTH, 0)) * int(tags.get(TILE_LENGTH, 0)))
    stream = getattr(image, "fp", None)
    if stream is None or image.format not in {"AVIF", "HEIF"}:  # None: it is decoded already
        return stated
    stream.seek(0)
    return max(stated, pixels_of_stream(stream.read()))


def pixels_of_stream(data: bytes) -> int:
    """Return the pixels of all that is decoded for the main picture; 0 where they are not found.

    Tiles, and what goes with the picture, such as its transparency, are counted with it.
    """
    try:
        boxes = list(islice(_boxes(data), MAX_UNITS))
        return max(_pixels_of_items(boxes, data), _pixels_of_tracks(boxes, data))
    except (struct.error, IndexError, ValueError):  # cut short or malformed: left to the decoder
        return 0


def _boxes(data: bytes, depth: int = 0) -> Iterator[Box]:
    """Yield all boxes of a file, those in others after these."""
    place = 0
    while place + 8 <= len(data):
        size, name = struct.unpack_from(">I4s", data, place)
        head = 8
        if size == 1:
            (size,), head = struct.unpack_from(">Q", data, place + 8), 16
        end = place + size if size else len(data)
        if end < place + head:
            return
        kind, content = name.decode("latin-1"), data[place + head : end]
        yield Box(kind, content)
        if kind in CONTAINERS and depth < MAX_DEPTH:
            yield from _boxes(content[CONTAINERS[kind] :], depth + 1)
        place = end


def _first(boxes: list[Box], kind: str) -> bytes | None:
    return next((box.content for box in boxes if box.kind == kind), None)


def _pixels_of_items(boxes: list[Box], data: bytes) -> int:
    """Add up the tiles of the main picture, or of what belongs to it, whichever has more."""
    main, kinds = _first(boxes, "pitm"), _item_kinds(boxes)
    if main is None or not kinds:
        return 0
    primary = int.from_bytes(main[4:] if main[0] else main[4:6], "big")
    extents, settings, references = _extents(boxes, data), _settings(boxes), _references(boxes)
    pictures = [primary, *(source for kind, source, _ in references if kind == "auxl")]
    return max(
        sum(
            _item_size(extents.get(item, b""), settings.get(item, []), kinds.get(item, ""))
            for item in _with_tiles(picture, references)
        )
        for picture in pictures
    )


def _item_size(data: bytes, settings: list[Box], kind: str) -> int:
    """Return the pixels of one item; 0 where it is made of others."""
    coding = CODED_BY_ITEM.get(kind)
    if coding is None:
        return 0
    own = [box for box in settings if box.kind == coding]
    sizes = [_coded_size(box.content, coding) for box in own]
    return max(*sizes, _stream_size(data, coding, own), 0)


def _item_kinds(boxes: list[Box]) -> dict[int, str]:
    """Return the kind of each item, such as "av01"."""
    content = _first(boxes, "iinf") or b""
    kinds = {}
    for box in _boxes(content[8 if content[:1] != b"\0" else 6 :]):
        if box.kind == "infe" and box.content[0] >= 2:
            width = 2 if box.content[0] == 2 else 4
            number = int.from_bytes(box.content[4 : 4 + width], "big")
            kinds[number] = box.content[6 + width : 10 + width].decode("latin-1")
    return kinds


def _references(boxes: list[Box]) -> list[tuple[str, int, set[int]]]:
    """Return which item refers to which others, and as what."""
    content = _first(boxes, "iref") or b""
    width = 4 if content[:1] == b"\1" else 2
    found = []
    for box in _boxes(content[4:]):
        numbers = [
            int.from_bytes(box.content[at : at + width], "big")
            for at in (0, *range(width + 2, len(box.content), width))
        ]
        found.append((box.kind, numbers[0], set(numbers[1:])))
    return found


def _with_tiles(picture: int, references: list[tuple[str, int, set[int]]]) -> set[int]:
    """Return an item with those that it is made of."""
    found, waiting = set[int](), [picture]
    while waiting:
        item = waiting.pop()
        if item not in found:
            found.add(item)
            for kind, source, targets in references:
                if kind == "dimg" and source == item:
                    waiting += targets
    return found


def _settings(boxes: list[Box]) -> dict[int, list[Box]]:
    """Return the properties of each item."""
    properties = list(_boxes(_first(boxes, "ipco") or b""))
    content = _first(boxes, "ipma") or bytes(8)
    version, flags = content[0], content[3]
    width, size = (4 if version else 2), (2 if flags & 1 else 1)
    found: dict[int, list[Box]] = {}
    place = 8
    for _ in range(int.from_bytes(content[4:8], "big")):
        item = int.from_bytes(content[place : place + width], "big")
        count, place = content[place + width], place + width + 1
        for at in range(place, place + count * size, size):
            index = int.from_bytes(content[at : at + size], "big") & (0x7FFF if size == 2 else 0x7F)
            if 0 < index <= len(properties):
                found.setdefault(item, []).append(properties[index - 1])
        place += count * size
    return found


def _extents(boxes: list[Box], data: bytes) -> dict[int, bytes]:
    """Return the bytes of each item."""
    content = _first(boxes, "iloc")
    if content is None:
        return {}
    version = content[0]
    widths = (content[4] >> 4, content[4] & 15, content[5] >> 4, content[5] & 15)
    offset_width, length_width, base_width, index_width = widths
    reader = _Fields(content, 6)
    found, left = {}, 2 * len(data) + MAX_UNITS
    for _ in range(reader.take(4 if version == 2 else 2)):
        item = reader.take(4 if version == 2 else 2)
        method = reader.take(2) & 15 if version else 0
        reader.take(2)  # of the file
        base = reader.take(base_width)
        source = (_first(boxes, "idat") or b"") if method == 1 else data
        parts = []
        for _ in range(reader.take(2)):
            reader.take(index_width if version else 0)
            start, length = base + reader.take(offset_width), reader.take(length_width)
            parts.append(source[start : start + length] if length else source[start:])
            left -= len(parts[-1]) + 1
            if left < 0:
                raise ValueError("the same bytes over and over")
        found[item] = b"".join(parts)
    return found


class _Fields:
    """Whole numbers of given widths in bytes, one after the other."""

    def __init__(self, data: bytes, place: int) -> None:
        self._data, self._place = data, place

    def take(self, width: int) -> int:
        """Read the next number."""
        if self._place + width > len(self._data):
            raise ValueError("cut short")
        self._place += width
        return int.from_bytes(self._data[self._place - width : self._place], "big")


def _pixels_of_tracks(boxes: list[Box], data: bytes) -> int:
    """Return the largest frame at the start of a track, of an animation."""
    sizes = [0]
    for box in boxes:
        if box.kind in {"stco", "co64"} and len(box.content) > 8:
            width = 4 if box.kind == "stco" else 8
            start = int.from_bytes(box.content[8 : 8 + width], "big")
            sizes.append(
                max((_sequence_size(unit) for unit in _av1_units(data[start:])), default=0)
            )
    return max(sizes)


def _coded_size(content: bytes, coding: str) -> int:
    """Return the pixels that a coding's own box states: av1C or hvcC."""
    if coding == "av1C":
        return max((_sequence_size(unit) for unit in _av1_units(content[4:])), default=0)
    return max((_parameter_size(unit) for unit in _hevc_sets(content)), default=0)


def _stream_size(data: bytes, coding: str, own: list[Box]) -> int:
    """Return the pixels that the stream of an item states."""
    if coding == "av1C":
        return max((_sequence_size(unit) for unit in _av1_units(data)), default=0)
    width = (own[0].content[21] & 3) + 1 if own else 4
    return max((_parameter_size(unit) for unit in _hevc_units(data, width)), default=0)


def _av1_units(data: bytes) -> Iterator[bytes]:
    """Yield the sequence headers of an AV1 stream."""
    place = 0
    for _ in range(MAX_UNITS):
        if place >= len(data):
            return
        head = data[place]
        place += 2 if head & 4 else 1
        size = len(data) - place
        if head & 2:
            size, place = _leb128(data, place)
        if head >> 3 & 15 == SEQUENCE_HEADER:
            yield data[place : place + size]
        place += size


def _leb128(data: bytes, place: int) -> tuple[int, int]:
    """Return a number of seven bits a byte, and the place after it."""
    value = 0
    for i in range(8):
        byte = data[place + i]
        value |= (byte & 127) << 7 * i
        if byte < 128:
            return value, place + i + 1
    return value, place + 8


def _hevc_sets(content: bytes) -> Iterator[bytes]:
    """Yield the units of an hvcC box."""
    place = 23
    for _ in range(content[22]):
        count, place = int.from_bytes(content[place + 1 : place + 3], "big"), place + 3
        for _ in range(count):
            size = int.from_bytes(content[place : place + 2], "big")
            yield content[place + 2 : place + 2 + size]
            place += 2 + size


def _hevc_units(data: bytes, width: int) -> Iterator[bytes]:
    """Yield the units of an HEVC stream, each after its length."""
    place = 0
    for _ in range(MAX_UNITS):
        if place + width > len(data):
            return
        size, place = int.from_bytes(data[place : place + width], "big"), place + width
        yield data[place : place + size]
        place += size


class _Bits:
    """Bits, the highest first."""

    def __init__(self, data: bytes) -> None:
        self._bits = int.from_bytes(data, "big")
        self._left = 8 * len(data)

    def take(self, count: int) -> int:
        """Read a number of so many bits."""
        self._left -= count
        if self._left < 0:
            raise ValueError("cut short")
        return self._bits >> self._left & ((1 << count) - 1)

    def golomb(self) -> int:
        """Read an Exp-Golomb code."""
        zeros = 0
        while not self.take(1):
            zeros += 1
        return (1 << zeros) - 1 + self.take(zeros)


def _sequence_size(unit: bytes) -> int:
    """Return the largest frame of an AV1 sequence in pixels (AV1 specification, 5.5.1)."""
    bits = _Bits(unit[:256])
    bits.take(4)  # profile, still picture
    if bits.take(1):  # the short header
        bits.take(5)
    else:
        _skip_operating_points(bits)
    widths = bits.take(4) + 1, bits.take(4) + 1
    return (bits.take(widths[0]) + 1) * (bits.take(widths[1]) + 1)


def _skip_operating_points(bits: _Bits) -> None:
    delay_bits = 0
    if bits.take(1):  # timing
        bits.take(64)
        if bits.take(1):
            bits.golomb()
        if bits.take(1):  # decoder model
            delay_bits = bits.take(5) + 1
            bits.take(42)
    display_delay = bits.take(1)
    for _ in range(bits.take(5) + 1):
        bits.take(12)
        if bits.take(5) > 7:
            bits.take(1)
        if delay_bits and bits.take(1):
            bits.take(2 * delay_bits + 1)
        if display_delay and bits.take(1):
            bits.take(4)


def _parameter_size(unit: bytes) -> int:
    """Return the frame of an HEVC sequence in pixels (H.265, 7.3.2.2); 0 for another unit."""
    if len(unit) < 2 or unit[0] >> 1 & 63 != PARAMETER_SET:
        return 0
    bits = _Bits(unit[2:512].replace(b"\0\0\3", b"\0\0"))
    bits.take(4)
    layers = bits.take(3)
    bits.take(1 + 96)  # nesting; general profile, tier and level
    present = [(bits.take(1), bits.take(1)) for _ in range(layers)]
    bits.take(2 * (8 - layers) if layers else 0)
    for profile, level in present:
        bits.take(88 * profile + 8 * level)
    bits.golomb()
    if bits.golomb() == 3:  # 4:4:4, perhaps in separate planes
        bits.take(1)
    return bits.golomb() * bits.golomb()
