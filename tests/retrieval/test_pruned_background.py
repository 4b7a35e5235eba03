"""The pruned copy in time: made by `embed_dataset`, or in the background while searches go on."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import oracle
import pytest
from dataset_cases import paint_forty
from filelock import FileLock
from oracle import answers, clustered, expected, make_library
from tiny import tiny_backbone

from simsearch import registry
from simsearch.embedding.dataset import embed_dataset
from simsearch.library.library import ImageLibrary
from simsearch.retrieval import exact, pruned_background, pruned_copy
from simsearch.retrieval.pruned_background import ready_copy, wait
from simsearch.retrieval.pruned_store import ARRAY, LOCK, RECORD, open_copy


@pytest.fixture(autouse=True)
def large(monkeypatch):
    """Let small libraries be prepared in the background, as large ones are."""
    monkeypatch.setattr(exact, "PRUNED_FROM_BYTES", 0)
    monkeypatch.setattr(pruned_background, "BACKGROUND_BYTES", 0)
    monkeypatch.setattr(pruned_copy, "LEVEL_COLUMNS", (2, 4, 8))
    monkeypatch.setattr(pruned_copy, "MAX_COLUMNS", 16)
    monkeypatch.setattr(exact, "GATHER_ROW_COST", 0.0)


def check(library):
    vectors = np.asarray(library.embeddings[:7])
    assert answers(library, vectors, 5) == [expected(library, v, 5) for v in vectors]


def store(folder):
    make_library(clustered()).save(folder)
    return ImageLibrary.load(folder)


def test_searches_go_on_while_the_copy_is_made(tmp_path, monkeypatch, caplog):
    library, go, renew = store(tmp_path), threading.Event(), pruned_background.renew_copy

    def slow(library, *, progress):
        assert go.wait(30)
        return renew(library, progress=progress)

    monkeypatch.setattr(pruned_background, "renew_copy", slow)
    check(library)
    check(library)
    assert ready_copy(library) is None
    assert caplog.text.count("every row is read until") == 1
    go.set()
    wait(library)
    copy = ready_copy(library)
    assert copy is ready_copy(library) is not None
    assert copy.survivor_shares
    assert (tmp_path / ARRAY).exists()
    check(library)


def test_a_copy_that_cannot_be_made_is_said_once_and_searches_go_on(tmp_path, monkeypatch, caplog):
    def fail(library, *, progress):
        raise MemoryError("no room")

    monkeypatch.setattr(pruned_background, "renew_copy", fail)
    library = store(tmp_path)
    for _ in range(3):
        check(library)
        wait(library)
    assert caplog.text.count("cannot be made") == 1


def test_what_another_process_is_making_is_waited_for(tmp_path):
    library = store(tmp_path)
    with FileLock(tmp_path / LOCK):
        check(library)
        assert ready_copy(library) is None
        assert library not in pruned_background._threads
    assert ready_copy(library) is None  # it starts now
    wait(library)
    assert ready_copy(library) is not None


def test_other_rows_get_their_own(tmp_path):
    library = store(tmp_path)
    ready_copy(library)
    wait(library)
    library.embeddings = oracle.unit(clustered(seed=5))
    assert ready_copy(library) is None
    check(library)
    wait(library)
    assert ready_copy(library) is not None
    check(library)


ENDS = """
import sys
sys.path[:0] = {folders!r}
from simsearch.retrieval import exact, pruned_background, pruned_copy
exact.PRUNED_FROM_BYTES = pruned_background.BACKGROUND_BYTES = 0
pruned_copy.LEVEL_COLUMNS, pruned_copy.MAX_COLUMNS, pruned_copy.BLOCK_ROWS = (2, 4, 8), 16, 1
from simsearch.library.library import ImageLibrary
assert pruned_background.ready_copy(ImageLibrary.load({folder!r})) is None
print("asked")
"""


def test_a_process_that_ends_leaves_nothing_half_done(tmp_path):
    library = store(tmp_path)
    code = ENDS.format(folders=[str(Path(oracle.__file__).parent)], folder=str(tmp_path))
    start = time.monotonic()
    ended = subprocess.run(
        [sys.executable, "-c", code], check=True, timeout=60, capture_output=True, text=True
    )
    assert time.monotonic() - start < 30
    assert ended.stdout == "asked\n"
    assert "Traceback" not in ended.stderr
    assert not list(tmp_path.glob("*.part"))
    assert (tmp_path / RECORD).exists() == (open_copy(library) is not None)


def test_embedding_makes_it_where_a_search_would_use_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pictures, backbone = paint_forty(), tiny_backbone()
    embed_dataset(pictures, "small", backbone, progress=False)
    assert not Path("small", RECORD).exists()
    monkeypatch.setattr(registry, "LARGE_BYTES", 0)
    library = embed_dataset(pictures, "large", backbone, progress=False)
    assert Path("large", RECORD).exists()
    assert open_copy(library) is not None
