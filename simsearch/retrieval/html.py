"""Matches as HTML, for notebooks: cards with thumbnails."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

from simsearch.errors import ImageError
from simsearch.images.data_url import data_url
from simsearch.printable import valid_unicode
from simsearch.retrieval.matches import also, percentile

if TYPE_CHECKING:
    from simsearch.images.decode import ImageSources
    from simsearch.retrieval.matches import Matches


def to_html(matches: Matches) -> str:
    """Show the query and its matches as cards with thumbnails."""
    cards = (
        [picture_card(matches.image, "query", matches.query)] if matches.image is not None else []
    )
    cards += [
        picture_card(
            m.path,
            f"{m.rank}. {m.score:.3f} ({percentile(m.percentile)}) {also(m)}".strip(),
            " · ".join(filter(None, (m.caption, m.path))),
        )
        for m in matches.rows
    ]
    notes = "".join(f"<p>Note: {html.escape(note)}</p>" for note in matches.notes)
    return f'<div style="display:flex;flex-wrap:wrap;gap:12px">{"".join(cards)}</div>{notes}'


def picture_card(source: ImageSources, title: str, caption: str) -> str:
    """Return a picture over a title and a caption as HTML; one that cannot be read says so."""
    picture = '<div style="height:112px">(unreadable)</div>'
    try:
        url = data_url(source, 224)
        alt = html.escape(valid_unicode(f"{title}: {caption}"))
        picture = f'<img alt="{alt}" style="height:112px" src="{url}">'
    except ImageError:
        pass  # the file has gone since; its path and score still stand
    name = html.escape(valid_unicode(caption))
    return (
        f'<figure style="margin:0;width:min-content" title="{name}">{picture}<figcaption>'
        f"<b>{html.escape(title)}</b><br><small>{name}</small></figcaption></figure>"
    )
