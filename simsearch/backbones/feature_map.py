"""The last feature map of a network, found in a forward pass and read by a hook."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

    import torch


class FeatureMapHook:
    """Takes the last map of a network apart: what follows sees each cell as a map of its own.

    Only in the thread that asks for it; others may be embedding with the same network meanwhile.
    """

    def __init__(self, network: torch.nn.Module, layer: torch.nn.Module) -> None:
        self._network, self._mine = network, threading.local()
        self.remove = layer.register_forward_hook(self._take_apart).remove

    def __getstate__(self) -> dict[str, Any]:
        return {"_mine": None}  # a copy that goes elsewhere with its network takes nothing apart

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        """Embed the cells: (B, h, w, D)."""
        self._mine.asked = True
        try:
            cells: torch.Tensor = self._network(inputs)
        finally:
            self._mine.asked = False
        return cells.reshape(*self._mine.shape, -1)

    def _take_apart(
        self, _layer: torch.nn.Module, _inputs: object, output: torch.Tensor
    ) -> torch.Tensor | None:
        if not getattr(self._mine, "asked", False):
            return None
        count, channels, *positions = output.shape
        self._mine.shape = count, *positions
        return output.permute(0, 2, 3, 1).reshape(-1, channels, 1, 1)


def record_maps(
    network: torch.nn.Module, inputs: torch.Tensor, found: list[torch.nn.Module]
) -> torch.Tensor:
    """Run a network, and append the layers that give a map of more than one position, in order."""
    import torch

    thread = threading.get_ident()

    def note(layer: torch.nn.Module, _inputs: object, output: object) -> None:
        if (
            threading.get_ident() == thread
            and isinstance(output, torch.Tensor)
            and output.ndim == 4
            and output.shape[2:].numel() > 1
        ):
            found.append(layer)

    hooks = [layer.register_forward_hook(note) for layer in network.modules()]
    try:
        result: torch.Tensor = network(inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return result
