"""Albums: groups at several grains, their names, table and figure."""

import csv

import numpy as np
import pandas as pd
import pytest
from figures import CLASSES, assert_not_clipped
from hypothesis import given, settings
from hypothesis import strategies as st

import simsearch as ss
from simsearch.analysis import row_groups
from simsearch.analysis.album_levels import distinct
from simsearch.backbones.classifier import load_classifier
from simsearch.errors import QueryError

GRAINS = ["coarse", "medium", "fine"]


def planted(sizes, dim=256, spread=0.3, alone=0, seed=0):
    """Make tight groups around orthogonal axes, and rows far from all of them."""
    rng = np.random.default_rng(seed)
    truth = np.concatenate([np.repeat(np.arange(len(sizes)), sizes), np.full(alone, -1)])
    rows = rng.normal(size=(len(truth), dim)) * spread / np.sqrt(dim)
    rows[truth >= 0] += np.eye(dim)[truth[truth >= 0]]
    rows[truth < 0] += rng.normal(size=(alone, dim)) / np.sqrt(dim)
    return rows, truth


def library_of(rows, folder="seg_pred"):
    return ss.ImageLibrary(rows, [f"{folder}/{i:05}.jpg" for i in range(len(rows))])


def partition(level):
    return {frozenset(album) for album in level}


@pytest.mark.parametrize("sizes", [(30, 20, 10), (100, 80, 60, 40), (8, 8, 8)])
def test_planted_groups_are_found(sizes):
    rows, truth = planted(sizes)
    level = ss.albums(library_of(rows)).level("coarse")
    groups = [tuple(np.unique(truth[list(album.rows)])) for album in level]
    assert sorted(groups) == [(i,) for i in range(len(sizes))]
    assert len(level.unassigned) <= 0.1 * len(rows)


def test_pictures_like_no_other_are_in_no_album_and_are_told():
    rows, truth = planted((60, 60), alone=6)
    found = ss.albums(library_of(rows))
    level = found.level("coarse")
    assert set(np.flatnonzero(truth < 0)) <= set(level.unassigned_rows)
    assert len(level) == 2
    assert f"{len(level.unassigned)} are in none" in str(found)


@pytest.mark.parametrize("dim", [64, 1280])
def test_noise_has_no_albums(dim):
    found = ss.albums(library_of(np.random.default_rng(0).normal(size=(500, dim))))
    assert [len(level) for level in found] == [0, 0, 0]
    assert [len(level.unassigned) for level in found] == [500] * 3
    assert "coarse: no albums of 25 images or more" in str(found)


@pytest.mark.parametrize(("count", "inside"), [(1, 0), (2, 0), (3, 3), (40, 40)])
def test_images_that_are_all_alike_are_one_album(count, inside):
    for level in ss.albums(library_of(np.ones((count, 8)))):
        assert sum(map(len, level)) == inside
        assert len(level) == (inside > 0)
        assert len(level.unassigned) == count - inside


def test_finer_grains_have_more_and_smaller_albums():
    centres = np.repeat(np.eye(40)[:4] * 2, 3, axis=0) + np.eye(40)[4:16]
    rng = np.random.default_rng(0)
    rows = np.repeat(centres, 40, axis=0) + rng.normal(size=(480, 40)) * 0.02
    levels = ss.albums(library_of(rows))
    assert [level.grain for level in levels] == GRAINS
    assert [level.min_size for level in levels] == [24, 13, 7]
    assert len(levels.level("fine")) >= len(levels.level("coarse")) >= 4
    for level in levels:
        assert all(len(album) >= level.min_size for album in level)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.integers(1, 20))
def test_each_image_is_in_one_place_whatever_the_rows(seed, count, dim):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(count, dim)) + 2 * rng.integers(0, 2, (count, dim))
    rows[rng.random(count) < 0.2] = rows[0]
    library = library_of(rows)
    for level in ss.albums(library):
        told = [row for album in level for row in album.rows] + list(level.unassigned_rows)
        assert sorted(told) == list(range(count))
        assert all(library.paths[list(album.rows)].tolist() == [*album] for album in level)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_the_order_of_the_rows_does_not_matter(seed):
    rows, _ = planted((12, 9, 7), spread=1.2, alone=4, seed=seed)
    library = library_of(rows)
    shuffled = np.random.default_rng(seed).permutation(len(rows))
    other = ss.ImageLibrary(rows[shuffled], library.paths[shuffled])
    for one, two in zip(ss.albums(library), ss.albums(other), strict=True):
        assert [(each.name, each.paths) for each in one] == [(e.name, e.paths) for e in two]
        assert one.unassigned == two.unassigned


def test_the_first_image_is_the_medoid():
    rows, _ = planted((25, 20), spread=1)
    library = library_of(rows)
    cosines = library.embeddings.astype(float) @ library.embeddings.T
    for album in ss.albums(library).level("coarse"):
        among = np.array(album.rows)
        best = among[cosines[np.ix_(among, among)].sum(axis=1).argmax()]
        assert album.typical == library.paths[best] == album[0]


def test_of_very_many_a_part_is_grouped_and_the_others_join(monkeypatch):
    monkeypatch.setattr(row_groups, "MAX_ROWS", 120)
    monkeypatch.setattr("simsearch.analysis.albums.MAX_ROWS", 120)
    rows, truth = planted((300, 200, 100))
    found = ss.albums(library_of(rows))
    assert len(found.level("coarse")) == 3
    assert len(found.level("coarse").unassigned) < 30
    for album in found.level("coarse"):
        assert len(np.unique(truth[list(album.rows)])) == 1
    assert "grouped by 120 images" in str(found)


