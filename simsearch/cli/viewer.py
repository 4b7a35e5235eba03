"""A figure in the system's own viewer of images."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from threading import Thread

from simsearch.errors import QueryError

OPENERS = ("xdg-open", "open", "wslview")


def figure_file() -> Path:
    """Return where to draw a figure that nobody has named: a new file in the temporary folder."""
    handle, name = tempfile.mkstemp(prefix="simsearch-", suffix=".png")
    os.close(handle)
    return Path(name)


def open_file(file: Path) -> None:
    """Open a file as a double click would.

    Raises
    ------
    QueryError
        If this system has nothing to open it with.
    """
    if sys.platform == "win32":
        os.startfile(file)  # noqa: S606
        return
    program = next(filter(None, map(shutil.which, OPENERS)), None)
    if program is None:
        raise QueryError(
            f"--open: this system has no {' or '.join(OPENERS[:2])}; the figure is in {file}"
        )
    process = subprocess.Popen(  # noqa: S603
        [program, file],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    Thread(target=process.wait, daemon=True).start()  # it may stay open for longer than this run
