"""timm models, without their classifier; `timm:NAME@224` takes another size of input."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

from simsearch.backbones.preprocessing import Preprocessing
from simsearch.backbones.spec import ModelSpec
from simsearch.backbones.squash import SquashPreprocessing
from simsearch.backbones.weights import load_weights
from simsearch.backbones.weights_download import offline_advice
from simsearch.errors import BackboneError, MissingExtraError, WeightsError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Any


MODES = {"center": Preprocessing, "squash": SquashPreprocessing}  # by timm's name of it


def timm_model(name: str, file: Path | None) -> ModelSpec:
    """Adapt a timm model, without its classifier.

    Raises
    ------
    BackboneError
        If timm has no such model, or prepares its input in a way that is not supported.
    WeightsError
        If the weights cannot be fetched.
    MissingExtraError
        If timm is not installed.
    """
    timm = _import_timm(name)
    short, size = _split_size(name)
    if not timm.is_model(short.split(".")[0]):
        near = get_close_matches(short.split(".")[0], timm.list_models(), 1)
        hint = f"; did you mean 'timm:{near[0]}'?" if near else ""
        raise BackboneError(f"timm has no model {short!r}; timm.list_models() names them{hint}")
    try:
        options = _size_option(timm, short, size)
        module = timm.create_model(short, pretrained=file is None, num_classes=0, **options)
    except Exception as error:  # the hub's client raises many types
        raise WeightsError(offline_advice(name, str(error))) from error
    if file:
        load_weights(module, file, ignore=module.pretrained_cfg.get("classifier") or ())
    config = timm.data.resolve_data_config({"img_size": size} if size else {}, model=module)
    return ModelSpec(name, str(file or "pretrained"), module, to_preprocessing(name, config))


def _import_timm(name: str) -> Any:  # noqa: ANN401
    try:
        import timm
    except ImportError as error:
        raise MissingExtraError(f'{name} needs: pip install "simsearch[timm]"') from error
    return timm


def timm_mode(name: str) -> type[Preprocessing] | None:
    """Return how a model's pictures become squares, without building it; None if unsupported.

    Raises
    ------
    MissingExtraError
        If timm is not installed.
    """
    short, _ = _split_size(name)
    config = _import_timm(name).get_pretrained_cfg(short, allow_unregistered=True)
    return MODES.get(config.crop_mode if config else "center")


def _split_size(name: str) -> tuple[str, int | None]:
    """Return the model's own name, and the side of its input in pixels if it is given."""
    short, at, size = name.removeprefix("timm:").partition("@")
    if not at:
        return short, None
    if not size.isascii() or not size.isdigit() or not 0 < int(size) < 2**14:
        raise BackboneError(f"{name!r}: after @ stands the side of the input in pixels, as in @224")
    return short, int(size)


def _size_option(timm: Any, short: str, size: int | None) -> dict[str, int]:  # noqa: ANN401
    """Return the option that makes a network for this size; convolutions take any."""
    config = timm.get_pretrained_cfg(short, allow_unregistered=True)
    fixed = config is not None and config.fixed_input_size
    return {"img_size": size} if size and fixed else {}


def to_preprocessing(name: str, config: Mapping[str, Any]) -> Preprocessing:
    """Return the preprocessing that timm describes."""
    _, height, width = config["input_size"]
    mode = MODES.get(config["crop_mode"])
    if mode is None or height != width:
        raise BackboneError(
            f"{name} takes pictures of {width}×{height} pixels in crop mode "
            f"{config['crop_mode']!r}, which is not supported: take another model, or pass it with "
            "its transform, load_backbone(module, transform=...)"
        )
    return mode(
        resize=int(height / config["crop_pct"]),
        crop=height,
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        interpolation=config["interpolation"].upper(),
    )
