"""CLIP, SigLIP2, PE-Core and others, as open_clip has them: the tower that embeds pictures.

`simsearch.backbones.clip_text` holds the other tower, that embeds words.
"""

from __future__ import annotations

import difflib
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from simsearch.backbones.preprocessing import Preprocessing
from simsearch.backbones.spec import ModelSpec
from simsearch.backbones.squash import SquashPreprocessing
from simsearch.backbones.weights_download import offline_advice
from simsearch.backbones.weights_error import weights_error
from simsearch.errors import BackboneError, MissingExtraError, WeightsError

if TYPE_CHECKING:
    from collections.abc import Mapping

PREFIX = "clip:"
MODES = {"shortest": Preprocessing, "squash": SquashPreprocessing}  # by open_clip's name of it
PUBLISHED = ("mean", "std", "interpolation", "resize_mode", "quick_gelu")  # that a tag decides


class ClipName(NamedTuple):
    """`clip:MODEL` or `clip:MODEL:TAG`, as `open_clip.list_pretrained(as_str=True)` writes them."""

    model: str
    tag: str  # "" for none


class ImageTower(torch.nn.Module):
    """The image tower of a CLIP model: (B, 3, S, S) in, (B, D) out.

    Some towers, such as CoCa's, give their tokens as well; these are left aside.
    """

    def __init__(self, visual: torch.nn.Module) -> None:
        super().__init__()
        self.visual = visual

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """Embed pictures."""
        output: Any = self.visual(pictures)
        features: torch.Tensor = output[0] if isinstance(output, tuple) else output
        return features


@dataclass(frozen=True)
class ClipSpec(ModelSpec):
    """A `ModelSpec` whose fingerprint tells of both towers, as words are compared with pictures."""

    text_digest: str = ""

    @property
    def fingerprint(self) -> str:
        """Digest of both towers and the preprocessing (16 hex digits)."""
        both = f"{super().fingerprint} {self.text_digest}"
        return hashlib.sha256(both.encode()).hexdigest()[:16]


def clip_model(name: str, file: Path | None) -> ClipSpec:
    """Adapt the image tower of a CLIP model."""
    return split_towers(name, file)[0]


def split_towers(name: str, file: Path | None) -> tuple[ClipSpec, torch.nn.Module]:
    """Build a model: its image tower with the preprocessing, and what is left, the text tower."""
    model = build_clip(name, file)
    visual: Any = model.visual
    tower, preprocessing = ImageTower(visual), _preprocessing(name, model)
    del model.visual
    parsed = parse_name(name)
    weights = str(file or parsed.tag or only_tag(parsed))
    text = ModelSpec(name, weights, model, preprocessing)
    spec = ClipSpec(name, weights, tower, preprocessing, text_digest=text.fingerprint)
    return spec, model.requires_grad_(False)


def parse_name(name: str) -> ClipName:
    """Read the name of a backbone, and check it against what open_clip knows.

    Raises
    ------
    BackboneError
        If open_clip has no such model, or no such tag of it; the message names the closest.
    MissingExtraError
        If open_clip is not installed.
    """
    open_clip = import_open_clip(name)
    model, _, tag = name.removeprefix(PREFIX).partition(":")
    models = open_clip.list_models()
    if model not in models:
        raise BackboneError(
            f"open_clip has no model {model!r}{_closest(model, models)}; "
            "open_clip.list_models() names them"
        )
    tags = open_clip.list_pretrained_tags_by_model(model)
    if tag and not open_clip.is_pretrained_cfg(model, tag):
        known = f"it has {', '.join(tags)}" if tags else "none are published; pass weights=FILE"
        raise BackboneError(
            f"open_clip has no weights {tag!r} of {model}{_closest(tag, tags)}; {known}"
        )
    return ClipName(model, tag)


def import_open_clip(name: str) -> Any:  # noqa: ANN401
    """Import open_clip.

    Raises
    ------
    MissingExtraError
        If it is not installed.
    """
    try:
        import open_clip
    except ImportError as error:
        raise MissingExtraError(f'{name} needs: pip install "simsearch[clip]"') from error
    return open_clip


