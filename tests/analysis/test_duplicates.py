"""Groups of near-duplicates."""

import csv
import io
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ImageEnhance

import simsearch as ss
from simsearch import registry
from simsearch.analysis import similar_rows
from simsearch.errors import QueryError


def library_of(rows, sizes=None):
    library = ss.ImageLibrary(rows, [f"{i:05}.jpg" for i in range(len(rows))])
    if sizes is not None:
        library.stats = np.array([(size, 0) for size in sizes], np.int64)
    return library


def find(rows, threshold=ss.NEAR_DUPLICATE, sizes=None):
    library = library_of(rows, sizes)
    return ss.duplicates(library, threshold, level="similar", progress=False)


def check_stars(found, rows, threshold):
    """Compare every pair in float64: who is near whom, and what follows for the groups."""
    wide = rows.astype(np.float64)
    near = wide @ wide.T >= threshold - 1e-12
    near |= (rows[:, None] == rows[None]).all(axis=2)
    members = [row for group in found for row in group.rows]
    assert len(members) == len(set(members))
    kept = [group.rows[0] for group in found]
    for group in found:
        assert all(near[group.rows[0], row] for row in group.rows)
        assert len(group) > 1
    alone = sorted(set(range(len(rows))) - set(members))
    centres = kept + alone  # none is near another, or it would be one of its extras
    assert (near[np.ix_(centres, centres)] == np.eye(len(centres), dtype=bool)).all()


