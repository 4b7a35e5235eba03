"""The trainable part of a backbone: its last stage, or modules by name."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from simsearch.backbones.bfloat16 import bfloat16_is_fast
from simsearch.backbones.preprocessing import normalise
from simsearch.backbones.spec import OWN_WEIGHTS, pool
from simsearch.backbones.thaw import thaw
from simsearch.errors import TrainingError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from numpy.typing import NDArray

    from simsearch.backbones.backbone import Backbone
    from simsearch.backbones.spec import ModelSpec

STAGE_SHARE = 0.25  # of the parameters, that the last stage holds at least
MAX_MODULE_SHARE = 0.8  # of the parameters, in one module of a stage


class TrainableBackbone:
    """A copy of a backbone with a trainable stage: prepared images in, unit embeddings out.

    Parameters
    ----------
    backbone
        The frozen one, which is not changed.
    names
        Names of the modules to train, as `named_modules` has them; None for `last_stage`.

    Attributes
    ----------
    network : ModelSpec
        The copy, in float32. Batch norms keep their statistics.
    names : tuple of str
        The modules of the stage.
    parameters : dict of str to torch.nn.Parameter
        The trainable ones.

    Raises
    ------
    TrainingError
        If the network has no such module, or gives no gradients.
    """

    def __init__(self, backbone: Backbone, names: str | Sequence[str] | None = None) -> None:
        self.backbone, self.network = backbone, thaw(backbone)
        module = self.network.module.requires_grad_(True)
        gradients = _gradients(self.network, backbone)
        sizes = {name: weight.numel() for name, weight in gradients.items()}
        self.names = (
            last_stage(module, sizes) if names is None else _check_names(module, sizes, names)
        )
        module.requires_grad_(False)
        module.to(backbone.device).to(memory_format=torch.channels_last)
        weights = dict(module.named_parameters())
        self.parameters = {
            name: weights[name].requires_grad_(True)
            for name in gradients
            if _belongs_to(name, self.names)
        }
        self.precision = training_precision(backbone.device)

    def __call__(self, batch: NDArray[Any]) -> torch.Tensor:
        """Embed prepared images: (B, S, S, 3) uint8 or (B, 3, H, W) float32 to (B, D) float32."""
        inputs, device = torch.from_numpy(batch).to(self.backbone.device), self.backbone.device.type
        dtype = getattr(torch, self.precision)
        with torch.autocast(device, dtype, enabled=self.precision != "float32"):
            output = self.network.module(normalise(inputs, self.network.transform))
        return torch.nn.functional.normalize(pool(output.float(), self.network.pooling))

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Return the weights of the stage."""
        return {**self.parameters}

    @torch.no_grad()
    def load_state_dict(self, state_dict: Mapping[str, torch.Tensor]) -> None:
        """Copy weights of the stage."""
        for name, weight in self.parameters.items():
            weight.copy_(state_dict[name])

    def finish(self) -> ModelSpec:
        """Return the fine-tuned network, on the processor; this object cannot be used any more."""
        self.network.module.to("cpu").to(memory_format=torch.contiguous_format)
        own = self.network.weights == OWN_WEIGHTS
        return self.network if own else replace(self.network, weights="fine-tuned")


def _gradients(network: ModelSpec, backbone: Backbone) -> dict[str, torch.nn.Parameter]:
    """Return the parameters that an embedding depends on, so not those of a removed classifier."""
    output = network.module(normalise(torch.from_numpy(backbone.probe()), network.transform))
    if not output.requires_grad:
        raise TrainingError(
            f"{network.name} gives no gradients, so that it cannot be fine-tuned: its forward must "
            "not disable them"
        )
    weights = dict(network.module.named_parameters())
    gradients = torch.autograd.grad(output.sum(), [*weights.values()], allow_unused=True)
    used = zip(weights.items(), gradients, strict=True)
    return {name: weight for (name, weight), gradient in used if gradient is not None}


def last_stage(module: torch.nn.Module, sizes: Mapping[str, int]) -> tuple[str, ...]:
    """Return the names of the last modules that together hold a quarter of the parameters.

    Modules are taken from the end, in the order in which they were registered; one that holds
    more than 80% of the parameters is replaced by its children. This gives `layer4` of every
    ResNet, the last stage of ConvNeXt, the last blocks of EfficientNets and vision transformers.

    Parameters
    ----------
    module
        The network.
    sizes
        Numbers in each of its parameters, by name; unused parameters are left out.
    """

    def count(module_name: str) -> int:
        return sum(size for name, size in sizes.items() if _belongs_to(name, (module_name,)))

    total = sum(sizes.values())
    units = [name for name, _ in module.named_children()]
    while large := next((unit for unit in units if count(unit) > MAX_MODULE_SHARE * total), None):
        children = [f"{large}.{name}" for name, _ in module.get_submodule(large).named_children()]
        if not children:
            break
        position = units.index(large)
        units[position : position + 1] = children
    names: list[str] = []
    for unit in reversed(units):
        if count(unit):
            names.insert(0, unit)
        if sum(map(count, names)) >= STAGE_SHARE * total:
            break
    return tuple(names or sizes)  # a network without children is its own last stage


def _belongs_to(parameter: str, names: Sequence[str]) -> bool:
    return any(parameter == name or parameter.startswith(f"{name}.") for name in names)


def _check_names(
    module: torch.nn.Module, sizes: Mapping[str, int], names: str | Sequence[str]
) -> tuple[str, ...]:
    """Return the names of modules that a user chose, which must have parameters."""
    chosen = (names,) if isinstance(names, str) else tuple(names)
    for name in chosen or ("",):
        if not any(_belongs_to(key, (name,)) for key in sizes):
            known = [key for key, _ in module.named_children()] or list(sizes)
            raise TrainingError(
                f"stage={name!r} is no module with trainable parameters; the modules are "
                f"{', '.join(known[:20])}, and their children"
            )
    return chosen


def training_precision(device: torch.device) -> str:
    """Choose half precision for the products, where the device is fast at it.

    bfloat16 has float32's range, so that its gradients need no scaling; float16's do.
    """
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
    return "bfloat16" if device.type == "cpu" and bfloat16_is_fast() else "float32"