def only_tag(parsed: ClipName) -> str:
    """Return the tag of a model that has one; "" for one without published weights.

    Raises
    ------
    BackboneError
        If there are several.
    """
    import open_clip

    tags = open_clip.list_pretrained_tags_by_model(parsed.model)
    if len(tags) > 1:
        raise BackboneError(
            f"{parsed.model} has several weights; say which: backbone="
            f'"{PREFIX}{parsed.model}:{tags[0]}", or {", ".join(tags[1:])}'
        )
    return tags[0] if tags else ""


def published_settings(parsed: ClipName) -> Mapping[str, Any]:
    """Return what the published weights of a model were trained with: preprocessing, activation.

    A local file is read with the settings of the tag in the name, or with those that all tags of
    the model share.

    Raises
    ------
    BackboneError
        If the tags differ, so that one has to be named.
    """
    from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model

    tags = [parsed.tag] if parsed.tag else list_pretrained_tags_by_model(parsed.model)
    settings = [
        {key: config[key] for key in PUBLISHED if key in config}
        for config in (get_pretrained_cfg(parsed.model, tag) for tag in tags)
    ]
    if any(each != settings[0] for each in settings):
        raise BackboneError(
            f"the weights of {parsed.model} were trained with several preprocessings; say which "
            f'yours has: backbone="{PREFIX}{parsed.model}:{tags[0]}", or {", ".join(tags[1:])}'
        )
    return settings[0] if settings else {}


def clip_mode(name: str) -> type[Preprocessing] | None:
    """Return how a model's pictures become squares, without building it; None if unsupported.

    Raises
    ------
    BackboneError, MissingExtraError
        As `parse_name` and `published_settings` raise them.
    """
    return MODES.get(published_settings(parse_name(name)).get("resize_mode", "shortest"))


def build_clip(name: str, file: Path | None) -> torch.nn.Module:
    """Build both towers with their weights.

    Raises
    ------
    BackboneError
        If the name is unknown, or leaves open which weights.
    WeightsError
        If the weights cannot be fetched, or do not fit.
    MissingExtraError
        If a package is not installed.
    """
    parsed = parse_name(name)
    if file is None:
        parsed = parsed._replace(tag=parsed.tag or only_tag(parsed))
        file = _fetch(name, parsed)
    return _load(name, parsed.model, file, dict(published_settings(parsed)))


def _fetch(name: str, parsed: ClipName) -> Path:
    from open_clip.pretrained import download_pretrained, get_pretrained_cfg

    if not parsed.tag:
        raise WeightsError(f"no weights of {parsed.model} are published; pass weights=FILE")
    try:
        return Path(download_pretrained(get_pretrained_cfg(parsed.model, parsed.tag)))
    except Exception as error:  # the hub's client and urllib raise many types
        raise WeightsError(offline_advice(f"{name} ({parsed.tag})", str(error))) from error


def _load(name: str, model: str, file: Path, settings: dict[str, Any]) -> torch.nn.Module:
    from open_clip.factory import create_model

    quick_gelu = settings.pop("quick_gelu", False)
    try:
        made: torch.nn.Module = create_model(
            model,
            pretrained=str(file),  # which is read as tensors alone
            force_quick_gelu=quick_gelu,
            force_preprocess_cfg=settings,
        )
    except ImportError as error:  # a text tower of transformers
        raise MissingExtraError(f"{name} needs: pip install transformers") from error
    except Exception as error:  # torch, pickle, zip and safetensors each raise their own
        raise weights_error(file, model, error) from error
    return made.eval()


def _preprocessing(name: str, model: torch.nn.Module) -> Preprocessing:
    """Return the preprocessing of a model, as open_clip's own evaluation has it."""
    config: dict[str, Any] = model.visual.preprocess_cfg  # type: ignore[union-attr, assignment]
    size = config["size"]
    sides = {size} if isinstance(size, int) else set(size)
    mode = MODES.get(config["resize_mode"])
    if mode is None or len(sides) > 1:
        raise BackboneError(f"{name} takes pictures of {size}, {config['resize_mode']}: no square")
    (side,) = sides
    return mode(
        resize=side,
        crop=side,
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        interpolation="BILINEAR" if config["interpolation"] == "bilinear" else "BICUBIC",
    )


def _closest(name: str, known: list[str]) -> str:
    lowered = {each.lower(): each for each in known}
    found = difflib.get_close_matches(name.lower(), lowered, 1, 0.5)
    return f"; did you mean {lowered[found[0]]!r}?" if found else ""