def random_rows(kind, count, dim, seed):
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((count, dim)) + 1e-3
    if kind == "copies":
        rows = rows[rng.integers(0, 1 + count // 3, count)]
    if kind == "clusters":
        rows = rows[rng.integers(0, 1 + count // 5, count)] + 0.1 * rows
    if kind == "chain":  # each near the next, the ends far apart
        angles = np.arange(count) * 0.1
        rows = np.stack([np.cos(angles), np.sin(angles)], axis=1)[rng.permutation(count)]
    if kind == "near ties":  # cosines that float32 cannot tell from each other
        rows = rows[:1] + 1e-4 * rows
    return library_of(rows).embeddings


class TestDuplicates:
    @settings(max_examples=150, deadline=None)
    @given(
        st.sampled_from(["spread", "copies", "clusters", "chain", "near ties"]),
        st.integers(1, 90),
        st.integers(1, 24),
        st.integers(0, 2**32),
        st.sampled_from([0.5, 0.9, 0.95, 0.995, "a pair's own"]),
    )
    def test_groups_are_stars_of_near_pairs(self, kind, count, dim, seed, threshold):
        rows = random_rows(kind, count, dim, seed)
        if threshold == "a pair's own":  # the closest call that there is
            wide = rows.astype(np.float64)
            threshold = min(1.0, float(wide[0] @ wide[-1]))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(similar_rows, "BLOCK_ROWS", 16)
            found = find(rows, threshold)
        check_stars(found, rows, threshold)

    def test_float64_decides_where_float32_cannot(self):
        rng = np.random.default_rng(0)
        rows = random_rows("near ties", 60, 512, 0)
        wide = rows.astype(np.float64)
        cosines = np.sort((wide @ wide.T).max(axis=1, where=~np.eye(60, dtype=bool), initial=-1))
        mistaken = 0
        for threshold in rng.choice(cosines, 12):
            check_stars(find(rows, threshold), rows, threshold)
            seen = rows @ rows.T >= np.float32(threshold)
            mistaken += (seen != (wide @ wide.T >= threshold)).any()
        assert mistaken > 6

    def test_equal_rows_are_found_at_any_threshold(self):
        rows = random_rows("spread", 40, 8, 0)
        found = find(np.concatenate([rows, rows[:3]]), 1.0)
        assert [group.rows for group in found] == [(0, 40), (1, 41), (2, 42)]
        assert [group.scores for group in found] == [pytest.approx((1, 1))] * 3

    def test_a_chain_is_cut_so_that_each_extra_is_near_what_is_kept(self):
        angles = np.radians([0, 15, 30, 45, 90])
        rows = np.stack([np.cos(angles), np.sin(angles)], axis=1)
        found = find(rows, 0.96, [1, 9, 1, 1, 1])
        assert [group.rows for group in found] == [(1, 0, 2)]
        assert found.extras == ["00000.jpg", "00002.jpg"]
        found = find(rows, 0.96, [9, 1, 1, 8, 1])
        assert [group.rows for group in found] == [(0, 1), (3, 2)]
        assert [group.lowest for group in found] == pytest.approx([np.cos(np.radians(15))] * 2)

    def test_first_is_the_largest_file_then_the_highest_mean_cosine_then_by_path(self):
        pair = [[1, 0], [0.99, 0.1]]
        assert find(pair, sizes=[10, 20])[0].rows == (1, 0)
        assert find(pair, sizes=[20, 20])[0].rows == (0, 1)
        assert find(pair)[0].paths == ("00000.jpg", "00001.jpg")

    def test_groups_are_sorted_by_size_then_path(self):
        rows = np.eye(6)[[5, 0, 1, 0, 2, 1, 1, 3, 3, 3]]
        assert [group.rows for group in find(rows)] == [(2, 5, 6), (7, 8, 9), (1, 3)]

    @pytest.mark.parametrize("noise", [0, 1e-3])
    def test_thousands_of_one_image_stay_within_bounded_memory(self, noise):
        rng = np.random.default_rng(0)
        rows = rng.normal(size=16) + noise * rng.normal(size=(8_000, 16))
        library = library_of(np.concatenate([rows, rng.normal(size=(200, 16))]))
        tracemalloc.start()
        found = ss.duplicates(library, 0.98, level="similar", progress=False)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert max(map(len, found)) == 8_000
        assert peak < 250e6  # its 32 million pairs alone would take 0.5 GB

    def test_memory_does_not_grow_with_the_square_of_the_rows(self):
        library = library_of(np.random.default_rng(0).normal(size=(10_000, 32)))
        tracemalloc.start()
        assert not ss.duplicates(library, level="similar", progress=False)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 60e6  # all scores at once: 400 MB

    @pytest.mark.parametrize("threshold", [1.01, -1.5, float("nan"), float("inf")])
    def test_threshold_must_be_a_cosine(self, threshold):
        with pytest.raises(QueryError, match=f"threshold={threshold}"):
            find(np.eye(2), threshold)

    def test_one_image_has_no_duplicates(self):
        assert len(find([[1, 0]])) == 0

    def test_progress_bar_counts_every_pair(self, monkeypatch):
        bars = []

        class Bar(similar_rows.tqdm):
            def __init__(self, **options):
                super().__init__(**options | {"disable": False, "file": io.StringIO()})
                bars.append(self)

        monkeypatch.setattr(similar_rows, "tqdm", Bar)
        monkeypatch.setattr(similar_rows, "BLOCK_ROWS", 10)
        find(np.eye(40))
        assert bars[0].n == bars[0].total == 800


class TestCopies:
    """Copies of photos are found with their originals, by a real network."""

    def test_changed_copies_are_grouped_with_their_originals_and_nothing_else(
        self, sample, tmp_path
    ):
        changes = {
            "jpeg": lambda image: image,
            "large": lambda image: image.resize((image.width * 3 // 2, image.height * 3 // 2)),
            "small": lambda image: image.resize((image.width * 4 // 5, image.height * 4 // 5)),
            "bright": lambda image: ImageEnhance.Brightness(image).enhance(1.05),
        }
        for file in sorted(sample.glob("seg_train/*/0001.jpg"))[::2]:
            folder = tmp_path / file.parent.name
            folder.mkdir()
            image = ss.load_image(file)
            image.save(folder / "original.png")
            for name, change in changes.items():
                change(image).save(folder / f"{name}.jpg", quality=85)
        library = ss.embed_dataset(
            tmp_path, tmp_path / "outputs", "efficientnet_lite0", progress=False
        )
        found = ss.duplicates(library, progress=False)
        folders = [{Path(path).parent for path in group.paths} for group in found]
        assert all(len(places) == 1 for places in folders)
        assert len(set.union(*folders)) == len(found) == len(set(library.labels))
        # Views with grain lose more when they are made smaller, and one or two stay alone.
        assert len(found.extras) >= 0.95 * len(changes) * len(found)
        # The one of most pixels is kept; of the others each is told to be smaller, or edited.
        assert all(group.paths[0].endswith("large.jpg") for group in found)
        assert {edit for group in found for edit in group.edits[1:]} == {"resized"}
        assert {level for group in found for level in group.levels[1:]} == {"near"}

    @pytest.mark.shared
    def test_real_photos_of_different_things_are_no_duplicates(self, shared):
        photos = sorted((shared / "photos").iterdir())[:40]
        rows = ss.embed_images([str(photo) for photo in photos], "efficientnet_lite0")
        assert not ss.duplicates(ss.ImageLibrary(rows, photos), progress=False)


class TestResult:
    @pytest.fixture
    def found(self):
        rows = [[1, 0, 0], [0.99, 0.1, 0], [0, 1, 0], [0, 1, 0], [0, 1, 0.01], [0, 0, 1]]
        return find(rows, sizes=[1, 2, 1, 3, 1, 1])

    def test_is_a_sequence_of_groups(self, found):
        assert len(found) == 2
        assert [group.rows for group in found] == [(3, 2, 4), (1, 0)]
        assert found[-1] == found.groups[1]
        assert found[:1] == found.groups[:1]
        assert len(found[0]) == 3
        assert found.extras == ["00002.jpg", "00004.jpg", "00000.jpg"]
        assert found.extras == [path for group in found for path in group.extras]

    def test_prints_a_short_table(self, found):
        assert str(found).splitlines() == [
            "2 groups of near-duplicates among 6 images at a cosine of 0.95 or more: 3 extra",
            "     3  1.000–1.000  00003.jpg",
            "     2  0.995–0.995  00001.jpg",
            "told by embeddings alone, not confirmed on the pixels: look before you delete",
        ]
        many = find(np.eye(50)[np.arange(100) // 2])
        assert len(str(many).splitlines()) == 13
        assert str(many).splitlines()[11] == "... and 40 more: to_frame()"
        assert str(find(np.eye(3))).startswith("no near-duplicates among 3 images")

    def test_frame_has_one_row_per_image(self, found):
        frame = found.to_frame()
        assert list(frame.columns) == ["group", "path", "cosine", "row", "level", "edit"]
        assert frame.group.tolist() == [1, 1, 1, 2, 2]
        assert frame.row.tolist() == [3, 2, 4, 1, 0]
        assert frame.level.tolist() == ["", "similar", "similar", "", "similar"]
        assert frame.edit.tolist() == [""] * 5
        assert frame.cosine.tolist() == [score for group in found for score in group.scores]
        assert find(np.eye(2)).to_frame().empty

    def test_saves_csv(self, found, tmp_path):
        found.save(tmp_path / "copies.csv")
        with (tmp_path / "copies.csv").open(newline="") as stream:
            header, *rows = csv.reader(stream)
        assert header == ["group", "path", "cosine", "level", "edit"]
        frame = found.to_frame()
        assert [(int(group), path) for group, path, *_ in rows] == [
            *zip(frame.group, frame.path, strict=True)
        ]
        assert [float(row[2]) for row in rows] == pytest.approx(frame.cosine.tolist(), abs=1e-6)
        assert list(tmp_path.iterdir()) == [tmp_path / "copies.csv"]

    def test_saves_any_name(self, tmp_path):
        names = ['a,"b\n.jpg', "森\udcff.jpg"]
        library = ss.ImageLibrary(np.ones((2, 2)), names)
        ss.duplicates(library).save(tmp_path / "copies.csv")
        file = tmp_path / "copies.csv"
        with file.open(encoding="utf-8", errors="surrogateescape", newline="") as stream:
            assert [row[1] for row in csv.reader(stream)][1:] == names

    def test_error_names_a_file_that_cannot_be_written(self, found, tmp_path):
        with pytest.raises(QueryError, match="no such folder"):
            found.save(tmp_path / "no" / "no such folder.csv")
        kept = tmp_path / "kept.csv"
        kept.write_text("as it was")
        (tmp_path / "kept.csv.part").mkdir()  # nothing can be written beside it
        with pytest.raises(QueryError, match="cannot write"):
            found.save(kept)
        assert kept.read_text() == "as it was"


def test_duplicates_of_a_memory_mapped_library(tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "LARGE_BYTES", 0)
    library = library_of(np.eye(4)[[0, 1, 1, 2, 0]])
    library.save(tmp_path)
    opened = ss.ImageLibrary.load(tmp_path)
    assert isinstance(opened.embeddings, np.memmap)
    assert ss.duplicates(opened, progress=False).groups == find(np.eye(4)[[0, 1, 1, 2, 0]]).groups
