"""Libraries published in LanceDB, beside the libraries of arrays that they came from."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from object_store import object_store  # noqa: F401
from tiny import tiny_backbone

import simsearch as ss
from simsearch.cluster import lance_scan as module
from simsearch.cluster.lance import LanceLibrary

lancedb = pytest.importorskip("lancedb")
from lancedb.index import IvfFlat  # noqa: E402


def make_library(count=400, dim=8, seed=0):
    """Rows of which some are equal or close, with a table and a root."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((count, dim)).astype("f4")
    rows[30], rows[-1] = rows[1], rows[0]
    rows[10:20] = rows[2] + 1e-7 * rng.standard_normal((10, dim))
    paths = [f"photos/{'abc'[i % 3]}/{i:03}.jpg" for i in range(count)]
    library = ss.ImageLibrary(rows, paths)
    library.root = "photos"
    table = pd.DataFrame(
        {
            "path": paths,
            "price": [i % 7 if i % 5 else None for i in range(count)],
            "color": [f"{'red' if i % 2 else 'blue'}" for i in range(count)],
            "day": pd.date_range("2026-01-01", periods=count),
        }
    )
    return library.attach(table)


def same(found, expected):
    assert found.paths == expected.paths
    assert [match.row for match in found] == [match.row for match in expected]
    np.testing.assert_array_equal(found.scores, expected.scores)
    for one, other in zip(found, expected, strict=True):
        assert (one.percentile, one.caption) == (other.percentile, other.caption)
        assert str(one.metadata) == str(other.metadata)


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    library = make_library()
    return library, LanceLibrary.publish(library, tmp_path_factory.mktemp("db") / "x.lancedb", "a")


conditions = st.sampled_from(
    [
        *(
            None,
            "a/*",
            {"price": (2, 4)},
            {"price": 5, "folder": "b"},
            {"color": "re*"},
            [3, 50, 399],
        ),
        *("nothing/*", {"day": ("2026-02-01", None)}),
    ]
)


@settings(max_examples=15, deadline=None)
@given(
    query=st.integers(0, 399),
    k=st.integers(1, 500),
    where=conditions,
    options=st.sampled_from([{}, {"unique": 0.99}, {"diversity": 0.5}, {"threshold": 0.3}]),
    gathered=st.sampled_from([0, 10, 4096]),
)
def test_search_equals_that_of_the_library_that_was_published(
    both, query, k, where, options, gathered
):
    library, published = both
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "GATHERED_ROWS", gathered)
        for asked in (query, library.embeddings[query] + 0.01):
            same(
                ss.search(published, asked, k, where=where, **options),
                ss.search(library, asked, k, where=where, **options),
            )
        same(
            ss.recommend(published, [query], disliked=[9], k=k, where=where),
            ss.recommend(library, [query], disliked=[9], k=k, where=where),
        )
    assert published.count(where) == library.count(where)
    assert published.page(5, 20, where) == library.page(5, 20, where)


def test_rows_are_read_by_number_in_any_form(both):
    library, published = both
    assert (len(published), published.dim, published.names) == (400, 8, library.names)
    for rows in ([5, 3, 5], slice(10, 20), np.array([399, 0]), [], slice(None)):
        np.testing.assert_array_equal(published.embeddings[rows], library.embeddings[rows])
    np.testing.assert_array_equal(published.embeddings[7], library.embeddings[7])
    np.testing.assert_array_equal(np.asarray(published.embeddings), library.embeddings)
    assert dict(published.overview().folders) == dict(library.overview().folders)


def test_a_reader_stays_at_its_version_until_it_is_refreshed(tmp_path):
    library, smaller = make_library(60), make_library(40, seed=1)
    first = LanceLibrary.publish(library, tmp_path / "x.lancedb", "a")
    assert first.refresh() is first
    second = LanceLibrary.publish(smaller, tmp_path / "x.lancedb", "a")
    assert (len(first), len(second)) == (60, 40)
    assert second.version > first.version
    same(ss.search(first, 3, 70), ss.search(library, 3, 70))
    newest = first.refresh()
    same(ss.search(newest, 3, 70), ss.search(smaller, 3, 70))
    same(ss.search([newest], 3, 9), ss.search(smaller, 3, 9))


def test_backbone_head_and_states_of_files_are_kept(tmp_path, monkeypatch):
    from dataset_cases import paint_forty

    monkeypatch.chdir(tmp_path)
    backbone = tiny_backbone()
    library = ss.embed_dataset(paint_forty(), "outputs", backbone, progress=False)
    head = ss.ProjectionHead([(np.random.default_rng(0).normal(size=(5, 16)), np.zeros(5))])
    library = library.with_head(head)
    LanceLibrary.publish(library, "x.lancedb", "a")
    opened = LanceLibrary("x.lancedb", "a", backbone=backbone)
    assert opened.fingerprint == library.fingerprint
    np.testing.assert_array_equal(opened.stats, library.stats)
    picture = ss.load_image("dataset/a/00.png")
    same(ss.search(opened, picture, 5), ss.search(library, picture, 5))
    again = ss.export_library(opened, "library.parquet")
    assert len(ss.import_library(again, "copy", root="dataset")) == 40


