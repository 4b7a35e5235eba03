"""Fixtures of the tests of backbones: an empty weights cache, photos, networks."""

import pytest
import skimage.data
import torch
from networks import (
    shaken,
)
from PIL import Image
from torchvision import models

from simsearch.backbones import weights_download
from simsearch.backbones.backbone import _load_named, load_backbone


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    """Give each test an empty weights cache, and forget what the last one loaded."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("no_proxy", "*")
    _load_named.cache_clear()
    weights_download.auto_backbone_name.cache_clear()


@pytest.fixture(scope="module")
def photos():
    """A square, a landscape, a portrait and a panorama, of sizes that leave nothing to round."""
    astronaut, coffee = map(Image.fromarray, (skimage.data.astronaut(), skimage.data.coffee()))
    return [astronaut, coffee, astronaut.crop((50, 0, 306, 512)), coffee.crop((0, 100, 600, 250))]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Make one of torchvision's networks with random weights, once: the module and its file."""
    folder = tmp_path_factory.mktemp("weights")
    made = {}

    def save(name):
        if name not in made:
            made[name] = shaken(models.get_model(name)), folder / f"{name}.pth"
            torch.save(made[name][0].state_dict(), made[name][1])
        return made[name]

    return save


@pytest.fixture(scope="module")
def bundled():
    """The bundled backbone. Tests that change it load their own."""
    return load_backbone("efficientnet_lite0", device="cpu", precision="float32")
