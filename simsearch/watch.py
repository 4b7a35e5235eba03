"""A library that follows its dataset: what changes on the disk is embedded as it comes.

Nothing here removes, moves or changes a picture: a run of `embed_dataset` is all that happens.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simsearch.embedding.dataset import embed_dataset
from simsearch.errors import DatasetError, LibraryBusyError, MissingExtraError, SimsearchError
from simsearch.images.address import is_uri

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from threading import Event

    from simsearch.library.library import ImageLibrary

SETTLE_MILLISECONDS = 1600  # a picture that is copied in comes in several changes
QUIET_MILLISECONDS = 2000
BUSY_SECONDS = 5.0
BUSY_TRIES = 12

log = logging.getLogger(__name__)


def follow_dataset(
    root: str,
    outputs: str,
    *,
    stop: Event | None = None,
    report: Callable[[str], None] = print,
    progress: bool = True,
    **options: Any,  # noqa: ANN401
) -> None:
    """Embed a dataset, and again whenever its files change, until `stop` is set.

    Parameters
    ----------
    root, outputs, progress, **options
        As for `embed_dataset`; `progress` and its summary are for the first run.
    stop
        Ends the watch when it is set; Ctrl-C ends it by a KeyboardInterrupt.
    report
        Takes one line for each run that has changed the library.

    Raises
    ------
    MissingExtraError
        If watchfiles is not installed.
    DatasetError
        If the dataset is no folder on this machine, or the first run finds no image.
    """
    runs = _runs_needed(root, outputs, stop)
    embed_dataset(root, outputs, progress=progress, **options)
    report(f"Watching {root}; Ctrl-C ends it")
    for _ in runs:
        try:
            library = _embed_when_free(root, outputs, options)
        except SimsearchError as error:  # such as a disk that is away: the next change tries again
            log.warning("The library in %r stays as it is: %s", outputs, error)
            continue
        if line := describe_changes(library):
            report(f"{time.strftime('%H:%M:%S')}  {line}")


def _runs_needed(root: str, outputs: str, stop: Event | None) -> Iterator[None]:
    """Check what is to be watched; return what yields whenever the dataset may have changed."""
    try:
        from watchfiles import watch
    except ImportError as error:
        raise MissingExtraError('watching needs: pip install "simsearch[watch]"') from error
    folder = Path(root).expanduser()
    if is_uri(root) or not folder.is_dir():
        raise DatasetError(f"{root!r} is no folder on this machine, and cannot be watched")
    own = Path(outputs).expanduser().resolve()

    def counts(_: object, path: str) -> bool:
        return not Path(path).resolve().is_relative_to(own)

    def runs() -> Iterator[None]:
        begun = False  # once nothing changes for a while, what came before the watch is embedded
        for changes in watch(
            folder,
            watch_filter=counts,
            debounce=SETTLE_MILLISECONDS,
            rust_timeout=QUIET_MILLISECONDS,
            yield_on_timeout=True,
            stop_event=stop,
        ):
            if changes or not begun:
                yield
            begun = True

    return runs()


def _embed_when_free(root: str, outputs: str, options: dict[str, Any]) -> ImageLibrary:
    """Embed what has changed, once no other process is writing the library."""
    for _ in range(BUSY_TRIES):
        try:
            return embed_dataset(root, outputs, progress=False, **options)
        except LibraryBusyError:
            time.sleep(BUSY_SECONDS)
    return embed_dataset(root, outputs, progress=False, **options)


def describe_changes(library: ImageLibrary) -> str:
    """Say what a run has changed; "" for nothing."""
    report = library.report
    counts = {name: getattr(report, name) for name in ("embedded", "removed", "moved")}
    said = [f"{count:,} {name}" for name, count in counts.items() if count]
    if not said:
        return ""
    return f"{', '.join(said)}; {len(library):,} images, {report.skipped:,} skipped"
