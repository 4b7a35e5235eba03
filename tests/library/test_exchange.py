"""Libraries as Parquet files, and libraries of arrays that others made."""

import json
import logging
import os
import string

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import simsearch as ss
from simsearch.library import incoming_rows, parquet_export
from simsearch.library.source import Source

SOURCE = Source("resnet50", "IMAGENET1K_V2", "abc123", "float32")


def make_library(count=5, dim=4, names=None, seed=0):
    rows = np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)
    library = ss.ImageLibrary(rows, names or [f"pictures/{i}.jpg" for i in range(count)])
    library.root, library.source = "pictures", SOURCE
    return library


@pytest.fixture(autouse=True)
def inside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_library_comes_back_as_it_was(monkeypatch):
    monkeypatch.setattr(parquet_export, "GROUP_ROWS", 7)
    monkeypatch.setattr(incoming_rows, "BLOCK_ROWS", 4)
    library = make_library(20)
    prices = [f"{i},50 €" for i in range(20)]
    table = pd.DataFrame({"path": library.names, "price": prices, "stock": range(20)})
    library.attach(table, caption="stock", decimal=",")
    ss.export_library(library, "out.parquet")
    assert pq.ParquetFile("out.parquet").num_row_groups == 3
    again = ss.import_library("out.parquet", "outputs")
    assert np.array_equal(again.embeddings, library.embeddings)
    assert again.paths.tolist() == library.paths.tolist()
    assert (again.root, again.source, again.fingerprint) == ("pictures", SOURCE, "abc123")
    assert [again.facts(row) for row in range(20)] == [library.facts(row) for row in range(20)]
    assert again.captions == ["stock"]
    for where in (None, {"price": (None, 7.5)}, {"stock": (3, None)}):
        one, other = (ss.search(each, 3, k=9, where=where).rows for each in (library, again))
        assert [(m.path, m.score) for m in one] == [(m.path, m.score) for m in other]
    again.save("copy")
    assert ss.ImageLibrary.load("copy").fingerprint == "abc123"


def test_a_head_comes_back_and_another_backbone_is_refused():
    head = ss.ProjectionHead([(np.eye(3, 1280) + 0.1, np.zeros(3))])
    library = make_library(5, 1280).with_head(head)
    library.source = Source("efficientnet_lite0", "ImageNet", "another", "float32")
    ss.export_library(library, "out.parquet")
    again = ss.import_library("out.parquet", "outputs")
    assert again.head.fingerprint == again.fingerprint == library.head.fingerprint
    with pytest.raises(ss.BackboneError, match="not what made this library"):
        again.encode([np.zeros((32, 32, 3), np.uint8)])


def test_others_read_the_columns():
    library = make_library(3).attach(pd.DataFrame({"path": ["0.jpg"], "tag": ["red"]}))
    ss.export_library(library, "out.parquet")
    table = pq.read_table("out.parquet")
    assert table.column_names == ["path", "embedding", "tag"]
    assert table.schema.field("embedding").type == pa.list_(pa.float32(), 4)
    assert table.column("path").to_pylist() == ["0.jpg", "1.jpg", "2.jpg"]
    assert table.column("tag").to_pylist() == ["red", None, None]
    facts = json.loads(table.schema.metadata[b"simsearch"])
    assert facts["source"]["backbone"] == "resnet50"
    assert facts["fingerprint"] == "abc123"


def test_no_machine_path_and_no_link_is_left(inside):
    library = make_library()
    library.source = Source("resnet50", "/home/me/resnet50.pth", "abc", "float32")
    (inside / "elsewhere").write_text("mine")
    (inside / "out.parquet").symlink_to("elsewhere")
    ss.export_library(library, "out.parquet")
    assert (inside / "elsewhere").read_text() == "mine"
    assert not (inside / "out.parquet").is_symlink()
    assert b"/home/me" not in (inside / "out.parquet").read_bytes()
    assert not list(inside.glob("*.part"))


