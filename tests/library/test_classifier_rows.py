"""The classifier of a backbone, kept beside the library: whose, of what, and what is made anew."""

import shutil

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import save_file

import simsearch as ss
from simsearch.backbones import classifier
from simsearch.backbones.classifier import load_classifier
from simsearch.backbones.spec import build_spec
from simsearch.errors import BackboneError, QueryError, WeightsError
from simsearch.library import classifier_rows
from simsearch.library.classifier_rows import classifier_of, read_classifier

FILES = ("classifier.npy", "classifier.json")
TEXT = "a street at night"


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "words_cache"))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A library of six pictures that words have been asked of."""
    place = tmp_path_factory.mktemp("kept")
    rng = np.random.default_rng(0)
    (place / "dataset").mkdir()
    for i in range(6):
        pixels = rng.integers(0, 256, (40, 40, 3), np.uint8)
        Image.fromarray(pixels).save(place / f"dataset/{i}.png")
    ss.embed_dataset(place / "dataset", place / "outputs", "efficientnet_lite0", progress=False)
    ss.search(ss.ImageLibrary.load(place / "outputs"), text=TEXT)
    return place


@pytest.fixture
def outputs(made, tmp_path, monkeypatch):
    shutil.copytree(made, tmp_path / "work", symlinks=True)
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work" / "outputs"


@pytest.fixture
def no_weights(monkeypatch):
    """Return a function after which the weights are not here."""

    def missing(*_):
        raise WeightsError("the weights cannot be fetched")

    def remove():
        load_classifier.cache_clear()
        monkeypatch.setattr(classifier, "_bundled", missing)

    yield remove
    load_classifier.cache_clear()


def ask(outputs):
    return [
        (match.row, match.score) for match in ss.search(ss.ImageLibrary.load(outputs), text=TEXT)
    ]


def test_the_first_words_keep_the_classifier_and_later_ones_need_no_weights(outputs, no_weights):
    before = ask(outputs)
    no_weights()
    assert ask(outputs) == before


def fingerprint(outputs):
    return ss.ImageLibrary.load(outputs).source.fingerprint


def test_what_is_kept_equals_the_weights(outputs):
    kept = read_classifier(outputs, fingerprint(outputs))
    loaded = load_classifier("efficientnet_lite0")
    assert kept.names == loaded.names
    assert np.array_equal(kept.rows, loaded.rows)


def flip_a_bit(outputs):
    data = bytearray((outputs / FILES[0]).read_bytes())
    data[-100] ^= 1
    (outputs / FILES[0]).write_bytes(data)


def rename_a_class(outputs):
    text = (outputs / FILES[1]).read_text().replace('"goldfish"', '"mermaid"')
    (outputs / FILES[1]).write_text(text)


def cut_short(outputs):
    (outputs / FILES[0]).write_bytes((outputs / FILES[0]).read_bytes()[:-4])


def write_nonsense(outputs):
    (outputs / FILES[1]).write_text("[" * 100_000)


def delete_the_rows(outputs):
    (outputs / FILES[0]).unlink()


@pytest.mark.parametrize(
    "damage", [flip_a_bit, rename_a_class, cut_short, write_nonsense, delete_the_rows]
)
def test_what_is_damaged_is_made_anew(outputs, damage):
    before, rows = ask(outputs), np.load(outputs / FILES[0])
    damage(outputs)
    assert read_classifier(outputs, fingerprint(outputs)) is None
    assert ask(outputs) == before
    assert np.array_equal(np.load(outputs / FILES[0]), rows)
    assert read_classifier(outputs, fingerprint(outputs)) is not None


def test_what_somebody_else_has_written_is_made_anew(outputs, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another user"))
    assert read_classifier(outputs, fingerprint(outputs)) is None
    ask(outputs)
    assert read_classifier(outputs, fingerprint(outputs)) is not None


def test_without_weights_trust_makes_it_count(outputs, monkeypatch, tmp_path, no_weights):
    before = ask(outputs)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another user"))
    no_weights()
    with pytest.raises(WeightsError, match=r"cannot be fetched; .*simsearch trust OUTPUTS"):
        ask(outputs)
    assert "classifier" in ss.trust_library(outputs).derived
    assert ask(outputs) == before


def test_without_weights_and_a_copy_there_is_one_line(outputs, no_weights):
    for name in FILES:
        (outputs / name).unlink()
    no_weights()
    with pytest.raises(WeightsError, match=r"^the weights cannot be fetched$"):
        ask(outputs)


def test_verify_reads_it(outputs):
    assert "classifier.npy" in {file.name for file in ss.verify_library(outputs).files}
    flip_a_bit(outputs)
    (damaged,) = ss.verify_library(outputs).damaged
    assert damaged.name == "classifier.npy"
    assert not damaged.of_library


def test_a_folder_that_cannot_be_written_is_searched_all_the_same(outputs, monkeypatch):
    before = ask(outputs)
    for name in FILES:
        (outputs / name).unlink()

    def full(*_, **__):
        raise OSError(28, "no space left")

    monkeypatch.setattr(classifier_rows, "atomic_write", full)
    assert ask(outputs) == before
    assert not (outputs / FILES[1]).exists()


@pytest.mark.parametrize("name", [*FILES, *(f"{name}.part" for name in FILES)])
@pytest.mark.parametrize("exists", [True, False])
def test_no_link_is_followed(outputs, tmp_path, name, exists):
    before, letter = ask(outputs), tmp_path / "letter.txt"
    for each in FILES:
        (outputs / each).unlink()
    if exists:
        letter.write_text("dear")
    (outputs / name).symlink_to(letter)
    assert ask(outputs) == before
    assert letter.exists() == exists
    assert not exists or letter.read_text() == "dear"


def test_rows_of_another_backbone_are_not_taken(outputs):
    assert read_classifier(outputs, "0" * 16) is None
    library = ss.ImageLibrary.load(outputs)
    library.source = library.source.__class__("efficientnet_lite0", "x", "0" * 16, "float32")
    with pytest.raises(BackboneError, match="have changed since the library was made"):
        classifier_of(library, library.source)


def test_a_library_of_arrays_keeps_nothing(outputs):
    stored = ss.ImageLibrary.load(outputs)
    library = ss.ImageLibrary(stored.embeddings, stored.paths)
    found = classifier_of(library, stored.source)
    assert found is classifier_of(library, stored.source)
    assert np.array_equal(found.rows, load_classifier("efficientnet_lite0").rows)


def write_network(file, *names):
    """Write the published weights, those of some layers moved."""
    state = build_spec("efficientnet_lite0", None).module.state_dict()
    for name in names:
        state[name] = state[name] + 0.01
    save_file({key: value.clone().contiguous() for key, value in state.items()}, file)
    return str(file)


def test_a_network_that_was_trained_without_its_classifier_says_so(tmp_path):
    file = write_network(tmp_path / "tuned.safetensors", "_conv_head.weight")
    with pytest.raises(QueryError, match=r"tuned\.safetensors was trained further without"):
        load_classifier("efficientnet_lite0", file)


@pytest.mark.parametrize("changed", [(), ("_conv_head.weight", "_fc.weight")])
def test_one_that_was_trained_with_it_has_its_own(tmp_path, changed):
    file = write_network(tmp_path / "whole.safetensors", *changed)
    found, published = (load_classifier("efficientnet_lite0", each) for each in (file, None))
    assert np.allclose(found.rows, published.rows, atol=1e-4)
