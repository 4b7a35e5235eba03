"""Which files of a folder are pictures: by content, by globs, and what is counted as left out."""

import logging
import sys
import zipfile
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import encoded, smooth
from PIL import Image

import simsearch as ss
from simsearch.cli.main import main
from simsearch.errors import DatasetError, ImageError
from simsearch.images import sniff
from simsearch.images.decode import load_image
from simsearch.images.find import Skipped, list_dataset
from simsearch.images.listing import find_images
from simsearch.library.skipped import read_skipped

READ = ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "AVIF", "HEIF"]
ODD_NAMES = ["IMG_0001", "1.jpg_large", "1.jpg?w=200", "1.hif", "1.psd", "1.mpo", "1.", "ünï 1"]


def picture(kind="JPEG"):
    return encoded(Image.fromarray(smooth()), kind)


def plant(root, files):
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def names(listing):
    return [file.name for file in listing.files]


# By content


@pytest.mark.parametrize("kind", READ)
def test_pictures_under_odd_names_are_known_by_their_content(kind, tmp_path):
    plant(tmp_path, {name: picture(kind) for name in ODD_NAMES})
    listing = list_dataset(tmp_path)
    assert names(listing) == sorted(ODD_NAMES)
    assert listing[1:] == ([], [], {})
    for name in ODD_NAMES:
        assert load_image(tmp_path / name).size == (96, 64)


def test_a_dib_and_a_picture_for_two_eyes_are_known(tmp_path):
    image = Image.fromarray(smooth())
    image.save(tmp_path / "1.dib")
    image.save(tmp_path / "2.mpo", save_all=True, append_images=[image])
    image.save(tmp_path / "3.hif", "HEIF")
    assert names(list_dataset(tmp_path)) == ["1.dib", "2.mpo", "3.hif"]
    for name in ("1.dib", "2.mpo", "3.hif"):
        assert load_image(tmp_path / name).size == (96, 64)


