"""Small networks, reference computations and a fresh interpreter for tests of backbones."""

import os
import subprocess
import sys

import numpy as np
import torch
from torch import nn
from torchvision import models
from torchvision import transforms as tv

from simsearch.backbones.backbone import load_backbone

SMALL = "shufflenet_v2_x0_5"  # the smallest network of torchvision


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


def run_python(code, **environment):
    run = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return run.stdout.splitlines()
