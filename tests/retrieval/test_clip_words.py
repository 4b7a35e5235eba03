"""Words through the text tower of a CLIP backbone; what chance scores for words."""

import numpy as np
import pytest
from clip_networks import add_tiny_models, make_network
from PIL import Image

import simsearch as ss
from simsearch.backbones.clip_text import load_clip_text
from simsearch.errors import BackboneError
from simsearch.library.parts import open_parts
from simsearch.library.source import Source
from simsearch.retrieval import row_sample, text_chance, words
from simsearch.retrieval.ordinary_texts import bank_texts
from simsearch.retrieval.row_sample import draw_sample, sample_of
from simsearch.retrieval.words import takes_words

NAME = "clip:tiny-ViT:plain"
IMAGES = 60


@pytest.fixture(autouse=True)
def tiny(monkeypatch, tmp_path_factory):
    add_tiny_models(monkeypatch)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "clip_cache"))


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """A library of noise, embedded by a small CLIP network, on the disk."""
    folder = tmp_path_factory.mktemp("clip")
    rng = np.random.default_rng(0)
    (folder / "dataset").mkdir()
    for i in range(IMAGES):
        pixels = rng.integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(pixels).resize((64, 64)).save(folder / f"dataset/{i:02}.png")
    with pytest.MonkeyPatch.context() as patch:
        add_tiny_models(patch)
        make_network("tiny-ViT:plain", folder / "weights.pt")
        backbone = ss.load_backbone(NAME, folder / "weights.pt", device="cpu", precision="float32")
        ss.embed_dataset(folder / "dataset", folder / "outputs", backbone, progress=False)
    return ss.ImageLibrary.load(folder / "outputs")


@pytest.mark.parametrize(
    ("backbone", "weights", "needed"),
    [
        (NAME, "plain", {"open_clip"}),
        ("resnet50", "IMAGENET1K_V2", {words.PACKAGE, "tokenizers"}),
        ("resnet50", "own", None),
        ("timm:resnet50", "a1_in1k", None),
    ],
)
def test_words_are_offered_where_all_that_they_need_is_installed(
    monkeypatch, backbone, weights, needed
):
    """`needed` are the packages, None where no package helps."""
    source, installed = Source(backbone, weights, "abc", "float32"), set(needed or ())
    monkeypatch.setattr(words, "find_spec", lambda name: name in installed or None)
    assert takes_words(source) == (needed is not None)
    for name in needed or ():
        installed.remove(name)
        assert not takes_words(source)
        installed.add(name)
    assert not takes_words(None)


def text_rows(library, *texts):
    source = library.source
    return load_clip_text(source.backbone, source.weights_file, source.fingerprint).encode(texts)


def test_words_are_embedded_by_the_text_tower(library):
    found = ss.search(library, text="a street at night", k=IMAGES)
    assert found.query == 'words "a street at night"'
    row = text_rows(library, "a street at night")[0]
    np.testing.assert_allclose(found.embedding, row, atol=1e-6)
    wanted = library.embeddings @ row
    np.testing.assert_allclose([match.score for match in found], np.sort(wanted)[::-1], atol=1e-5)


def test_pictures_are_embedded_by_the_image_tower(library):
    copy = Image.open(library.paths[7]).copy()
    assert ss.search(library, copy, k=1)[0].row == 7


def test_words_mix_with_pictures(library):
    row = text_rows(library, "a dog")[0].astype(np.float64)
    found = ss.search(library, [ss.Words("a dog"), 7], 9, combine="mean", weights=[1, -0.5])
    mean = row - 0.5 * library.embeddings[7]
    np.testing.assert_allclose(found.embedding, mean / np.linalg.norm(mean), atol=1e-5)
    either = ss.search(library, [ss.Words("a dog"), 7], IMAGES, combine="max")
    best = np.maximum(library.embeddings @ row, library.embeddings @ library.embeddings[7])
    for match in either:
        assert match.score == pytest.approx(best[match.row], abs=1e-5)


