"""The same on a real Milvus server: search, conditions, publications, the page; restarts."""

import threading

import numpy as np
import pytest
from dataset_cases import paint_forty
from fastapi.testclient import TestClient
from milvus_cases import COUNT, assert_same, clustered, make_library, small, subset

import simsearch as ss
from simsearch.cli.main import main
from simsearch.cluster.milvus import changes
from simsearch.cluster.milvus.early import MISSING_NUMBER, early_expression, early_row
from simsearch.cluster.milvus.failures import TESTED_VERSIONS
from simsearch.cluster.milvus.schema import NUMBER_FIELDS
from simsearch.cluster.milvus.store import Store
from simsearch.web.app import create_app
from simsearch.web.settings import Settings

pytest.importorskip("pymilvus")

TIME_LIMIT = 240  # in seconds, for a test: a server that was killed takes some to come back
OPTIONS = [
    {"k": 50},
    {"k": 2 * COUNT},
    {"unique": 0.9, "diversity": 0.2},
    {"where": "a/*", "k": 40},
    {"where": {"price": (None, 0), "tags": ["red", "hat"]}},
    {"where": {"price": (-3, None)}, "k": 30},
    {"where": [5, 9, 11, 200]},
    {"where": {"new": True, "since": ("2024-01-03", "2024-01-20")}, "k": 30},
]


@pytest.fixture(scope="module")
def library():
    return make_library()


@pytest.fixture(scope="module")
def shop(milvus_server, library):
    """The library, published on the server."""
    ss.publish(library, milvus_server.address, "shop", progress=False)
    with ss.RemoteLibrary(milvus_server.address, "shop") as opened:
        yield opened


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_search_equals_search_of_the_library(library, shop, options):
    for query in (3, library.embeddings[7] + 0.01):
        assert_same(ss.search(shop, query, **options), ss.search(library, query, **options))


def test_rows_pages_and_facts_equal_those_of_the_library(library, shop):
    assert shop.overview() == library.overview()
    assert shop.threshold() == library.threshold()
    for offset, limit, where in ((0, 5, None), (630, 50, None), (3, 4, "a/*")):
        assert shop.page(offset, limit, where) == library.page(offset, limit, where)
    for where in ({"price": (None, 0)}, {"tags": "red"}, {"title": "item 1*"}):
        assert shop.count(where) == library.count(where)
    assert shop.facts(4) == library.facts(4)
    assert shop.find("./data/a/0000.jpg") == 0
    assert_same(
        ss.recommend(shop, [3, 4], disliked=[9], exclude=[21]),
        ss.recommend(library, [3, 4], disliked=[9], exclude=[21]),
    )


def test_rows_have_the_form_that_the_server_knows(shop):
    """Tokens as a list of numbers, and no empty fields; the engine evaluates conditions."""
    store = shop._store
    assert TESTED_VERSIONS in store.call("get_server_version")
    assert store.read_version().early
    row = {"words": "|00000000000000ff|more|", **dict.fromkeys(NUMBER_FIELDS), "number_3": 5.0}
    stored = early_row(row)
    assert stored == {"words": [0x7F, 0], "numbers": [*[MISSING_NUMBER] * 3, 5.0]}
    text = 'words like "%|00000000000000ff|%" or words like "%|more|%"'
    assert early_expression(text) == "array_contains(words, 127) or array_contains(words, 0)"
    assert early_expression("number_3 >= 5.0") == "numbers[3] >= 5.0"
    expression = shop._reader.make_filter({"tags": "red"}).expression
    found = store.call("query", "shop_rows_1", filter=expression, output_fields=["id"])
    assert 0 < len(found) == shop.count({"tags": "red"})


def test_another_kind_of_index(milvus_server):
    rows = clustered(800, 16, seed=1)
    library = ss.ImageLibrary(rows, [f"{i}.jpg" for i in range(800)])
    ss.publish(library, milvus_server.address, "ivf", kind="ivf", progress=False)
    with ss.RemoteLibrary(milvus_server.address, "ivf") as remote:
        assert_same(ss.search(remote, [3, 9]), ss.search(library, [3, 9]))


def test_what_the_server_does_not_know_is_told_in_its_words(milvus_server):
    with pytest.raises(ss.RemoteError) as told:
        ss.publish(small(), milvus_server.address, "sq", kind="hnsw_sq8", progress=False)
    assert "create_collection: invalid index type: HNSW_SQ; the server answers" in str(told.value)
    assert f"tested with Milvus {TESTED_VERSIONS} and Milvus Lite" in str(told.value)
    ss.publish(small(), milvus_server.address, "sq", progress=False)  # over what was left there


