"""Published weights, downloaded with a stall limit, and the choice of `auto`."""

from __future__ import annotations

import http.client
import logging
import math
import queue
import re
import threading
import urllib.request
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from simsearch.backbones.spec import BUNDLED
from simsearch.errors import WeightsError
from simsearch.files import atomic_write

if TYPE_CHECKING:
    from typing import Any

logger = logging.getLogger("simsearch")
STALL_SECONDS = 20.0  # until a server must have answered, or sent more
AUTO_STALL_SECONDS = 8.0  # the same for "auto"
AUTO_DOWNLOAD_SECONDS = 300.0  # the longest download that "auto" starts


@lru_cache(maxsize=1)
def auto_backbone_name() -> str:
    """Choose ResNet50 if its weights are cached or can be fetched now, else the bundled model."""
    from torchvision.models import ResNet50_Weights

    try:
        fetch_weights(ResNet50_Weights.IMAGENET1K_V1.url, AUTO_STALL_SECONDS, AUTO_DOWNLOAD_SECONDS)
    except WeightsError as error:
        logger.warning("Using %s, which needs no download: %s.", BUNDLED, str(error).split(";")[0])
        return BUNDLED
    return "resnet50"


def fetch_weights(
    url: str, stall_seconds: float = STALL_SECONDS, max_seconds: float = math.inf
) -> Path:
    """Return the weights' file in PyTorch's cache, downloading it if need be.

    Its name ends in the first digits of its SHA-256. `stall_seconds` is the longest pause of the
    server; a download that would take more than `max_seconds` is given up. A `WeightsError` leaves
    nothing of the file.
    """
    import torch

    name = url.rpartition("/")[2]
    target = Path(torch.hub.get_dir()) / "checkpoints" / name
    if target.is_file():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(target, shared=True) as file, _open_url(url, stall_seconds) as response:
            from simsearch.backbones.stream import copy_stream

            digest = copy_stream(response, file, name, stall_seconds, max_seconds)
            published = re.search(r"-([0-9a-f]{8,})\.", name)
            if published and not digest.startswith(published[1]):
                raise OSError("the file arrived damaged")
    except (OSError, http.client.HTTPException) as error:
        raise WeightsError(
            offline_advice(name, str(getattr(error, "reason", error)), url)
        ) from error
    return target


def offline_advice(name: str, reason: str, url: str = "") -> str:
    """Word the error of weights that cannot be fetched, with the three ways to mend it."""
    return (
        f"{cannot_fetch(name, reason, url)}; either connect and try again, or fetch the file "
        f'elsewhere and pass weights="path/to/file", or use backbone="{BUNDLED}", whose weights '
        "are already here"
    )


def cannot_fetch(name: str, reason: str, url: str = "") -> str:
    """Say in one line why weights cannot be fetched; clients of hubs give reasons of several."""
    source = f" from {url}" if url else ""
    return f"the weights of {name} cannot be fetched{source} ({' '.join(reason.split())[:200]})"


def _open_url(url: str, seconds: float) -> Any:  # noqa: ANN401
    """Open a URL within a time limit that holds for the name look-up, too."""
    responses: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def request() -> None:
        try:
            responses.put(urllib.request.urlopen(url, timeout=seconds))  # noqa: S310
        except Exception as error:
            responses.put(error)

    threading.Thread(target=request, daemon=True).start()
    try:
        response = responses.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError(f"no answer within {seconds:.0f} s") from None
    if isinstance(response, urllib.error.HTTPError):
        response.close()  # it holds the connection
    if isinstance(response, Exception):
        raise response
    return response