def test_a_table_of_somebody_else_names_no_places(both, tmp_path, monkeypatch):
    library, _ = both
    LanceLibrary.publish(library, tmp_path / "x.lancedb", "a")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another user"))
    monkeypatch.setenv("HOME", str(tmp_path / "another user"))
    with pytest.raises(ss.LibraryError, match="was not written by you: give root="):
        LanceLibrary(tmp_path / "x.lancedb", "a")
    opened = LanceLibrary(tmp_path / "x.lancedb", "a", root="elsewhere")
    assert opened.paths[0] == "elsewhere/a/000.jpg"


def test_an_index_that_somebody_has_made_is_not_used(tmp_path):
    library = make_library()
    published = LanceLibrary.publish(library, tmp_path / "x.lancedb", "a")
    table = lancedb.connect(tmp_path / "x.lancedb").open_table("a")
    lists = IvfFlat(distance_type="dot", num_partitions=32)
    table.create_index("embedding", config=lists)
    indexed = published.refresh()
    assert indexed.version > published.version
    for query in range(20):
        same(ss.search(indexed, query, 50), ss.search(library, query, 50))


def test_in_a_bucket_it_is_published_searched_and_replaced(object_store, monkeypatch):  # noqa: F811
    monkeypatch.setenv("AWS_ENDPOINT", object_store.address)
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    library, smaller = make_library(60), make_library(40, seed=1)
    first = LanceLibrary.publish(library, "s3://shop/lance", "a")
    for where in (None, {"price": (2, 4)}, "a/*"):
        same(ss.search(first, 3, 9, where=where), ss.search(library, 3, 9, where=where))
    LanceLibrary.publish(smaller, "s3://shop/lance", "a")
    same(ss.search(first, 3, 70), ss.search(library, 3, 70))
    same(ss.search(first.refresh(), 3, 70), ss.search(smaller, 3, 70))
    with pytest.raises(ss.LibraryError, match="cannot open the table 'b' in 's3://shop/lance'"):
        LanceLibrary("s3://shop/lance", "b")


def test_the_command_line_publishes_and_searches(tmp_path, monkeypatch, capsys):
    from dataset_cases import paint_forty

    from simsearch.cli.main import main

    monkeypatch.chdir(tmp_path)
    backbone = tiny_backbone()
    library = ss.embed_dataset(paint_forty(), "outputs", backbone, progress=False)
    assert main(["publish", "outputs", "x.lancedb", "shop"]) == 0
    assert "40 rows are in x.lancedb#shop" in capsys.readouterr().out
    found = []
    for place in ("outputs", "x.lancedb#shop"):
        assert main(["search", place, "3", "-k", "5", "--format", "json"]) == 0
        found.append(capsys.readouterr().out)
    assert found[0] == found[1]
    assert library.names[3] in found[1]
    assert main(["publish", "outputs", "x.lancedb", "shop", "--kind", "flat"]) == 1
    assert "--kind and --replace belong to Milvus" in capsys.readouterr().err
    assert main(["search", "x.lancedb#shop", "3", "--metadata", "facts.csv"]) == 1
    assert "--root and --metadata belong to `simsearch publish`" in capsys.readouterr().err
    assert main(["search", "y.lancedb#shop", "3"]) == 1
    assert "no LanceDB database at 'y.lancedb'" in capsys.readouterr().err


def test_what_is_no_library_is_told(tmp_path):
    with pytest.raises(ss.LibraryError, match="no LanceDB database at"):
        LanceLibrary(tmp_path / "nowhere", "a")
    database = lancedb.connect(tmp_path / "x.lancedb")
    database.create_table("other", pd.DataFrame({"path": ["a"], "n": [1]}))
    with pytest.raises(ss.LibraryError, match="cannot open the table 'a'"):
        LanceLibrary(tmp_path / "x.lancedb", "a")
    with pytest.raises(ss.LibraryError, match="is a table of something else"):
        LanceLibrary(tmp_path / "x.lancedb", "other")
    with pytest.raises(ss.LibraryError, match="cannot publish"):
        LanceLibrary.publish(make_library(60), tmp_path / "x.lancedb", "bad/name")


def test_missing_package_names_its_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "lancedb", None)
    with pytest.raises(ss.MissingExtraError, match=r'pip install "simsearch\[lance\]"'):
        LanceLibrary(tmp_path, "a")