class TestNames:
    def test_labels_of_half_the_images_name_an_album(self):
        rows, truth = planted((40, 30, 20))
        paths = [f"train/{CLASSES[group]}/{i:03}.jpg" for i, group in enumerate(truth)]
        library = ss.ImageLibrary(rows, paths)
        library.root = "."
        level = ss.albums(library).level("coarse")
        assert [album.name for album in level] == list(CLASSES)

    def test_otherwise_two_labels_or_the_typical_image_do(self):
        rows, _ = planted((9, 9))
        library = library_of(rows)
        labels = ["a", "b", "c"] * 6
        assert {each.name for each in ss.albums(library, labels)[0]} == {"a + b", "a + b 2"}
        unlabelled = ss.albums(library, [None] * 18)[0]
        assert [each.name for each in unlabelled] == [
            f"like {each.typical.split('/')[1]}" for each in unlabelled
        ]

    def test_the_nearest_word_names_an_album(self):
        rows, _ = planted((9, 8, 7))
        words = {"hill": 5 * np.eye(256)[2], "sea": np.eye(256)[0], "sky": np.eye(256)[1]}
        level = ss.albums(library_of(rows), words=words).level("coarse")
        assert [each.name for each in level] == ["sea", "sky", "hill"]

    @pytest.mark.parametrize("words", [{}, {"sea": [1, 0]}, {"sea": np.zeros(256)}])
    def test_words_that_do_not_fit_are_refused(self, words):
        rows, _ = planted((9, 8))
        with pytest.raises(QueryError, match="words"):
            ss.albums(library_of(rows), words=words)

    def test_words_that_are_no_list_are_refused(self):
        rows, _ = planted((9, 8))
        with pytest.raises(QueryError, match=r"words=\['sea', ...\], or words=\"classes\""):
            ss.albums(library_of(rows), words="sea")
        with pytest.raises(QueryError, match="that the library names"):
            ss.albums(library_of(rows), words="classes")

    def test_classes_name_what_is_near_to_one(self):
        """Two albums in the directions of classes, and one in that of none."""
        classifier = load_classifier("efficientnet_lite0")
        numbers = [classifier.names.index(name) for name in ("zebra", "banana")]
        away = -classifier.rows[numbers].sum(axis=0) / 1.5
        rng, centres = np.random.default_rng(0), [*classifier.rows[numbers], away]
        rows = np.concatenate(
            [centre + 0.01 * rng.standard_normal((9, len(centre))) for centre in centres]
        )
        paths = [f"{i:02}.jpg" for i in range(27)]
        backbone = ss.load_backbone("efficientnet_lite0", device="cpu")
        library = ss.ImageLibrary(rows, paths, backbone)
        level = ss.albums(library, words="classes").level("coarse")
        names = {each.name: sorted(each.rows) for each in level}
        assert names.pop("zebra") == list(range(9))
        assert names.pop("banana") == list(range(9, 18))
        assert [list(rows) for rows in names.values()] == [list(range(18, 27))]

    @given(st.lists(st.sampled_from(["sea", "sea 2", "sea 3", "hill", "sea 2 2"])))
    def test_names_are_distinct(self, names):
        answer = distinct(names)
        assert len(set(answer)) == len(names)
        assert all(new.startswith(old) for new, old in zip(answer, names, strict=True))


class TestOutput:
    def test_frame_and_file_hold_every_image_of_every_grain(self, tmp_path):
        rows, _ = planted((20, 15), alone=3)
        found = ss.albums(library_of(rows, "=seg"))
        frame = found.to_frame()
        assert frame.groupby("grain").size().to_dict() == dict.fromkeys(GRAINS, 38)
        found.to_csv(tmp_path / "albums.csv", "coarse")
        table = pd.read_csv(tmp_path / "albums.csv", keep_default_na=False)
        assert len(table) == 38
        assert table.typical.sum() == 2
        assert table.path.str.startswith("'=seg").all()  # no formula of a spreadsheet
        assert set(table[table.album == 0].name) <= {""}
        with (tmp_path / "albums.csv").open() as file:
            assert next(csv.reader(file)) == ["grain", "album", "name", "path", "typical"]

    def test_a_grain_or_a_place_that_is_not_there_is_named(self, tmp_path):
        found = ss.albums(library_of(np.ones((3, 4))))
        with pytest.raises(QueryError, match="grain='huge': give one of 'coarse'"):
            found.level("huge")
        with pytest.raises(QueryError, match="cannot write"):
            found.to_csv(tmp_path / "none" / "albums.csv")

    def test_html_shows_the_typical_images_and_runs_no_name(self, library):
        page = ss.albums(library)._repr_html_()
        assert page.count("<img") == sum(len(level) for level in ss.albums(library))
        rows = library_of(np.ones((3, 4)), "<script>")
        assert "<script>" not in ss.albums(rows, [None] * 3)._repr_html_()

    def test_figure_has_a_row_per_album(self, library):
        found = ss.albums(library)
        fig, axes = ss.show_albums(found, "coarse", columns=4)
        assert axes.shape == (len(found.level("coarse")), 4)
        assert_not_clipped(fig)
        written = {text.get_text() for ax in axes[:, 0] for text in ax.texts}
        assert {*CLASSES} <= written
        fig, axes = ss.show_albums(found, "coarse", limit=1)
        assert len(axes) == 1
        assert "the 1 largest" in fig._suptitle.get_text()

    def test_figure_of_nothing_says_so(self):
        _, axes = ss.show_albums(ss.albums(library_of(np.eye(5))))
        assert [text.get_text() for text in axes[0, 0].texts] == ["no albums"]
        with pytest.raises(QueryError, match="show_albums takes"):
            ss.show_albums([["a.jpg"]])
