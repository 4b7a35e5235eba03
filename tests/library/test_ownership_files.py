"""The mark of a library with the digests of its blocks, and with what others have left there."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import tiny_backbone

import simsearch as ss
from simsearch.embedding import changes
from simsearch.errors import LibraryError
from simsearch.library import files
from simsearch.library.stored_rows import KEY, RowLog, RowStore

MANIFEST = Path("outputs/manifest.json")
STORE = RowStore("some", 1, np.dtype([KEY, ("value", np.int64)]))


@pytest.fixture
def outputs(tmp_path, monkeypatch):
    """A small library of one's own whose files have digests of blocks; the current folder's."""
    monkeypatch.chdir(tmp_path)
    for module in (files, changes):
        monkeypatch.setattr(module, "BLOCKS_FROM_BYTES", 1)
    Path("dataset").mkdir()
    for i in range(4):
        pixels = np.random.default_rng(i).integers(0, 256, (40, 40, 3), np.uint8)
        Image.fromarray(pixels).save(f"dataset/{i}.png")
    embed()
    assert "blocks" in read()
    return Path("outputs")


@pytest.fixture
def another_user(tmp_path, monkeypatch):
    """Return a function after which somebody else opens the library."""
    return lambda: monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another user"))


def embed():
    return ss.embed_dataset("dataset", "outputs", tiny_backbone(), progress=False)


def read():
    return json.loads(MANIFEST.read_text())


def is_own():
    return ss.ImageLibrary.load("outputs").own


def test_the_mark_covers_the_record_of_the_digests_of_blocks(outputs):
    assert is_own()
    facts = read()
    facts["blocks"]["mtime_ns"] += 1
    MANIFEST.write_text(json.dumps(facts))
    assert not is_own()
    facts.pop("blocks")
    MANIFEST.write_text(json.dumps(facts))
    assert not is_own()


@pytest.mark.parametrize("has_blocks", [True, False])
def test_embedding_marks_a_library_and_keeps_digests_of_blocks(outputs, another_user, has_blocks):
    if not has_blocks:
        facts = read()
        facts.pop("blocks")
        MANIFEST.write_text(json.dumps(facts))
        (outputs / files.BLOCKS).unlink()
    another_user()
    assert not is_own()
    report = embed().report
    assert (report.embedded, report.reused) == (0, 4)
    assert "blocks" in read()
    assert is_own()
    assert ss.verify_library("outputs", progress=False).ok


def test_trusting_keeps_digests_of_blocks(outputs, another_user):
    another_user()
    ss.trust_library("outputs")
    assert "blocks" in read()
    assert is_own()
    assert ss.verify_library("outputs", progress=False).ok


def test_damage_of_a_foreign_library_is_mended_and_the_library_becomes_ones_own(
    outputs, another_user
):
    another_user()
    rows = np.load(outputs / "embeddings.npy")
    file, status = outputs / "embeddings.npy", (outputs / "embeddings.npy").stat()
    file.write_bytes(file.read_bytes()[:-4] + b"\0\0\0\0")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert embed().report.embedded
    assert is_own()
    np.testing.assert_allclose(np.load(file), rows, atol=1e-6)


@pytest.mark.parametrize("name", ["../secret.npy", "/etc/hostname"])
def test_names_of_files_in_a_crafted_manifest_lead_nowhere(outputs, another_user, name):
    Path("secret.npy").write_bytes(b"secret")
    facts = read()
    facts["files"][name] = {"size": 6, "mtime_ns": 0, "sha256": "0" * 64}
    MANIFEST.write_text(json.dumps(facts))
    another_user()
    with pytest.raises(LibraryError, match="no name of a file"):
        embed()
    with pytest.raises(LibraryError, match="is not trusted"):
        ss.trust_library("outputs")
    checks = {check.name: check for check in ss.verify_library("outputs", progress=False).files}
    assert checks[name].reason == "missing"


@pytest.mark.skipif(os.name == "nt", reason="no pipes in folders")
def test_pipes_and_links_are_not_read_by_verify(outputs):
    os.mkfifo(outputs / "pipe.json")
    (outputs / "link.json").symlink_to("/dev/zero")
    assert ss.verify_library("outputs", progress=False).ok
    (outputs / "file_stats.npy").rename("elsewhere.npy")
    (outputs / "file_stats.npy").symlink_to(Path("elsewhere.npy").resolve())
    (check,) = ss.verify_library("outputs", progress=False).damaged
    assert (check.name, check.reason) == ("file_stats.npy", "missing")


def log_rows(folder):
    rows = np.zeros(3, STORE.dtype)
    rows["value"] = [1, 2, 3]
    with RowLog(STORE, folder) as log:
        log.append(rows)
    return len(RowLog(STORE, folder).read())


def test_rows_that_somebody_else_has_logged_are_not_read(outputs, another_user):
    assert log_rows(outputs) == 3
    another_user()
    assert len(RowLog(STORE, outputs).read()) == 0


def test_without_a_key_no_log_is_read(outputs, tmp_path, monkeypatch):
    Path("no folder").write_text("a file")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "no folder"))
    assert log_rows(outputs) == 0
