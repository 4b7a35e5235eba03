"""Numeric precision, and batch norms folded into convolutions."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from networks import (
    Tiny,
    batch_norms,
    embedded,
    own,
    reference,
    shaken,
    to_tensor,
)
from PIL import Image
from torch import nn

from simsearch.backbones import bfloat16, precision
from simsearch.backbones.backbone import _load_named, load_backbone
from simsearch.backbones.precision import choose_precision, fold_batch_norms
from simsearch.errors import BackboneError

# Folding batch norms


def folded(module):
    torch.manual_seed(0)
    inputs = torch.randn(2, 3, 32, 32)
    result = fold_batch_norms(module, inputs)
    fresh = torch.randn(4, 3, 24, 40)
    with torch.no_grad():
        assert torch.allclose(result(fresh), module.eval()(fresh), atol=1e-5)
    return result


class Twice(Tiny):
    """What leaves the convolution is needed once more."""

    def forward(self, batch):
        features = self.conv(batch)
        return (self.norm(features) + features).mean((2, 3))


class Shared(Tiny):
    """One convolution, two norms."""

    def __init__(self):
        super().__init__()
        self.other = shaken(nn.BatchNorm2d(4))
        self.other.weight.data += 1

    def forward(self, batch):
        return self.norm(self.conv(batch)) + self.other(self.conv(batch)).sigmoid()


class Keyword(Tiny):
    """The convolution is called in another way."""

    def forward(self, batch):
        return self.norm(self.conv(input=batch)).relu()


class Between(nn.Sequential):
    """A rectifier that works in place, on the tensor that the norm is given next."""

    def __init__(self):
        conv = nn.Conv2d(3, 1, 1)
        nn.init.constant_(conv.weight, 1 / 3)
        nn.init.constant_(conv.bias, -0.4)  # so that it shows in the dark only
        super().__init__(conv, nn.ReLU(inplace=True), shaken(nn.BatchNorm2d(1)))


@pytest.mark.parametrize("kind", [Tiny, Keyword])
def test_batch_norms_are_folded(kind):
    module = kind()
    assert batch_norms(folded(module)) == 0
    assert batch_norms(module) == 1


@pytest.mark.parametrize(
    "module", [Twice(), Shared(), Between()], ids=lambda module: type(module).__name__
)
def test_batch_norms_stay_where_folding_would_change_the_output(module):
    assert batch_norms(folded(module)) == batch_norms(module) > 0


def test_folding_is_checked_on_an_image_of_noise():
    module = Between()
    shades = [Image.new("RGB", (32, 32), (level,) * 3) for level in (0, 50, 128, 255)]
    wide = nn.Sequential(module, nn.Flatten())  # (B, 1024), the shade in each
    wanted = reference(wide.eval(), to_tensor, shades)
    assert np.abs(embedded(own(wide), shades) - wanted).max() < 1e-6


# Precision


def test_precision_follows_the_processor(saved, photos, monkeypatch):
    _, file = saved("resnet50")
    rows = {}
    for fast, wanted in ((True, "bfloat16"), (False, "float32")):
        _load_named.cache_clear()
        monkeypatch.setattr(bfloat16, "bfloat16_is_fast", lambda fast=fast: fast)
        backbone = load_backbone("resnet50", file, device="cpu")
        assert backbone.precision == wanted
        rows[wanted] = embedded(backbone, photos)
    cosines = (rows["bfloat16"] * rows["float32"]).sum(axis=1)
    assert cosines.min() >= 0.999
    assert cosines.max() < 1 - 1e-7  # it was another precision indeed


def test_depthwise_networks_stay_in_float32(monkeypatch):
    monkeypatch.setattr(bfloat16, "bfloat16_is_fast", lambda: True)
    assert load_backbone("efficientnet_lite0", device="cpu").precision == "float32"


@pytest.mark.parametrize(
    ("layer", "answer"),
    [
        (nn.Conv2d(4, 4, 3, groups=4), True),
        (nn.Conv2d(4, 8, 3, groups=4), True),
        (nn.Conv2d(4, 4, 3, groups=2), False),
        (nn.Conv2d(1, 4, 3), False),
        (nn.Linear(4, 4), False),
    ],
)
def test_depthwise_convolutions_are_found(layer, answer):
    assert precision.has_depthwise(nn.Sequential(nn.ReLU(), nn.Sequential(layer))) is answer


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_chosen_precision_is_used(precision, photos):
    torch.manual_seed(0)
    module = Tiny(64)
    backbone = own(module, precision=precision)
    assert backbone.precision == precision
    assert {p.dtype for p in backbone.module.parameters()} == {getattr(torch, precision)}
    rows = embedded(backbone, photos)
    assert rows.dtype == np.float32
    assert (rows * embedded(own(module, precision="float32"), photos)).sum(axis=1).min() > 0.999


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_accelerators_take_float16(device):
    assert choose_precision(Tiny(), torch.device(device), "auto") == "float16"
    assert choose_precision(Tiny(), torch.device(device), "float32") == "float32"


@pytest.mark.parametrize("precision", ["half", "float64", None, ""])
def test_unknown_precision(precision):
    with pytest.raises(BackboneError, match="choose auto, float32, bfloat16 or float16"):
        load_backbone("efficientnet_lite0", precision=precision)


@pytest.mark.parametrize(
    ("half", "full", "answer"),
    [(1, 2, True), (1, 1.3, True), (1, 1.2, False), (5, 1, False)],
)
def test_bfloat16_speed_is_measured(half, full, answer, monkeypatch):
    turns = [[99, 99], *[[full, half]] * 99]  # the first run of each is slow, as in life
    clock = iter(np.cumsum([[0, seconds] for turn in turns for seconds in turn]).tolist())
    monkeypatch.setattr(bfloat16, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    assert bfloat16.bfloat16_is_fast.__wrapped__() is answer