def test_scores_of_words_are_compared_with_those_of_other_words(library):
    found = ss.search(library, text="a street at night", k=IMAGES)
    scored = sample_of(library)[: IMAGES // 2]
    bank = np.sort((text_rows(library, *bank_texts()) @ scored.T).ravel())
    for match in found:
        below = 100 * np.searchsorted(bank, np.float32(match.score)) / len(bank)
        assert match.percentile == pytest.approx(below, abs=0.1)
    pictures = ss.search(library, 7, k=IMAGES)
    assert pictures[0].percentile == pytest.approx(
        100
        * np.searchsorted(library.random_pair_scores, np.float32(pictures[0].score))
        / len(library.random_pair_scores)
    )


def test_the_automatic_threshold_of_words_is_their_own(library):
    rate = 0.3
    options = {"threshold": "auto", "false_match_rate": rate}
    shares = [
        len(ss.search(library, text=text, k=IMAGES, **options)) / IMAGES for text in bank_texts()
    ]
    assert np.mean(shares) == pytest.approx(rate, abs=0.1)
    assert library.threshold(rate) > 0.5 > ss.search(library, text="a dog", k=1)[0].score
    picture = ss.search(library, 7, k=IMAGES, **options)
    assert (
        len(picture)
        == sum(library.embeddings[7] @ library.embeddings.T >= library.threshold(rate)) - 1
    )


@pytest.mark.parametrize("how", ["mean", "max"])
def test_mixtures_have_a_scale_between_words_and_pictures(library, how):
    def limit(queries):
        found = ss.search(library, queries, IMAGES, combine=how)
        return found[0].percentile, found[0].score

    words, mixed = limit([ss.Words("a dog"), ss.Words("a cat")]), limit([ss.Words("a dog"), 3])
    assert 0 < words[0] <= 100
    assert 0 < mixed[0] <= 100
    assert words[1] < mixed[1]


def test_a_library_whose_weights_have_changed_says_so(library, tmp_path):
    make_network("tiny-ViT:plain", tmp_path / "weights.pt")
    other = ss.ImageLibrary(library.embeddings, library.paths)
    other.source = library.source.__class__(NAME, library.source.weights, "0" * 16, "float32")
    with pytest.raises(BackboneError, match="have changed since the library was made"):
        ss.search(other, text="a dog")


def test_a_library_made_by_a_given_backbone_takes_words(library):
    same = ss.ImageLibrary(library.embeddings, library.paths, library.backbone)
    assert ss.search(same, text="a dog", k=3).paths == ss.search(library, text="a dog", k=3).paths


@pytest.fixture(scope="module")
def with_parts(library):
    """The same library, with the windows of a grid."""
    outputs = library.stored[0]
    with pytest.MonkeyPatch.context() as patch:
        add_tiny_models(patch)
        ss.embed_dataset(
            outputs.parent / "dataset", outputs, library.backbone, parts="grid", progress=False
        )
    return ss.ImageLibrary.load(outputs)


def best_of_parts(library, vectors, row):
    """Score a picture by its best part or its whole, for each of several vectors."""
    parts = open_parts(library)
    rows = parts.parts[parts.of(row)]["row"].astype(np.float64)
    rows = np.concatenate([library.embeddings[row][None], rows])
    return (vectors @ (rows / np.linalg.norm(rows, axis=1, keepdims=True)).T).max(axis=1)


def test_scores_in_parts_are_compared_with_those_of_other_words_in_parts(with_parts):
    found = ss.search(with_parts, text="a street at night", k=IMAGES, parts=True)
    vectors = text_rows(with_parts, *bank_texts()).astype(np.float64)
    scored = draw_sample(with_parts).numbers[: IMAGES // 2].tolist()
    bank = np.sort(np.concatenate([best_of_parts(with_parts, vectors, row) for row in scored]))
    for match in found:
        below = 100 * np.searchsorted(bank, match.score) / len(bank)
        assert match.percentile == pytest.approx(below, abs=0.2)
    whole = ss.search(with_parts, text="a street at night", k=IMAGES)
    assert np.median([m.percentile for m in found]) == pytest.approx(
        np.median([m.percentile for m in whole]), abs=25
    )


def test_what_words_score_by_chance_is_computed_once_with_parts_too(with_parts, monkeypatch):
    for parts in (False, True):
        first = ss.search(with_parts, text="a dog", k=9, parts=parts)
        with monkeypatch.context() as patch:
            patch.setattr(text_chance, "bank_vectors", None)
            patch.setattr(row_sample, "_draw", None)
            patch.setattr(text_chance.TextChance, "_best", None)
            again = ss.search(with_parts, text="a dog", k=9, parts=parts)
        assert [(m.row, m.percentile) for m in again] == [(m.row, m.percentile) for m in first]
