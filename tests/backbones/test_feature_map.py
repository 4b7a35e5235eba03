"""Feature maps: cells that explain an embedding."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from networks import (
    SMALL,
    embedded,
    own,
    to_tensor,
)
from torch import nn
from torchvision import models

from simsearch.backbones.backbone import load_backbone
from simsearch.errors import BackboneError


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


def test_feature_map_of_the_bundled_network(bundled, photos):
    assert mapped(bundled, photos).shape == (4, 7, 7, 1280)
    assert_mean_is_the_embedding(bundled, photos)


@pytest.mark.parametrize("name", [SMALL, "mobilenet_v3_small"])
def test_feature_maps_average_to_the_embedding(name, saved, photos):
    """Also where an activation or a layer follows the map, as long as it changes no direction."""
    backbone = load_backbone(name, saved(name)[1], device="cpu", precision="float32")
    assert_mean_is_the_embedding(backbone, photos[:2])


def test_cell_equals_the_output_for_a_uniform_map(photos):
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


def test_feature_map_of_an_own_module_with_a_map(photos):
    module = nn.Conv2d(3, 6, 5)
    with torch.no_grad():
        wanted = module(torch.stack([to_tensor(photo) for photo in photos])).permute(0, 2, 3, 1)
    assert np.abs(mapped(own(module), photos) - wanted.numpy()).max() < 1e-5


def test_threads_embed_while_another_reads_the_feature_map(saved, photos):
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
def test_feature_map_of_a_network_without_one(module, photos):
    backbone = own(module)
    rows = embedded(backbone, photos[:1])
    for _ in range(2):
        with pytest.raises(BackboneError, match="use a convolutional network such as resnet50"):
            mapped(backbone, photos[:1])
    assert not any(layer._forward_hooks for layer in backbone._module.modules())
    np.testing.assert_array_equal(embedded(backbone, photos[:1]), rows)
