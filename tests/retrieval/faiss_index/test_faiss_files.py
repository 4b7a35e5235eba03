"""Index files in the folder of a library: opened, checked, replaced; FAISS is optional."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from faiss_cases import KINDS, D, assert_equal, library_of, recall

import simsearch as ss
from simsearch.backbones.heads import ProjectionHead
from simsearch.errors import LibraryError, MissingExtraError, StaleIndexError
from simsearch.library.files import file_record, writing
from simsearch.library.user_key import signed
from simsearch.retrieval.faiss import load_index
from simsearch.retrieval.faiss_build import build_index

faiss = pytest.importorskip("faiss")


@pytest.mark.parametrize("kind", KINDS)
def test_stored_index_gives_equal_answers(kind, library, queries, tmp_path):
    library_of(library.embeddings[:1500]).save(tmp_path)
    opened = ss.ImageLibrary.load(tmp_path)
    built = build_index(opened, kind, progress=False)
    assert built.report.size_bytes == (tmp_path / "index.faiss").stat().st_size
    for source in (opened, tmp_path, str(tmp_path)):
        again = load_index(source)
        assert (again.kind, again.exact, again.report) == (kind, built.exact, built.report)
        assert_equal(again.top_k(opened, queries, 10), built.top_k(opened, queries, 10))
    assert_equal(
        again.top_k(ss.ImageLibrary.load(tmp_path), queries[:3], 7),
        again.top_k(opened, queries[:3], 7),
    )


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="no list of what is mapped")
def test_graph_is_memory_mapped(stored):
    place = str(stored.stored[0] / "index.faiss")
    index = load_index(stored)
    assert place in Path("/proc/self/maps").read_text()
    del index


def test_library_in_memory_stores_no_index(library, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    build_index(library_of(library.embeddings[:50]), progress=False)
    assert not list(tmp_path.iterdir())
    with pytest.raises(LibraryError, match=r"not loaded from a folder.*build_index\(library\)"):
        load_index(library)


def test_index_of_a_copied_folder_opens(stored, queries, tmp_path):
    copy = shutil.copytree(stored.stored[0], tmp_path / "copy", copy_function=shutil.copyfile)
    moved = ss.ImageLibrary.load(copy)
    assert_equal(
        load_index(moved).top_k(moved, queries, 5), load_index(stored).top_k(stored, queries, 5)
    )


def test_index_that_is_open_serves_its_own_version_alone(stored, library, queries):
    place = stored.stored[0]
    old = load_index(place)
    changed = library.embeddings[:500].copy()
    changed[[7, 8]] = changed[[8, 7]]
    library_of(changed).save(place)
    now = ss.ImageLibrary.load(place)
    mend = r"has changed since: open it again with simsearch\.load_index\(library\), or build"
    with pytest.raises(StaleIndexError, match=mend):
        next(old.top_k(now, queries, 5))
    assert len(next(old.top_k(stored, queries, 5)).rows) == 5
    build_index(now, "sq", progress=False)
    assert load_index(now).kind == "sq"


def test_other_library_is_refused(indexes, library, stored):
    twin = library_of(library.embeddings.copy())
    derived = stored.with_head(ProjectionHead([(np.eye(D), np.zeros(D))]))
    for index, other in (
        (indexes["hnsw"], twin),
        (indexes["flat"], stored),
        (load_index(stored), library),
        (load_index(stored), derived),
    ):
        with pytest.raises(StaleIndexError, match="was not built for"):
            index.check(other)
        with pytest.raises(StaleIndexError):
            next(index.top_k(other, other.embeddings[:1], 5))


def test_derived_library_has_an_index_of_its_own(stored, queries):
    derived = stored.with_head(ProjectionHead([(np.eye(D)[:40], np.zeros(40))]))
    before = (stored.stored[0] / "index.json").read_bytes()
    index = build_index(derived, "hnsw", progress=False)
    assert (stored.stored[0] / "index.json").read_bytes() == before
    assert recall(index, derived, derived.embeddings[:50]) >= 0.98


def damage(file, how):
    data = file.read_bytes()
    if how == "missing":
        file.unlink()
        return
    file.write_bytes(
        {
            "empty": b"",
            "truncated": data[: len(data) // 2],
            "flipped": data[:-9] + bytes(byte ^ 255 for byte in data[-9:]),
            "garbage": b"\x80garbage" * 99,
        }[how]
    )


@pytest.mark.parametrize("how", ["missing", "empty", "truncated", "flipped", "garbage"])
@pytest.mark.parametrize("name", ["index.faiss", "index.rows.npz", "index.json"])
def test_damaged_index_is_refused(stored, name, how):
    damage(stored.stored[0] / name, how)
    reason = f"{name} is missing" if how == "missing" else "the index in .* cannot be used"
    with pytest.raises(LibraryError, match=rf"{reason}.* simsearch\.build_index\(library\)"):
        load_index(stored)
    build_index(stored, "sq", progress=False)
    assert load_index(stored).kind == "sq"


@pytest.mark.parametrize("how", ["empty", "truncated", "garbage"])
def test_damaged_index_with_a_matching_record_is_refused(stored, how):
    """FAISS itself refuses the file, as it may one of another version."""
    folder = stored.stored[0]
    damage(folder / "index.faiss", how)
    edit(folder, seal=file_record(folder / "index.faiss"))
    with pytest.raises(LibraryError, match="cannot be used: it cannot be read"):
        load_index(stored)


def edit(folder, **changes):
    record = json.loads((folder / "index.json").read_text())
    (folder / "index.json").write_text(json.dumps(signed(record | changes, "index.json")))


@pytest.mark.parametrize(
    "changes",
    [
        {"format": 4},
        {"file": "../index.faiss"},
        {"rows": {}},
        {"built": None},
        {"report": {}},
        {"report": None},
        {"effort": [1]},
        {"effort": ["many", 1]},
        {"seal": {}},
    ],
)
def test_invalid_record_is_refused(stored, changes):
    edit(stored.stored[0], **changes)
    with pytest.raises(LibraryError, match="cannot be used"):
        load_index(stored)


def test_row_count_must_match(stored):
    report = json.loads((stored.stored[0] / "index.json").read_text())["report"]
    edit(stored.stored[0], report=report | {"rows": 499})
    with pytest.raises(LibraryError, match="does not describe 499 rows"):
        load_index(stored)


def test_missing_index_is_reported(library, tmp_path):
    library_of(library.embeddings[:20]).save(tmp_path)
    with pytest.raises(LibraryError, match=r"no index in .*build_index\(library\)"):
        load_index(ss.ImageLibrary.load(tmp_path))
    with pytest.raises(LibraryError, match="no index in"):
        load_index(tmp_path / "nowhere")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no full disk at hand")
def test_full_disk_keeps_the_last_index(stored, queries, monkeypatch):
    folder, write = stored.stored[0], faiss.write_index
    before = list(load_index(stored).top_k(stored, queries, 5))

    def full(index, place, *flags):
        if isinstance(place, str):
            Path(place).write_bytes(b"the first half")
            place = "/dev/full"
        write(index, place)

    monkeypatch.setattr(faiss, "write_index", full)
    with pytest.raises(LibraryError, match=r"cannot write .*index\.2\.faiss"):
        build_index(stored, "flat", progress=False)
    assert_equal(load_index(stored).top_k(stored, queries, 5), before)
    assert not list(folder.glob("*.part"))


def test_until_its_record_is_written_the_last_index_stands(stored, queries, monkeypatch):
    before = list(load_index(stored).top_k(stored, queries, 5))

    def die(file, text):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("simsearch.retrieval.faiss_store.write_text", die)
        with pytest.raises(KeyboardInterrupt):
            build_index(stored, "sq", progress=False)
    again = load_index(stored)
    assert again.kind == "hnsw"
    assert_equal(again.top_k(stored, queries, 5), before)
    build_index(stored, "sq", progress=False)
    assert load_index(stored).kind == "sq"
    assert len(list(stored.stored[0].glob("index.*"))) == 3


def test_one_writer_at_a_time(stored):
    with writing(stored.stored[0]), pytest.raises(ss.LibraryBusyError):
        build_index(stored, "sq", progress=False)


# FAISS stays optional


def test_default_search_does_not_import_faiss():
    code = (
        "import sys, numpy as np, simsearch as ss\n"
        "library = ss.ImageLibrary(np.eye(3), ['a.jpg', 'b.jpg', 'c.jpg'])\n"
        "ss.search(library, 0)\n"
        "print('faiss' in sys.modules)\n"
        "ss.build_index(library, progress=False)\n"
        "print('faiss' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]


def test_missing_faiss_names_the_extra(library, stored, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    for call in (lambda: build_index(library), lambda: load_index(stored)):
        with pytest.raises(MissingExtraError, match=r'pip install "simsearch\[faiss\]"'):
            call()


def test_search_parameters_work_beside_torch_utils():
    """pytorch-metric-learning puts them in place of FAISS's own when it is imported."""
    code = (
        "import numpy as np, simsearch as ss, faiss.contrib.torch_utils\n"
        "rows = np.random.default_rng(0).standard_normal((2000, 96))\n"
        "library = ss.ImageLibrary(rows, [f'{i}.jpg' for i in range(2000)])\n"
        "index = ss.build_index(library, 'hnsw', progress=False)\n"
        "found = ss.search(library, 7, index=index, where=np.arange(1500))\n"
        "assert found.paths == ss.search(library, 7, where=np.arange(1500)).paths\n"
        "import faiss, torch\n"
        "flat = faiss.IndexFlatIP(96); flat.add(torch.from_numpy(library.embeddings))\n"
        "assert flat.search(torch.from_numpy(library.embeddings[:1]), 1)[1].item() == 0\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_index_of_somebody_else_is_not_parsed(stored, monkeypatch, tmp_path):
    """FAISS checks little of what it reads."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another user"))
    faiss = pytest.importorskip("faiss")
    monkeypatch.setattr(faiss, "read_index", lambda *_: pytest.fail("parsed"))
    with pytest.raises(LibraryError, match=r"your mark.*build_index\(library\).*simsearch trust"):
        load_index(ss.ImageLibrary.load(stored.stored[0]))
    monkeypatch.undo()
    assert "index" in ss.trust_library(stored.stored[0]).derived
    assert load_index(ss.ImageLibrary.load(stored.stored[0])).report.rows == len(stored)


def test_an_index_that_was_replaced_with_its_size_and_time_is_not_parsed(stored):
    """The time of the last change of any kind, which nobody can set, tells that."""
    file = stored.stored[0] / "index.faiss"
    data, status = bytearray(file.read_bytes()), file.stat()
    data[-100] ^= 1
    file.write_bytes(data)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(LibraryError, match=r"index\.faiss is damaged"):
        load_index(stored)
