"""Registry of backbones: a name gives the adapter of its family, imported on use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import TypeAlias

    from simsearch.backbones.spec import ModelSpec

    Adapter: TypeAlias = Callable[[str, "Path | None"], ModelSpec]

ADAPTERS = {  # by name, or by prefix with its colon; "" for all others
    "efficientnet_lite0": "simsearch.backbones.adapters.efficientnet_lite0:efficientnet_lite0",
    "timm:": "simsearch.backbones.adapters.timm:timm_model",
    "": "simsearch.backbones.adapters.torchvision:torchvision_classifier",
}


def build_spec(name: str, file: Path | None) -> ModelSpec:
    """Build the network of a name, with local weights if given.

    Raises
    ------
    BackboneError
        If the name is unknown.
    WeightsError
        If the weights cannot be loaded, or do not fit.
    MissingExtraError
        If the package of this family is not installed.
    """
    prefix, colon, _ = name.partition(":")
    module, _, function = ADAPTERS.get(prefix + colon, ADAPTERS[""]).partition(":")
    adapter: Adapter = getattr(import_module(module), function)
    return adapter(name, file)
