"""Libraries as datasets of FiftyOne, read by the rules of FiftyOne's own importer."""

import base64
import io
import json
import os
import re
import zlib

import numpy as np
import pandas as pd
import pytest

import simsearch as ss
from simsearch.library import fiftyone_export
from simsearch.library.parquet import read_facts
from simsearch.library.source import Source

FIELD = re.compile(r"fiftyone\.core\.fields\.(\w+)(?:\((.*)\))?")
PYTHON = {"BooleanField": bool, "IntField": int, "FloatField": float, "StringField": str}


def read_fiftyone(folder):
    """Read a folder as `fiftyone.types.FiftyOneDataset` does (fiftyone 1.22, importers.py).

    Metadata without a version: a legacy dataset. Relative paths are below the folder; fields are
    made by the schema's texts, and no others; `_cls` names a document, `$binary` an array.
    """
    metadata = json.loads((folder / "metadata.json").read_text("ascii"))
    assert "version" not in metadata
    samples = json.loads((folder / "samples.json").read_text("ascii"))["samples"]
    for sample in samples:
        sample["filepath"] = os.path.normpath(folder / sample["filepath"])
        for name in sample.keys() - {"filepath", "tags", "metadata"}:
            sample[name] = deserialize(sample[name])
            check_field(metadata["sample_fields"][name], sample[name])
    return metadata, samples


def deserialize(value):
    if isinstance(value, dict) and "$binary" in value:
        packed = base64.b64decode(value["$binary"]["base64"], validate=True)
        return np.load(io.BytesIO(zlib.decompress(packed)), allow_pickle=False)
    if isinstance(value, dict):
        assert value.pop("_cls") == "Classification"
        assert set(value) == {"tags", "label"}
    return value


def check_field(text, value):
    kind, inner = FIELD.fullmatch(text).groups()
    if value is None:
        return
    if kind == "ListField":
        assert isinstance(value, list)
        for one in value:
            check_field(inner, one)
    elif kind == "EmbeddedDocumentField":
        assert inner == "fiftyone.core.labels.Classification"
        assert isinstance(value["label"], str)
    elif kind == "VectorField":
        assert (value.ndim, value.dtype) == (1, np.float32)
    else:
        assert type(value) is PYTHON[kind]


def make_library(count=5, names=None):
    rows = np.random.default_rng(0).normal(size=(count, 4)).astype(np.float32)
    names = names or [f"pictures/{'ab'[i % 2]}/{i} ü.jpg" for i in range(count)]
    library = ss.ImageLibrary(rows, names)
    library.root = "pictures"
    library.source = Source("resnet50", "/home/me/weights.pth", "abc123", "float32")
    return library


@pytest.fixture(autouse=True)
def inside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_row_is_read_as_it_was(inside, monkeypatch):
    monkeypatch.setattr(fiftyone_export, "BLOCK_ROWS", 2)
    library = make_library()
    columns = {
        "price": [1, 2.5, None, 4, float("inf")],
        "stock": pd.array([1, None, 3, 2**62, 5], "Int64"),
        "sold": [True, False, None, True, True],
        "day": pd.date_range("2026-01-01", periods=5, freq="36h"),
        "words": [["red", "ü"], None, [], ["x"], None],
        "title": ["a", None, '"', "b\nc", "=1"],
        "empty": [None] * 5,
    }
    library.attach(pd.DataFrame({"path": library.names, **columns}))
    folder = ss.export_library(library, "dataset51", kind="fiftyone")
    metadata, samples = read_fiftyone(folder)
    assert [sample["filepath"] for sample in samples] == [
        str(inside / path) for path in library.paths
    ]
    assert np.array_equal([sample["embedding"] for sample in samples], library.embeddings)
    assert [sample["ground_truth"]["label"] for sample in samples] == library.labels.tolist()
    assert metadata["info"]["classes"] == ["a", "b"]
    assert [sample["price"] for sample in samples] == [1.0, 2.5, None, 4.0, float("inf")]
    assert [sample["stock"] for sample in samples] == [1, None, 3, 2**62, 5]
    assert [sample["sold"] for sample in samples] == columns["sold"]
    assert samples[1]["day"] == "2026-01-02T12:00:00"
    assert [sample["words"] for sample in samples] == columns["words"]
    assert [sample["title"] for sample in samples] == columns["title"]
    facts = read_facts(metadata["info"]["simsearch"].encode(), library.names, "metadata.json")
    assert (facts.source.backbone, facts.source.fingerprint) == ("resnet50", "abc123")
    assert (facts.root, facts.own) == ("pictures", True)
    assert "/home/me" not in (folder / "metadata.json").read_text()


