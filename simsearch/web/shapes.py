"""Widths and heights of a library's pictures, as they are shown, read from their headers once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simsearch.errors import ImageError
from simsearch.images.address import is_uri, local_path

if TYPE_CHECKING:
    from collections.abc import Iterable

    from simsearch.web.decoder_pool import DecoderPool

KEPT = 100_000  # pictures; about 30 MB


class Shapes:
    """Reads the shapes of files, in the processes that decode, and keeps them.

    Parameters
    ----------
    decoders
        What reads the headers.
    """

    def __init__(self, decoders: DecoderPool) -> None:
        self._decoders = decoders
        self._known: OrderedDict[tuple[str, int], tuple[int, int] | None] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, path: str) -> tuple[int, int] | None:
        """Return width and height of an upright picture; None if its file says none, or is far."""
        plain = local_path(path)
        if is_uri(plain):
            return None
        try:
            key = path, Path(plain).stat().st_mtime_ns
        except OSError:
            return None
        with self._lock:
            if key in self._known:
                return self._known[key]
        shape = None
        with suppress(ImageError):
            shape = self._decoders.shape(path)
        with self._lock:
            self._known[key] = shape
            if len(self._known) > KEPT:
                self._known.popitem(last=False)
        return shape

    def add(self, images: Iterable[dict[str, Any]], paths: Any) -> None:  # noqa: ANN401
        """Write width and height into descriptions of images, as `schemas.Image`."""
        for image in images:
            shape = self.get(str(paths[image["row"]]))
            image["width"], image["height"] = shape or (None, None)
