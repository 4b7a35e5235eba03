"""Phases of a publication: what takes long is said while it lasts, what is quick is not."""

import time

import pytest
from milvus_cases import small

import simsearch as ss
from simsearch.cluster.milvus import phases
from simsearch.cluster.milvus.phases import phase
from simsearch.cluster.milvus.store import Store


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(phases, "SHOWN_AFTER_SECONDS", 0.05)
    monkeypatch.setattr(phases, "REFRESH_SECONDS", 0.05)


def test_a_long_phase_is_shown_with_its_seconds(capsys):
    with phase("Writing rows", progress=True):
        time.sleep(0.3)
        assert "Writing rows: 00:00" in capsys.readouterr().err  # while it lasts


def test_a_quick_phase_and_one_without_progress_are_not_shown(capsys, monkeypatch):
    with phase("Slow", progress=False):
        time.sleep(0.2)
    monkeypatch.setattr(phases, "SHOWN_AFTER_SECONDS", 60)
    with phase("Quick", progress=True):
        pass
    assert capsys.readouterr().err == ""


def test_an_error_ends_a_phase(capsys):
    def fail():
        time.sleep(0.2)
        raise KeyError("x")

    with pytest.raises(KeyError), phase("Failing", progress=True):
        fail()
    assert "Failing" in capsys.readouterr().err


def test_what_publish_does_after_its_bar_is_said(tmp_path, monkeypatch, capsys):
    pytest.importorskip("pymilvus")
    pytest.importorskip("milvus_lite")
    call = Store.call

    def slow(self, method, *args, **options):
        time.sleep(0.3 * (method in {"flush", "load_collection", "create_collection"}))
        return call(self, method, *args, **options)

    monkeypatch.setattr(Store, "call", slow)
    library = small()
    ss.publish(library, tmp_path / "x.db", "x")
    told = capsys.readouterr().err
    assert "Creating the collection: 00:0" in told
    assert "Writing rows to storage: 00:0" in told
    ss.publish(library, tmp_path / "x.db", "x")
    assert "Loading rows and their index: 00:0" in capsys.readouterr().err


def test_rows_that_the_server_still_indexes_are_said(tmp_path, monkeypatch):
    pytest.importorskip("pymilvus")
    pytest.importorskip("milvus_lite")
    call = Store.call

    def indexing(self, method, *args, **options):
        answer = call(self, method, *args, **options)
        return answer | state if method == "describe_index" else answer

    assert "indexing" not in str(ss.publish(small(), tmp_path / "x.db", "x", progress=False))
    monkeypatch.setattr(Store, "call", indexing)
    state = {"total_rows": 1500, "indexed_rows": 300, "pending_index_rows": 1200}
    done = ss.publish(small(31), tmp_path / "x.db", "x", progress=False)
    assert done.unindexed == 1200
    assert str(done).endswith(
        "30 kept; the server is still indexing 1,200 rows, and searches are slower until it is done"
    )
    state = {"total_rows": 1500, "indexed_rows": 1500, "pending_index_rows": 700}  # put together
    assert ss.publish(small(32), tmp_path / "x.db", "x", progress=False).unindexed == 0
