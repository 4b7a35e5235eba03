"""Pictures within HTML: small copies as URLs that hold them."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

from simsearch.images.decode import load_preview

if TYPE_CHECKING:
    from simsearch.images.decode import ImageSources


def data_url(source: ImageSources, side: int, quality: int = 85) -> str:
    """Return a JPEG of a picture, of at most `side` pixels on its longer side, as a URL.

    Raises
    ------
    ImageError
        If the picture cannot be read.
    """
    picture = load_preview(source, min_side=side)
    picture.thumbnail((side, side))
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=quality)
    return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}"
