"""List of the image files below a folder or an address, sorted by name; nothing is decoded."""

from __future__ import annotations

import os
from collections import deque
from pathlib import Path
from typing import NamedTuple

from simsearch.errors import DatasetError
from simsearch.files import modified_ns
from simsearch.images.address import is_uri, local_path

SUFFIXES = frozenset(
    f".{kind}"
    for kind in "jpg jpeg jpe jfif png webp avif heic heif bmp tif tiff gif".split()  # noqa: SIM905
)


class ImageFile(NamedTuple):
    """An image file of a dataset; `size` is -1 where the file's status cannot be read."""

    name: str  # relative to the dataset, POSIX separators
    size: int  # bytes
    mtime_ns: int  # of a file at an address, its version number (`list_files`)


class Skipped(NamedTuple):
    """A file or folder that is not in a library, and the reason."""

    name: str
    reason: str


def find_images(
    root: str | os.PathLike[str], exclude: str | os.PathLike[str] | None = None
) -> tuple[list[ImageFile], list[Skipped]]:
    """List the image files below a folder.

    Links are followed, but no folder is entered twice, so that a loop ends; hidden files and
    folders, and files without an image suffix (in any case), are left out.

    Parameters
    ----------
    root
        The dataset's folder, or its address where fsspec opens that (`s3://bucket/photos`).
    exclude
        A folder below it to leave out, such as the outputs.

    Returns
    -------
    files
        Sorted by name, without repeats.
    skipped
        Folders that could not be read.

    Raises
    ------
    DatasetError
        If `root` is not a folder, or a storage cannot be listed.
    MissingExtraError
        If the package for such an address is not installed.
    """
    root = local_path(root)
    if is_uri(root):
        from simsearch.images.remote import list_files

        return sorted(ImageFile(*file) for file in list_files(str(root), _has_image_suffix)), []
    if not Path(root).is_dir():
        raise DatasetError(
            f"no such folder: {os.fspath(root)!r}; give the folder that holds the images, "
            'or make the sample one with simsearch.make_sample("dataset")'
        )
    return _scan(root, {_identity(exclude)} if exclude and Path(exclude).is_dir() else set())


def _scan(
    root: str | os.PathLike[str], entered: set[tuple[int, int]]
) -> tuple[list[ImageFile], list[Skipped]]:
    """List the image files below a folder of this machine, except in folders `entered` already."""
    folders, links = deque([""]), deque[str]()
    files: list[ImageFile] = []
    skipped: list[Skipped] = []
    # Links wait until every real folder has been entered, so that an image keeps its real name.
    while folders or links:
        prefix = (folders or links).popleft()
        try:
            folder = os.path.join(root, prefix)  # noqa: PTH118 (pathlib is 5 times slower here)
            if (identity := _identity(folder)) in entered:
                continue
            entered.add(identity)
            with os.scandir(folder) as entries:
                for entry in entries:
                    name = prefix + entry.name
                    if entry.name.startswith("."):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(f"{name}/")
                    elif entry.is_symlink() and _is_folder(entry):
                        links.append(f"{name}/")
                    elif _has_image_suffix(entry.name) and (file := _image_file(name, entry)):
                        files.append(file)
        except OSError as error:
            skipped.append(Skipped(prefix, f"unreadable folder: {error.strerror}"))
    return sorted(files), sorted(skipped)


def _identity(folder: str | os.PathLike[str]) -> tuple[int, int]:
    """Return device and inode, the same for every path to a folder."""
    status = os.stat(folder)  # noqa: PTH116
    return status.st_dev, status.st_ino


def _is_folder(link: os.DirEntry[str]) -> bool:
    try:
        return link.is_dir()
    except OSError:  # a loop, or a target without permission
        return False


def _has_image_suffix(name: str) -> bool:
    return name[name.rfind(".") :].lower() in SUFFIXES


def _image_file(name: str, entry: os.DirEntry[str]) -> ImageFile | None:
    """Read size and time of a file; None for a pipe or a socket, which would block a reader."""
    try:
        status = entry.stat()
    except OSError:  # a broken link: listed, so that it is reported
        return ImageFile(name, -1, -1)
    return ImageFile(name, status.st_size, modified_ns(status)) if entry.is_file() else None
