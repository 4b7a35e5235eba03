"""Files that moved, went, or are out of sight: what a run keeps, embeds again and says."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from dataset_cases import counts, paint, paint_forty
from tiny import tiny_backbone

import simsearch as ss
from simsearch.embedding.batching import embed_batches
from simsearch.library.skipped import read_skipped

FAR_FUTURE = 10**19  # ns, in the year 2286: more than an int64 holds


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    """Forty pictures in three folders, seen from the folder above."""
    monkeypatch.chdir(tmp_path)
    return paint_forty()


@pytest.fixture
def run(dataset):
    """Bring the library up to date; `run.embedded` lists how many files each run has read."""

    def embed(root=dataset, **options):
        def counting(sources, *args):
            embed.embedded.append(len(sources))
            return embed_batches(sources, *args)

        return ss.embed_dataset(
            root, "outputs", backbone, engine=counting, progress=False, **options
        )

    backbone, embed.embedded = tiny_backbone(), []
    return embed


def rows_by_name(library):
    return dict(zip(library.names, np.asarray(library.embeddings), strict=True))


# Known by content


def test_renamed_folder_and_touched_files_are_not_embedded_again(run, dataset):
    before = rows_by_name(run())
    (dataset / "a").rename(dataset / "z")
    library = run()
    assert (library.report.moved, library.report.removed) == (14, 0)
    for name, row in rows_by_name(library).items():
        np.testing.assert_array_equal(row, before[name.replace("z/", "a/")])
    for path in dataset.rglob("*.png"):
        os.utime(path)
    assert run().report.moved == 40
    assert run().report.moved == 0
    assert run.embedded == [40, 0, 0, 0]


def test_file_with_other_content_under_a_known_name_is_embedded_again(run, dataset):
    run()
    shutil.copyfile(dataset / "a" / "00.png", dataset / "swap")
    paint(dataset / "a" / "00.png", 777)
    library = run()
    assert run.embedded == [40, 1]
    expected = ss.embed_images(str(dataset / "a" / "00.png"), tiny_backbone())[0]
    np.testing.assert_allclose(rows_by_name(library)["a/00.png"], expected, atol=1e-6)


def test_file_of_the_same_name_size_and_time_is_not_read_again(run, dataset):
    run()
    status = (dataset / "a" / "00.png").stat()
    (dataset / "a" / "00.png").write_bytes(b"x" * status.st_size)
    os.utime(dataset / "a" / "00.png", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert "a/00.png" in run().names
    os.utime(dataset / "a" / "00.png")
    assert "a/00.png" not in run().names


def test_two_files_that_swap_their_names_swap_their_rows(run, dataset):
    before = rows_by_name(run())
    one, two, other = dataset / "a" / "00.png", dataset / "b" / "01.png", dataset / "x"
    one.rename(other)
    two.rename(one)
    other.rename(two)
    os.utime(one)
    os.utime(two)
    after = rows_by_name(run())
    np.testing.assert_array_equal(after["a/00.png"], before["b/01.png"])
    np.testing.assert_array_equal(after["b/01.png"], before["a/00.png"])
    assert run.embedded == [40, 0]


def test_library_of_an_older_version_learns_the_content_of_its_files(run, dataset):
    library = run()
    library.digests = None
    library.save("outputs")
    assert not Path("outputs/file_digests.npy").exists()
    assert run().report.reused == 40
    assert ss.ImageLibrary.load("outputs").digests.any(axis=1).all()
    (dataset / "a").rename(dataset / "z")
    assert run().report.moved == 14
    assert run.embedded == [40, 0, 0]


def test_file_that_changes_while_it_is_read_has_no_digest(dataset):
    from simsearch.files import digest_unchanged, modified_ns

    file = dataset / "a" / "00.png"
    status = file.stat()
    assert len(digest_unchanged(file, status.st_size, modified_ns(status))) == 16
    assert digest_unchanged(file, status.st_size, modified_ns(status) + 1) == b""
    assert digest_unchanged(dataset / "nowhere", 1, 1) == b""


# Times, names and lengths


@pytest.mark.parametrize("time", [FAR_FUTURE, -(10**18), 0])
def test_any_file_time_is_recorded_and_a_change_is_seen(run, dataset, time):
    file = dataset / "a" / "00.png"
    os.utime(file, ns=(time, time))
    if file.stat().st_mtime_ns != time:
        pytest.skip("this file system cannot hold such a time")
    library = run()
    assert library.is_current(0)
    paint(file, 500)
    os.utime(file, ns=(time + 10**9, time + 10**9))
    assert not library.is_current(0)
    run()
    run()
    assert run.embedded == [40, 1, 0]


def test_path_of_more_than_1024_characters_is_left_out_with_its_reason(run, dataset):
    deep = "/".join(["d" * 200] * 6)
    paint(dataset / deep / "long.png", 90)
    paint(dataset / "d" / "short.png", 91)
    library = run()
    assert len(library) == 41
    assert max(map(len, library.paths)) < 1024
    assert read_skipped("outputs") == [
        (f"dataset/{deep}/long.png", "its path is longer than 1,024 characters")
    ]
    assert library.report.left_out == {"its path is longer than N characters": 1}


# Out of sight


def refuse(monkeypatch, folder, error):
    """Let the folder be there, and be unreadable."""
    scandir, stat = os.scandir, Path.stat

    def scan(path):
        if str(path).rstrip("/").endswith(folder):
            raise error
        return scandir(path)

    def status(self, **options):
        if f"/{folder}/" in self.as_posix():
            raise error
        return stat(self, **options)

    monkeypatch.setattr(os, "scandir", scan)
    monkeypatch.setattr(Path, "stat", status)


@pytest.mark.parametrize("code", [5, 13, 116])  # an I/O error, no permission, a stale NFS handle
def test_rows_in_a_folder_that_cannot_be_read_this_once_are_kept(run, dataset, code, caplog):
    before = rows_by_name(run())
    paint(dataset / "a" / "new.png", 99)
    with pytest.MonkeyPatch.context() as patch:
        refuse(patch, "b", OSError(code, os.strerror(code)))
        library = run()
    report = library.report
    assert (report.embedded, report.kept, report.removed) == (1, 13, 0)
    assert report.kept_reasons == {"in folders that cannot be read": 13}
    assert report.left_out == {"unreadable folder": 1}
    assert "13 in folders that cannot be read" in caplog.text
    for name, row in rows_by_name(library).items():
        if name != "a/new.png":
            np.testing.assert_array_equal(row, before[name])
    assert run().report.kept == 0
    assert run.embedded == [40, 1, 0]


def test_rows_of_a_top_folder_that_has_become_empty_are_kept(run, dataset, caplog):
    run()
    shutil.rmtree(dataset / "b")
    (dataset / "b").mkdir()  # as where a disk was mounted
    library = run()
    assert library.report.kept_reasons == {"of folders that have become empty": 13}
    assert len(library) == 40
    assert "allow_shrink=True (--allow-shrink)" in caplog.text
    library = run(allow_shrink=True)
    assert (len(library), library.report.removed) == (27, 13)


def test_more_than_half_of_the_rows_are_not_dropped(run, dataset):
    run()
    shutil.rmtree(dataset / "b")
    assert run().report.removed == 13  # a folder that is gone, and less than half
    paint(dataset / "c" / "new.png", 98)
    shutil.rmtree(dataset / "a")
    library = run()
    assert (len(library), library.report.embedded, library.report.kept) == (28, 1, 14)
    assert library.report.kept_reasons == {"gone, which are more than half": 14}
    assert len(run(allow_shrink=True)) == 14


def test_an_empty_root_is_refused_and_loses_nothing(run, dataset):
    run()
    shutil.rmtree(dataset)
    dataset.mkdir()
    for options in ({}, {"allow_shrink": True}):
        with pytest.raises(ss.DatasetError, match="no images below 'dataset'"):
            run(**options)
    assert len(ss.ImageLibrary.as_stored("outputs")) == 40


def test_rows_behind_a_link_that_leads_nowhere_are_kept(run, dataset, tmp_path):
    (tmp_path / "disk").mkdir()
    (dataset / "b").rename(tmp_path / "disk" / "b")
    (dataset / "a" / "linked").symlink_to(tmp_path / "disk" / "b")
    assert "a/linked/01.png" in run(follow=[str(tmp_path / "disk")]).names
    (tmp_path / "disk").rename(tmp_path / "unplugged")
    assert run().report.kept_reasons == {"behind links that lead nowhere": 13}


def test_file_that_is_gone_loses_its_row(run, dataset):
    run()
    (dataset / "a" / "00.png").unlink()
    assert (run().report.removed, len(run())) == (1, 39)


def test_another_backbone_does_not_replace_rows_that_are_out_of_sight(run, dataset):
    run()
    with pytest.MonkeyPatch.context() as patch:
        refuse(patch, "b", PermissionError(13, "Permission denied"))
        with pytest.raises(ss.DatasetError, match="13 in folders that cannot be read"):
            ss.embed_dataset(dataset, "outputs", tiny_backbone(seed=1), progress=False)
    assert len(ss.ImageLibrary.load("outputs")) == 40


def test_another_dataset_replaces_the_library(run, dataset):
    run()
    for i in range(3):
        paint(Path("other") / f"{i}.png", 200 + i)
    library = run("other")
    assert library.names == ["0.png", "1.png", "2.png"]
    assert (library.report.removed, library.report.kept) == (40, 0)


# What is said


def test_report_counts_what_was_left_out_by_kind(run, dataset, capsys):
    (dataset / "empty.png").touch()
    (dataset / "empty too.png").touch()
    (dataset / "link.png").symlink_to("nowhere")
    report = run().report
    assert (report.embedded, report.reused, report.skipped) == (40, 0, 3)
    assert report.left_out == {"the file is empty": 2, "no such file or directory": 1}
    (dataset / "a").rename(dataset / "z")
    ss.embed_dataset(dataset, "outputs", tiny_backbone())
    said = capsys.readouterr().out
    assert "skipped: 2 the file is empty, 1 no such file or directory\n" in said
    assert "reused: 14 renamed, moved or touched" in said
    loaded = ss.ImageLibrary.load("outputs").report
    assert (loaded.reused, loaded.left_out) == (40, report.left_out)


def test_summary_counts_a_renamed_file_as_reused(run, dataset, capsys):
    run()
    (dataset / "a" / "00.png").rename(dataset / "b" / "zz.png")
    (dataset / "a" / "03.png").unlink()
    ss.embed_dataset(dataset, "outputs", tiny_backbone())
    assert counts(capsys) == (0, 39, 1, 0)
