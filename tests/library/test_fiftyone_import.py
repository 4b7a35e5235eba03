"""Datasets of FiftyOne become libraries: those of `export_library`, and those of FiftyOne.

The samples in `tests/fixtures/fiftyone-1.22.1` were written by that version's own functions.
"""

import base64
import json
import shutil
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import simsearch as ss
from simsearch.cli.main import main
from simsearch.library.source import Source

MADE = Path(__file__).parents[1] / "fixtures" / "fiftyone-1.22.1"


def make_library(count=5):
    rows = np.random.default_rng(0).normal(size=(count, 4)).astype(np.float32)
    library = ss.ImageLibrary(rows, [f"pictures/{'ab'[i % 2]}/{i} ü.jpg" for i in range(count)])
    library.root = "pictures"
    library.source = Source("resnet50", "weights.pth", "abc123", "float32")
    table = {
        "path": library.names,
        "price": [1.5, None, 3.0, 4.0, float("inf")][:count],
        "stock": pd.array([1, None, 3, 2**62, 5][:count], "Int64"),
        "words": [["red", "ü"], None, [], ["x"], ["y"]][:count],
        "title": ["a", None, '"', "b\nc", "=1"][:count],
    }
    return library.attach(pd.DataFrame(table))


@pytest.fixture(autouse=True)
def inside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def made(inside):
    return shutil.copytree(MADE, inside / "made")


def change(folder, edit):
    """Edit the samples of a dataset."""
    file = folder / "samples.json"
    record = json.loads(file.read_text())
    edit(record["samples"])
    file.write_text(json.dumps(record))
    return folder


def test_what_was_exported_comes_back_whole(inside):
    library = make_library()
    ss.export_library(library, "dataset51", kind="fiftyone")
    again = ss.import_library("dataset51", "outputs")
    assert (again.names, again.root) == (library.names, library.root)
    assert again.fingerprint == library.fingerprint == "abc123"
    np.testing.assert_array_equal(again.embeddings, library.embeddings)
    assert [again.facts(row) for row in range(5)] == [library.facts(row) for row in range(5)]


def test_a_choice_of_samples_keeps_what_made_the_embeddings_and_asks_for_the_folder(inside):
    library = make_library()
    folder = ss.export_library(library, "dataset51", kind="fiftyone")
    change(folder, lambda samples: samples.reverse() or samples.pop())
    with pytest.raises(ss.LibraryError, match="give root="):
        ss.import_library(folder, "outputs", root="elsewhere")
    again = ss.import_library(folder, "outputs", root="pictures")
    assert sorted(again.names) == sorted(library.names[1:])
    assert again.fingerprint == "abc123"
    for row, path in enumerate(again.paths):
        np.testing.assert_array_equal(
            again.embeddings[row], library.embeddings[library.find(str(path))]
        )


def test_a_dataset_of_fiftyone_is_read(made, caplog):
    library = ss.import_library(made, "outputs", root="/p")
    assert library.names == ["a/0.png", "b/1.png", "a/2.png"]
    np.testing.assert_allclose(library.embeddings, [[0.6, 0.8], [1, 0], [0, -1]], atol=1e-7)
    assert "1 of 3 rows" in caplog.text
    assert "left out fields that are no numbers, texts or classes: boxes" in caplog.text
    table = library.metadata
    assert table["price"].tolist() == [0.0, 0.5, pd.NA]
    assert (table["n"].tolist(), str(table["n"].dtype)) == ([2**40 + i for i in range(3)], "Int64")
    assert table["much"].tolist() == [float("inf")] * 3
    assert table["when"][1] == "2026-01-02T00:00:00+00:00"
    assert table["ground_truth"].tolist() == ["a", "b", "a"]
    assert (table["tags"][0], table["words"][0]) == (["train"], ["x", "ü"])
    assert ss.search(library, 1, 3, where={"ground_truth": "a"}).paths == [
        "/p/a/0.png",
        "/p/a/2.png",
    ]


def test_pictures_that_lie_in_the_export_are_found_there(made):
    def move(samples):
        for row, sample in enumerate(samples):
            sample["filepath"] = f"data/{row}.png"

    change(made, move)
    library = ss.import_library("made", "outputs")
    assert library.paths.tolist() == [f"made/data/{row}.png" for row in range(3)]


def test_paths_that_lead_elsewhere_are_refused(made):
    with pytest.raises(ss.LibraryError, match=r"row 0 .* which is not below"):
        ss.import_library(made, "outputs")
    change(made, lambda samples: samples[1].update(filepath="../../etc/passwd"))
    with pytest.raises(ss.LibraryError, match=r"row 1 .* which is not below"):
        ss.import_library(made, "outputs", root="/p")


def packed(data):
    return {"$binary": {"base64": base64.b64encode(data).decode(), "subType": "00"}}


def npy(array):
    import io

    file = io.BytesIO()
    np.save(file, array)
    return zlib.compress(file.getvalue())


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "sample 1 .*no list of numbers"),
        (packed(b"no"), "sample 1 .*cannot be read"),
        (packed(npy(np.zeros(2))[:-9]), "sample 1 .*ends early"),
        (packed(zlib.compress(bytes(2**24))), "sample 1 .*more than"),
        (packed(npy(np.array([{}]))), "sample 1 .*cannot be read"),
        (packed(npy(np.ones(3))), "embedding of 3 numbers, and the first has 2"),
        (packed(npy(np.zeros(2))), "row 1 of made/samples.json .*is zero"),
        ([1, "a"], "sample 1 .*no list of numbers"),
    ],
)
def test_a_damaged_embedding_is_told_and_nothing_is_written(made, value, said):
    change(made, lambda samples: samples[1].update(embedding=value))
    with pytest.raises(ss.LibraryError, match=said):
        ss.import_library(made, "outputs", root="/p")
    assert not Path("outputs/manifest.json").exists()


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("samples.json", "{", "made/samples.json cannot be read"),
        ("samples.json", '{"samples": {}}', "no list of documents"),
        ("samples.json", '{"samples": []}', "no field 'embedding'"),
        ("samples.json", '{"samples": [{"embedding": [1]}]}', "sample 0 .* has no filepath"),
        ("samples.json", '{"samples": [{"filepath": "a"}]}', "no field 'embedding'"),
        ("metadata.json", "[]", "made/metadata.json cannot be read"),
        ("metadata.json", '{"info": {"simsearch": "{}"}}', "cannot be read"),
    ],
)
def test_a_damaged_dataset_is_told(made, file, text, said):
    (made / file).write_text(text)
    with pytest.raises(ss.LibraryError, match=said):
        ss.import_library(made, "outputs", root="/p")


def test_a_folder_without_a_dataset_is_told(inside):
    with pytest.raises(ss.LibraryError, match=r"samples\.json.: no such file"):
        ss.import_library(inside, "outputs")


def test_the_command_line(made, capsys):
    assert main(["import", "made", "outputs", "--root", "/p"]) == 0
    assert "3" in capsys.readouterr().out
    assert ss.ImageLibrary.load("outputs").dim == 2
