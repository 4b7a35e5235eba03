"""Fingerprints change with what decides an embedding, and with nothing else."""

from dataclasses import field, make_dataclass, replace

import pytest
import safetensors.torch
import torch
from networks import (
    SMALL,
    Tiny,
    own,
    run_python,
    to_tensor,
)
from torch import nn

from simsearch.backbones.adapters.own import stable_repr
from simsearch.backbones.backbone import _load_named, load_backbone
from simsearch.backbones.preprocessing import Preprocessing, fingerprint_record
from simsearch.backbones.spec import ModelSpec

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


def test_fingerprint_depends_on_names_and_dtypes():
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


def test_record_of_version_1_is_the_text_of_earlier_versions():
    record = (
        "Preprocessing(resize=256, crop=224, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25), "
        "interpolation='BICUBIC')"
    )
    given = Preprocessing(256, 224, (0.5,) * 3, (0.25,) * 3, "BICUBIC")
    assert fingerprint_record(given) == stable_repr(given) == record


def test_later_field_changes_the_fingerprint_only_where_it_is_not_the_default():
    later = make_dataclass(
        "Preprocessing",
        [("antialias", bool, field(default=True))],
        bases=(Preprocessing,),
        frozen=True,
    )
    module, values = Tiny(), (256, 224, (0.5,) * 3, (0.5,) * 3)
    assert repr(later(*values)) != repr(PLAIN)
    assert fingerprint(module, later(*values)) == fingerprint(module)
    assert fingerprint(module, later(*values, antialias=False)) != fingerprint(module)


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
    _load_named.cache_clear()
    assert load_backbone(SMALL, file, precision="float32").fingerprint == before
    other = tmp_path / "other.safetensors"
    safetensors.torch.save_file(module.state_dict(), other)
    assert load_backbone(SMALL, other, precision="float32").fingerprint == before


def test_fingerprint_is_the_same_in_another_process(bundled):
    code = "import simsearch as ss; print(ss.load_backbone('efficientnet_lite0').fingerprint)"
    assert run_python(code, PYTHONHASHSEED="1") == [bundled.fingerprint]


TRANSFORMS = """
from functools import partial
from simsearch.backbones.adapters.own import stable_repr

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


def test_stable_repr_of_functions_is_the_same_in_every_process(capsys):
    exec(TRANSFORMS, {"__name__": "__main__"})
    lines = capsys.readouterr().out.splitlines()
    assert len(set(lines)) == len(lines) == 16
    assert run_python(TRANSFORMS, PYTHONHASHSEED="1") == lines
    assert run_python(TRANSFORMS, PYTHONHASHSEED="2") == lines


def test_fingerprint_changes_with_a_function_as_transform(photos):
    one, other = (
        load_backbone(module, transform=transform).fingerprint
        for module in [Tiny()]
        for transform in (to_tensor.__call__, lambda i: to_tensor(i.rotate(90)))
    )
    assert one != other