UNREAD = {
    "a.psd": (b"8BPS\0\1", "Photoshop (.psd)"),
    "a.jxl": (b"\xff\x0a\xfa", "JPEG XL (.jxl)"),
    "a.jp2": (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000 (.jp2)"),
    "a.svg": (b'<?xml version="1.0"?>\n<svg xmlns="x"/>', "SVG (.svg)"),
    "a.pdf": (b"%PDF-1.7", "PDF (.pdf)"),
    "a.mp4": (b"\0\0\0\x20ftypisom\0\0\2\0", "film (.mp4)"),
    "a.mov": (b"\0\0\0\x14ftypqt  ", "film (.mov)"),
    "noname": (b"8BPS\0\1", "Photoshop (no suffix)"),
    "damaged.jxl": (b"???", "JPEG XL (.jxl)"),
    "a.exr": (b"\x76\x2f\x31\x01", "OpenEXR (.exr)"),
}


def test_pictures_that_are_not_read_are_named_with_their_kind(tmp_path):
    plant(tmp_path, {name: content for name, (content, _) in UNREAD.items()})
    listing = list_dataset(tmp_path)
    assert listing.files == []
    assert dict(listing.pictures) == {
        name: f"{kind} is not read" for name, (_, kind) in UNREAD.items()
    }
    assert find_images(tmp_path) == ([], [])


def test_what_is_no_picture_is_counted_by_suffix(tmp_path):
    plant(
        tmp_path,
        {"a.txt": b"x", "b/C.TXT": b"x", "t.csv": b"a", "README": b"x", "Thumbs.db": b"\0"}
        | {"a.svg": b"no drawing", "empty": b"", "half.jpg.part": picture(), ".x.jpg": picture()}
        | {"._1.jpg": b"\0\5\x16\7", ".git/a": b"", "1.jpg": picture()},
    )
    listing = list_dataset(tmp_path)
    assert names(listing) == ["1.jpg"]
    assert listing.left_out == {
        ".txt": 2,
        ".csv": 1,
        "no suffix": 2,
        ".db": 1,
        ".svg": 1,
        ".part": 1,
        "hidden file": 2,
        "hidden folder": 1,
    }


def test_files_whose_name_says_enough_are_not_opened(tmp_path, monkeypatch):
    plant(tmp_path, {"1.jpg": picture(), "a.txt": b"x", "b.csv": b"x", "odd": picture()})
    opened = []
    head = sniff._read_head
    monkeypatch.setattr(sniff, "_read_head", lambda place: opened.append(place) or head(place))
    assert names(list_dataset(tmp_path)) == ["1.jpg", "odd"]
    assert opened == [str(tmp_path / "odd")]


def test_odd_names_at_an_address_are_known_too(tmp_path):
    pytest.importorskip("fsspec")
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        for name in ("IMG_1", "b/@eaDir/t.jpg", "b/2.jpg", ".h/3.jpg", "a.txt", "a.psd"):
            archive.writestr(name, b"8BPS" if name == "a.psd" else picture())
    listing = list_dataset(f"zip://::{tmp_path}/z.zip")
    assert names(listing) == ["IMG_1", "b/2.jpg"]
    assert listing.pictures == [("a.psd", "Photoshop (.psd) is not read")]
    assert listing.left_out == {"@eaDir/": 1, "hidden folder": 1, ".txt": 1}
    listing = list_dataset(f"zip://::{tmp_path}/z.zip", include="@eaDir", exclude="2.jpg")
    assert names(listing) == ["IMG_1", "b/@eaDir/t.jpg"]


# Raw files of cameras


class FakeRaw:
    """What rawpy gives for a raw file: a preview, and how the camera was held."""

    LibRawError = RuntimeError
    ThumbFormat = SimpleNamespace(JPEG="jpeg", BITMAP="bitmap")

    def __init__(self, thumbnail, flip=0):
        self.thumbnail, self.sizes = thumbnail, SimpleNamespace(flip=flip)

    def imread(self, path):
        return self

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def extract_thumb(self):
        if self.thumbnail is None:
            raise self.LibRawError(b"no thumbnail")
        return self.thumbnail


@pytest.fixture
def raw(tmp_path, monkeypatch):
    """A raw file, which is a TIFF with a tiny picture first, and a function that fakes rawpy."""
    Image.new("L", (16, 12)).save(tmp_path / "1.nef", "TIFF")

    def fake(thumbnail, flip=0):
        monkeypatch.setitem(sys.modules, "rawpy", FakeRaw(thumbnail, flip))
        for module in (sniff, sys.modules["simsearch.images.fallback"]):
            monkeypatch.setattr(module, "can_read_raw", lambda: True)
        return tmp_path / "1.nef"

    import simsearch.images.fallback  # noqa: F401

    return fake


def test_raw_files_without_rawpy_are_skipped_with_the_mend(tmp_path, monkeypatch):
    monkeypatch.setattr(sniff, "can_read_raw", lambda: False)
    Image.new("L", (16, 12)).save(tmp_path / "1.nef", "TIFF")
    plant(tmp_path, {"2.cr3": b"\0\0\0\x18ftypcrx ", "3.dng": picture()})
    listing = list_dataset(tmp_path)
    assert names(listing) == ["3.dng"]
    assert [name for name, _ in listing.pictures] == ["1.nef", "2.cr3"]
    assert all('pip install "simsearch[raw]"' in reason for _, reason in listing.pictures)


@pytest.mark.parametrize(
    ("kind", "flip", "turn"),
    [("jpeg", 0, 0), ("jpeg", 6, -90), ("jpeg", 3, 180), ("bitmap", 5, 90)],
)
def test_raw_files_are_read_by_their_preview(raw, kind, flip, turn):
    data = picture("PNG") if kind == "jpeg" else smooth()
    if kind == "jpeg":
        data = encoded(Image.fromarray(smooth()), "JPEG", quality=95)
    path = raw(SimpleNamespace(format=kind, data=data), flip)
    assert names(list_dataset(path.parent)) == ["1.nef"]
    wanted = Image.fromarray(smooth()).rotate(turn, expand=True)
    image = load_image(path)
    assert image.size == wanted.size
    assert load_image(path.as_posix()).tobytes() == image.tobytes()
    assert abs(image.getpixel((5, 5))[0] - wanted.getpixel((5, 5))[0]) < 6


def test_raw_files_at_an_address_are_read_by_their_preview(raw):
    pytest.importorskip("fsspec")
    path = raw(SimpleNamespace(format="jpeg", data=picture()))
    with zipfile.ZipFile(path.with_name("z.zip"), "w") as archive:
        archive.write(path, "1.nef")
    assert load_image(f"zip://1.nef::{path.with_name('z.zip')}").size == (96, 64)


def test_a_dng_is_read_by_rawpy_itself(tmp_path):
    """A small DNG, made here: a preview of colours first, and a sensor's flat values."""
    pytest.importorskip("rawpy")
    tags = [(50706, "B", 4, bytes([1, 4, 0, 0])), (272, "s", 0, "Cam"), (50708, "s", 0, "Cam")]
    tags += [(271, "s", 0, "Maker"), (274, "H", 1, 6), (50778, "H", 1, 21)]
    tags.append((50721, "2i", 9, [1, 1, 0, 1, 0, 1, 0, 1, 1, 1, 0, 1, 0, 1, 0, 1, 1, 1]))
    cells = [(33421, "H", 2, [2, 2]), (33422, "B", 4, bytes([0, 1, 1, 2]))]
    cells += [(50710, "B", 3, bytes([0, 1, 2])), (50711, "H", 1, 1), (50717, "H", 1, 1023)]
    with tifffile.TiffWriter(tmp_path / "1.dng") as file:
        file.write(smooth(192, 128), photometric="rgb", subifds=1, subfiletype=1, extratags=tags)
        sensor = np.full((512, 768), 500, np.uint16)
        file.write(sensor, photometric="cfa", subfiletype=0, extratags=cells)
    assert np.array_equal(load_image(tmp_path / "1.dng"), np.rot90(smooth(192, 128), -1))
    (tmp_path / "2.dng").write_bytes((tmp_path / "1.dng").read_bytes()[:100])
    with pytest.raises(ImageError, match=r"no preview in this raw file: [A-Z]"):
        load_image(tmp_path / "2.dng")


def test_a_raw_file_without_a_preview_is_an_error(raw):
    with pytest.raises(ImageError, match=r"1\.nef: no preview in this raw file: no thumbnail"):
        load_image(raw(None))


# Folders and globs


def test_waste_of_systems_is_left_out_and_counted(tmp_path):
    waste = ["@eaDir", "#recycle", "$RECYCLE.BIN", ".thumbnails", "System Volume Information"]
    waste += ["__MACOSX", "a/@eaDir", "lost+found", "b/@tmp"]
    plant(tmp_path, {f"{folder}/1.jpg": picture() for folder in waste} | {"a/2.jpg": picture()})
    listing = list_dataset(tmp_path)
    assert names(listing) == ["a/2.jpg"]
    assert listing.left_out == {
        "@eaDir/": 2,
        "#recycle/": 1,
        "$RECYCLE.BIN/": 1,
        ".thumbnails/": 1,
        "System Volume Information/": 1,
        "__MACOSX/": 1,
        "lost+found/": 1,
        "@tmp/": 1,
    }


TREE = ["1.jpg", "1.png", "a/2.jpg", "a/b/3.png", "b/4.jpg", "drafts/5.jpg", "a/drafts/6.jpg"]
TREE += ["a/@eaDir/7.jpg", ".h/8.jpg"]


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"exclude": "drafts"}, ["1.jpg", "1.png", "a/2.jpg", "a/b/3.png", "b/4.jpg"]),
        ({"exclude": "/drafts/"}, [*TREE[:5], TREE[6]]),
        ({"exclude": "./a/b"}, [*TREE[:3], *TREE[4:7]]),
        ({"exclude": ["*.jpg"]}, ["1.png", "a/b/3.png"]),
        ({"exclude": "a/*.jpg"}, [*TREE[:2], *TREE[3:6]]),
        ({"exclude": "**/drafts"}, TREE[:5]),
        ({"include": "*.png"}, ["1.png", "a/b/3.png"]),
        ({"include": "a"}, ["a/2.jpg", "a/b/3.png", "a/drafts/6.jpg"]),
        ({"include": ["a/*"], "exclude": ["b"]}, ["a/2.jpg", "a/drafts/6.jpg"]),
        ({"include": "@eaDir"}, TREE[:8]),
        ({"include": ".h"}, [*TREE[:7], TREE[8]]),
        ({"include": ["@eaDir", "*.png", "7.jpg"]}, ["1.png", "a/b/3.png", "a/@eaDir/7.jpg"]),
        ({"include": ["@eaDir"], "exclude": ["@eaDir"]}, TREE[:7]),
        ({"include": [], "exclude": ()}, TREE[:7]),
        ({"include": None, "exclude": None}, TREE[:7]),
        ({"exclude": PurePosixPath("a/b")}, [*TREE[:3], *TREE[4:7]]),
        ({"include": [PurePosixPath("a")], "exclude": "b"}, ["a/2.jpg", "a/drafts/6.jpg"]),
    ],
)
def test_globs_choose_files(options, wanted, tmp_path, caplog):
    plant(tmp_path, dict.fromkeys(TREE, b"x"))
    listing = list_dataset(tmp_path, **options)
    assert names(listing) == sorted(wanted)
    assert caplog.messages == []


