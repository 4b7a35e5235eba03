"""Picture files as attackers write them: bombs, lies, loops, and what is cut."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from functools import lru_cache

from picture_files import SIZE, encode, ihdr, ordinary, picture, png, profile, run_length_bmp
from PIL import Image

LARGE = 14_000  # pixels a side, over the limit
MANY = 5_000  # repetitions of a part


def crafted(*, large: bool = True) -> dict[str, bytes]:
    """Make files as attackers write them: bombs, lies, loops, and what is cut.

    Those that hold many megapixels, within the limit, take seconds to read.
    """
    made = _large() if large else {}
    for family, craft in CRAFTED.items():
        made |= {f"{family} {name}": data for name, data in craft()}
    for name, data in ordinary().items():
        for share in (0.03, 0.5, 0.97):
            made[f"{name}, cut at {share:.0%}"] = data[: int(share * len(data))]
    return made


@lru_cache(maxsize=1)
def many_zeros() -> bytes:
    return zlib.compress(bytes(60_000_000), 9)


def family_of(name: str) -> str:
    return name.partition(" ")[0]


# PNG


def _crafted_png() -> Iterator[tuple[str, bytes]]:
    head, pixels = ihdr(8, 8), (b"IDAT", zlib.compress(bytes(8 * 25)))
    zeros = many_zeros()
    yield "bomb over the limit", png(ihdr(30_000, 30_000, 1, 0), (b"IDAT", zeros))
    yield "size of zero", png(ihdr(0, 8), pixels)
    yield "size of 31 bits", png(ihdr(2**31 - 1, 2**31 - 1), pixels)
    yield "states less", png(ihdr(2, 2), (b"IDAT", zeros))
    yield "states more", png(ihdr(3000, 3000), pixels)
    yield "no pixels", png(head)
    yield "two heads", png(head, ihdr(9000, 9000), pixels)
    yield "palette missing", png(ihdr(8, 8, 8, 3), (b"IDAT", zlib.compress(bytes(8 * 9))))
    yield "palette of a byte", png(ihdr(8, 8, 8, 3), (b"PLTE", b"x"), pixels)
    yield "unknown bits", png(ihdr(8, 8, 77, 9), pixels)
    for name, prefix in {"zTXt": b"k\0\0", "iCCP": b"k\0\0", "iTXt": b"k\0\1\0\0\0"}.items():
        yield f"huge {name}", png(head, (name.encode(), prefix + zeros), pixels)
    yield "huge text", png(head, (b"tEXt", b"k\0" + b"x" * 20_000_000), pixels)
    yield "many texts", png(head, *[(b"tEXt", b"k%d\0v" % i) for i in range(MANY)], pixels)
    yield "many frames", png(head, (b"acTL", struct.pack(">II", 2**31 - 1, 0)), pixels)
    frame = struct.pack(">IIIIIHHBB", 0, 2**31 - 1, 8, 2**31 - 1, 0, 1, 1, 0, 0)
    yield "frame outside", png(head, (b"acTL", struct.pack(">II", 2, 0)), (b"fcTL", frame), pixels)
    yield "length of 32 bits", png(head)[:33] + b"\xff\xff\xff\xffIDAT" + bytes(40)
    yield "wrong check sum", png(head, pixels).replace(b"IDAT", b"IDAU")
    yield "EXIF that loops", png(head, (b"eXIf", _looping_tiff()), pixels)


# JPEG


def _segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


def _with_segment(segment: bytes, data: bytes | None = None) -> bytes:
    data = data or encode(picture(), "JPEG")
    return data[:2] + segment + data[2:]


def _with_size(data: bytes, width: int, height: int) -> bytes:
    start = data.index(b"\xff\xc0") + 5
    return data[:start] + struct.pack(">HH", height, width) + data[start + 4 :]


def _crafted_jpeg() -> Iterator[tuple[str, bytes]]:
    data, progressive = encode(picture(), "JPEG"), encode(picture(), "JPEG", progressive=True)
    yield "states 65,535 a side", _with_size(data, 65_535, 65_535)
    yield "states 12,000 a side", _with_size(data, 12_000, 12_000)
    yield "height of zero", _with_size(data, 24, 0)
    yield "states less", _with_size(data, 1, 1)
    last = progressive.rfind(b"\xff\xda")
    yield "many scans", progressive[:-2] + progressive[last:-2] * MANY + progressive[-2:]
    yield "many comments", _with_segment(_segment(0xFE, b"x" * 40) * MANY)
    yield "filled with 0xFF", _with_segment(b"\xff" * 3_000_000)
    yield "many heads", _with_segment(data[data.index(b"\xff\xc0") :][:19] * 200)
    yield "a picture in a picture", data[:2] * MANY + data[2:]
    yield "segment without an end", _with_segment(b"\xff\xe1\xff\xff")
    yield "segment of no length", _with_segment(b"\xff\xe1\x00\x00")
    for count in (0, 1, 255):
        part = b"ICC_PROFILE\0" + bytes([1, count]) + bytes(600)
        yield f"profile in {count} parts", _with_segment(_segment(0xE2, part))
    many = bytearray(profile())
    many[128:132] = b"\x7f\xff\xff\xff"
    yield "profile of 2**31 tags", encode(picture(), "JPEG", icc_profile=bytes(many))
    yield "profile of zeros", encode(picture(), "JPEG", icc_profile=bytes(3_000_000))
    yield "profile of another kind", encode(picture("L"), "JPEG", icc_profile=profile())
    for name, exif in _crafted_exif():
        yield f"EXIF: {name}", _with_segment(_segment(0xE1, b"Exif\0\0" + exif))
    mpf = b"MPF\0" + _ifd([(0xB001, 4, 1, 2**31), (0xB002, 7, 32, 8)])
    yield "pictures at nowhere", _with_segment(_segment(0xE2, mpf))
    yield "tables of zeros", data.replace(b"\xff\xdb\x00\x43\x00", b"\xff\xdb\x00\x43\xff")
    yield "arithmetic coding", data.replace(b"\xff\xc0", b"\xff\xc9")
    yield "lossless", data.replace(b"\xff\xc0", b"\xff\xc3")
    yield "no end", data[:-2] + bytes(2_000_000)


# TIFF, and EXIF which is one


def _ifd(entries: list[tuple[int, int, int, int]], following: int = 0, order: str = "<") -> bytes:
    mark = b"II*\0" if order == "<" else b"MM\0*"
    body = struct.pack(f"{order}IH", 8, len(entries))
    body += b"".join(struct.pack(f"{order}HHII", *entry) for entry in entries)
    return mark + body + struct.pack(f"{order}I", following)


def _looping_tiff() -> bytes:
    return _ifd([(0x0112, 3, 1, 6), (0x8769, 4, 1, 8), (0x8825, 4, 1, 8)], following=8)


def _crafted_exif() -> Iterator[tuple[str, bytes]]:
    yield "loops", _looping_tiff()
    yield "a value of 2**32 bytes", _ifd([(0x010F, 2, 2**32 - 1, 8), (0x0112, 3, 1, 6)])
    yield "a value at nowhere", _ifd([(0x010F, 2, 999, 2**32 - 1)])
    yield "orientation of 65,535", _ifd([(0x0112, 3, 1, 65_535)])
    yield "orientation of many", _ifd([(0x0112, 5, 4_000, 8)])
    yield "orientation of text", _ifd([(0x0112, 2, 4, 0x36363636)])
    yield "unknown kinds", _ifd([(0x0112, kind, 1, 6) for kind in range(20)])
    yield "nothing", b"II*\0"
    yield "no order", b"XX*\0\x08\0\0\0"


def _strips(width: int, height: int, *more: tuple[int, int, int, int], **given: int) -> bytes:
    tags = {256: width, 257: height, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: height, 279: 64}
    tags |= {int(tag[1:]): value for tag, value in given.items()}
    entries = [(tag, 4, 1, value) for tag, value in tags.items() if value >= 0]
    return _ifd(sorted([*entries, *more])) + bytes(600)


def _crafted_tiff() -> Iterator[tuple[str, bytes]]:
    yield "loops", _looping_tiff()
    yield "pages that loop", encode(picture(), "TIFF")[:-4] + b"\x08\0\0\0"
    yield "states 2**31 a side", _strips(2**31, 2**31)
    yield "states 12,000 a side", _strips(12_000, 12_000)
    yield "states 30,000 a side", _strips(30_000, 30_000)
    yield "size of zero", _strips(0, 8)
    yield "no strips", _strips(8, 8, t273=-1, t279=-1)
    yield "strips at nowhere", _strips(8, 8, t273=2**32 - 1)
    yield "strips of 2**32 bytes", _strips(8, 8, t279=2**32 - 1)
    yield "rows of a strip: zero", _strips(8, 8, t278=0)
    yield "bits of 65,535", _strips(8, 8, t258=65_535)
    yield "samples of 65,535", _strips(8, 8, t277=65_535)
    for coding in (2, 3, 4, 5, 6, 7, 8, 32773, 34676, 34887, 34925, 50000, 50001, 65535):
        yield f"coding {coding} of zeros", _strips(64, 64, t259=coding)
    yield "same strip over and over", _strips(64, 64, (273, 4, 2**20, 8), t273=-1, t278=1)
    tiles = [(322, 4, 1, 2**31), (323, 4, 1, 2**31), (324, 4, 1, 8), (325, 4, 1, 64)]
    yield "tiles of 2**31", _strips(64, 64, *tiles, t273=-1, t279=-1)
    tiles = [(322, 4, 1, 0), (323, 4, 1, 0), (324, 4, 1, 8), (325, 4, 1, 64)]
    yield "tiles of zero", _strips(64, 64, *tiles, t273=-1, t279=-1)
    yield "65,535 tags", _ifd([(256 + i % 9, 4, 1, 8) for i in range(60_000)])
    yield "a size of text", _strips(8, 8, (256, 2, 4, 0x31313131), t256=-1)
    yield "a size of many", _strips(8, 8, (256, 4, 2**28, 8), t256=-1)
    subs = [(330, 4, MANY, 8)]
    yield "further pages in itself", _strips(8, 8, *subs)
    for name, exif in _crafted_exif():
        yield f"EXIF: {name}", exif


# The others


def _crafted_bmp() -> Iterator[tuple[str, bytes]]:
    data = encode(picture(), "BMP")

    def field(at: int, form: str, *values: int) -> bytes:
        packed = struct.pack(form, *values)
        return data[:at] + packed + data[at + len(packed) :]

    yield "states 2**31 a side", field(18, "<ii", 2**31 - 1, 2**31 - 1)
    yield "states 12,000 a side", field(18, "<ii", 12_000, 12_000)
    yield "negative height", field(18, "<ii", 24, -18)
    yield "negative width", field(18, "<ii", -24, 18)
    yield "least height", field(18, "<ii", 24, -(2**31))
    yield "size of zero", field(18, "<ii", 0, 0)
    yield "pixels at nowhere", field(10, "<I", 2**32 - 1)
    yield "colours of 2**32", field(46, "<I", 2**32 - 1)
    for bits in (0, 2, 3, 16, 64, 65_535):
        yield f"{bits} bits", field(28, "<H", bits)
    for coding in range(1, 8):
        yield f"coding {coding}", field(30, "<I", coding)
    for size in (0, 12, 16, 64, 2**31):
        yield f"head of {size}", field(14, "<I", size)
    yield "runs without an end", run_length_bmp(b"\xff\x01" * 40_000)
    yield "runs that jump", run_length_bmp(b"\x00\x02\xff\xff" * 4_000)
    yield "runs of a large one", run_length_bmp(b"\x00\x01", 12_000, 12_000)


def _crafted_gif() -> Iterator[tuple[str, bytes]]:
    data = encode(picture(), "GIF")
    yield "states 65,535 a side", data[:6] + b"\xff\xff\xff\xff" + data[10:]
    frame = b"\x2c" + struct.pack("<HHHHB", 0, 0, 60_000, 60_000, 0)
    yield "frame of 60,000 a side", data[:-1] + frame + b"\x08\x01\x00\x00\x3b"
    outside = b"\x2c" + struct.pack("<HHHHB", 60_000, 60_000, 8, 8, 0)
    yield "frame outside", data[:13] + outside + b"\x08\x01\x00\x00\x3b"
    yield (
        "first frame of 12,000 a side",
        (
            b"GIF89a"
            + struct.pack("<HHBBB", 12_000, 12_000, 0, 0, 0)
            + b"\x2c"
            + struct.pack("<HHHHB", 0, 0, 12_000, 12_000, 0)
            + b"\x08"
            + b"\xff" * 600
            + b"\x00\x3b"
        ),
    )
    for bits in (0, 1, 12, 13, 255):
        at = data.rindex(b"\x2c\0\0\0\0") + 10
        yield f"codes of {bits} bits", data[:at] + bytes([bits]) + data[at + 1 :]
    yield "comments without an end", data[:-1] + (b"\x21\xfe\xff" + b"x" * 255 + b"\0") * MANY
    yield "extension without an end", data[:13] + b"\x21\xff" + b"\xff" * 900_000
    yield "many empty frames", data[:-1] + (b"\x2c" + bytes(8) + b"\0\x02\0") * MANY
    yield "size of zero", data[:6] + bytes(4) + data[10:]


def _boxes(*boxes: tuple[bytes, bytes]) -> bytes:
    return b"".join(struct.pack(">I", 8 + len(body)) + kind + body for kind, body in boxes)


def _nested(depth: int) -> bytes:
    body = b""
    for _ in range(depth):
        body = _boxes((b"meta", bytes(4) + body))
    return body


def _crafted_boxes(kind: str, brand: bytes) -> Iterator[tuple[str, bytes]]:
    """Crafted AVIF and HEIC files."""
    start = _boxes((b"ftyp", brand + bytes(4) + b"mif1" + brand))
    yield "no boxes", start
    yield "boxes in boxes", start + _nested(2_000)
    yield "many boxes", start + _boxes((b"free", b"")) * 200_000
    yield "box of no size", start + bytes(4) + b"meta" + bytes(100)
    yield (
        "box of one byte",
        start + struct.pack(">I", 1) + b"meta" + struct.pack(">Q", 2**63) + bytes(99),
    )
    yield "box of seven bytes", start + struct.pack(">I", 7) + b"meta" + bytes(100)
    made = [data for name, data in ordinary().items() if family_of(name) == kind]
    for data in made[:1]:
        size = struct.pack(">II", *SIZE)
        yield "states 64 more", data.replace(size, struct.pack(">II", 88, 82))
        yield "states 2**31 a side", data.replace(size, b"\x7f\xff\xff\xff" * 2)
        yield "states one pixel", data.replace(size, struct.pack(">II", 1, 1))
        for box in (b"pitm", b"iloc", b"iinf", b"ipco", b"ipma", b"hdlr", b"mdat", b"iref"):
            yield f"without {box.decode()}", data.replace(box, b"free")
            at = data.find(box)
            if at > 0:
                yield f"{box.decode()} of ones", data[: at + 8] + b"\xff" * 12 + data[at + 20 :]


def _crafted_avif() -> Iterator[tuple[str, bytes]]:
    return _crafted_boxes("avif", b"avif")


def _crafted_heic() -> Iterator[tuple[str, bytes]]:
    return _crafted_boxes("heic", b"heic")


def _riff(*chunks: tuple[bytes, bytes]) -> bytes:
    body = b"WEBP" + b"".join(
        name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)
        for name, data in chunks
    )
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _crafted_webp() -> Iterator[tuple[str, bytes]]:
    data = encode(picture(), "WEBP")
    bitstream = data[20:]
    canvas = (16_383).to_bytes(3, "little") * 2
    yield "canvas of 16,384 a side", _riff((b"VP8X", b"\x02\0\0\0" + canvas), (b"VP8 ", bitstream))
    yield "canvas of 24 bits", _riff((b"VP8X", b"\x02\0\0\0" + b"\xff" * 6), (b"VP8 ", bitstream))
    frame = b"\xff\xff\xff" * 2 + canvas + bytes(4) + b"VP8 " + struct.pack("<I", 40) + bitstream
    head = b"\x02\0\0\0" + canvas
    yield "frame outside", _riff((b"VP8X", head), (b"ANIM", bytes(6)), (b"ANMF", frame))
    yield "many frames", _riff((b"VP8X", head), (b"ANIM", bytes(6)), *[(b"ANMF", frame)] * 2_000)
    at = data.index(b"\x9d\x01\x2a") + 3
    yield "states 16,383 a side", data[:at] + b"\xff\x3f\xff\x3f" + data[at + 4 :]
    yield "lossless of ones", _riff((b"VP8L", b"\x2f" + b"\xff" * 400))
    yield "length of 32 bits", data[:4] + b"\xff" * 4 + data[8:]
    yield "chunk of 32 bits", data[:16] + b"\xff" * 4 + data[20:]
    extras = [(b"EXIF", _looping_tiff()), (b"ICCP", bytes(90)), (b"XMP ", b"x" * 2_000_000)]
    yield (
        "odd extras",
        _riff((b"VP8X", b"\x2c\0\0\0\x17\0\0\x11\0\0"), *extras, (b"VP8 ", bitstream)),
    )


def _crafted_ico() -> Iterator[tuple[str, bytes]]:
    for count in (0, 1, 65_535):
        yield f"{count} pictures", struct.pack("<HHH", 0, 1, count) + bytes(600)
    entry = struct.pack("<BBBBHHII", 0, 0, 0, 0, 1, 32, 2**32 - 1, 6)
    yield "a picture in its head", struct.pack("<HHH", 0, 1, 1) + entry + bytes(100)


def _crafted_ppm() -> Iterator[tuple[str, bytes]]:
    yield "states much", b"P6 99999999999 99999999999 255\n"
    yield "a long number", b"P6 " + b"9" * 100_000
    yield "comments without an end", b"P6 #" + b"x" * 1_000_000
    yield "negative", b"P6 -5 -5 255\n" + bytes(75)
    yield "depth of zero", b"P5 5 5 0\n" + bytes(25)


def _large() -> dict[str, bytes]:
    """Make files of 81 to 196 megapixels, most of them within the limit."""
    zeros, sides = many_zeros(), {256: 9000, 257: 9000, 278: 9000}
    tags = sides | {258: 8, 259: 8, 262: 1, 273: 134, 277: 1, 279: len(zeros)}
    entries = [(tag, 4, 1, tags[tag]) for tag in sorted(tags)]
    avif = encode(Image.new("RGB", (LARGE, LARGE), "teal"), "AVIF", speed=10, quality=20)
    size = struct.pack(">II", LARGE, LARGE)
    return {
        "png bomb within the limit": png(ihdr(12_000, 12_000, 1, 0), (b"IDAT", zeros)),
        "tiff bomb within the limit": _ifd(entries).ljust(134, b"\0") + zeros,
        "avif of 196 megapixels": avif,
        "avif that states 64×64": avif.replace(size, struct.pack(">II", 64, 64)),
    }


CRAFTED = {
    "png": _crafted_png,
    "jpeg": _crafted_jpeg,
    "tiff": _crafted_tiff,
    "bmp": _crafted_bmp,
    "gif": _crafted_gif,
    "avif": _crafted_avif,
    "heic": _crafted_heic,
    "webp": _crafted_webp,
    "ico": _crafted_ico,
    "ppm": _crafted_ppm,
}
