"""Words as queries, through everything that a search goes through."""

import logging
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from word_cases import EACH, class_library

import simsearch as ss
from simsearch.backbones.classifier import load_classifier
from simsearch.errors import QueryError
from simsearch.retrieval import concepts, shown, words
from simsearch.retrieval.concepts import find_concept


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """Keep the class names of all tests in one folder of their own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "words_cache"))


@pytest.fixture(scope="module")
def library():
    return class_library()


def folders(matches):
    return {match.path.partition("/")[0] for match in matches}


@pytest.mark.parametrize(
    ("text", "folder"),
    [
        ("zebra", "zebra"),
        ("a striped african horse", "zebra"),
        ("bananas", "banana"),
        ("a beach by the sea", "seashore"),
        ("traffic sign in a street", "street_sign"),
    ],
)
def test_words_find_their_pictures(library, text, folder):
    found = ss.search(library, text=text, k=10)
    assert folders(found) == {folder}
    assert found.query == f'words "{text}"'
    again = ss.search(library, ss.Words(text), k=10)
    assert again.paths == found.paths


def test_words_go_through_filters_thresholds_and_indexes(library):
    assert folders(ss.search(library, text="zebra", where="banana/*")) == {"banana"}
    assert ss.search(library, text="zebra", threshold=0.999).paths == []
    index = ss.build_index(library, kind="flat")
    found = ss.search(library, text="zebra", k=10, index=index)
    assert found.paths == ss.search(library, text="zebra", k=10).paths


def test_words_name_albums(library):
    words = ["a zebra", "a fruit", "the beach", "a road sign"]
    level = ss.albums(library, words=words).level("coarse")
    named = {album.name: {path.split("/")[0] for path in album.paths} for album in level}
    expected = {"a zebra": "zebra", "a fruit": "banana", "the beach": "seashore"}
    assert {name: {folder} for name, folder in expected.items()}.items() <= named.items()


def test_words_mix_with_pictures_and_lead_away(library):
    mixed = ss.search(library, [ss.Words("zebra"), "banana/0.jpg"], 40, combine="max")
    assert folders(mixed) == {"zebra", "banana"}
    away = ss.search(
        library, [ss.Words("zebra"), ss.Words("fruit")], 5, combine="mean", weights=[1, -0.5]
    )
    assert folders(away) == {"zebra"}
    several = ss.search(library, [ss.Words("zebra"), ss.Words("banana")], k=5)
    assert [folders(each) for each in several] == [{"zebra"}, {"banana"}]
    liked = ss.recommend(library, [ss.Words("zebra")], ["banana/0.jpg"], k=5)
    assert folders(liked) == {"zebra"}


def test_a_bare_string_stays_a_path(library):
    with pytest.raises(ss.ImageError):
        ss.search(library, "zebra")


def test_words_that_mean_none_of_the_classes_are_told(library, caplog):
    with caplog.at_level(logging.WARNING, "simsearch"):
        found = ss.search(library, text="quarterly tax report")
    assert found.query.startswith('words "quarterly tax report" (no concept near: ')
    assert "no concept near" in caplog.text
    assert len(found) == 5
    caplog.clear()
    ss.search(library, text="zebra")
    assert caplog.text == ""


def test_words_that_no_picture_shows_are_told(library, caplog):
    """Words find their best rows in any case; without the zebras these are of something else."""
    others = np.flatnonzero(~library.where("zebra/*"))
    without = ss.ImageLibrary(
        library.embeddings[others], library.paths[others].tolist(), library.backbone
    )
    with caplog.at_level(logging.WARNING, "simsearch"):
        found = ss.search(without, text="zebra", k=5)
    said = "no picture clearly shows this; the best look most like: "
    assert found.query.startswith(f'words "zebra" ({said}')
    assert 'no picture clearly shows words "zebra"; the best look most like ' in caplog.text
    assert len(found) == 5
    one = np.append(others, np.flatnonzero(library.where("zebra/*"))[:1])
    with_one = ss.ImageLibrary(
        library.embeddings[one], library.paths[one].tolist(), library.backbone
    )
    assert ss.search(with_one, text="zebra", k=5).query == 'words "zebra"'


def test_the_best_rows_tell_which_classes_they_show_instead(library):
    classifier = load_classifier("efficientnet_lite0")
    concept = find_concept("zebra", "efficientnet_lite0")
    bananas, zebras = classifier.rows[[954]], classifier.rows[[340]]
    assert shown.classes_shown_instead(concept, classifier, bananas) == ("banana",)
    both = np.concatenate([bananas, zebras])
    assert shown.classes_shown_instead(concept, classifier, both) == ()
    # Two classes that a row is equally near to share it; 0.02 nearer is a factor of e.
    count = len(classifier.names)
    made = SimpleNamespace(rows=np.eye(count, dtype=np.float32), names=classifier.names)
    row = np.zeros((1, count))
    row[0, 340], row[0, 954] = 0.5, 0.5 + 0.02 * np.log(8)
    assert shown.classes_shown_instead(concept, made, row) == ()  # a ninth is zebra
    row[0, 954] = 0.5 + 0.02 * np.log(10)
    assert shown.classes_shown_instead(concept, made, row) == ("banana",)  # an eleventh


@pytest.mark.parametrize(
    ("text", "known"),
    [
        *((text, True) for text in ("a puppy", "sports car", "grand piano", "a city street")),
        *((text, False) for text in ("gross domestic product", "jealousy", "qwrtzpl", "Wednesday")),
    ],
)
def test_the_notice_tells_what_photos_can_show(text, known):
    assert find_concept(text, "efficientnet_lite0").is_known is known


def test_the_name_of_every_class_is_known():
    classifier = load_classifier("efficientnet_lite0")
    found = concepts.find_concepts(classifier.names, classifier, keep=True)
    assert [
        name for name, each in zip(classifier.names, found, strict=True) if not each.is_known
    ] == []


def test_ordinary_phrases_count_by_several_of_them():
    """A word that is near to one phrase alone, by chance, is not known for it."""
    concept = find_concept("a street at night", "efficientnet_lite0")
    _, framed = concepts.encoded_texts(tuple(concepts.bank_texts()))
    text = concepts.load_sentence_encoder().encode(["a street at night"])[0]
    nearest = np.sort(framed @ text)[-concepts.ORDINARY_PHRASES :]
    assert concept.ordinary == pytest.approx(nearest.mean(), abs=1e-5)
    assert concept.ordinary < nearest.max()


@pytest.mark.parametrize(
    "text", ["🎉🎉🎉", "日本語", "ζέβρα", "\x1b[31mred", "x" * 2000, "%s {} $x$"]
)
def test_hostile_words_get_an_answer(library, text):
    assert len(ss.search(library, text=text)) == 5


def test_many_words_are_named_in_short(library, caplog):
    with caplog.at_level(logging.WARNING, "simsearch"):
        found = ss.search(library, text="quarterly tax report " * 90)
    assert len(found.query) < 250
    assert all(len(line) < 300 for line in caplog.text.splitlines())


@pytest.mark.parametrize("text", ["", " \n", "\x00", 7, "a" * 2001])
def test_what_is_no_text_is_refused(library, text):
    with pytest.raises(QueryError):
        ss.search(library, text=text)


def test_a_query_beside_words_is_refused_with_the_mend(library):
    with pytest.raises(QueryError, match="combine="):
        ss.search(library, "a.jpg", text="zebra")


def test_a_library_that_does_not_know_its_backbone_says_so():
    bare = ss.ImageLibrary(np.eye(3), ["a.jpg", "b.jpg", "c.jpg"])
    with pytest.raises(QueryError, match="does not name it"):
        ss.search(bare, text="zebra")


def test_other_objects_with_a_text_are_no_words(library):
    answer = SimpleNamespace(text="<html>zebra</html>")  # as of a request for a picture
    with pytest.raises(ss.ImageError, match="SimpleNamespace is not an image source"):
        ss.search(library, answer)


def test_words_have_no_parts(library):
    with pytest.raises(QueryError, match="no parts"):
        ss.search(library, text="zebra", box=(0, 0, 1, 1))


def test_words_pass_through_the_head_of_a_library(library):
    refined = ss.refine(library)
    assert folders(ss.search(refined, text="zebra", k=10)) == {"zebra"}


def test_a_tiny_library_is_searched_without_feedback(library):
    rows = [0, EACH, 2 * EACH]
    tiny = ss.ImageLibrary(library.embeddings[rows], library.paths[rows], library.backbone)
    assert ss.search(tiny, text="banana", k=1).paths == ["banana/0.jpg"]


def test_the_concept_is_the_weighted_mean_of_the_nearest_classes():
    concept = find_concept("zebra", "efficientnet_lite0")
    assert concept.names[0] == "zebra"
    assert concept.is_known
    assert concept.weights.sum() == pytest.approx(1)
    classifier = load_classifier("efficientnet_lite0")
    rows = [classifier.rows[classifier.names.index(name)] for name in concept.names]
    mean = concept.weights @ np.array(rows)
    np.testing.assert_allclose(concept.direction, mean / np.linalg.norm(mean), atol=1e-5)


def test_feedback_follows_what_was_found_first(library):
    start = find_concept("zebra", "efficientnet_lite0").direction
    moved = words.follow_in(library, start)
    centre = library.embeddings[:EACH].mean(axis=0) - library.embeddings.mean(axis=0)
    assert np.linalg.norm(moved) == pytest.approx(1, abs=1e-5)
    assert moved @ centre > start @ centre


def test_class_names_are_encoded_once_and_damage_is_made_anew(library, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    concepts.encoded_texts.cache_clear()
    names = ("zebra", "banana")
    first = concepts.encoded_texts(names)
    (file,) = (tmp_path / "simsearch" / "words").iterdir()
    concepts.encoded_texts.cache_clear()
    monkeypatch.setattr(concepts, "load_sentence_encoder", None)
    assert np.array_equal(concepts.encoded_texts(names), first)
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    file.write_bytes(b"damaged")
    concepts.encoded_texts.cache_clear()
    assert np.array_equal(concepts.encoded_texts(names), first)
    concepts.encoded_texts.cache_clear()


def test_figures_show_words_in_place_of_a_picture(library, tmp_path):
    paths = [tmp_path / f"{number}.jpg" for number in range(len(library))]
    for path in paths:
        Image.new("RGB", (60, 60), "red").save(path)
    shown = ss.ImageLibrary(library.embeddings, paths, library.backbone)
    fig, _ = ss.show_matches(ss.search(shown, text="zebra", k=2))
    fig.savefig(tmp_path / "words.png")
    texts = [text.get_text() for part in (fig, *fig.axes) for text in part.texts]
    assert {'"zebra"', 'words "zebra"'} <= set(texts)
