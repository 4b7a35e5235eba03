"""Weights of backbones: state dicts loaded and saved, downloads with a stall limit, and `auto`."""

from __future__ import annotations

import hashlib
import http.client
import logging
import math
import pickle
import queue
import re
import textwrap
import threading
import time
import urllib.request
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm.auto import tqdm

from simsearch.backbones.spec import BUNDLED
from simsearch.errors import WeightsError
from simsearch.files import atomic_write

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import IO, Any

    import torch

    from simsearch.backbones.spec import ModelSpec


logger = logging.getLogger("simsearch")
STALL_SECONDS = 20.0  # until a server must have answered, or sent more
AUTO_STALL_SECONDS = 8.0  # the same for "auto"
AUTO_DOWNLOAD_SECONDS = 300.0  # the longest download that "auto" starts


def load_weights(module: torch.nn.Module, file: Path, ignore: str | tuple[str, ...] = ()) -> None:
    """Load a state dict into a module, without the entries of the classifier that was cut."""
    import torch

    prefixes = tuple(f"{key}." for key in ([ignore] if isinstance(ignore, str) else ignore))
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            state: Mapping[str, Any] = load_file(file)
        else:  # weights_only: a pickle could run code
            state = torch.load(file, map_location="cpu", weights_only=True)
        state = state.get("state_dict", state)
        state = {key.removeprefix("module."): value for key, value in state.items()}
        module.load_state_dict({k: v for k, v in state.items() if not k.startswith(prefixes)})
    except Exception as error:  # torch, pickle, zip and safetensors each raise their own
        unsafe = isinstance(error, pickle.UnpicklingError)  # whose message says how to run it
        reason = "it is not made of tensors alone" if unsafe else textwrap.shorten(str(error), 200)
        raise WeightsError(
            f"{file} does not hold weights for {type(module).__name__}: {reason}; give a state "
            "dict of this architecture, or delete a damaged file to have it fetched again"
        ) from error


def save_weights(network: ModelSpec, file: Path) -> None:
    """Write a network's state dict as safetensors, atomically.

    `load_backbone(network.name, weights=file)` loads it again, unless the module is a user's own.
    """
    import torch
    from safetensors.torch import save

    # Copies: tensors that share memory, or lie channels-last, cannot be written.
    state = {
        key: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for key, tensor in network.module.state_dict().items()
    }
    with atomic_write(file) as stream:
        stream.write(save(state))


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

    Parameters
    ----------
    url
        Where the file is published; its name ends in the first digits of its SHA-256.
    stall_seconds
        Time until the server must have answered, and the longest pause after that.
    max_seconds
        Give up, after `stall_seconds`, a download that would take longer than this.

    Raises
    ------
    WeightsError
        If the file cannot be downloaded or stored; nothing is left of it.
    """
    import torch

    name = url.rpartition("/")[2]
    target = Path(torch.hub.get_dir()) / "checkpoints" / name
    if target.is_file():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with (
            atomic_write(target, shared=True) as file,
            _open_url(url, stall_seconds) as response,
        ):
            digest = _copy(response, file, name, stall_seconds, max_seconds)
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
    source = f" from {url}" if url else ""
    return (
        f"the weights of {name} cannot be fetched{source} ({reason}); either connect and try "
        'again, or fetch the file elsewhere and pass weights="path/to/file", or use '
        f'backbone="{BUNDLED}", whose weights are already here'
    )


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


def _copy(
    source: Any,  # noqa: ANN401
    target: IO[bytes],
    name: str,
    stall_seconds: float,
    max_seconds: float,
) -> str:
    """Copy a download to a file under a progress bar; return its SHA-256."""
    digest = hashlib.sha256()
    total = int(source.headers.get("Content-Length") or 0)
    received = 0  # the bar does not count while it is disabled
    start = time.monotonic()
    with tqdm(desc=name, total=total or None, unit="B", unit_scale=True) as bar:
        while chunk := source.read1(2**18):
            target.write(chunk)
            digest.update(chunk)
            bar.update(len(chunk))
            received += len(chunk)
            elapsed = time.monotonic() - start
            if elapsed > stall_seconds and elapsed * max(1, total / received) > max_seconds:
                raise TimeoutError(f"the connection is slow: {received / elapsed / 1e3:.0f} kB/s")
    if total > received:
        raise OSError(f"the connection broke after {received:,} of {total:,} bytes")
    return digest.hexdigest()
