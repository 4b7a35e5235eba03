"""Batches on the way to a device, and devices that a caller names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simsearch.errors import BackboneError

if TYPE_CHECKING:
    import torch


def to_device(inputs: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Start to copy a batch to a device; from pinned memory, the copy does not wait."""
    inputs = inputs.pin_memory() if device.type == "cuda" else inputs
    return inputs.to(device, non_blocking=True)


def check_device(device: str | torch.device) -> str:
    """Return the name of a device.

    Raises
    ------
    BackboneError
        If it cannot be used.
    """
    import torch

    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # the latter where PyTorch has no CUDA
        raise BackboneError(
            f"device={str(device)!r} cannot be used: {error}; leave it out for the best available"
        ) from error
    return str(device)