def test_a_name_with_brackets_matches_itself(tmp_path):
    plant(tmp_path, dict.fromkeys(["[raw]/1.jpg", "b/[raw]/2.jpg", "b/3[1].jpg", "b/r.jpg"], b"x"))
    assert names(list_dataset(tmp_path, exclude="[raw]")) == ["b/3[1].jpg", "b/r.jpg"]
    assert names(list_dataset(tmp_path, include="b/3[1].jpg")) == ["b/3[1].jpg"]
    assert names(list_dataset(tmp_path, include="[qr].jpg")) == ["b/r.jpg"]


@settings(max_examples=40, deadline=None)
@given(
    include=st.lists(st.sampled_from(["*.jpg", "a", "a/b", "*b*", "b/?.jpg"]), max_size=2),
    exclude=st.lists(st.sampled_from(["*.png", "a/b", "drafts", "4*", "a/*"]), max_size=2),
)
def test_globs_agree_with_a_comparison_of_each_part(tmp_path_factory, include, exclude):
    root = tmp_path_factory.mktemp("globs")
    plant(root, dict.fromkeys(TREE[:7], b"x"))

    def hit(globs, name):
        parts = name.split("/")
        paths = ["/".join(parts[: n + 1]) for n in range(len(parts))]
        return any(
            fnmatchcase(path if "/" in glob else path.split("/")[-1], glob)
            for glob in globs
            for path in paths
        )

    wanted = [
        name for name in TREE[:7] if not hit(exclude, name) and (not include or hit(include, name))
    ]
    assert names(list_dataset(root, include=include, exclude=exclude)) == sorted(wanted)


