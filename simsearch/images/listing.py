"""The public list of the image files of a dataset."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simsearch.images.find import list_dataset

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from simsearch.images.find import ImageFile, Skipped


def find_images(
    root: str | os.PathLike[str],
    exclude: str | os.PathLike[str] | None = None,
    follow: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] = (),
) -> tuple[list[ImageFile], list[Skipped]]:
    """List the image files below a folder.

    Links are followed within the folder, and out of it to folders in `follow`; no folder is
    entered twice, so that a loop ends. A file without an
    image suffix (in any case) is listed if its first bytes are those of an image. Hidden files
    and folders, and folders such as `@eaDir` and `$RECYCLE.BIN`, are left out.

    Parameters
    ----------
    root
        The dataset's folder, or its address where fsspec opens that (`s3://bucket/photos`).
    exclude
        A folder below it to leave out, such as the outputs.
    follow
        Folders elsewhere that links may lead to.

    Returns
    -------
    files
        Sorted by name, without repeats.
    skipped
        Folders that could not be read.

    Raises
    ------
    DatasetError
        If `root` or one of `follow` is not a folder, or a storage cannot be listed.
    MissingExtraError
        If the package for such an address is not installed.
    """
    return list_dataset(root, exclude, follow=follow)[:2]
