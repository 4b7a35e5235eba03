"""Links in a dataset: followed inside it, and out of it only to folders that the caller names."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from simsearch.errors import DatasetError
from simsearch.printable import valid_unicode

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from simsearch.images.find import Listing
    from simsearch.images.selection import Rule

logger = logging.getLogger("simsearch")

LINK_OUT = "link out of the dataset"


def folders_to_follow(follow: Any) -> list[str]:  # noqa: ANN401 (as a caller gives it)
    """Return folders that links may lead to.

    Raises
    ------
    DatasetError
        If one is no folder.
    """
    given: Sequence[Any] = [follow] if isinstance(follow, (str, os.PathLike)) else list(follow)
    folders = [Path(folder).expanduser() for folder in given]
    for folder in folders:
        if not folder.is_dir():
            raise DatasetError(
                f"follow={os.fspath(folder)!r}: no such folder; name folders that links in the "
                "dataset lead to"
            )
    return [os.path.realpath(folder) for folder in folders]


def leads_out(path: str | os.PathLike[str], folders: Sequence[str]) -> bool:
    """Tell whether a path leads out of some folders, given without links; a broken link does not.

    Examples
    --------
    >>> leads_out("/usr/bin", ["/usr"]), leads_out("/usr/bin", ["/home"])
    (False, True)
    """
    return not is_below(path, folders) and os.path.exists(path)  # noqa: PTH110


def is_below(path: str | os.PathLike[str], folders: Sequence[str]) -> bool:
    """Tell whether a path leads into one of some folders, whatever links it passes."""
    real = os.path.realpath(path)
    tops = (os.path.join(folder, "") for folder in folders)  # noqa: PTH118
    return any(f"{real}{os.sep}".startswith(top) for top in tops)


def check_link(listing: Listing, link: str, root: str | os.PathLike[str], rule: Rule) -> bool:
    """Tell whether a link leads out of a dataset; then count it, and say so at the first one."""
    if not leads_out(link, [os.path.realpath(root), *getattr(rule, "follow", ())]):
        return False
    if not listing.left_out[LINK_OUT]:
        logger.warning(
            "Links that lead out of the dataset are not followed, such as %s (to %s): name the "
            "folder with follow=, or --follow, if its pictures belong to the dataset.",
            *(valid_unicode(link), valid_unicode(os.path.realpath(link))),
        )
    listing.left_out[LINK_OUT] += 1
    return True
