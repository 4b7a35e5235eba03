"""Speed of bfloat16 on this processor, measured."""

from __future__ import annotations

import copy
import math
import time
from functools import lru_cache

from simsearch.backbones.precision import restore_torch_threads


@lru_cache(maxsize=1)
def bfloat16_is_fast() -> bool:
    """Measure whether this processor computes in bfloat16: emulated, it is slower than float32.

    A ResNet block is timed in both on one core, alternately, so that other load on the machine
    slows both. Where bfloat16 is native, it takes a third to a half of the time.
    """
    import torch
    from torch.nn import Conv2d

    block = torch.nn.Sequential(Conv2d(512, 128, 1), Conv2d(128, 128, 3), Conv2d(128, 512, 1))
    inputs = torch.rand(1, 512, 28, 28)
    best = {torch.float32: math.inf, torch.bfloat16: math.inf}
    with torch.inference_mode(), restore_torch_threads():
        torch.set_num_threads(1)
        blocks = {
            dtype: copy.deepcopy(block).to(dtype).to(memory_format=torch.channels_last)
            for dtype in best
        }
        for _ in range(12):
            for dtype, layers in blocks.items():
                pixels = inputs.to(dtype=dtype, memory_format=torch.channels_last)
                start = time.perf_counter()
                layers(pixels)
                best[dtype] = min(best[dtype], time.perf_counter() - start)
    return best[torch.bfloat16] * 1.25 < best[torch.float32]
