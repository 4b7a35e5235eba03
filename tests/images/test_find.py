"""Image files below a folder: names, links, hidden files, permissions."""

import os
import socket
import stat
from pathlib import Path

import matplotlib as mpl
import pytest
from pictures import (
    as_nobody,
)
from PIL import Image

from simsearch.errors import DatasetError, ImageError
from simsearch.images.decode import load_image
from simsearch.images.find import SUFFIXES
from simsearch.images.listing import find_images


def plant(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode(errors="surrogateescape"))


def found(root, **options):
    """Names alone; nothing may be skipped."""
    files, skipped = find_images(root, **options)
    assert skipped == []
    return [file.name for file in files]


def test_images_are_listed_by_name(tmp_path):
    names = ["b.png", "a/z.jpg", "a.jpg", "a-b.jpg", "a/b/c/d.tif", "B.webp", "10.gif", "9.bmp"]
    plant(tmp_path, *names)
    assert found(tmp_path) == found(str(tmp_path)) == found(f"{tmp_path}/") == sorted(names)


def test_relative_root(tmp_path, monkeypatch):
    plant(tmp_path, "dataset/a/1.jpg")
    monkeypatch.chdir(tmp_path)
    assert found("dataset") == found("./dataset/") == ["a/1.jpg"]
    assert found(".") == ["dataset/a/1.jpg"]


def test_size_and_mtime_are_those_of_the_file(tmp_path):
    plant(tmp_path, "a/1.jpg", "2.png")
    for file in find_images(tmp_path)[0]:
        status = (tmp_path / file.name).stat()
        assert file[1:] == (status.st_size, status.st_mtime_ns)


def test_suffixes_in_any_case(tmp_path):
    names = [f"{n}{turn(s)}" for n, turn in enumerate((str, str.upper)) for s in SUFFIXES]
    plant(tmp_path, *names, "1.jPeG")
    assert found(tmp_path) == sorted([*names, "1.jPeG"])


def test_other_files_are_left_out(tmp_path):
    plant(
        tmp_path, "a.txt", "jpg", "a.jpg.part", "a.jpg.txt", "a.svg", "a.jpg/readme", "no_suffix."
    )
    assert found(tmp_path) == []


def test_hidden_files_and_folders_are_left_out(tmp_path):
    plant(tmp_path, "1.jpg", ".2.jpg", ".cache/3.jpg", "a/.b/4.jpg", ".jpg", "a/5.jpg")
    assert found(tmp_path) == ["1.jpg", "a/5.jpg"]


def test_excluded_folder(tmp_path):
    plant(tmp_path, "1.jpg", "outputs/2.jpg", "outputs/a/3.jpg", "a/outputs/4.jpg")
    (tmp_path / "link").symlink_to("outputs")
    for exclude in (tmp_path / "outputs", f"{tmp_path}/a/../outputs/", tmp_path / "link"):
        assert found(tmp_path, exclude=exclude) == ["1.jpg", "a/outputs/4.jpg"]
    for nothing in (None, "", tmp_path / "missing"):
        assert len(found(tmp_path, exclude=nothing)) == 4


def test_agrees_with_a_plain_listing():
    root = Path(mpl.get_data_path())
    files = [path.relative_to(root) for path in root.rglob("*") if path.is_file()]
    wanted = [path.as_posix() for path in files if path.suffix.lower() in SUFFIXES]
    assert found(root) == sorted(wanted)
    assert len(files) > len(wanted) > 10


def test_symlink_loops_end(tmp_path):
    plant(tmp_path, "a/1.jpg", "b/2.jpg")
    (tmp_path / "a/up").symlink_to(tmp_path)
    (tmp_path / "a/b").symlink_to(tmp_path / "b")
    (tmp_path / "b/a").symlink_to("../a")
    assert found(tmp_path) == ["a/1.jpg", "b/2.jpg"]


def test_linked_folder_outside_that_is_named_is_followed(tmp_path):
    plant(tmp_path, "elsewhere/1.jpg", "elsewhere/deep/2.jpg", "dataset/3.jpg")
    (tmp_path / "dataset/link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "dataset/same").symlink_to(tmp_path / "elsewhere")
    assert found(tmp_path / "dataset", follow=tmp_path / "elsewhere") in (
        ["3.jpg", "link/1.jpg", "link/deep/2.jpg"],
        ["3.jpg", "same/1.jpg", "same/deep/2.jpg"],
    )


@pytest.mark.parametrize("link", ["a_first", "z_last"])
def test_linked_folder_inside_keeps_its_real_name(link, tmp_path):
    plant(tmp_path, "m/deep/1.jpg")
    (tmp_path / link).symlink_to("m/deep")
    assert found(tmp_path) == ["m/deep/1.jpg"]


def test_linked_root_and_linked_file(tmp_path):
    plant(tmp_path, "real/1.jpg")
    (tmp_path / "real/2.jpg").symlink_to("1.jpg")
    (tmp_path / "root").symlink_to("real")
    files, _ = find_images(tmp_path / "root")
    assert [file.name for file in files] == ["1.jpg", "2.jpg"]
    assert files[0][1:] == files[1][1:]


@pytest.mark.parametrize("target", ["gone.jpg", "broken.jpg"])
def test_broken_symlink_is_listed(target, tmp_path):
    plant(tmp_path, "a.jpg", "c.jpg", "d/e.jpg")
    (tmp_path / "broken.jpg").symlink_to(target)
    assert found(tmp_path) == ["a.jpg", "broken.jpg", "c.jpg", "d/e.jpg"]
    assert find_images(tmp_path)[0][1] == ("broken.jpg", -1, -1)
    with pytest.raises(ImageError, match=r"broken\.jpg"):
        load_image(tmp_path / "broken.jpg")


def test_pipes_and_sockets_are_left_out(tmp_path, monkeypatch):
    plant(tmp_path, "1.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    monkeypatch.chdir(tmp_path)  # a socket's path must be short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket.jpg")
        assert stat.S_ISSOCK((tmp_path / "socket.jpg").stat().st_mode)
        assert found(tmp_path) == ["1.jpg"]


@pytest.mark.parametrize(
    "name", ["new\nline.jpg", "ünï/☃ 日本.jpg", "latin-\udce9.jpg", "a\\b.jpg", "~.jpg"]
)
def test_unusual_file_names(name, tmp_path):
    plant(tmp_path, name)
    assert found(tmp_path) == [name]
    Image.new("RGB", (3, 2)).save(tmp_path / name)
    assert load_image(os.path.join(tmp_path, name)).size == (3, 2)  # noqa: PTH118


def test_folder_without_permission_is_reported(public):
    plant(public, "a/1.jpg", "locked/2.jpg", "z/3.jpg")
    (public / "a/link.jpg").symlink_to("../locked/2.jpg")
    (public / "locked").chmod(0)
    with as_nobody():
        files, skipped = find_images(public)
    assert [(file.name, file.size) for file in files] == [
        ("a/1.jpg", 7),
        ("a/link.jpg", -1),
        ("z/3.jpg", 7),
    ]
    assert skipped == [("locked/", "unreadable folder: Permission denied")]
    (public / "locked").chmod(0o755)


@pytest.mark.parametrize("name", ["missing", "1.jpg"])
def test_root_must_be_a_folder(name, tmp_path):
    plant(tmp_path, "1.jpg")
    with pytest.raises(DatasetError, match=r"no such folder.*make_sample") as error:
        find_images(tmp_path / name)
    assert str(tmp_path / name) in str(error.value)
