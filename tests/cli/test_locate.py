"""Which library a command takes, and which images its arguments name."""

import io
import shutil
from pathlib import Path

import pytest

import simsearch as ss


def paths(k, query, **options):
    return ss.search(ss.ImageLibrary.load("outputs"), query, k=k, **options).paths


def test_the_library_is_found_without_being_named(run, monkeypatch):
    status, out, _ = run("search", 0, "-k", 2, "--paths")
    assert (status, out.splitlines()) == (0, paths(2, 0))
    assert run("info")[1] == run("info", "outputs")[1]
    shutil.move("outputs", "elsewhere")
    status, _, err = run("info")
    assert (status, "SIMSEARCH_LIBRARY is not set" in err) == (1, True)
    monkeypatch.setenv("SIMSEARCH_LIBRARY", "elsewhere")
    assert run("info")[0] == 0
    assert run("search", 0, "-k", 2, "--paths")[1] == out


def test_a_library_whose_first_run_was_stopped_is_told(run):
    Path("begun").mkdir()
    Path("begun/unfinished.jsonl").write_text("{}\n")
    for command in (["search", "begun", 0], ["info", "begun"]):
        status, _, err = run(*command)
        assert status == 1
        assert "no library in 'begun' yet: its first run was stopped; go on with " in err
        assert "simsearch embed DATASET begun" in err


def test_the_first_argument_is_the_library_only_if_it_is_one(run):
    shutil.copytree("outputs", "0")
    named = [
        run("search", *arguments, "-k", 1, "--json")
        for arguments in (
            ["outputs", "cats/a.png"],
            ["cats/a.png"],
            ["dataset/cats/a.png"],
            ["0", "cats/a.png"],  # a folder with a library
            ["--library", "0", "cats/a.png"],
            ["cats/a.png", "--library", "outputs"],
        )
    ]
    assert len(set(named)) == 1
    assert named[0][0] == 0


def test_a_first_argument_that_is_nothing_is_said(run):
    status, out, err = run("search", "outptus", 3)
    assert (status, out) == (1, "")
    assert "no library in 'outptus'; make one with `simsearch embed DATASET outptus`" in err
    assert err.endswith("did you mean outputs?\n")
    status, _, err = run("info", "outputs", "--library", "outputs")
    assert (status, "two libraries" in err) == (1, True)


def test_a_name_as_shown_stands_for_its_picture(run):
    status, out, _ = run("search", "outputs", "dogs/e.png", "-k", 3, "--paths")
    assert (status, out.splitlines()) == (0, paths(3, 4))
    status, out, _ = run("recommend", "--liked", "cats/a.png", "--disliked", "日本.png", "--paths")
    expected = ss.recommend(ss.ImageLibrary.load("outputs"), [0], [5]).paths
    assert (status, out.splitlines()) == (0, expected)


def test_a_file_here_goes_before_a_name_of_the_library(run, project):
    Path("cats").mkdir()
    shutil.copy("dataset/dogs/d.png", "cats/a.png")
    status, _, err = run("search", "cats/a.png")  # which this library cannot embed
    assert (status, "does not know what made its embeddings" in err) == (1, True)


def test_a_folder_is_several_queries(run):
    _, out, _ = run("search", "dataset/cats", "-k", 1, "--format", "csv")
    _, *rows = out.splitlines()
    assert [row.split(",")[0] for row in rows] == [f"dataset/cats/{n}.png" for n in "abc"]
    Path("empty").mkdir()
    status, _, err = run("search", "empty")
    assert (status, "'empty'" in err) == (1, True)


def test_standard_input_is_a_picture(run, monkeypatch):
    class Input:
        buffer = io.BytesIO(Path("dataset/cats/a.png").read_bytes())

    monkeypatch.setattr("sys.stdin", Input)
    status, _, err = run("search", "outputs", "-")
    assert (status, "does not know what made its embeddings" in err) == (1, True)
    status, _, err = run("search", "-")  # which is read by now
    assert (status, "standard input is empty" in err) == (1, True)
    assert run("search")[0] == 2


def test_arguments_stand_before_and_behind_options(run):
    expected = run("search", "outputs", 0, 1, "-k", 2, "--json")
    assert run("search", "outputs", "-k", 2, 0, "--json", 1) == expected
    assert run("search", "-k", 2, "--json", "outputs", 0, 1) == expected
    assert run("search", "-k", 2, 0, "--json", 1) == expected


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["serch"], "search"),
        (["dups"], "duplicates"),
        (["search", "0", "--treshold", "0.5"], "--threshold"),
        (["search", "0", "--treshold=0.5"], "--threshold"),
        (["embed", "dataset", "out", "--batchsize", "4"], "--batch-size"),
        (["search", "dataset/cats/aa.png"], "dataset/cats/a.png"),
        (["search", "datset/cats/a.png"], "dataset/cats/a.png?"),
        (["search", "datset/cts/aa.png"], "dataset/cats/a.png"),
        (["search", "cts/a.png"], "cats/a.png?"),  # as the library shows it
        (["search", "cats/aa.png"], "cats/a.png"),
        (["recommend", "--liked", "cts/a.png"], "cats/a.png?"),
        (["embed", "datset", "out"], "dataset"),
    ],
)
def test_what_was_meant_is_suggested(run, arguments, meant):
    status, _, err = run(*arguments)
    assert status in {1, 2}
    assert f"did you mean {meant}" in err
    assert len(err.splitlines()) <= 3


def test_a_stranger_gets_no_suggestion(run):
    status, _, err = run("search", "0", "--zzz")
    assert (status, "did you mean" in err) == (2, False)
    assert "unrecognized arguments: --zzz\n" in err
    status, _, err = run("search", "elsewhere/zebra.png")
    assert (status, "did you mean" in err) == (1, False)
