"""timm models, without their classifier."""

from __future__ import annotations

from pathlib import Path

from simsearch.backbones.preprocessing import Preprocessing
from simsearch.backbones.spec import ModelSpec
from simsearch.backbones.weights import load_weights
from simsearch.backbones.weights_download import offline_advice
from simsearch.errors import BackboneError, MissingExtraError, WeightsError


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
