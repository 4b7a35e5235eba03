"""Backbones on the way to another process, and devices that a caller names."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from simsearch.errors import BackboneError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    import torch

    from simsearch.backbones.backbone import Backbone

LOCAL = {"device_lock", "hook_lock", "map_hook", "own_spec", "module", "device", "_network"}


def pack(backbone: Backbone) -> tuple[Callable[..., Backbone], tuple[Any, ...]]:
    """Let another process embed as this one does: the folded network, from the processor."""
    state = {name: value for name, value in backbone.__dict__.items() if name not in LOCAL}
    on_cpu = backbone.device.type == "cpu"
    module = backbone.module if on_cpu else copy.deepcopy(backbone.module).cpu()
    return unpack, (type(backbone), state | {"module": module})


def unpack(kind: type[Backbone], state: dict[str, Any]) -> Backbone:
    """Make the backbone that was packed."""
    backbone = kind.__new__(kind)
    backbone.__dict__.update(state)
    backbone.set_local_state(None)
    backbone.move("cpu")
    return backbone


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
