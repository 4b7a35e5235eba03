"""Images of requests, before they are decoded: fetched, checked, and within a budget of pixels."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from simsearch.errors import ImageError
from simsearch.images.budget import MemoryBudget
from simsearch.images.download import DOWNLOAD_SECONDS
from simsearch.images.header import Header, measure
from simsearch.web.url_fetch import fetch_public_url
from simsearch.work import checkpoint


def fetch_images(urls: Sequence[str], max_bytes: int) -> list[bytes]:
    """Fetch images from public URLs, all together within the time of one download.

    Raises
    ------
    ImageError
        If one cannot be fetched, or all together have more than `max_bytes`.
    """
    deadline = time.monotonic() + DOWNLOAD_SECONDS
    images: list[bytes] = []
    for url in urls:
        images.append(fetch_public_url(url, deadline - time.monotonic()))
        if sum(map(len, images)) > max_bytes:
            raise ImageError(f"over {max_bytes:,} bytes", url)
    return images


class PixelBudget:
    """A number of pixels that all requests share: a request waits until enough are free.

    Parameters
    ----------
    size
        Pixels that may be decoded at the same time.
    max_pixels
        Of one image.
    read
        Reads a header, and the pixels that are decoded; such as in another process.
    """

    def __init__(
        self, size: int, max_pixels: int, read: Callable[[bytes], tuple[Header, int]] = measure
    ) -> None:
        self._budget = MemoryBudget(size)  # of pixels; in order, so that no large one starves
        self._max_pixels, self._read = max_pixels, read

    @contextmanager
    def reserve(self, images: Sequence[bytes], weight: int = 1) -> Iterator[None]:
        """Reserve the pixels of images times `weight`, or the whole budget if they have more.

        Raises
        ------
        ImageError
            If one is no image, or has too many pixels.
        """
        pixels = weight * sum(map(self._count_pixels, images))
        if not pixels:  # a search by row waits for no pictures
            yield
            return
        with self._budget.reserve(pixels, checkpoint):
            yield

    def _count_pixels(self, data: bytes) -> int:
        """Check the header of an image; return how many pixels it has."""
        header, pixels = self._read(data)
        if pixels > self._max_pixels:
            stated = f"{header.width}×{header.height}"
            if pixels > header.width * header.height:
                stated = f"{pixels:,} in a file that states {stated}"
            raise ImageError(
                f"{stated} pixels, over the limit of {self._max_pixels:,}: send a smaller copy"
            )
        return pixels
