"""The table of backbones: it agrees with the networks and with the guide; profiles fall back."""

import logging
import re
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from torchvision import models

import simsearch as ss
from simsearch.backbones import profiles
from simsearch.backbones.adapters import sscd
from simsearch.backbones.backbone import load_backbone
from simsearch.backbones.spec import ModelSpec
from simsearch.errors import WeightsError

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs/guides/backbones.md"
RESNET50 = 4.089e9  # multiplications of a picture of 224 pixels


@pytest.fixture
def random_weights(monkeypatch):
    """Let every network be made with random weights, and without a download."""
    real = timm.create_model
    monkeypatch.setattr(
        timm, "create_model", lambda name, pretrained, **options: real(name, **options)
    )
    for module in ("sscd", "torchvision"):
        place = f"simsearch.backbones.adapters.{module}"
        monkeypatch.setattr(f"{place}.fetch_weights", Path)
        monkeypatch.setattr(f"{place}.load_weights", lambda *_, **__: None)


def test_names_and_profiles_are_unique():
    rows = ss.list_backbones()
    assert len({row.name for row in rows}) == len(rows)
    found = {row.profile: row.name for row in rows if row.profile}
    assert found == profiles.PROFILES


@pytest.mark.parametrize("row", ss.list_backbones(), ids=lambda row: row.name)
def test_width_and_cost_are_those_of_the_network(row, random_weights):
    if "base" in row.name:  # large ones are made without memory, and their cost is not counted
        short, _, size = row.name.removeprefix("timm:").partition("@")
        with torch.device("meta"):
            options = {"img_size": int(size)} if size else {}
            assert timm.create_model(short, False, num_classes=0, **options).num_features == row.dim
        return
    backbone = load_backbone(row.name, device="cpu", precision="float32")
    assert backbone.dim == row.dim
    side = backbone.transform.crop
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        backbone.module(torch.zeros(1, 3, side, side))
    assert counter.get_total_flops() / 2 / RESNET50 == pytest.approx(row.cost, abs=0.01)


def test_the_guide_has_the_same_table():
    lines = re.findall(r"^\| `(\S+)` \|(.*)\|$", GUIDE.read_text("utf-8"), re.MULTILINE)
    told = {name: [cell.strip() for cell in rest.split(" | ")] for name, rest in lines}
    assert told.keys() == {row.name for row in ss.list_backbones()}
    for row in ss.list_backbones():
        kind, best, dim, cost, licence, figures, mieb = told[row.name]
        assert kind == (f"`{row.profile}`" if row.profile else "")
        assert (best, int(dim), float(cost)) == (row.best_for, row.dim, row.cost)
        assert licence == row.licence
        words, source = re.fullmatch(r"(.*) \(\[source\]\((\S+)\)\)", figures).groups()
        assert (words, source.removeprefix("../../")) == (row.figures, row.source)
        assert mieb == (f"{row.mieb} ([source]({row.mieb_source}))" if row.mieb else "")


def test_every_figure_has_its_source():
    for row in ss.list_backbones():
        here = (ROOT / row.source).is_file()
        assert here or row.source.startswith("https://"), row
        assert bool(row.mieb) == row.mieb_source.startswith("https://"), row


def test_sscd_pools_by_generalised_means(random_weights):
    maps = torch.rand(2, 3, 4, 5)
    pooled = sscd.GemPool()(maps)
    wanted = (maps.numpy().astype(float) ** 3).mean(axis=(2, 3)) ** (1 / 3)
    assert pooled.shape == (2, 3, 1, 1)
    np.testing.assert_allclose(pooled[..., 0, 0].numpy(), wanted, rtol=1e-5)
    names = set(sscd.SscdNetwork().state_dict())
    assert names == {f"backbone.{key}" for key in models.resnet50(num_classes=512).state_dict()}


@pytest.mark.parametrize("name", profiles.PROFILES)
def test_a_profile_falls_back_with_a_calm_sentence(name, monkeypatch, caplog):
    def build(wanted, file):
        if wanted == profiles.PROFILES[name]:
            raise WeightsError(f"the weights of {wanted} cannot be fetched (no network); connect")
        return real(wanted, file)

    real = profiles.build_spec
    monkeypatch.setattr(profiles, "build_spec", build)
    monkeypatch.setattr(profiles, "auto_backbone_name", lambda: "efficientnet_lite0")
    with caplog.at_level(logging.WARNING, "simsearch"):
        backbone = load_backbone(name, device="cpu")
    assert backbone.name == "efficientnet_lite0"
    (record,) = caplog.records
    assert record.message.startswith(
        f"Using efficientnet_lite0 in place of {profiles.PROFILES[name]}"
    )
    assert record.message.endswith("cannot be fetched (no network).")


def test_a_profile_is_recorded_by_the_networks_own_name(monkeypatch):
    module = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    spec = ModelSpec(
        "sscd_disc_mixup", "file.pt", module, sscd.SquashPreprocessing(8, 8, (0.5,) * 3, (0.5,) * 3)
    )
    monkeypatch.setattr(profiles, "build_spec", lambda name, file: spec)
    assert load_backbone("copies", device="cpu").name == "sscd_disc_mixup"


def test_a_profile_takes_no_weights(tmp_path):
    (tmp_path / "a.pth").touch()
    with pytest.raises(ss.BackboneError, match='backbone="sscd_disc_mixup"'):
        load_backbone("copies", tmp_path / "a.pth")


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("scene", "scenes"), ("resnet5O", "resnet50"), ("efficientnet-lite0", "efficientnet_lite0")],
)
def test_the_nearest_name_is_told(name, nearest):
    with pytest.raises(ss.BackboneError, match=f"no backbone {name!r}; did you mean {nearest!r}"):
        load_backbone(name)