def test_a_file_that_cannot_be_written_leaves_nothing(inside):
    with pytest.raises(ss.QueryError, match="cannot write"):
        ss.export_library(make_library(), "no/folder/out.parquet")
    library = make_library()
    library.metadata = pd.DataFrame({"odd": [1, "a", None, [2], {}]})
    with pytest.raises(ss.LibraryError, match=r"'odd'.*turn it into text"):
        ss.export_library(library, "out.parquet")
    library.metadata = pd.DataFrame({"embedding": range(5)})
    with pytest.raises(ss.LibraryError, match=r"'embedding'.*rename"):
        ss.export_library(library, "out.parquet")
    assert list(inside.iterdir()) == []


texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
names = (texts | st.binary(min_size=1, max_size=8).map(os.fsdecode)).filter(
    lambda name: name not in {".", ".."} and not set(name) & set("/\0\\")
)
CELLS = (
    st.text(st.characters(exclude_categories=["Cs"]), max_size=6),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.booleans(),
    st.lists(st.text(string.ascii_letters, min_size=1), min_size=1, max_size=2),
    st.datetimes(pd.Timestamp("1700-01-01"), pd.Timestamp("2200-01-01")).map(pd.Timestamp),
)


@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(names, min_size=1, max_size=4, unique=True), st.data())
def test_every_kind_of_name_and_fact_comes_back(found, data):
    library = make_library(len(found), names=[f"pictures/{name}" for name in found])
    count = data.draw(st.integers(0, 3))
    titles = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=5)
    columns = data.draw(st.lists(titles, min_size=count, max_size=count, unique=True))
    table = {"path": library.names}
    for column in columns:
        cells = st.none() | data.draw(st.sampled_from(CELLS))
        table[column] = data.draw(st.lists(cells, min_size=len(found), max_size=len(found)))
    frame = pd.DataFrame({k: v for k, v in table.items() if k != "path"}, index=range(len(found)))
    frame = frame.drop(columns=[name for name in frame if name in {"embedding", "path_bytes"}])
    library.metadata = frame.convert_dtypes()
    ss.export_library(library, "out.parquet")
    again = ss.import_library("out.parquet", "outputs", overwrite=True)
    assert again.names == library.names
    assert np.array_equal(again.embeddings, library.embeddings)
    for row in range(len(found)):
        assert again.facts(row) == library.facts(row)


# Of others


def test_paths_below_the_root_lists_and_paths_that_come_twice(inside, caplog):
    names = [str(inside / "shop" / name) for name in ("a.jpg", "b.jpg", "a.jpg")]
    tags = [["x", "y"], None, []]
    pq.write_table(
        pa.table({"path": names, "embedding": np.eye(3).tolist(), "tags": tags}), "in.parquet"
    )
    library = ss.import_library("in.parquet", "outputs", root=inside / "shop")
    assert library.names == ["a.jpg", "b.jpg", "a.jpg"]
    assert library.metadata["tags"].tolist() == tags
    assert "1 rows have the path of another one" in caplog.text


def test_two_columns_of_one_name_are_refused():
    columns = [["a"], [[1.0]], ["x"], ["y"]]
    pq.write_table(pa.table(columns, names=["path", "embedding", "tag", "tag"]), "two.parquet")
    with pytest.raises(ss.LibraryError, match="two columns of one name"):
        ss.import_library("two.parquet", "outputs")


def test_what_cannot_be_exported_is_named(inside):
    with pytest.raises(ss.LibraryError, match="a list cannot be exported"):
        ss.export_library([], "out.parquet")
    with pytest.raises(ss.LibraryError, match=r"'\\ud800' can be no name of a file"):
        ss.export_library(make_library(1, names=["pictures/\ud800"]), "out.parquet")
    library = make_library()
    library.metadata = pd.DataFrame({"tag": ["one line"]})
    with pytest.raises(ss.LibraryError, match="has 1 lines, and the library 5 rows"):
        ss.export_library(library, "out.parquet")
    assert list(inside.iterdir()) == []


