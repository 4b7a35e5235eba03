"""Mutations of picture files: bits, numbers, blocks, and the parts that formats are made of."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable, Sequence

NUMBERS = (0, 1, 2, 127, 128, 255, 256, 32_767, 32_768, 65_535, 2**31 - 1, 2**31, 2**32 - 1)
FORMS = ("<B", "<H", ">H", "<I", ">I", ">Q")
MAX_BYTES = 2**17  # of a mutant, but for files that are longer as they are
PNG_START = b"\x89PNG\r\n\x1a\n"


def mutate(data: bytes, rng: random.Random, others: Sequence[bytes] = ()) -> bytes:
    """Change a file in one to four ways."""
    for _ in range(rng.choice((1, 1, 2, 2, 3, 4))):
        way = rng.choice(WAYS)
        data = way(data or b"\0", rng, others)
    return data[: max(MAX_BYTES, 1)]


def _flip(data: bytes, rng: random.Random, _: Sequence[bytes]) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 4, 16))):
        changed[_place(data, rng)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _number(data: bytes, rng: random.Random, _: Sequence[bytes]) -> bytes:
    """Put a number of note where there may be a size, an offset, or a count."""
    form = rng.choice(FORMS)
    size = struct.calcsize(form)
    value = rng.choice(NUMBERS) % 2 ** (8 * size)
    at = _place(data, rng)
    return data[:at] + struct.pack(form, value) + data[at + size :]


def _step(data: bytes, rng: random.Random, _: Sequence[bytes]) -> bytes:
    """Raise or lower a number a little."""
    changed, at = bytearray(data), _place(data, rng)
    changed[at] = (changed[at] + rng.choice((-2, -1, 1, 2, 16))) % 256
    return bytes(changed)


def _block(data: bytes, rng: random.Random, _: Sequence[bytes]) -> bytes:
    """Remove, repeat, or move a block."""
    start, to = _place(data, rng), _place(data, rng)
    end = start + rng.choice((1, 2, 4, 12, 64, 500))
    block, rest = data[start:end], data[:start] + data[end:]
    return rng.choice(
        (
            rest,
            data[:to] + block + data[to:],
            rest[:to] + block + rest[to:],
            data[:start] + block * rng.choice((2, 20, 200)) + data[end:],
        )
    )


def _cut(data: bytes, rng: random.Random, _: Sequence[bytes]) -> bytes:
    return data[: _place(data, rng)] if rng.random() < 0.5 else data + rng.randbytes(20)


def _splice(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    """Begin as one file, and go on as another."""
    other = rng.choice(others) if others else data[::-1]
    if not other:
        return data
    if rng.random() < 0.5:
        return data[: _place(data, rng)] + other[_place(other, rng) :][:MAX_BYTES]
    start, at = _place(other, rng), _place(data, rng)
    block = other[start : start + rng.choice((2, 4, 12, 80))]
    return data[:at] + block + data[at + len(block) :]


def _part(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    """Remove, repeat, swap, or change a whole part: a chunk, a segment, a box."""
    split, join = _form_of(data)
    parts = split(data)
    if len(parts) < 2:
        return _number(data, rng, others)
    i, j = rng.randrange(len(parts)), rng.randrange(len(parts))
    act = rng.randrange(5)
    if act == 0:
        del parts[i]
    elif act == 1:
        parts[j:j] = parts[i : i + 1] * rng.choice((1, 1, 3, 50))
    elif act == 2:
        parts[i], parts[j] = parts[j], parts[i]
    elif act == 3 and others:
        other = rng.choice(others)
        parts[j:j] = rng.choices(_form_of(other)[0](other) or [b""])
    else:
        parts[i] = rng.choice((_flip, _number, _step, _block))(parts[i] or b"\0", rng, others)
    return join(parts)


WAYS = (_flip, _flip, _number, _number, _step, _block, _cut, _splice, _part, _part, _part)


def _place(data: bytes, rng: random.Random) -> int:
    """Choose a place, more often near the start, where heads are."""
    return int(len(data) * rng.random() ** rng.choice((1, 1, 3))) if data else 0


# Parts of formats: how to take a file apart, and to put it together


def _form_of(data: bytes) -> tuple[Callable[[bytes], list[bytes]], Callable[[list[bytes]], bytes]]:
    if data.startswith(PNG_START):
        return _png_parts, _join_png
    if data.startswith(b"\xff\xd8"):
        return _jpeg_parts, b"".join
    if data[4:8] == b"ftyp":
        return _box_parts, b"".join
    return _words, b"".join


def _png_parts(data: bytes) -> list[bytes]:
    """Name and content of each chunk: lengths and check sums are made anew."""
    parts, at = [], len(PNG_START)
    while at + 8 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        parts.append(data[at + 4 : at + 8 + size])
        at += 12 + size
    return parts


def _join_png(parts: list[bytes]) -> bytes:
    made = PNG_START
    for part in (each.ljust(4, b"x") for each in parts):
        size, check = len(part) - 4, zlib.crc32(part)
        made += struct.pack(">I", size) + part + struct.pack(">I", check)
    return made


def _jpeg_parts(data: bytes) -> list[bytes]:
    marks = [i for i in range(len(data) - 1) if data[i] == 0xFF and data[i + 1] not in {0, 0xFF}]
    ends = [*marks[1:], len(data)]
    return [data[a:b] for a, b in zip(marks, ends, strict=True)] if marks else []


def _box_parts(data: bytes) -> list[bytes]:
    parts, at = [], 0
    while at + 8 <= len(data):
        size = max(8, int.from_bytes(data[at : at + 4], "big"))
        parts.append(data[at : at + size])
        at += size
    return [*parts, data[at:]]


def _words(data: bytes) -> list[bytes]:
    """Entries of twelve bytes, as a TIFF has, behind a head of ten."""
    return [
        data[:10],
        *(data[i : i + 12] for i in range(10, min(len(data), 2000), 12)),
        data[2002:],
    ]
