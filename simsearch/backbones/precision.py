"""Precision and threads of a network, chosen for this machine; batch norms folded away."""

from __future__ import annotations

import copy
import itertools
import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, TypeAlias

    import torch


Precision: TypeAlias = Literal["auto", "float32", "bfloat16", "float16", "int8"]
CGROUP_LIMITS = Path("/sys/fs/cgroup/cpu.max")  # "quota period" in microseconds, or "max period"


def usable_cores() -> int:
    """Count the cores that this process may use, by its affinity and its container's limit."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    try:
        quota, period = map(int, CGROUP_LIMITS.read_text("ascii").split())
    except (OSError, ValueError):  # no such file, or "max": no limit
        return cores
    return max(1, min(cores, -(-quota // period)))


@contextmanager
def restore_torch_threads() -> Iterator[None]:
    """Let the body set PyTorch's number of threads, and restore the caller's afterwards."""
    import torch

    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)


def choose_precision(
    module: torch.nn.Module, device: torch.device, precision: Precision
) -> Precision:
    """Choose half precision where it is fast and accurate, unless the caller decides.

    float16 keeps 11 significant bits, so accelerators use that. Processors are fast at bfloat16
    only, whose 8 bits are enough for dense convolutions (thousands of numbers per sum) and not for
    depthwise ones (nine): mean cosine with float32 0.99999 for ResNet50, 0.9988 for Lite0.
    """
    if precision != "auto":  # what is quantised runs in OpenVINO, and has float32 here
        return "float32" if precision == "int8" else precision
    if device.type != "cpu":
        return "float16"
    if has_depthwise(module):
        return "float32"
    from simsearch.backbones.bfloat16 import bfloat16_is_fast

    return "bfloat16" if bfloat16_is_fast() else "float32"


def has_depthwise(module: torch.nn.Module) -> bool:
    """Tell whether a network has depthwise convolutions: one channel in each sum."""
    import torch

    return any(
        isinstance(layer, torch.nn.Conv2d) and layer.groups == layer.in_channels > 1
        for layer in module.modules()
    )


def fold_batch_norms(module: torch.nn.Module, example: torch.Tensor) -> torch.nn.Module:
    """Return a frozen copy in which each batch norm is folded into the convolution before it.

    A forward pass of `example` shows which norm follows which convolution, so any module will do.
    Where the folded copy's output differs from the original's, nothing is folded.
    """
    import torch
    from torch.nn import BatchNorm2d, Conv2d
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    frozen = copy.deepcopy(module).cpu().float().eval().requires_grad_(False)
    calls: list[tuple[torch.nn.Module, tuple[Any, ...], torch.Tensor]] = []
    hooks = [
        layer.register_forward_hook(lambda *call: calls.append(call))
        for layer in frozen.modules()
        if isinstance(layer, (Conv2d, BatchNorm2d))
    ]
    with torch.no_grad():
        expected = frozen(example)
        for hook in hooks:
            hook.remove()
        folded = copy.deepcopy(frozen)
        names = {layer: name for name, layer in frozen.named_modules()}
        for (conv, _, between), (norm, args, _) in itertools.pairwise(calls):
            follows = any(value is between for value in args)
            if follows and isinstance(conv, Conv2d) and isinstance(norm, BatchNorm2d):
                folded.set_submodule(names[conv], fuse_conv_bn_eval(conv, norm))
                folded.set_submodule(names[norm], torch.nn.Identity())
        same = torch.allclose(folded(example), expected, rtol=1e-3, atol=1e-4)
    return folded if same else frozen
