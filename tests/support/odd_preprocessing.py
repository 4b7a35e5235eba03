"""Preprocessing that does something odd in another process, which finds it by its name."""

import os
import signal
from dataclasses import dataclass

import numpy as np

from simsearch.backbones.preprocessing import Preprocessing
from simsearch.images.budget import decoding_budget


@dataclass(frozen=True)
class Crashing(Preprocessing):
    """Ends its process at pictures of one width."""

    def __call__(self, image):
        if image.width == 45:  # the sixth one of the test
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(image)


@dataclass(frozen=True)
class Telling(Preprocessing):
    """Tells the budget of its process in place of pixels."""

    def __call__(self, image):
        return np.full((self.crop, self.crop, 3), decoding_budget().size >> 24, np.uint8)