def write_pairs(rows, paths, name="rows"):
    np.save(f"{name}.npy", np.asarray(rows))
    pd.DataFrame({"path": paths, "tag": "x"}).to_csv(f"{name}.csv", index=False)


def test_arrays_of_others_are_scaled_with_a_note(caplog):
    write_pairs([[3.0, 4.0], [0.0, 1.0], [0.0, -2.0]], ["a.jpg", "b/c.jpg", "./d.jpg"])
    with caplog.at_level(logging.WARNING, "simsearch"):
        library = ss.import_library("rows.npy", "outputs", paths="rows.csv", root="pictures")
    assert "2 of 3 rows of rows.npy had another norm than 1" in caplog.text
    assert library.embeddings.tolist() == np.float32([[0.6, 0.8], [0, 1], [0, -1]]).tolist()
    assert library.names == ["a.jpg", "b/c.jpg", "d.jpg"]
    assert library.facts(1) == {"tag": "x"}
    assert library.fingerprint == ""


@pytest.mark.parametrize("kind", [pa.list_(pa.float64()), pa.large_list(pa.float32())])
def test_parquet_of_others_is_read(kind):
    table = pa.table({"image_path": ["a.jpg", "b.jpg"], "caption": ["one", None]})
    pq.write_table(table, "paths.parquet")
    np.save("rows.npy", np.eye(2, 3, dtype=np.float16))
    library = ss.import_library("rows.npy", "outputs", paths="paths.parquet")
    assert library.names == ["a.jpg", "b.jpg"]
    assert library.facts(0) == {"caption": "one"}
    rows = pa.array(np.eye(2, 3).tolist(), kind)
    pq.write_table(table.append_column("embeddings", rows), "all.parquet")
    again = ss.import_library("all.parquet", "others")
    assert np.array_equal(again.embeddings, library.embeddings)


ROWS = np.eye(3, dtype=np.float32)
PATHS = ["a.jpg", "b.jpg", "c.jpg"]
NO_TEXTS, NO_LISTS = pa.array([], pa.string()), pa.array([], pa.list_(pa.float32()))


@pytest.mark.parametrize(
    ("rows", "paths", "said"),
    [
        (ROWS, PATHS[:2], "3 rows, and there are 2 paths"),
        (
            np.where(np.eye(3) == 1, np.nan, 1),
            PATHS,
            r"row 0 of rows.npy \(from 0\) is zero or not",
        ),
        (np.diag([1, 1, 0]), PATHS, r"row 2 of rows.npy \(from 0\) is zero or not finite"),
        (np.ones(3), PATHS, r"shape \(3,\)"),
        (np.array([["a"]] * 3), PATHS, r"does not hold \(N, D\) numbers"),
        (ROWS, ["a.jpg", "../b.jpg", "c.jpg"], r"row 1 .*'\.\./b.jpg', which is not below"),
        (ROWS, ["a.jpg", "b.jpg", "/etc/passwd"], "row 2 .*'/etc/passwd', which is not below"),
        (ROWS, ["http://x/a.jpg", "b.jpg", "c.jpg"], "row 0 .*which is not below"),
        (ROWS, ["a.jpg", "", "c.jpg"], "row 1 .*has the path ''"),
    ],
)
def test_faults_of_arrays(inside, rows, paths, said):
    write_pairs(rows, paths)
    with pytest.raises(ss.LibraryError, match=said):
        ss.import_library("rows.npy", "outputs", paths="rows.csv")
    assert not (inside / "outputs" / "manifest.json").exists()


