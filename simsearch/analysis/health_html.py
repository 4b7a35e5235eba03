"""The health of a dataset as HTML, for notebooks: a table with the worst pictures of each kind."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

from simsearch.errors import ImageError
from simsearch.images.data_url import data_url
from simsearch.printable import one_line

if TYPE_CHECKING:
    from simsearch.analysis.health_report import Finding, HealthReport

SHOWN, SIDE = 4, 160  # pictures of each kind, pixels (twice what is shown)


def to_html(report: HealthReport) -> str:
    """Make a table of kinds: how many, what they mean, and thumbnails of the worst."""
    body = "".join(_line(report, kind) for kind in report)
    notes = "".join(
        f"<p>Not checked, {html.escape(kind)}: {html.escape(one_line(reason))}</p>"
        for kind, reason in report.unchecked.items()
    )
    head = "<tr><th>kind</th><th>found</th><th>meaning</th><th>worst</th></tr>"
    summary = f"<p>{report.total:,} findings in {report.images:,} images</p>"
    return f"{summary}<table>{head}{body}</table>{notes}"


def _line(report: HealthReport, kind: str) -> str:
    found = report[kind]
    texts = (kind, f"{len(found):,}", report.checks[kind].meaning)
    cells = "".join(f'<td style="text-align:left">{html.escape(text)}</td>' for text in texts)
    return f"<tr>{cells}<td>{''.join(map(_thumbnail, found[:SHOWN]))}</td></tr>"


def _thumbnail(finding: Finding) -> str:
    name = html.escape(one_line(finding.path), quote=True)
    try:
        url = data_url(finding.path, SIDE)
    except ImageError as error:
        return f'<span title="{name}">({html.escape(one_line(error.reason))})</span> '
    style = "display:inline-block;height:80px;margin:2px"
    return f'<img title="{name}" style="{style}" src="{url}">'