def test_samples_make_the_same_library_again(inside):
    library = make_library().attach(pd.DataFrame({"path": ["a/0 ü.jpg"], "tag": ["red"]}))
    ss.export_library(library, "dataset51", kind="fiftyone")
    _, samples = read_fiftyone(inside / "dataset51")
    np.save("rows.npy", [sample["embedding"] for sample in samples])
    table = [{"path": sample["filepath"], "tag": sample["tag"]} for sample in samples]
    pd.DataFrame(table).to_csv("rows.csv", index=False)
    again = ss.import_library("rows.npy", "outputs", paths="rows.csv", root=inside / "pictures")
    assert again.names == library.names
    assert np.array_equal(again.embeddings, library.embeddings)
    assert [again.facts(row) for row in range(5)] == [library.facts(row) for row in range(5)]


def test_a_picture_in_no_class_has_no_label(inside):
    library = make_library(2, ["pictures/0.jpg", "pictures/1.jpg"])
    metadata, samples = read_fiftyone(ss.export_library(library, "dataset51", "fiftyone"))
    assert metadata["info"]["classes"] == []
    assert all("ground_truth" not in sample for sample in samples)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"_id": range(5)}, "'_id' of the metadata can be no field"),
        ({"tags": range(5)}, "'tags' of the metadata can be no field of FiftyOne; rename it"),
        ({"a.b": range(5)}, r"'a\.b' of the metadata can be no field"),
        ({"odd": [1, "a", None, 2, 3]}, r"'odd'.*holds int and text\): turn it into text"),
        ({"odd": [2**63] * 5}, r"'odd'.*9223372036854775808"),
        ({"odd": [{}] * 5}, r"'odd'.*{}"),
        (
            {"odd": pd.Series(["\ud800"] * 5, dtype=object)},
            r"the cell of 'odd' '\\ud800' is not valid Unicode",
        ),
        ({"odd": [1]}, "has 1 lines, and the library 5 rows"),
    ],
)
def test_what_fiftyone_cannot_store_is_told_before_anything_is_written(inside, table, said):
    library = make_library()
    library.metadata = pd.DataFrame(table)
    with pytest.raises(ss.LibraryError, match=said):
        ss.export_library(library, "dataset51", kind="fiftyone")
    assert list(inside.iterdir()) == []


def test_paths_that_fiftyone_cannot_open_are_told():
    with pytest.raises(ss.LibraryError, match=r"in folders, and not at 's3://shop/a\.jpg'"):
        ss.export_library(make_library(1, ["s3://shop/a.jpg"]), "dataset51", kind="fiftyone")
    with pytest.raises(ss.LibraryError, match=r"the path '.*\\udcff.jpg' is not valid Unicode"):
        ss.export_library(make_library(1, ["a/\udcff.jpg"]), "dataset51", kind="fiftyone")
    with pytest.raises(ss.QueryError, match="kind='coco': give one of 'parquet', 'fiftyone'"):
        ss.export_library(make_library(), "dataset51", kind="coco")
    with pytest.raises(ss.LibraryError, match="a list cannot be exported"):
        ss.export_library([], "dataset51", kind="fiftyone")


def test_a_folder_with_something_in_it_is_left_alone_and_half_an_export_is_completed(
    inside, monkeypatch
):
    library = make_library()
    (inside / "mine").mkdir()
    (inside / "mine" / "note.txt").write_text("mine")
    with pytest.raises(ss.LibraryError, match="'mine' is not empty: give a new folder"):
        ss.export_library(library, "mine", kind="fiftyone")
    with pytest.raises(ss.QueryError, match="cannot write 'no/folder'"):
        ss.export_library(library, "no/folder", kind="fiftyone")

    def fail(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(fiftyone_export, "_packed", fail)
        with pytest.raises(ss.QueryError, match="No space left"):
            ss.export_library(library, "dataset51", kind="fiftyone")
    assert not (inside / "dataset51" / "samples.json").exists()
    _, samples = read_fiftyone(ss.export_library(library, "dataset51", kind="fiftyone"))
    assert len(samples) == 5


def test_the_command_line(capsys, inside):
    from simsearch.cli.main import main

    make_library(3).save("outputs")
    assert main(["export", "outputs", "dataset51", "--kind", "fiftyone"]) == 0
    assert "3 rows are in dataset51" in capsys.readouterr().out
    assert len(read_fiftyone(inside / "dataset51")[1]) == 3
    assert main(["export", "outputs", "dataset51", "--kind", "fiftyone"]) == 1
    assert "'dataset51' is not empty" in capsys.readouterr().err