def test_publishing_again_sends_changes_and_readers_refresh(milvus_server, capsys, tmp_path):
    library, address = small(), milvus_server.address
    library.save(tmp_path / "outputs")
    assert main(["publish", str(tmp_path / "outputs"), address, "again"]) == 0
    assert "version 1: 30 added" in capsys.readouterr().out
    first = ss.RemoteLibrary(address, "again")
    smaller = subset(library, np.r_[2:28], change=[5, 6])
    done = ss.publish(smaller, address, "again", progress=False)
    assert (done.version, done.added, done.changed, done.deleted, done.kept) == (2, 0, 2, 4, 24)
    assert_same(ss.search(first, 5, 30), ss.search(library, 5, 30))  # unchanged for its reader
    second = first.refresh()
    assert second.page(0, 3) == [2, 3, 4]
    assert ss.search(second, 5, 30).paths == ss.search(smaller, 3, 30).paths
    ss.publish(library, address, "again", progress=False)
    with pytest.raises(ss.StaleVersionError, match=r"call refresh\(\)"):
        ss.search(first, 5)
    assert len(second.refresh()) == 30
    assert main(["search", f"{address}#again", "3", "-k", "2", "--json"]) == 0
    assert ss.search(library, 3, 2).paths[0] in capsys.readouterr().out


def test_the_page_serves_what_is_published(milvus_server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    library = ss.embed_dataset(paint_forty(), "outputs", "efficientnet_lite0", progress=False)
    ss.publish(library, milvus_server.address, "page", progress=False)
    settings = Settings(f"{milvus_server.address}#page", cache=str(tmp_path / "cache"))
    app = create_app(settings)
    with TestClient(app, base_url="http://127.0.0.1") as client:
        listed = client.get("/api/images", params={"limit": 500}).json()["images"]
        assert [image["path"] for image in listed] == library.names
        assert client.get(listed[0]["thumbnail"]).status_code == 200
        (tmp_path / library.paths[0]).unlink()
        smaller = ss.embed_dataset("dataset", "outputs", "efficientnet_lite0", progress=False)
        ss.publish(smaller, milvus_server.address, "page", progress=False)
        app.state.service.manager.refresh()  # unless its own watch was quicker
        assert client.get("/api/health").json()["images"] == 39


# A server that is stopped and started


class Interruption:
    """Kills the server before its n-th call of a method, and starts it again a second later."""

    def __init__(self, server, monkeypatch, method, nth):
        self.server, self.method, self.left = server, method, nth
        self.starter = threading.Timer(1.0, server.start)
        self.call = Store.call
        monkeypatch.setattr(Store, "call", self.wrapped())

    def wrapped(self):
        def call(store, method, *args, **options):
            if method == self.method:
                self.left -= 1
                if self.left == 0:
                    self.server.stop()
                    self.starter.start()
            return self.call(store, method, *args, **options)

        return call

    def over(self):
        """Tell whether it has happened; wait until the server is up."""
        self.starter.join()
        return self.left <= 0


def test_server_is_killed_and_started_during_publish(milvus_server, monkeypatch):
    monkeypatch.setattr(changes, "BATCH_ROWS", 10)
    library, address = small(), milvus_server.address
    interruption = Interruption(milvus_server, monkeypatch, "upsert", 2)  # with ten rows there
    done = ss.publish(library, address, "killed", progress=False)
    assert interruption.over()
    assert (done.version, done.added) == (1, 30)
    with ss.RemoteLibrary(address, "killed") as remote:
        assert remote.count("*") == 30
        assert_same(ss.search(remote, 5, 30), ss.search(library, 5, 30))


def test_server_is_killed_and_started_during_search_and_between_pages(
    milvus_server, library, shop, monkeypatch
):
    address, query = milvus_server.address, library.embeddings[7] + 0.01
    late = subset(small(), np.r_[0:30], change=[4])
    for each in (small(), late):  # the second has one row in the server's log alone
        ss.publish(each, address, "late", progress=False)
    with ss.RemoteLibrary(address, "shop") as remote:
        pages = remote.page(0, 300)
        impatient = ss.RemoteLibrary(address, "shop", timeout=5)
        interruption = Interruption(milvus_server, monkeypatch, "search", 1)
        with pytest.raises(ss.RemoteError, match="check that the server runs, its address"):
            ss.search(impatient, query)
        impatient.close()
        assert_same(ss.search(remote, query, 30), ss.search(library, query, 30))
        assert interruption.over()
        with ss.RemoteLibrary(address, "late") as again:
            assert again.version == 2
            found, expected = (ss.search(of, late.embeddings[4], 30) for of in (again, late))
            assert found.paths == expected.paths
        assert pages + remote.page(300, 400) == library.page(0, COUNT)
