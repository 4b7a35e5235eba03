"""Files of weights: loaded, wrapped, damaged, unsafe."""

import os
import pickle
from pathlib import Path

import pytest
import torch
from networks import (
    SMALL,
)

from simsearch.backbones.backbone import load_backbone
from simsearch.errors import WeightsError


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


def test_wrapped_state_dicts_are_loaded(saved, tmp_path):
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


def test_replaced_weights_file_is_read_again(saved, tmp_path):
    file = tmp_path / "weights.pth"
    state = saved(SMALL)[0].state_dict()
    torch.save(state, file)
    before = load_backbone(SMALL, file, precision="float32")
    assert load_backbone(SMALL, file, precision="float32") is before
    torch.save({**state, "conv1.0.weight": state["conv1.0.weight"] + 1}, file)
    os.utime(file, ns=(0, 0))
    assert load_backbone(SMALL, file, precision="float32").fingerprint != before.fingerprint
