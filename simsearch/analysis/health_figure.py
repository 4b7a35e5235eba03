"""Figures of what `check_dataset` found: pages of thumbnails, the worst first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from simsearch.analysis.health_report import HealthReport, describe
from simsearch.errors import QueryError
from simsearch.files import iter_blocks
from simsearch.plotting.grid import (
    Cell,
    check_positive,
    draw_grid,
    load_thumbnail,
    short_path,
)
from simsearch.plotting.refusals import short_repr

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from simsearch.analysis.health_checks import Check
    from simsearch.analysis.health_report import Finding


def show_health(
    report: HealthReport,
    kind: str | None = None,
    limit: int = 24,
    columns: int = 6,
    size: float = 1.6,
) -> tuple[Figure, NDArray[Any]]:
    """Show what was found as thumbnails, the worst first.

    A copy stands beside what it is a copy of, which has a blue frame.

    Parameters
    ----------
    report
        What `simsearch.check_dataset` returned.
    kind
        The kind to show. By default an overview: one row for each kind that was found.
    limit
        How many findings of the kind to show at most.
    columns
        Images per row, at least two.
    size
        Width of a picture in inches.

    Returns
    -------
    fig : matplotlib.figure.Figure
    axes : numpy.ndarray of matplotlib.axes.Axes
        (rows, columns); one cell that says so if there is nothing to show.

    Raises
    ------
    QueryError
        If it is no such report, has no such kind, or an argument is out of range.
    """
    if not isinstance(report, HealthReport):
        raise QueryError(
            f"show_health cannot show {short_repr(report)}; give what simsearch.check_dataset "
            "returns"
        )
    check_positive(limit=limit, size=size)
    if columns < 2:
        raise QueryError(f"columns={columns}: give at least 2, one for a copy beside its original")
    if kind is None:
        rows = [_overview_row(report, each, columns, size) for each in report if report[each]]
        title = f"{report.total:,} findings in {report.images:,} images"
        return draw_grid(rows or [[Cell("no faults")]], size, title if rows else "")
    if kind not in report.checks:
        raise QueryError(f"kind={kind!r}: give one of {', '.join(report)}")
    found = report[kind]
    cells = [cell for each in found[:limit] for cell in _cells(report, each, size)]
    wide = columns - columns % 2 if found and found[0].other else columns
    title = f"{kind}: {report.checks[kind].meaning}"
    if len(found) > limit:
        title += f" ({limit:,} of {len(found):,})"
    return draw_grid(
        [cells[block] for block in iter_blocks(len(cells), wide)] or [[Cell(f"no {kind}")]],
        size,
        title,
    )


def save_health(report: HealthReport, file: Path) -> None:
    """Save the overview to a file; as a PDF with one more page for each kind that was found.

    Raises
    ------
    OSError, ValueError
        If it cannot be written, or there is no such format.
    """
    import matplotlib.pyplot as plt

    if file.suffix.lower() != ".pdf":
        fig, _ = show_health(report)
        fig.savefig(file)
        plt.close(fig)
        return
    from matplotlib.backends.backend_pdf import PdfPages

    with PdfPages(file) as pages:
        for kind in (None, *(each for each in report if report[each])):
            fig, _ = show_health(report, kind)
            pages.savefig(fig)
            plt.close(fig)


def _overview_row(report: HealthReport, kind: str, columns: int, size: float) -> list[Cell]:
    """Make the first cells of a kind; the last one counts what is not shown."""
    found = report[kind]
    each = 2 if found[0].other else 1
    fits = columns // each
    shown = found if len(found) <= fits else found[: max(1, (columns - 1) // each)]
    cells = [cell for finding in shown for cell in _cells(report, finding, size)]
    first = cells[0]
    cells[0] = first._replace(caption=[f"{kind} · {len(found):,}", *first.caption])
    cells[1:] = [cell._replace(caption=["", *cell.caption]) for cell in cells[1:]]
    more = len(found) - len(shown)
    return [*cells, Cell(f"{more:,} more")] if more and len(cells) < columns else cells


def _caption(check: Check, finding: Finding) -> str:
    """Say the most important in the width of a thumbnail."""
    if finding.kind.endswith("duplicate"):
        return f"{finding.note} {finding.score:.3f}".lstrip()
    return finding.note or describe(check, finding)


def _cells(report: HealthReport, finding: Finding, size: float) -> Iterator[Cell]:
    """Make the cell of a finding, and before it that of the picture that it is a copy of."""
    if finding.other:
        yield Cell(
            load_thumbnail(finding.other, size), ("", short_path(finding.other)), accent=True
        )
    words = _caption(report.checks[finding.kind], finding)
    picture = "not in the library" if finding.row is None else load_thumbnail(finding.path, size)
    yield Cell(picture, (words, short_path(finding.path)))