def test_a_glob_that_matches_nothing_is_said(tmp_path, caplog):
    plant(tmp_path, {"a/1.jpg": b"x"})
    with caplog.at_level(logging.WARNING):
        assert names(list_dataset(tmp_path, exclude=["draft", "b/*"])) == ["a/1.jpg"]
    assert [message.split(":")[0] for message in caplog.messages] == [
        "The glob 'b/*' matches nothing",
        "The glob 'draft' matches nothing",
    ]


@pytest.mark.parametrize("glob", ["", "/", "./", 7, None])
def test_a_glob_must_be_text(glob, tmp_path):
    for globs in ([glob], *([glob] if glob is not None else [])):
        with pytest.raises(DatasetError, match=r"exclude=.* is not a glob: give names or paths"):
            list_dataset(tmp_path, exclude=globs)


# The whole run


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plant(
        tmp_path / "dataset",
        {"1.jpg": picture(), "IMG_2": picture("PNG"), "a.psd": b"8BPS", "n.txt": b"x"}
        | {"drafts/3.jpg": picture(), "@eaDir/4.jpg": picture()},
    )
    return tmp_path / "dataset"


def test_a_run_names_what_it_left_aside(dataset, capsys):
    library = ss.embed_dataset("dataset", "outputs", "efficientnet_lite0", workers=1)
    assert library.names == ["1.jpg", "IMG_2", "drafts/3.jpg"]
    assert read_skipped("outputs") == [
        Skipped("dataset/a.psd", "Photoshop (.psd) is not read"),
    ]
    printed = "".join(capsys.readouterr())
    assert "1 .txt" in printed
    assert "1 @eaDir/" in printed


def test_globs_hold_for_a_run_in_python_and_on_the_command_line(dataset):
    options = {"workers": 1, "progress": False}
    library = ss.embed_dataset("dataset", "o", "efficientnet_lite0", exclude="drafts", **options)
    assert library.names == ["1.jpg", "IMG_2"]
    library = ss.embed_dataset("dataset", "o", include=["@eaDir"], **options)
    assert library.names == ["1.jpg", "@eaDir/4.jpg", "IMG_2", "drafts/3.jpg"]
    assert not main(["embed", "--exclude", "drafts", "--exclude", "*.jpg", "dataset", "o"])
    assert ss.ImageLibrary.load("o").names == ["IMG_2"]
    assert not main(["embed", "dataset", "o", "--include", "*.jpg"])
    assert ss.ImageLibrary.load("o").names == ["1.jpg", "drafts/3.jpg"]


def test_an_unknown_option_is_refused_before_any_work(dataset):
    with pytest.raises(TypeError, match="batchsize"):
        ss.embed_dataset("dataset", "o", batchsize=3)


def test_a_folder_without_images_says_what_is_there(tmp_path):
    plant(tmp_path, {"a.txt": b"x", "b.psd": b"8BPS"})
    with pytest.raises(DatasetError, match=r"left out: 1 \.txt, b\.psd \(Photoshop"):
        ss.embed_dataset(tmp_path, tmp_path / "o")
