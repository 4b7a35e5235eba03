"""What a run of `embed_dataset` read, reused and left out, in numbers and in words."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tqdm.auto import tqdm

from simsearch.library.files import SKIPPED
from simsearch.library.long_pictures import describe_long
from simsearch.library.skipped import read_skipped
from simsearch.printable import valid_unicode

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from simsearch.images.find import Skipped
    from simsearch.library.library import ImageLibrary


@dataclass(frozen=True)
class EmbedReport:
    """Counts of images, by what became of them.

    Attributes
    ----------
    embedded : int
        Files that were read and embedded by this run.
    reused : int
        Rows taken over from the last library or an unfinished run, the next two included.
    moved : int
        Of the reused, those whose file was renamed, moved or touched: known by content.
    kept : int
        Of the reused, those whose file was not seen, for the reasons in `kept_reasons`.
    removed : int
        Rows of the last library that are gone.
    skipped : int
        Files and folders that are not in the library; `skipped.csv` names each.
    left_out : dict
        Their number by kind of reason.
    other_files : dict
        Number of files and folders that are no images to embed, by kind: ".txt", "hidden file",
        "@eaDir/"; known after a run only.
    kept_reasons : dict
        Number of kept rows by reason.
    seconds : float
        Time that embedding took.
    centre_only : str
        How many pictures are so long that only their centre square is compared, in words; "" if
        none is known to be. Known after a run only.
    """

    embedded: int = 0
    reused: int = 0
    moved: int = 0
    kept: int = 0
    removed: int = 0
    skipped: int = 0
    left_out: Mapping[str, int] = field(default_factory=dict)
    other_files: Mapping[str, int] = field(default_factory=dict)
    kept_reasons: Mapping[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    centre_only: str = ""

    def __str__(self) -> str:
        pace = f" ({self.embedded / self.seconds:.1f} images/s)" if self.embedded else ""
        counts = (
            f"{self.embedded:,} embedded{pace}, {self.reused:,} reused, {self.removed:,} removed, "
            f"{self.skipped:,} skipped"
        )
        moved = f"{self.moved:,} renamed, moved or touched: known by content" if self.moved else ""
        details = {
            "skipped": describe_kinds(self.left_out),
            "no images": describe_kinds(self.other_files),
            "reused": moved,
            "kept": describe_kinds(self.kept_reasons),
            "long": self.centre_only,
        }
        return "\n".join([counts, *(f"  {key}: {text}" for key, text in details.items() if text)])


def describe_kinds(counts: Mapping[str, int]) -> str:
    """Put counts in words, the largest first: "3 the file is empty, 1 no such file"."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count:,} {kind}" for kind, count in ordered)


def count_kinds(skipped: Iterable[Skipped]) -> dict[str, int]:
    """Count reasons by their kind: without numbers, and without what follows a colon.

    Examples
    --------
    >>> from simsearch.images.find import Skipped
    >>> count_kinds([Skipped("a", "8×9 pixels"), Skipped("b", "70×1,000 pixels")])
    {'N×N pixels': 2}
    """
    kinds = (
        re.sub(r"(?<![a-zA-Z])\d[\d,.]*", "N", reason.partition(":")[0]) for _, reason in skipped
    )
    return dict(Counter(kinds).most_common())


def make_report(library: ImageLibrary) -> EmbedReport:
    """Report on the run that made a library; of one that was loaded, all rows are reused."""
    skipped = read_skipped(library.stored[0]) if library.stored else []
    counts = {"reused": len(library)} if library.run is None else library.run
    long = "" if library.run is None else describe_long(library)
    return EmbedReport(
        skipped=len(skipped), left_out=count_kinds(skipped), centre_only=long, **counts
    )


def print_report(library: ImageLibrary, folder: Path) -> None:
    """Print what a run made of a folder, beside any progress bar."""
    report = library.report
    see = f"\n  {(folder / SKIPPED).as_posix()} names each that was skipped"
    text = f"{library!r} in {folder.as_posix()!r}: {report}{see if report.skipped else ''}"
    tqdm.write(valid_unicode(text))
