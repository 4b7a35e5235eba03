"""List of the image files below a folder or an address, sorted by name; nothing is decoded."""

from __future__ import annotations

import os
from collections import Counter, deque
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from simsearch.errors import DatasetError
from simsearch.files import modified_ns
from simsearch.images.address import is_uri, local_path

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from simsearch.images.selection import ListingOptions, Place, Rule

SUFFIXES = frozenset(
    f".{kind}"
    for kind in "jpg jpeg jpe jfif png webp avif heic heif bmp tif tiff gif".split()  # noqa: SIM905
)

# Thumbnails, waste and snapshots of NAS boxes and systems, in lower case.
FOLDERS_LEFT_OUT = frozenset(
    {"@eadir", "#recycle", "@recycle", "#snapshot", "$recycle.bin", "recycler", ".thumbnails"}
    | {"system volume information", "__macosx", "@tmp", "@recently-snapshot", "lost+found"}
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


class Listing(NamedTuple):
    """What lies below a dataset's folder, each list sorted by name."""

    files: list[ImageFile]
    folders: list[Skipped]  # that could not be read; their names end with a slash
    pictures: list[Skipped]  # of kinds that are not read, such as ".psd"
    left_out: Counter[str]  # how many of what else, by kind: ".txt", "no suffix", "@eaDir/"

    def add(self, file: ImageFile, place: Place) -> None:
        """Add a file where it belongs: by its suffix or, without one of an image, its content."""
        if _has_image_suffix(file.name):
            self.files.append(file)
            return
        from simsearch.images.sniff import add_by_content

        add_by_content(self, file, place)


def list_dataset(
    root: str | os.PathLike[str],
    outputs: str | os.PathLike[str] | None = None,
    **options: Unpack[ListingOptions],
) -> Listing:
    """List a dataset as `find_images` does, with what is left out; options as `embed_dataset`'s."""
    rule: Rule = left_out_by_default
    if options:
        from simsearch.images.selection import GlobRule

        rule = selection = GlobRule(**options)
    root, listing = local_path(root), Listing([], [], [], Counter())
    if is_uri(root):
        from simsearch.images.remote import fill

        fill(listing, str(root), rule)
    elif not Path(root).is_dir():
        raise DatasetError(
            f"no such folder: {os.fspath(root)!r}; give the folder that holds the images, "
            'or make the sample one with simsearch.make_sample("dataset")'
        )
    else:
        own = {_identity(outputs)} if outputs and Path(outputs).is_dir() else set()
        _scan(listing, root, rule, own - {_identity(root)})
    for found in listing[:3]:
        found.sort()
    if options:
        selection.warn_of_unused()
    return listing


def left_out_by_default(name: str, folder: bool) -> str | None:
    """Return the kind of what is left out without being told; None for the rest."""
    last = name[name.rfind("/") + 1 :]
    if folder and last.lower() in FOLDERS_LEFT_OUT:
        return f"{last}/"
    if last.startswith("."):
        return "hidden folder" if folder else "hidden file"
    return None


def _scan(
    found: Listing, root: str | os.PathLike[str], rule: Rule, entered: set[tuple[int, int]]
) -> None:
    """List what is below a folder of this machine, except in folders `entered` already."""
    folders, links = deque([""]), deque[str]()
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
                    real = entry.is_dir(follow_symlinks=False)
                    is_folder = real or (entry.is_symlink() and _is_folder(entry))
                    if kind := rule(name, is_folder):
                        found.left_out[kind] += 1
                    elif entry.is_symlink() and _leads_out(found, entry.path, root, rule):
                        continue
                    elif is_folder:
                        (folders if real else links).append(f"{name}/")
                    elif file := _image_file(name, entry):
                        found.add(file, entry.path)
                    else:
                        found.left_out["pipe or socket"] += 1
        except OSError as error:
            found.folders.append(Skipped(prefix, f"unreadable folder: {error.strerror}"))


def _identity(folder: str | os.PathLike[str]) -> tuple[int, int]:
    """Return device and inode, the same for every path to a folder."""
    status = os.stat(folder)  # noqa: PTH116
    return status.st_dev, status.st_ino


def _leads_out(found: Listing, link: str, root: str | os.PathLike[str], rule: Rule) -> bool:
    from simsearch.images.links import check_link

    return check_link(found, link, root, rule)


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
