"""The last stage of a backbone, opened for training."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from simsearch.backbones.precision import bfloat16_is_fast
from simsearch.backbones.preprocessing import normalise
from simsearch.backbones.spec import OWN_WEIGHTS, pool
from simsearch.errors import TrainingError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from contextlib import AbstractContextManager
    from typing import Any, TypeAlias

    import torch
    from numpy.typing import NDArray

    from simsearch.backbones.backbone import Backbone
    from simsearch.backbones.spec import ModelSpec
    from simsearch.library.library import ImageLibrary

    Loss: TypeAlias = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    Plan: TypeAlias = Callable[[int], Iterable[tuple[NDArray[np.intp], NDArray[np.intp]]]]


STAGE_SHARE = 0.25  # of the parameters that the last stage holds at least


CONTAINER_SHARE = 0.8  # of them in one module: it is no stage, its parts are


class Stage:
    """A backbone whose last stage learns: prepared images in, unit embeddings with gradients out.

    Parameters
    ----------
    backbone
        The frozen one; it stays as it is.
    names
        Of the modules to open, as `named_modules` has them; None for `last_stage`.

    Attributes
    ----------
    network : Network
        A copy of its own, in float32.
    names : tuple of str
    parameters : dict of str to torch.nn.Parameter
        Those that learn.

    Raises
    ------
    TrainingError
        If the names are none of this network's, or it gives no gradients.
    """

    def __init__(self, backbone: Backbone, names: str | Sequence[str] | None = None) -> None:
        import torch

        self.backbone, self.network = backbone, backbone.thaw()
        module = self.network.module.requires_grad_(True)
        gradients = _gradients(self.network, backbone)
        sizes = {name: weight.numel() for name, weight in gradients.items()}
        self.names = (
            last_stage(module, sizes) if names is None else check_names(module, sizes, names)
        )
        module.requires_grad_(False)
        module.to(backbone.device).to(memory_format=torch.channels_last)
        weights = dict(module.named_parameters())
        self.parameters = {
            name: weights[name].requires_grad_(True)
            for name in gradients
            if is_inside(name, self.names)
        }
        self.precision = _training_precision(backbone.device)

    def __call__(self, batch: NDArray[Any]) -> torch.Tensor:
        """Embed prepared images: (B, S, S, 3) uint8 or (B, 3, H, W) float32 to (B, D) float32."""
        import torch

        inputs = torch.from_numpy(batch).to(self.backbone.device)
        with self._autocast():
            output = self.network.module(normalise(inputs, self.network.transform))
        pooled = pool(output.float(), self.network.pooling)
        return torch.nn.functional.normalize(pooled)

    def _autocast(self) -> AbstractContextManager[Any]:
        import torch

        mixed = self.precision != "float32"
        dtype = getattr(torch, self.precision) if mixed else None
        return torch.autocast(self.backbone.device.type, dtype, enabled=mixed)

    def tuned(self) -> ModelSpec:
        """Return the network as it is now, on the processor; the stage is of no use afterwards."""
        import torch

        self.network.module.to("cpu").to(memory_format=torch.contiguous_format)
        own = self.network.weights == OWN_WEIGHTS
        return self.network if own else replace(self.network, weights="fine-tuned")


def _gradients(network: ModelSpec, backbone: Backbone) -> dict[str, torch.nn.Parameter]:
    """Return the parameters that an embedding depends on; a cut classifier's are not among them."""
    import torch

    probe = torch.from_numpy(backbone.probe())
    output = network.module(normalise(probe, network.transform))
    found: dict[str, torch.nn.Parameter] = {}
    if output.requires_grad:
        output.sum().backward()
        found = {k: v for k, v in network.module.named_parameters() if v.grad is not None}
    network.module.zero_grad()
    if not found:
        raise TrainingError(
            f"{network.name} gives no gradients, so nothing of it can learn: its forward must not "
            "switch them off"
        )
    return found


def last_stage(module: torch.nn.Module, sizes: Mapping[str, int]) -> tuple[str, ...]:
    """Name the last modules, as many as hold a quarter of the parameters.

    Modules are taken from the back, in the order in which they were registered; one that holds
    more than 80% of the parameters is taken apart. This gives `layer4` of every ResNet, the last
    stage of ConvNeXt, the last blocks of EfficientNets and vision transformers.

    Parameters
    ----------
    module
        The network.
    sizes
        How many numbers each of its parameters holds; those that are not used are left out.
    """

    def held(unit: str) -> int:
        return sum(size for name, size in sizes.items() if is_inside(name, (unit,)))

    total = sum(sizes.values())
    units = [name for name, _ in module.named_children()]
    while large := next((unit for unit in units if held(unit) > CONTAINER_SHARE * total), None):
        inner = [f"{large}.{name}" for name, _ in module.get_submodule(large).named_children()]
        if not inner:
            break
        place = units.index(large)
        units[place : place + 1] = inner
    names: list[str] = []
    for unit in reversed(units):
        if held(unit):
            names.insert(0, unit)
        if sum(map(held, names)) >= STAGE_SHARE * total:
            break
    return tuple(names or sizes)  # a network without parts is its own last stage


def is_inside(parameter: str, names: Sequence[str]) -> bool:
    """Tell whether a parameter belongs to one of these modules."""
    return any(parameter == name or parameter.startswith(f"{name}.") for name in names)


def check_names(
    module: torch.nn.Module, sizes: Mapping[str, int], names: str | Sequence[str]
) -> tuple[str, ...]:
    """Check names of a stage that a user chose."""
    chosen = (names,) if isinstance(names, str) else tuple(names)
    for name in chosen or ("",):
        if not any(is_inside(key, (name,)) for key in sizes):
            known = [key for key, _ in module.named_children()] or list(sizes)
            raise TrainingError(
                f"stage={name!r} names nothing that could learn; there are "
                f"{', '.join(known[:20])}, and their parts"
            )
    return chosen


def _training_precision(device: torch.device) -> str:
    """Half precision for the products, where the device is fast at it.

    bfloat16 has float32's range, so that its gradients need no scaling; float16's do.
    """
    import torch

    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
    return "bfloat16" if device.type == "cpu" and bfloat16_is_fast() else "float32"


def open_stage(library: ImageLibrary, stage: str | Sequence[str] | None) -> Stage:
    """Open the last stage of what made a library."""
    if library.head:
        raise TrainingError(
            f"{library!r} has a head, through which no gradient passes: fine-tune the library "
            "that embed_dataset made"
        )
    return Stage(library.backbone, stage)
