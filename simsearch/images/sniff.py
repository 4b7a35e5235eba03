"""Kind of a file without an image suffix, by its name and its first bytes."""

from __future__ import annotations

import re
from importlib.util import find_spec
from typing import TYPE_CHECKING, NamedTuple

from simsearch.images.find import Skipped

if TYPE_CHECKING:
    from simsearch.images.find import ImageFile, Listing
    from simsearch.images.selection import Place

HEAD_BYTES = 256

# Never opened: files of these names hold no picture, or half of one.
NOT_PICTURES = frozenset(
    "txt md rst csv tsv json jsonl xml yaml yml toml ini cfg conf log html htm css js ts py ipynb "  # noqa: SIM905
    "pyc c h cpp hpp java go rs sh bat ps1 exe dll so o lib jar db sqlite sqlite3 npy npz pt pth "
    "pkl pickle parquet arrow feather h5 hdf5 safetensors onnx zip tar gz tgz bz2 xz 7z rar zst "
    "doc docx xls xlsx ppt pptx odt ods odp rtf mp3 wav flac ogg m4a aac xmp aae part crdownload "
    "download tmp lock url lnk".split()
)
RAW_SUFFIXES = frozenset(
    "3fr arw cr2 cr3 crw dcr dng erf gpr iiq kdc mef mos mrw nef nrw orf pef raf rw2 rwl sr2 srf "  # noqa: SIM905
    "srw x3f".split()
)
RAW_REASON = 'raw file of a camera: its preview is read with pip install "simsearch[raw]"'
# Pictures, drawings and films that are not read, by suffix.
NOT_READ = {
    **dict.fromkeys(("jxl",), "JPEG XL"),
    **dict.fromkeys(("jp2", "j2k", "jpf", "jpx", "jpm"), "JPEG 2000"),
    **dict.fromkeys(("jxr", "wdp", "hdp"), "JPEG XR"),
    **dict.fromkeys(("psd", "psb"), "Photoshop"),
    **dict.fromkeys(("xcf",), "GIMP"),
    **dict.fromkeys(("kra", "afphoto", "clip", "sketch", "procreate"), "drawing program"),
    **dict.fromkeys(("ai", "eps", "ps"), "PostScript"),
    **dict.fromkeys(("svgz", "wmf", "emf"), "vector drawing"),
    **dict.fromkeys(("pdf", "djvu"), "document"),
    **dict.fromkeys(("ico", "cur", "icns"), "icon"),
    **dict.fromkeys(("tga", "dds", "pcx", "ppm", "pgm", "pbm", "pnm", "xpm"), "image"),
    **dict.fromkeys(("exr", "hdr", "pfm"), "high dynamic range"),
    **dict.fromkeys(("dcm", "nii", "fits", "fit"), "scientific image"),
    **dict.fromkeys(("mp4", "m4v", "mov", "avi", "mkv", "webm", "mpg", "mpeg"), "film"),
    **dict.fromkeys(("wmv", "flv", "3gp", "mts", "m2ts"), "film"),
}
# First bytes of what is read (in Pillow's names), and of what is not.
READ = [
    ("JPEG", rb"\xff\xd8\xff"),
    ("PNG", rb"\x89PNG\r\n\x1a\n"),
    ("GIF", rb"GIF8[79]a"),
    ("WEBP", rb"RIFF....WEBP"),
    ("BMP", rb"BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0"),
    ("AVIF", rb"\0\0..ftyp(?:avif|avis)"),
    ("HEIF", rb"\0\0..ftyp(?:hei[cxms]|hev[cxms]|mif1|msf1)"),
    ("TIFF", rb"II[\x2a\x2b]\0|MM\0[\x2a\x2b]"),
]
UNREAD = [
    ("JPEG XL", rb"\xff\x0a|\0\0\0\x0cJXL "),
    ("JPEG 2000", rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51"),
    ("JPEG XR", rb"II\xbc"),
    ("Photoshop", rb"8BPS"),
    ("GIMP", rb"gimp xcf"),
    ("PostScript", rb"%!PS|\xc5\xd0\xd3\xc6"),
    ("SVG", rb"\s*(?:\xef\xbb\xbf)?\s*(?:<\?xml.*|<!.*)?<svg[\s>]"),
    ("PDF", rb"%PDF-"),
    ("icon", rb"\0\0[\x01\x02]\0[^\0]\0..[\0\x01]"),
    ("DirectDraw", rb"DDS "),
    ("OpenEXR", rb"\x76\x2f\x31\x01"),
    ("Radiance", rb"#\?R(?:ADIANCE|GBE)"),
    ("FITS", rb"SIMPLE  ="),
    ("DICOM", rb".{128}DICM"),
    ("film", rb"....ftyp|....moov|\x1a\x45\xdf\xa3|RIFF....AVI |\0\0\x01\xba|FLV\x01"),
]
RAW = rb"....ftypcrx |FUJIFILMCCD-RAW|II\x1a\0\0\0HEAPCCDR|IIRO|IIRS|MMOR|IIU\0|FOVb|\0MRM"


class Content(NamedTuple):
    """What a file is: one that is read, a picture that is not (with the reason), or neither."""

    is_read: bool
    reason: str
    kind: str  # suffix in lower case, or "no suffix"


def add_by_content(listing: Listing, file: ImageFile, place: Place) -> None:
    """Add a file without an image suffix to where its first bytes say that it belongs."""
    content = sniff(file, place)
    if content.is_read:
        listing.files.append(file)
    elif content.reason:
        listing.pictures.append(Skipped(file.name, content.reason))
    else:
        listing.left_out[content.kind] += 1


def sniff(file: ImageFile, place: Place) -> Content:
    """Tell what a file without an image suffix is; it is opened unless its name says enough."""
    suffix = suffix_of(file.name)
    kind = f".{suffix}" if suffix else "no suffix"
    if suffix in NOT_PICTURES or not file.size:
        return Content(False, "", kind)
    try:
        head = _read_head(place)
    except OSError:
        return Content(False, "", f"{kind}, unreadable")
    content = _first_match(READ, head)
    if suffix in RAW_SUFFIXES and content in {None, "TIFF"}:
        content = "raw"
    elif content is None and suffix == "dib" and head[1:4] == b"\0\0\0":
        content = "DIB"
    if content is None and _matches(RAW, head):
        content = "raw"
    if content == "raw":
        return Content(can_read_raw(), "" if can_read_raw() else RAW_REASON, kind)
    if content:
        return Content(True, "", kind)
    unread = _first_match(UNREAD, head) or NOT_READ.get(suffix)
    return Content(False, f"{unread} ({kind}) is not read" if unread else "", kind)


def _read_head(place: Place) -> bytes:
    if not isinstance(place, str):
        return place(HEAD_BYTES)
    with open(place, "rb", buffering=0) as stream:  # noqa: PTH123
        return stream.read(HEAD_BYTES)


def suffix_of(name: str) -> str:
    """Return the suffix of a name in lower case, without the dot."""
    _, dot, suffix = name[name.rfind("/") + 1 :].rpartition(".")
    return suffix.lower() if dot and len(suffix) <= 16 else ""


def can_read_raw() -> bool:
    """Tell whether the package for raw files is installed."""
    return find_spec("rawpy") is not None


def _first_match(kinds: list[tuple[str, bytes]], head: bytes) -> str | None:
    return next((name for name, pattern in kinds if _matches(pattern, head)), None)


def _matches(pattern: bytes, head: bytes) -> bool:
    return re.match(pattern, head, re.DOTALL) is not None
