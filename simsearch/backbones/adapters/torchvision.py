"""torchvision classifiers, cut before their last linear layer."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

from simsearch import registry
from simsearch.backbones.preprocessing import Preprocessing
from simsearch.backbones.spec import BUNDLED, ModelSpec
from simsearch.backbones.weights import load_weights
from simsearch.backbones.weights_download import fetch_weights
from simsearch.errors import BackboneError

# Networks without a linear classifier (SqueezeNet), or with auxiliary ones.
_UNSUPPORTED = {"googlenet", "inception_v3", "squeezenet1_0", "squeezenet1_1"}


def _nearest(name: str) -> str:
    """Return a hint at the name of closest spelling, if one is close."""
    from torchvision import models

    named = [each for each in registry.PATHS["backbone"] if each and each[-1] != ":"]
    near = get_close_matches(name, [*named, "auto", *models.list_models(module=models)], 1)
    return f"did you mean {near[0]!r}? " if near else ""


def torchvision_classifier(name: str, file: Path | None) -> ModelSpec:
    """Adapt a torchvision classifier, cut before its last linear layer."""
    import torch
    from torchvision import models

    if name not in set(models.list_models(module=models)) - _UNSUPPORTED:
        raise BackboneError(
            f"no backbone {name!r}; {_nearest(name)}choose auto, resnet50, {BUNDLED}, scenes, "
            "products, copies, another torchvision classifier (resnet18, convnext_tiny, vit_b_16, "
            "...), timm:NAME or clip:NAME:TAG; list_backbones() says what each is best at"
        )
    # Not the V2 recipe: its features scatter near-identical pictures (pytorch/vision issue 8382).
    choices = models.get_model_weights(name)
    entry = getattr(choices, "IMAGENET1K_V1", choices.DEFAULT)
    module = models.get_model(name)
    linears = [key for key, x in module.named_modules() if isinstance(x, torch.nn.Linear)]
    module.set_submodule(linears[-1], torch.nn.Identity())
    load_weights(module, file or fetch_weights(entry.url), ignore=linears[-1])
    preset = entry.transforms()
    preprocessing = Preprocessing(
        resize=preset.resize_size[0],
        crop=preset.crop_size[0],
        mean=tuple(preset.mean),
        std=tuple(preset.std),
        interpolation=preset.interpolation.name,
    )
    return ModelSpec(name, str(file or entry.name), module, preprocessing)
