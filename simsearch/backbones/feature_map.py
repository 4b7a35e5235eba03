"""`FeatureMapHook`: the last feature map of a network, each of its cells embedded on its own."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import numpy as np

from simsearch.errors import BackboneError

if TYPE_CHECKING:
    from typing import Any

    import torch
    from numpy.typing import NDArray

    from simsearch.backbones.backbone import Backbone


MIN_MAP_COSINE = 0.8  # of the mean over a map's cells to the embedding, for the map to explain it


class FeatureMapHook:
    """Forward hook that hands each cell of a map to the layers after it as a map of its own.

    It acts in the thread that calls it alone; others may embed with the same network meanwhile.
    """

    def __init__(self, network: torch.nn.Module, layer: torch.nn.Module) -> None:
        self._network, self._local = network, threading.local()
        self.remove = layer.register_forward_hook(self._split_cells).remove

    def __getstate__(self) -> dict[str, Any]:
        return {"_local": None}  # in a copy of the network, the hook does nothing

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        """Embed the cells: (B, h, w, D)."""
        self._local.active = True
        try:
            cells: torch.Tensor = self._network(inputs)
        finally:
            self._local.active = False
        return cells.reshape(*self._local.shape, -1)

    def _split_cells(
        self, _layer: torch.nn.Module, _inputs: object, output: torch.Tensor
    ) -> torch.Tensor | None:
        if not getattr(self._local, "active", False):
            return None
        batch, channels, *sides = output.shape
        self._local.shape = batch, *sides
        return output.permute(0, 2, 3, 1).reshape(-1, channels, 1, 1)


def record_maps(
    network: torch.nn.Module, inputs: torch.Tensor, found: list[torch.nn.Module]
) -> torch.Tensor:
    """Run a network; append the layers that give a map of more than one cell to `found`, in order.

    Returns
    -------
    torch.Tensor
        What the network gives.
    """
    import torch

    thread = threading.get_ident()

    def record(layer: torch.nn.Module, _inputs: object, output: object) -> None:
        if threading.get_ident() != thread or not isinstance(output, torch.Tensor):
            return
        if output.ndim == 4 and output.shape[2:].numel() > 1:
            found.append(layer)

    hooks = [layer.register_forward_hook(record) for layer in network.modules()]
    try:
        result: torch.Tensor = network(inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return result


def find_map_hook(backbone: Backbone) -> FeatureMapHook:
    """Find the last map of a forward pass, and check that its cells explain the embedding."""
    probe = backbone.probe()
    found: list[torch.nn.Module] = []
    backbone.run(lambda inputs: record_maps(backbone.module, inputs, found), probe)
    problem: Exception | None = None
    if found:
        hook = FeatureMapHook(backbone.module, found[-1])
        try:
            mean = backbone.run(hook, probe).mean(axis=(1, 2))[0]
            if mean @ backbone.embed(probe)[0] > MIN_MAP_COSINE * np.linalg.norm(mean):
                return hook
        except (RuntimeError, ValueError) as error:  # of layers that need the whole map
            problem = error
        hook.remove()
    raise BackboneError(
        f"{backbone.name} pools no feature map, as vision transformers do not, so it cannot "
        "show where an embedding comes from: use a convolutional network such as resnet50 or "
        "efficientnet_lite0"
    ) from problem


def embed_cells(backbone: Backbone, batch: NDArray[Any]) -> NDArray[np.float32]:
    """Embed each cell of the last map before pooling, to see where an embedding comes from.

    Parameters
    ----------
    batch
        As `embed` takes it.

    Returns
    -------
    numpy.ndarray
        (B, h, w, D) float32, C order: what the network would give, before it is scaled to
        unit norm, for a last map whose cells are all equal to this one. Where the network
        only averages that map (ResNet, EfficientNet, DenseNet), the mean over the cells has
        exactly the direction of the embedding; where layers follow (ConvNeXt, MobileNetV3),
        roughly.

    Raises
    ------
    BackboneError
        If the network has no such map, as vision transformers have none.
    """
    if backbone.pooling == "avg":
        return backbone.run(lambda inputs: backbone.module(inputs).permute(0, 2, 3, 1), batch)
    with backbone.hook_lock:
        backbone.map_hook = backbone.map_hook or find_map_hook(backbone)
    return backbone.run(backbone.map_hook, batch)
