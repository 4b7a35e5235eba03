"""timm's models: their pixels and embeddings are those of timm's own transforms and networks."""

import numpy as np
import pytest
import skimage.data
import timm
import torch
from networks import embedded, reference, shaken
from PIL import Image

import simsearch as ss
from simsearch.backbones.backbone import load_backbone
from simsearch.backbones.squash import SquashPreprocessing
from simsearch.backbones.windows import prepare_window

FAMILIES = (
    *("test_resnet", "test_vit", "test_vit3", "test_efficientnet", "test_convnext", "test_nfnet"),
    *("test_maxvit", "test_byobnet", "mobilenetv3_small_050", "regnety_002", "test_mambaout"),
)

ROUNDED = 2e-3  # of a unit row, where some pixels of the input are rounded by 1 of 255


@pytest.fixture
def made(monkeypatch, tmp_path):
    """Make a timm network with random weights, as `load_backbone` then loads it."""

    def make(name, size=None, **overlay):
        real = timm.create_model
        options = {"pretrained_cfg_overlay": overlay} if overlay else {}
        options |= {"img_size": size} if size and "vit" in name else {}
        module = shaken(real(name, **options))
        torch.save(module.state_dict(), tmp_path / "timm.pth")
        if overlay:
            monkeypatch.setattr(timm, "create_model", lambda *a, **k: real(*a, **k, **options))
        full = f"timm:{name}" + (f"@{size}" if size else "")
        return module, load_backbone(full, tmp_path / "timm.pth", precision="float32")

    return make


def timms_own(module, photos, **arguments):
    def forward(batch):
        return module.forward_head(module.forward_features(batch), pre_logits=True)

    config = timm.data.resolve_data_config(arguments, model=module)
    return reference(forward, timm.data.create_transform(**config), photos)


@pytest.mark.parametrize("name", FAMILIES)
def test_embeddings_of_ten_families_equal_timms(name, made, photos):
    module, backbone = made(name)
    wanted = timms_own(module, photos)
    assert backbone.dim == wanted.shape[1]
    assert np.abs(embedded(backbone, photos) - wanted).max() < ROUNDED


@pytest.mark.parametrize(("name", "size"), [("test_vit", 96), ("test_resnet", 192)])
def test_another_size_of_input_equals_timms(name, size, made, photos):
    module, backbone = made(name, size)
    assert backbone.transform.crop == size
    wanted = timms_own(module, photos, img_size=size)
    assert np.abs(embedded(backbone, photos) - wanted).max() < ROUNDED
    assert backbone.name == f"timm:{name}@{size}"


def test_squashed_input_equals_timms(made, photos):
    module, backbone = made("test_resnet", crop_mode="squash", crop_pct=0.9)
    assert isinstance(backbone.transform, SquashPreprocessing)
    assert np.abs(embedded(backbone, photos) - timms_own(module, photos)).max() < ROUNDED


def configurations():
    """Every way in which timm's models prepare their input, up to 300 pixels, with one of them."""
    found = {}
    for name in timm.list_pretrained():
        config = timm.get_pretrained_cfg(name)
        if config.input_size[1] <= 300 and config.crop_mode != "border":
            key = (config.input_size, config.crop_pct, config.crop_mode, config.interpolation)
            found.setdefault(key, config)
    return found


def test_pixels_equal_timms_for_every_configuration():
    from simsearch.backbones.adapters.timm import to_preprocessing

    photo = Image.fromarray(skimage.data.coffee()).resize((331, 222))
    found = configurations()
    assert len(found) > 25
    assert {mode for _, _, mode, _ in found} == {"center", "squash"}
    for size, share, mode, interpolation in found:
        config = {"input_size": size, "crop_pct": share, "crop_mode": mode}
        config |= {"interpolation": interpolation, "mean": (0.5,) * 3, "std": (0.5,) * 3}
        wanted = timm.data.create_transform(**config)(photo).permute(1, 2, 0).numpy() * 127.5
        pixels = to_preprocessing("timm:a", config)(photo)
        apart = np.abs(pixels - (wanted + 127.5))
        assert apart.max() < 2.5, config
        assert apart.mean() < 0.02, config


def test_squash_sees_all_of_a_picture():
    preprocessing = SquashPreprocessing(64, 64, (0.5,) * 3, (0.5,) * 3)
    assert preprocessing.crop_box((300, 100)) == (0, 0, 300, 100)
    narrower = SquashPreprocessing(80, 64, (0.5,) * 3, (0.5,) * 3)
    assert narrower.crop_box((300, 100)) == (30, 10, 270, 90)


def test_windows_are_prepared_by_a_squashed_network(made, photos):
    _, backbone = made("test_resnet", crop_mode="squash")
    window = prepare_window(backbone, photos[1], (0, 0, *photos[1].size))
    assert window.shape == (backbone.transform.crop, backbone.transform.crop, 3)


@pytest.mark.parametrize(
    ("overlay", "message"),
    [({"crop_mode": "border"}, "'border'"), ({"input_size": (3, 160, 128)}, "128×160")],
    ids=str,
)
def test_what_is_prepared_otherwise_is_refused(overlay, message, made):
    with pytest.raises(ss.BackboneError, match=message):
        made("test_resnet", **overlay)


@pytest.mark.parametrize("name", ["test_vit@", "test_vit@big", "test_vit@0", "test_vit@²"])
def test_a_size_that_is_none_is_refused(name):
    with pytest.raises(ss.BackboneError, match="side of the input"):
        load_backbone(f"timm:{name}")


def test_the_nearest_name_is_told():
    with pytest.raises(ss.BackboneError, match="did you mean 'timm:resnet50'"):
        load_backbone("timm:resnet5O")