def test_faults_of_files(inside):
    ss.export_library(make_library(500, 8), "out.parquet")
    whole = (inside / "out.parquet").read_bytes()
    for size in (0, 3, len(whole) // 2, len(whole) - 1):
        (inside / "half.parquet").write_bytes(whole[:size])
        with pytest.raises(ss.LibraryError, match=r"half\.parquet cannot be read"):
            ss.import_library("half.parquet", "outputs")
    place = whole.index(make_library(500, 8).embeddings[100].tobytes()[:12])
    (inside / "bit.parquet").write_bytes(whole[:place] + b"\1" + whole[place + 1 :])
    with pytest.raises(ss.LibraryError, match=r"bit\.parquet cannot be read"):
        ss.import_library("bit.parquet", "outputs")
    (inside / "half.npy").write_bytes(b"\x93NUMPY")
    write_pairs(ROWS, PATHS)
    with pytest.raises(ss.LibraryError, match=r"half\.npy cannot be read"):
        ss.import_library("half.npy", "outputs", paths="rows.csv")
    for file, options in (("rows.npy", {}), ("no.parquet", {}), ("out.parquet", {"paths": "x"})):
        with pytest.raises(ss.LibraryError):
            ss.import_library(file, "outputs", **options)
    with pytest.raises(ss.BackboneError, match="1280 numbers"):
        ss.import_library("rows.npy", "outputs", paths="rows.csv", backbone="efficientnet_lite0")


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"path": ["a"]}, "no column 'embedding', only path"),
        ({"embedding": [[1.0]]}, "no column 'path', only embedding"),
        ({"path": ["a"], "embedding": ["1"]}, "holds string, and not lists"),
        ({"path": ["a", "b"], "embedding": [[1.0, 0.0], [1.0]]}, "row 1 .*has not 2 numbers"),
        ({"path": ["a", "b"], "embedding": [[1.0], None]}, "row 1 .*has not 1 numbers"),
        ({"path": ["a", "b"], "embedding": [[1.0], [None]]}, "row 1 .*zero or not finite"),
        ({"path": ["a", None], "embedding": [[1.0], [1.0]]}, "row 1 .*has the path None"),
        ({"path": NO_TEXTS, "embedding": NO_LISTS}, "no rows"),
    ],
)
def test_faults_of_columns(columns, said):
    pq.write_table(pa.table(columns), "odd.parquet")
    with pytest.raises(ss.LibraryError, match=said):
        ss.import_library("odd.parquet", "outputs")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": 2}, "its format is 2"),
        ({"fingerprint": "other"}, "says that it has"),
        ({"rows": 9}, "says that it has"),
        ({"head": "AAAA"}, "cannot be read"),
        ({"root": "/etc"}, "not written by you.*--root"),
        ({"root": 5}, "cannot be read"),
    ],
)
def test_what_a_file_of_a_stranger_says_is_checked(change, said):
    ss.export_library(make_library(), "out.parquet")
    table = pq.read_table("out.parquet")
    facts = json.loads(table.schema.metadata[b"simsearch"]) | change
    changed = table.replace_schema_metadata({b"simsearch": json.dumps(facts).encode()})
    pq.write_table(changed, "theirs.parquet")
    with pytest.raises(ss.LibraryError, match=said):
        ss.import_library("theirs.parquet", "outputs")


def test_a_library_is_replaced_only_if_told():
    ss.export_library(make_library(), "out.parquet")
    ss.import_library("out.parquet", "outputs")
    with pytest.raises(ss.LibraryError, match="--overwrite"):
        ss.import_library("out.parquet", "outputs")
    assert len(ss.import_library("out.parquet", "outputs", overwrite=True)) == 5


def test_the_command_line(capsys, inside):
    from simsearch.cli.main import main

    library = make_library(3)
    library.save("outputs")
    pd.DataFrame({"path": ["0.jpg", "2.jpg"], "tag": ["red", "=1"]}).to_csv(
        "facts.csv", index=False
    )
    assert main(["export", "outputs", "out.parquet", "--metadata", "facts.csv"]) == 0
    assert main(["import", "out.parquet", "again", "--csv", "again.csv"]) == 0
    assert "3 rows are in again" in capsys.readouterr().out
    assert (inside / "again.csv").read_text().splitlines()[:2] == ["path,tag", "0.jpg,red"]
    assert main(["import", "out.parquet", "again"]) == 1
    assert "--overwrite" in capsys.readouterr().err
