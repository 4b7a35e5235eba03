"""Matches folded by `unique`: what the pixels confirm, and what is said of the rest."""

import numpy as np
import pytest
from PIL import ImageDraw
from scenes import scene

from simsearch import ImageLibrary, search
from simsearch.retrieval import confirmed


@pytest.fixture
def pictures(tmp_path):
    """A scene, an edited copy of it, and the same scene with an object that is elsewhere."""
    original = scene(1)
    original.save(tmp_path / "a.png")
    original.resize((240, 180)).save(tmp_path / "b.jpg")
    moved = original.copy()
    ImageDraw.Draw(moved).ellipse((40, 40, 140, 140), fill=(250, 20, 20))
    moved.save(tmp_path / "c.png")
    return tmp_path


def library_of(folder, names=("a.png", "b.jpg", "c.png")):
    return ImageLibrary(np.ones((len(names), 4)), [(folder / name).as_posix() for name in names])


def test_only_copies_are_folded(pictures):
    matches = search(library_of(pictures), np.ones(4), k=3, unique=True)
    folder = pictures.as_posix()
    assert matches.paths == [f"{folder}/a.png", f"{folder}/c.png"]
    assert [match.duplicates for match in matches] == [(f"{folder}/b.jpg",), ()]
    assert matches.notes == ()


def test_what_is_near_in_pixels_alone_stays(pictures):
    rows = [[1, 0], [0.6, 0.8], [0, 1]]
    library = ImageLibrary(rows, library_of(pictures).paths)
    assert len(search(library, np.array([1.0, 0.0]), k=3, unique=True)) == 3


def test_where_files_are_gone_the_embeddings_decide_and_it_is_said(pictures):
    (pictures / "c.png").unlink()
    matches = search(library_of(pictures), np.ones(4), k=3, unique=True)
    assert [len(match.duplicates) for match in matches] == [2]
    note = "1 of those folded as alike could not be confirmed on the pixels"
    assert matches.notes[0].startswith(note)
    assert note in str(matches)


def test_a_damaged_file_is_a_copy_of_no_other(pictures):
    (pictures / "b.jpg").write_bytes(b"no picture")
    matches = search(library_of(pictures), np.ones(4), k=3, unique=True)
    assert [len(match.duplicates) for match in matches] == [0, 0, 0]
    assert matches.notes == ()


def test_a_changed_file_is_compared_again(pictures):
    library = library_of(pictures)
    assert len(search(library, np.ones(4), k=3, unique=True)) == 2
    scene(5).save(pictures / "b.jpg")
    assert len(search(library, np.ones(4), k=3, unique=True)) == 3


def test_pairs_are_compared_once(pictures, monkeypatch):
    compared = []
    confirmed._compare.cache_clear()
    monkeypatch.setattr(confirmed, "compare_files", lambda *pair: compared.append(pair))
    for _ in range(2):
        search(library_of(pictures), np.ones(4), k=3, unique=True)
    confirmed._compare.cache_clear()
    assert len(compared) == len(set(compared)) == 3


def test_addresses_are_not_fetched(monkeypatch):
    monkeypatch.setattr(confirmed, "compare_files", lambda *_: pytest.fail("fetched"))
    library = ImageLibrary(np.ones((2, 2)), ["https://example.org/a.jpg", "s3://bucket/b.jpg"])
    matches = search(library, np.ones(2), k=2, unique=True)
    assert len(matches) == 1
    assert "could not be confirmed" in matches.notes[0]
