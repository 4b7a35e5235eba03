"""Picture files of every kind that can be made here, as programs write them; and helpers.

Names begin with the family, `png P`: mutants of one family share a corpus.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress

import numpy as np
from PIL import Image, ImageCms

SIZE = 24, 18  # pixels: what is small is changed where it matters
UNREAD = {"EPS", "ICNS", "JPEG2000", "PCX", "PDF", "QOI", "SGI", "TGA", "XBM", "DDS", "MSP"}


def ordinary() -> dict[str, bytes]:
    """Make files as programs write them."""
    return {f"{family} {name}": data for family, name, data in (*_plain(), *_rare(), *_others())}


def encode(image: Image.Image, kind: str, **options) -> bytes:
    data = io.BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


def picture(mode: str = "RGB") -> Image.Image:
    rng = np.random.default_rng(7)
    pixels = rng.integers(0, 256, (4, 5, 4), np.uint8)
    image = Image.fromarray(pixels, "RGBA").resize(SIZE, Image.Resampling.BICUBIC)
    if mode == "I;16":
        grey = np.asarray(image.convert("L"), np.uint16) * 257
        return Image.fromarray(grey)
    if mode in {"P", "1", "L", "LA", "RGB", "RGBA"}:
        return (
            image if mode == "RGBA" else image.convert("RGB" if mode == "P" else mode).convert(mode)
        )
    return image.convert("L" if mode in "IF" else "RGB").convert(mode)


def _exif(orientation: int = 6) -> bytes:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = orientation, "maker"
    exif.get_ifd(0x8769)[0x9003] = "2026:01:01 00:00:00"
    exif.get_ifd(0x8825)[1] = "N"
    return exif.tobytes()


def profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def _plain() -> Iterator[tuple[str, str, bytes]]:
    """Yield family, name and bytes of the modes of each format."""
    modes = {
        "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
        "JPEG": ("L", "RGB", "CMYK"),
        "GIF": ("P", "L"),
        "WEBP": ("RGB", "RGBA"),
        "AVIF": ("RGB", "RGBA"),
        "TIFF": ("1", "L", "P", "RGB", "RGBA", "CMYK", "LAB", "YCbCr", "I;16", "I", "F"),
        "BMP": ("1", "L", "P", "RGB", "RGBA"),
        "ICO": ("RGBA", "P"),
        "PPM": ("1", "L", "RGB", "I;16"),
    }
    for kind, each in modes.items():
        for mode in each:
            yield kind.lower(), mode, encode(picture(mode), kind)


def _rare() -> Iterator[tuple[str, str, bytes]]:
    """Yield files with frames, pages, metadata, profiles, and rare codings."""
    rgb, pages = picture(), [picture(), picture().rotate(180), picture("L").convert("RGB")]
    animated = {"save_all": True, "append_images": pages[1:], "duration": 40, "loop": 0}
    extras = {"exif": _exif(), "icc_profile": profile()}
    for kind in ("GIF", "PNG", "WEBP", "AVIF", "TIFF"):
        yield kind.lower(), "of several frames", encode(pages[0], kind, **animated)
    for kind in ("PNG", "JPEG", "WEBP", "AVIF", "TIFF"):
        yield kind.lower(), "with EXIF and profile", encode(rgb, kind, **extras)
    yield "jpeg", "of two pictures", encode(pages[0], "MPO", save_all=True, append_images=pages[1:])
    yield "jpeg", "progressive", encode(rgb, "JPEG", progressive=True)
    yield "jpeg", "with restarts", encode(rgb, "JPEG", restart_marker_rows=1, subsampling=2)
    yield (
        "png",
        "interlaced by hand",
        png(ihdr(8, 8, 8, 2, 1), (b"IDAT", zlib.compress(bytes(400)))),
    )
    yield "webp", "lossless", encode(picture("RGBA"), "WEBP", lossless=True)
    for coding in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "raw"):
        yield "tiff", coding, encode(rgb, "TIFF", compression=coding)
    for coding in ("group3", "group4"):
        yield "tiff", coding, encode(picture("1"), "TIFF", compression=coding)
    yield "tiff", "of 64 bits", encode(rgb, "TIFF", big_tiff=True)
    yield "bmp", "run lengths", run_length_bmp(b"\x18\x01\x00\x00" * 18 + b"\x00\x01")
    with suppress(ImportError):
        import pillow_heif

        for mode in ("RGB", "RGBA", "L"):
            data = io.BytesIO()
            pillow_heif.from_pillow(picture(mode)).save(data, quality=40)
            yield "heic", mode, data.getvalue()


def _others() -> Iterator[tuple[str, str, bytes]]:
    """Yield formats that are not read: they have to be told from pictures, not opened."""
    for kind in sorted(UNREAD):
        with suppress(OSError, ValueError, KeyError):
            mode = "1" if kind in {"XBM", "MSP"} else "RGB"
            yield "other", kind, encode(picture(mode), kind)
    yield (
        "other",
        "SVG",
        b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
    )
    yield (
        "other",
        "EPS that reads a file",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) run\n",
    )
    yield (
        "other",
        "PSD",
        b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, 2**31, 2**31, 8, 3) + bytes(64),
    )
    yield "other", "GIF and JavaScript", b"GIF89a/*" + bytes(20) + b"*/=1;alert(1)"
    yield "other", "ZIP", b"PK\3\4" + bytes(60)
    yield "other", "zeros", bytes(10_000)
    yield "other", "text", b"not a picture\n" * 50
    yield "other", "one byte", b"\xff"


def ihdr(width: int, height: int, bits: int = 8, kind: int = 2, interlaced: int = 0) -> tuple:
    return b"IHDR", struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, interlaced)


def png(*chunks: tuple[bytes, bytes]) -> bytes:
    file = b"\x89PNG\r\n\x1a\n"
    for name, body in (*chunks, (b"IEND", b"")):
        file += (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )
    return file


def run_length_bmp(runs: bytes, width: int = 24, height: int = 18) -> bytes:
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(runs), 1, 1, 256, 0)
    start = 14 + len(head) + 1024
    file = struct.pack("<2sIHHI", b"BM", start + len(runs), 0, 0, start)
    return file + head + bytes(range(256)) * 4 + runs
