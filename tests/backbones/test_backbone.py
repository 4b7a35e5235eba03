"""Backbones: rows, a user's own modules, devices, names and pickling."""

import math
import pickle
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import (
    Giving,
    Tiny,
    embedded,
    own,
    reference,
    to_tensor,
)
from PIL import Image
from torch import nn
from torchvision import transforms as tv

from simsearch.backbones.backbone import _best_device, load_backbone
from simsearch.errors import BackboneError, MissingExtraError, WeightsError

# Embeddings


def test_rows_are_unit_and_contiguous(bundled, photos):
    rows = embedded(bundled, photos)
    assert rows.dtype == np.float32
    assert rows.flags.c_contiguous
    assert np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)


def test_row_does_not_depend_on_its_batch(bundled, photos):
    together = embedded(bundled, photos)
    for photo, wanted in zip(photos, together, strict=True):
        assert np.abs(embedded(bundled, [photo]) - wanted).max() < 1e-6


def test_threads_share_a_backbone(bundled, photos):
    wanted = embedded(bundled, photos)
    with ThreadPoolExecutor(4) as pool:
        for rows in pool.map(lambda _: embedded(bundled, photos), range(8)):
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
def test_own_module_with_features(module, dim, photos):
    backbone = own(module)
    rows = embedded(backbone, photos)
    assert (backbone.dim, backbone.weights, backbone.min_side) == (dim, "own", None)
    assert np.abs(rows - reference(module.eval(), to_tensor, photos)).max() < 1e-6
    assert rows.flags.c_contiguous


def test_own_module_with_a_map_is_averaged(photos):
    module = nn.Conv2d(3, 6, 5)
    rows = embedded(own(module), photos)
    wanted = reference(lambda x: module(x).mean((2, 3)), to_tensor, photos)
    assert np.abs(rows - wanted).max() < 1e-6


def test_own_module_is_not_changed(photos):
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
def test_output_without_a_direction_gives_nan_rows(function, photos):
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
def test_own_module_without_features_is_rejected(function):
    with pytest.raises(
        BackboneError, match=r"Giving (gives|does not run on its transform's output)"
    ):
        own(Giving(function))


def test_own_module_needs_a_transform():
    with pytest.raises(BackboneError, match=r"Tiny needs its preprocessing.*transform="):
        load_backbone(Tiny())


@pytest.mark.parametrize(
    "transform", [lambda image: image, np.asarray, lambda image: None, tv.Resize("a")]
)
def test_transform_without_a_tensor_is_rejected(transform):
    with pytest.raises(BackboneError, match="Tiny does not run on its transform's output"):
        load_backbone(Tiny(), transform=transform)


# Devices


@pytest.mark.parametrize(
    ("cuda", "mps", "device"),
    [(True, True, "cuda"), (True, False, "cuda"), (False, True, "mps"), (False, False, "cpu")],
)
def test_best_device(cuda, mps, device, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert _best_device() == device


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "mps:7"])
def test_unavailable_device(device):
    with pytest.raises(BackboneError, match=f"device='{device}' cannot be used"):
        load_backbone("efficientnet_lite0", device=device)


# Names


def test_loaded_backbone_is_returned_as_it_is(bundled):
    assert load_backbone(bundled) is bundled


def test_loaded_backbone_is_cached():
    one = load_backbone("efficientnet_lite0")
    assert load_backbone("efficientnet_lite0") is one
    assert load_backbone("efficientnet_lite0", precision="float32") is not one


def test_repr(bundled):
    assert repr(bundled) == (
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


def test_options_that_exclude_each_other(tmp_path):
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


# Pickling


def test_pickled_backbone_embeds_identically(bundled, photos):
    """Bit for bit, folded and all; also after its cells were looked at, which leaves a hook."""
    inputs = np.stack([bundled.prepare(image) for image in photos])
    own = load_backbone(Tiny(), transform=tv.ToTensor(), device="cpu", precision="float32")
    own.feature_map(own.probe())
    for backbone, batch in ((bundled, inputs), (own, own.probe())):
        arrived = pickle.loads(pickle.dumps(backbone))
        arrived.move("cpu")
        assert repr(arrived) == repr(backbone)
        assert arrived.fingerprint == backbone.fingerprint
        np.testing.assert_array_equal(arrived.embed(batch), backbone.embed(batch))
        np.testing.assert_array_equal(arrived.feature_map(batch), backbone.feature_map(batch))
