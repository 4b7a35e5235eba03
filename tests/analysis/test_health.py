"""The health of a dataset: planted faults are found, and nothing else."""

import csv

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter

import simsearch as ss
from simsearch.analysis import stored_quality
from simsearch.analysis.health_checks import CHECKS

SINGLE = ["blank", "dark", "bright", "low_contrast", "blurred", "odd_size", "odd_shape"]


def texture(seed, width=96, height=72):
    """Hard-edged patches over all levels: a sound picture, and no two are alike."""
    rng = np.random.default_rng(seed)
    patches = rng.integers(0, 256, (height // 8, width // 8, 3)).astype(np.uint8)
    return Image.fromarray(patches.repeat(8, axis=0).repeat(8, axis=1))


def make_library(root, pictures, rows=None, stored=True):
    """Save pictures by name, with rows about their folders' directions."""
    paths = []
    for name, picture in pictures.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        picture.save(root / name)
        paths.append((root / name).as_posix())
    rng = np.random.default_rng(0)
    if rows is None:
        rows = 5 + rng.normal(size=(len(paths), 16))
    library = ss.ImageLibrary(rows, paths)
    library.root = root.as_posix()
    if stored:
        library.save(root.parent / "outputs")
        library = ss.ImageLibrary.load(root.parent / "outputs", root)
    return library


def check(library, **options):
    return ss.check_dataset(library, progress=False, **options)


def found(report, library):
    """Names of what was found, by kind."""
    names = dict(zip(library.paths.tolist(), library.names, strict=True))
    return {
        kind: {names.get(f.path, f.path) for f in report[kind]} for kind in report if report[kind]
    }


@pytest.fixture
def root(tmp_path):
    return tmp_path / "data"


@pytest.fixture
def sound():
    return {f"{'ab'[i % 2]}/{i:02}.png": texture(i) for i in range(24)}


def test_a_sound_dataset_has_no_faults(root, sound):
    rows = [np.eye(16)[i % 2] + 0.1 * np.random.default_rng(i).normal(size=16) for i in range(24)]
    report = check(make_library(root, sound, rows))
    assert report.total == 0
    assert set(report) == set(CHECKS) - {"leak"}
    assert list(report.unchecked) == ["leak"]
    assert str(report).startswith("no faults in 24 images\n")


def test_each_planted_fault_is_found_as_its_kind_alone(root, sound):
    image = texture(100)
    planted = {
        "a/blank.png": Image.new("RGB", (96, 72), (200, 30, 40)),
        "a/dark.png": image.point(lambda level: level // 8),
        "a/bright.png": image.point(lambda level: 215 + level // 7),
        "a/low_contrast.png": texture(101).point(lambda level: 100 + level // 8),
        "a/blurred.png": texture(102).filter(ImageFilter.GaussianBlur(5)),
        "a/odd_size.png": texture(103, 480, 360),
        "a/odd_shape.png": texture(104, 400, 24),
    }
    library = make_library(root, sound | planted)
    names = found(check(library), library)
    for kind in SINGLE:
        assert f"a/{kind}.png" in names[kind]
        assert names[kind] <= set(planted), kind
    assert names["blank"] == {"a/blank.png"}
    assert "a/blank.png" not in names["dark"] | names["bright"] | names["blurred"]


def test_copies_and_leaks_are_told(root):
    pictures = {f"train/a/{i:02}.png": texture(i) for i in range(10)}
    pictures |= {f"test/a/{i:02}.png": texture(50 + i) for i in range(10)}
    pictures["train/a/again.png"] = texture(3)
    pictures["test/a/seen.png"] = texture(4)
    library = make_library(root, pictures)
    report = check(library)
    names = found(report, library)
    assert len(names["exact_duplicate"]) == 2
    (leak,) = report["leak"]
    assert leak.path.endswith("test/a/seen.png")
    assert leak.other.endswith("train/a/04.png")
    assert leak.note == "in test and in train"
    assert "label" in report.unchecked  # one class only


def test_splits_come_from_a_column_of_the_table(root):
    import pandas as pd

    pictures = {f"{i:02}.png": texture(i % 11) for i in range(12)}
    library = make_library(root, pictures)
    table = pd.DataFrame({"path": library.names, "Split": ["train"] * 11 + ["test"]})
    report = check(library.attach(table))
    assert [leak.path[-6:] for leak in report["leak"]] == ["11.png"]
    part = ["x"] * 6 + ["y"] * 6
    assert [leak.note for leak in check(library, split=part)["leak"]] == ["in y and in x"]


def test_labels_that_the_neighbours_do_not_share_are_found(root, sound):
    rows = [np.eye(16)[i % 2] + 0.05 * np.random.default_rng(i).normal(size=16) for i in range(24)]
    rows[5] = rows[0] + 0.01  # of "b" by its folder, among those of "a"
    library = make_library(root, sound, rows)
    (wrong,) = check(library)["label"]
    assert wrong.path.endswith("b/05.png")
    assert wrong.score == 0
    assert wrong.note == "b 0%, a 100%"


def test_an_outlier_is_far_from_all_others(root, sound):
    rng = np.random.default_rng(1)
    rows = np.eye(32)[0] + 0.1 * rng.normal(size=(24, 32))
    rows[7] = np.eye(32)[9]
    report = check(make_library(root, sound, rows))
    assert [each.path[-6:] for each in report["outlier"]] == ["07.png"]


def test_damaged_and_missing_files_stop_nothing_and_are_told(root, sound):
    library = make_library(root, sound)
    (root / "a/00.png").write_bytes(b"no picture")
    (root / "b/01.png").unlink()
    report = check(library)
    (broken,) = report["unreadable"]
    assert broken.path.endswith("a/00.png")
    assert broken.note
    assert report.unchecked["missing files"].startswith("1 of 24")
    assert "b/01.png" in report.unchecked["missing files"]


def test_skipped_files_are_among_the_unreadable(root, sound, tmp_path):
    library = make_library(root, sound)
    (tmp_path / "outputs" / "skipped.csv").write_text("path,reason\nbad.jpg,the file is empty\n")
    (skipped,) = check(library)["unreadable"]
    assert (skipped.path, skipped.note, skipped.row) == ("bad.jpg", "the file is empty", None)


def test_without_any_originals_what_needs_none_is_checked():
    rng = np.random.default_rng(0)
    rows = np.eye(8)[np.arange(40) % 2] + 0.05 * rng.normal(size=(40, 8))
    library = ss.ImageLibrary(rows, [f"gone/{'ab'[i % 2]}/{i}.jpg" for i in range(40)])
    report = check(library)
    assert list(report) == ["unreadable", "outlier", "label"]
    assert report.unchecked["missing files"].startswith("40 of 40")
    with pytest.raises(ss.QueryError, match="was not checked"):
        report["dark"]


def test_one_picture_is_a_library(root):
    report = check(make_library(root, {"a.png": texture(0)}))
    assert report.total == 0
    assert set(report.unchecked) == {"leak", "outlier", "label"}


def test_pictures_that_are_all_alike_are_copies_and_no_outliers(root):
    pictures = {f"{i:02}.png": texture(0) for i in range(25)}
    report = check(make_library(root, pictures, np.ones((25, 4))))
    assert report.counts["exact_duplicate"] == 24
    assert report.total == 24


def test_folders_that_name_splits_are_no_labels(root):
    pictures = {f"{('train', 'test')[i % 2]}/{i:02}.png": texture(i) for i in range(24)}
    report = check(make_library(root, pictures))
    assert "label" not in report
    assert report["leak"] == ()


def test_rare_labels_and_pictures_without_one_are_said(root, sound):
    library = make_library(root, sound)
    labels = ["a", "b"] * 11 + ["rare", None]
    report = check(library, labels=labels)
    assert report.unchecked["label of some"].startswith("1 images have no label, and 1 one")
    assert not {22, 23} & {each.row for each in report["label"]}


@settings(max_examples=25, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(2, 40))
def test_the_order_of_rows_does_not_matter(random, count):
    rng = np.random.default_rng(random.randrange(1000))
    rows = rng.integers(-2, 3, (count, 3)) + 0.25  # many ties
    paths = [f"gone/{'abc'[i % 3]}/{i:02}.jpg" for i in range(count)]
    order = list(range(count))
    random.shuffle(order)
    one = check(ss.ImageLibrary(rows, paths))
    other = check(ss.ImageLibrary(rows[order], [paths[i] for i in order]))
    assert one.counts == other.counts
    for kind in one:
        assert [f._replace(row=0) for f in one[kind]] == [f._replace(row=0) for f in other[kind]]
    assert one.unchecked == other.unchecked


def test_the_second_run_reads_only_what_changed(root, sound, monkeypatch):
    library = make_library(root, sound)
    first = check(library)
    texture(99).save(root / "a/00.png")
    read = []
    measure = stored_quality.read_quality
    monkeypatch.setattr(
        stored_quality, "read_quality", lambda path: read.append(path) or measure(path)
    )
    second = check(library)
    assert [path[-8:] for path in read] == ["a/00.png"]
    assert first.counts == second.counts


@pytest.mark.parametrize("damage", [b"", b"nothing", None])
def test_damaged_measures_are_made_anew(root, sound, damage, tmp_path):
    library = make_library(root, sound | {"a/dark.png": texture(9).point(lambda v: v // 8)})
    first = check(library)
    file = tmp_path / "outputs" / "quality.npy"
    file.write_bytes(file.read_bytes()[:-7] if damage is None else damage)
    assert check(library).findings == first.findings


def test_thresholds_may_be_given(root, sound):
    library = make_library(root, sound)
    report = check(library, thresholds={"dark": 255})
    assert report.counts["dark"] == 24
    assert report.checks["dark"].threshold == 255
    scores = [each.score for each in report["dark"]]
    assert scores == sorted(scores)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"thresholds": {"drak": 3}}, "drak"),
        ({"thresholds": {"leak": 3}}, "leak"),
        ({"thresholds": {"dark": "low"}}, "give a number"),
        ({"thresholds": {"dark": float("nan")}}, "give a number"),
        ({"workers": 0}, "workers=0"),
        ({"labels": "brand"}, "brand"),
        ({"split": ["train"]}, "1 labels for 2 images"),
    ],
)
def test_what_makes_no_sense_is_refused(options, message):
    library = ss.ImageLibrary(np.eye(2), ["a.jpg", "b.jpg"])
    with pytest.raises(ss.QueryError, match=message):
        check(library, **options)


def test_something_else_is_no_library():
    with pytest.raises(ss.QueryError, match="str"):
        ss.check_dataset("outputs")


def test_the_report_is_a_table(root, sound, tmp_path):
    library = make_library(root, sound | {"=a.png": texture(9).point(lambda v: v // 8)})
    report = check(library)
    frame = report.to_frame()
    assert len(frame) == report.total
    assert list(frame.columns) == ["kind", "path", "score", "threshold", "other", "note", "row"]
    report.to_csv(tmp_path / "health.csv")
    with (tmp_path / "health.csv").open(newline="") as stream:
        lines = list(csv.DictReader(stream))
    assert [line["kind"] for line in lines] == frame["kind"].tolist()
    report.to_csv(tmp_path / "health")
    assert {file.stem for file in (tmp_path / "health").iterdir()} == set(report)
    with pytest.raises(ss.QueryError, match="cannot write"):
        report.to_csv(tmp_path / "none" / "health.csv")
    assert "<table>" in report._repr_html_()
    assert f"{len(report['dark']):,}" in str(report)
