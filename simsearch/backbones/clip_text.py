"""The text tower of a CLIP model, with its own tokenizer: words in, unit embeddings out.

The tokenizer of CLIP and PE-Core comes with open_clip. That of SigLIP and others is a file,
`tokenizer.json`: beside the weights, or from the hub.
"""

from __future__ import annotations

import json
import threading
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from simsearch.backbones.adapters.clip import parse_name, split_towers
from simsearch.backbones.backbone import SUFFIX
from simsearch.backbones.weights_download import cannot_fetch
from simsearch.backbones.weights_error import changed_error
from simsearch.errors import MissingExtraError, WeightsError
from simsearch.files import iter_blocks

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch
    from numpy.typing import NDArray

BATCH_TEXTS = 32
TOKENIZER, TOKENIZER_CONFIG = "tokenizer.json", "tokenizer_config.json"


class ClipTextEncoder:
    """The text tower of a CLIP model, on the processor, in float32.

    Attributes
    ----------
    fingerprint : str
        Of the model that the tower belongs to, both towers; see `Backbone.fingerprint`.
    """

    def __init__(self, name: str, file: Path | None) -> None:
        spec, self._model = split_towers(name, file)
        self.fingerprint = spec.fingerprint
        self._tokenize = load_tokenizer(name, file)
        self._lock = threading.Lock()  # settings of a tokenizer are no matter of threads

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed texts: (N, D) float32, rows of unit norm. What is too long is cut off."""
        import torch

        made = []
        for block in iter_blocks(len(texts), BATCH_TEXTS):
            with self._lock:
                tokens = self._tokenize(list(texts[block]))
            with torch.inference_mode():
                made.append(self._model.encode_text(tokens, normalize=True).float().numpy())  # type: ignore[operator]
        return np.concatenate(made).astype(np.float32, copy=False)


@lru_cache(maxsize=1)
def load_clip_text(name: str, weights_file: str | None, fingerprint: str) -> ClipTextEncoder:
    """Load the text tower of a backbone, once in a process.

    Parameters
    ----------
    name
        ``"clip:MODEL:TAG"``, as `load_backbone` takes it.
    weights_file
        Where the weights are a local file.
    fingerprint
        Of the backbone that made the pictures' embeddings.

    Raises
    ------
    BackboneError
        If the tower belongs to other weights than those.
    WeightsError
        If weights or tokenizer cannot be fetched, or do not fit.
    MissingExtraError
        If a package is not installed.
    """
    made = ClipTextEncoder(name, Path(weights_file) if weights_file else None)
    if made.fingerprint != fingerprint.removesuffix(SUFFIX).partition("-int8-")[0]:
        raise changed_error(name, made.fingerprint, fingerprint)
    return made


def load_tokenizer(name: str, file: Path | None) -> Callable[[list[str]], torch.Tensor]:
    """Load what turns texts into token numbers, (N, T), as open_clip does.

    Raises
    ------
    WeightsError
        If its file is neither beside the weights nor to be fetched, or does not fit.
    MissingExtraError
        If a package is not installed.
    """
    import open_clip

    model = parse_name(name).model
    text: dict[str, Any] = open_clip.get_model_config(model)["text_cfg"]
    repository = text.get("hf_tokenizer_name")
    if not repository:
        own: Callable[[list[str]], torch.Tensor] = open_clip.get_tokenizer(model)
        return own
    beside = file.parent if file and (file.parent / TOKENIZER).is_file() else None
    folder = beside or _fetch_tokenizer(name, repository)
    return FileTokenizer(folder, text)


def _fetch_tokenizer(name: str, repository: str) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        hf_hub_download(repository, TOKENIZER_CONFIG)
        return Path(hf_hub_download(repository, TOKENIZER)).parent
    except Exception as error:  # the hub's client raises many types
        reason = cannot_fetch(f"{name}'s tokenizer", str(error), repository)
        raise WeightsError(
            f"{reason}; put {TOKENIZER} and {TOKENIZER_CONFIG} of {repository} beside the weights "
            "and pass weights=FILE, or connect and try again"
        ) from error


class FileTokenizer:
    """A tokenizer of a `tokenizer.json`: texts in, (N, T) token numbers out, as open_clip's own.

    Without the package transformers, which open_clip takes for it.
    """

    def __init__(self, folder: Path, text: dict[str, Any]) -> None:
        from open_clip.tokenizer import get_clean_fn

        try:
            from tokenizers import Tokenizer
        except ImportError as error:
            raise MissingExtraError('the tokenizer needs: pip install "simsearch[clip]"') from error
        options = text.get("tokenizer_kwargs", {})
        self._clean = get_clean_fn(options.get("clean", "whitespace"))
        try:
            self._tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
            settings = json.loads((folder / TOKENIZER_CONFIG).read_text("utf-8"))
        except Exception as error:  # tokenizers raises Exception itself
            raise WeightsError(f"{folder / TOKENIZER} cannot be read: {error}") from error
        self._check(folder, text.get("vocab_size"))
        self._separator = (
            self._number(settings, "sep_token") if "strip_sep_token" in options else None
        )
        length = text.get("context_length", 77)
        pad = settings.get("pad_token")
        self._tokenizer.enable_truncation(length)
        self._tokenizer.enable_padding(
            direction=settings.get("padding_side", "right"),
            length=length,
            pad_id=self._number(settings, "pad_token"),
            pad_token=pad["content"] if isinstance(pad, dict) else pad,
        )

    def _check(self, folder: Path, known: int | None) -> None:
        count = self._tokenizer.get_vocab_size()
        if known is not None and count > known:
            raise WeightsError(
                f"{folder / TOKENIZER} has {count:,} tokens, and the network knows {known:,}: it "
                "is the tokenizer of another model"
            )

    def _number(self, settings: dict[str, Any], name: str) -> int:
        token: Any = settings.get(name) or ""
        number = self._tokenizer.token_to_id(token["content"] if isinstance(token, dict) else token)
        if number is None:
            raise WeightsError(f"{TOKENIZER_CONFIG} names no {name} of its {TOKENIZER}")
        return int(number)

    def __call__(self, texts: list[str]) -> torch.Tensor:
        """Turn texts into token numbers."""
        import torch

        encoded = self._tokenizer.encode_batch([self._clean(text) for text in texts])
        tokens = torch.tensor([each.ids for each in encoded])
        if self._separator is not None:
            tokens[tokens == self._separator] = 0
        return tokens
