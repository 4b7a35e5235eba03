"""The sentence encoder: equal to sentence-transformers, its files checked; classifiers by name."""

from pathlib import Path

import numpy as np
import pytest

from simsearch.backbones import words
from simsearch.backbones.classifier import class_names, load_classifier
from simsearch.backbones.words import check_file, check_text, load_sentence_encoder
from simsearch.errors import MissingExtraError, QueryError, WeightsError

# Encoded by sentence-transformers 6.2.0, `encode(texts, normalize_embeddings=True)`.
EXPECTED = Path(__file__).parents[1] / "fixtures" / "sentences.npy"
TEXTS = [
    "a photo of a dog",
    "Dog",
    "a street at night",
    "x",
    "日本語 emoji 🎉 naïve",
    "word " * 600,
    "It's 5 o'clock; half-timbered (old) houses!",
]


def test_rows_equal_those_of_sentence_transformers():
    found = load_sentence_encoder().encode(TEXTS)
    np.testing.assert_allclose(found, np.load(EXPECTED), atol=1e-5)


def test_a_text_has_the_same_row_alone_and_with_others():
    encoder = load_sentence_encoder()
    together = encoder.encode([*TEXTS, *reversed(TEXTS)])
    alone = np.concatenate([encoder.encode([text]) for text in TEXTS])
    np.testing.assert_allclose(together[: len(TEXTS)], alone, atol=1e-5)
    np.testing.assert_allclose(together[len(TEXTS) :], alone[::-1], atol=1e-5)
    assert encoder.encode([]).shape == (0, 384)


def test_files_that_are_not_the_published_ones_are_refused(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(WeightsError, match="not the published file"):
        check_file(tmp_path / "tokenizer.json")
    with pytest.raises(WeightsError, match="cannot be read"):
        check_file(tmp_path / "model.safetensors")


def test_without_its_packages_the_extra_is_named(monkeypatch):
    load_sentence_encoder.cache_clear()
    monkeypatch.setattr(words.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"simsearch\[words\]"):
        load_sentence_encoder()
    load_sentence_encoder.cache_clear()


@pytest.mark.parametrize("text", ["", "  \n\t ", "\x00\x1b", "\u200b", None, 3, b"dog", ["dog"]])
def test_what_holds_no_words_is_refused(text):
    with pytest.raises(QueryError, match="text="):
        check_text(text)


def test_a_text_of_10000_letters_is_refused_in_one_line():
    with pytest.raises(QueryError, match="10,000 characters; 2,000") as caught:
        check_text("a" * 10_000)
    assert len(str(caught.value)) < 200


def test_control_characters_are_read_as_spaces():
    assert check_text("red\x1b[31m\x00  shoe\n") == "red [31m shoe"


def test_the_classifier_of_the_bundled_backbone_has_a_direction_for_each_class():
    found = load_classifier("efficientnet_lite0")
    assert len(found.names) == len(found.rows) == 1000
    assert found.names[:2] == ("tench", "goldfish")
    np.testing.assert_allclose(np.linalg.norm(found.rows, axis=1), 1, atol=1e-5)
    assert class_names() == found.names


def test_a_local_state_dict_gives_its_own_classifier(tmp_path):
    import torch
    from torchvision.models import resnet18

    torch.manual_seed(0)
    module = resnet18()
    torch.save(module.state_dict(), tmp_path / "weights.pth")
    found = load_classifier("resnet18", str(tmp_path / "weights.pth"))
    rows = module.fc.weight.detach().numpy()
    centred = rows - rows.mean(axis=0)
    np.testing.assert_allclose(
        found.rows, centred / np.linalg.norm(centred, axis=1, keepdims=True), atol=1e-5
    )


def test_weights_of_other_classes_are_told(tmp_path):
    import torch
    from torchvision.models import resnet18

    torch.save(resnet18(num_classes=7).state_dict(), tmp_path / "weights.pth")
    with pytest.raises(QueryError, match="holds no classifier of ImageNet's 1,000 classes"):
        load_classifier("resnet18", str(tmp_path / "weights.pth"))


@pytest.mark.parametrize("name", ["timm:vit_small_patch14_dinov2"])
def test_a_backbone_without_classes_is_told(name):
    with pytest.raises(QueryError, match="without a classifier of named classes"):
        load_classifier(name)


def test_the_encoder_reads_files_by_path_alone():
    """Its package holds code that is not needed: it is not imported."""
    import sys

    load_sentence_encoder.cache_clear()
    load_sentence_encoder()
    assert words.PACKAGE not in sys.modules
