"""A module of the user's own, with its transform, and what describes that in every process."""

from __future__ import annotations

import copy
import re
from types import CodeType
from typing import TYPE_CHECKING

from PIL import Image

from simsearch.backbones.preprocessing import Preprocessing, fingerprint_record
from simsearch.backbones.spec import OWN_WEIGHTS, ModelSpec
from simsearch.errors import BackboneError

if TYPE_CHECKING:
    import torch

    from simsearch.backbones.preprocessing import Transform


def own_spec(
    module: torch.nn.Module, transform: Transform | None, weights: object = None
) -> ModelSpec:
    """Adapt a user's own module; one forward pass shows whether it gives features or a map."""
    import torch

    if weights is not None:
        raise BackboneError("weights= goes with a name; load them into your module yourself")
    name = type(module).__name__
    if not isinstance(module, torch.nn.Module):
        raise BackboneError(f"{module!r} is neither the name of a backbone nor a torch module")
    if transform is None:
        raise BackboneError(
            f"{name} needs its preprocessing: load_backbone(module, transform=...), "
            "from a PIL image to a (3, H, W) float tensor"
        )
    try:
        with torch.inference_mode():
            example = transform(Image.new("RGB", (64, 64), "gray"))[None].float()
            output = copy.deepcopy(module).cpu().float().eval()(example)
        dims = output.ndim
    except Exception as error:  # the user's code may raise anything
        raise BackboneError(f"{name} does not run on its transform's output: {error}") from error
    if dims not in (2, 4):
        raise BackboneError(
            f"{name} gives {tuple(output.shape)}; (B, D) features or a (B, D, H, W) map are needed"
        )
    return ModelSpec(name, OWN_WEIGHTS, module, transform, "own" if dims == 2 else "avg")


def stable_repr(value: object) -> str:
    """Describe a transform, a function's code included, identically in every process.

    A plain `repr` holds a memory address, and says nothing of what a function does.
    """
    if isinstance(value, Preprocessing):
        return fingerprint_record(value)
    if isinstance(value, CodeType):
        constants = [stable_repr(constant) for constant in value.co_consts]
        return f"{value.co_code.hex()} {value.co_names} {constants}"
    if isinstance(value, frozenset):  # whose order differs between processes
        return str(sorted(map(stable_repr, value)))
    if (code := getattr(value, "__code__", None)) is not None:
        held = [cell.cell_contents for cell in getattr(value, "__closure__", None) or ()]
        settings = (getattr(value, "__defaults__", None), held)
        return f"{getattr(value, '__qualname__', '')} {stable_repr(code)} {stable_repr(settings)}"
    return re.sub(r" at 0x[0-9A-Fa-f]+", "", repr(value))
