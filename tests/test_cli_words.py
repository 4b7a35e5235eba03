"""Words on the command line: searched with, liked and disliked, refused in one line."""

import json

import pytest

import simsearch as ss
from simsearch.cli.main import main


@pytest.fixture(scope="module")
def outputs(sample, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli_words")
    ss.embed_dataset(sample, folder, "efficientnet_lite0", include=["seg_pred/*"], progress=False)
    return folder


@pytest.fixture
def run(outputs, capsys):
    def run(command, *arguments):
        code = main([command, str(outputs), *arguments])
        return code, *capsys.readouterr()

    return run


def test_words_search_as_in_python(run, outputs):
    code, out, _ = run("search", "--text", "a cup of coffee", "--json", "-k", "3")
    library = ss.ImageLibrary.load(outputs)
    assert code == 0
    assert json.loads(out) == ss.search(library, [ss.Words("a cup of coffee")], k=3)[0].to_dict()


def test_words_are_liked_and_disliked_as_in_python(run, outputs):
    code, out, _ = run(
        *("recommend", "--liked-text", "a cat", "--liked", "2", "--disliked-text", "coffee"),
        *("--json", "-k", "3"),
    )
    library = ss.ImageLibrary.load(outputs)
    expected = ss.recommend(library, [2, ss.Words("a cat")], [ss.Words("coffee")], k=3)
    assert code == 0
    assert json.loads(out) == expected.to_dict()


@pytest.mark.parametrize("text", ["", "\x1b\x07", "a" * 10_000])
def test_texts_without_words_are_refused_in_one_line(run, text):
    code, out, err = run("search", "--text", text)
    assert (code, out) == (1, "")
    assert len(err.strip().splitlines()) == 1
    assert len(err) < 300
    assert "\x1b" not in err


def test_nothing_liked_is_told_with_both_flags(run):
    code, _, err = run("recommend", "--disliked-text", "coffee")
    assert code == 1
    assert "--liked IMAGE, or words by --liked-text" in err
