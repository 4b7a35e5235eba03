"""Batches on the way to a device, and devices that a caller names."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np
import torch

from simsearch.errors import BackboneError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

logger = logging.getLogger("simsearch")


def to_device(inputs: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Start to copy a batch to a device; from pinned memory, the copy does not wait."""
    inputs = inputs.pin_memory() if device.type == "cuda" else inputs
    return inputs.to(device, non_blocking=True)


def run_in_memory(
    run: Callable[[torch.Tensor], NDArray[np.float32]], inputs: torch.Tensor, device: torch.device
) -> NDArray[np.float32]:
    """Run a batch on a device, in halves where its memory does not hold all that this takes.

    Parameters
    ----------
    run
        From a batch (B, ...) on the device to an array (B, ...).

    Raises
    ------
    BackboneError
        If there is no memory for a single picture.
    """
    try:
        return run(to_device(inputs, device))
    except torch.OutOfMemoryError as error:
        reason = str(error).partition(". ")[0]
    # Only here, where no traceback holds what the attempt has made.
    torch.cuda.empty_cache()
    if len(inputs) == 1:
        raise BackboneError(
            f"device={str(device)!r} has no memory left for one picture ({reason}): end what else "
            'uses it, or give device="cpu"'
        )
    logger.warning(
        "%s is short of memory: %d pictures pass through the network in halves; "
        "a smaller batch_size= is quicker",
        device,
        len(inputs),
    )
    return np.concatenate([run_in_memory(run, half, device) for half in inputs.tensor_split(2)])


def check_device(device: str | torch.device) -> str:
    """Return the name of a device.

    Raises
    ------
    BackboneError
        If it cannot be used.
    """
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # the latter where PyTorch has no CUDA
        raise BackboneError(
            f"device={str(device)!r} cannot be used: {error}; leave it out for the best available"
        ) from error
    return str(device)
