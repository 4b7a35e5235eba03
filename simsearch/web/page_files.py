"""Static files of the pages: as they are, or joined into one of each kind for a page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fastapi.staticfiles import StaticFiles
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import Response

from simsearch.web.page_template import JOINED, STATIC, joined

if TYPE_CHECKING:
    from starlette.types import Scope

FOREVER = "public, max-age=31536000, immutable"  # the address tells what is in the file
JOINED_FOLDER = Path("page")
REVALIDATE = "no-cache"


class PageFiles(StaticFiles):
    """Serves the files in `static/`, and below `page/` what is joined of them."""

    def __init__(self) -> None:
        super().__init__(directory=STATIC)

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Return a file, which a browser may keep."""
        file = Path(path)
        if file.parent == JOINED_FOLDER:
            return _joined_response(file.name, Headers(scope=scope))
        response = await super().get_response(path, scope)
        response.headers.setdefault("Cache-Control", REVALIDATE)
        return response


def _joined_response(name: str, headers: Headers) -> Response:
    """Return a joined file as it is now; one of another server's version is not kept."""
    known = JOINED.fullmatch(name)
    try:
        file = joined(known[1], known[3]) if known else None
    except KeyError:
        file = None
    if known is None or file is None:
        raise HTTPException(404)
    caching = FOREVER if known[2] == file.digest else REVALIDATE
    answer = {"Cache-Control": caching, "Vary": "Accept-Encoding"}
    if "gzip" not in headers.get("accept-encoding", ""):
        return Response(file.data, media_type=file.media_type, headers=answer)
    answer["Content-Encoding"] = "gzip"
    return Response(file.packed, media_type=file.media_type, headers=answer)
