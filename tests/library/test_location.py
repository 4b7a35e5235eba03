"""Where a library finds its images: from another folder, after a move, beside files alike."""

import json
import logging
import shutil
from pathlib import Path

import pytest
from dataset_cases import paint
from tiny import tiny_backbone

import simsearch as ss


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project with a dataset of six pictures and its library, made from the project's folder."""
    folder = tmp_path / "one"
    folder.mkdir()
    monkeypatch.chdir(folder)
    for i in range(6):
        paint(Path("photos") / f"{i}.png", i)
    ss.embed_dataset("photos", "out", tiny_backbone(), progress=False)
    return folder


def load(outputs, **options):
    return ss.ImageLibrary.load(outputs, backbone=tiny_backbone(), **options)


def test_paths_stay_as_given_in_the_folder_of_the_notebook(project):
    assert load("out").paths[1] == "photos/1.png"
    assert load("out").root == "photos"


def test_library_opened_from_another_folder_finds_its_files(project, monkeypatch):
    monkeypatch.chdir("/")
    library = load(project / "out")
    assert all(Path(path).is_file() for path in library.paths)
    answer = ss.search(library, str(project / "photos" / "1.png"), k=5)
    assert len(answer) == 5
    assert 1 not in [match.row for match in answer]  # the picture does not find itself
    stored = ss.ImageLibrary.as_stored(project / "out")
    assert stored.paths[1] == "photos/1.png"  # on the disk they are as they were given


def test_file_of_the_same_name_elsewhere_is_not_taken_for_a_row(project, monkeypatch, tmp_path):
    backup = tmp_path / "two"
    paint(backup / "photos" / "1.png", 50)
    monkeypatch.chdir(backup)
    library = load(project / "out")
    assert library.find("photos/1.png") is None
    assert library.find(project / "photos" / "1.png") == 1
    assert {match.row for match in ss.search(library, "photos/1.png", k=6)} == set(range(6))


@pytest.mark.parametrize("here", [".", "/"])
def test_project_that_moved_as_a_whole_finds_its_files(
    project, monkeypatch, tmp_path, here, caplog
):
    shutil.move(project, tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path / "elsewhere" / here)
    library = load(tmp_path / "elsewhere" / "out")
    assert all(Path(path).is_file() for path in library.paths)
    assert caplog.text == ""


def test_missing_dataset_is_said_with_what_mends_it(project, monkeypatch, tmp_path, caplog):
    shutil.move(project / "photos", tmp_path / "gone")
    monkeypatch.chdir("/")
    library = load(project / "out")
    assert library.paths[1] == f"{project.as_posix()}/photos/1.png"
    assert "6 of 6 images of the library that were looked for are not there" in caplog.text
    assert "root=" in caplog.text
    caplog.clear()
    library = load(project / "out", root=tmp_path / "gone")
    assert all(Path(path).is_file() for path in library.paths)
    assert caplog.text == ""


def test_some_missing_files_are_said(project, caplog):
    (project / "photos" / "5.png").unlink()
    load("out")
    assert "1 of 6 images" in caplog.text
    assert "photos/5.png" in caplog.text


def test_folder_with_other_files_of_the_same_names_is_not_the_dataset(
    project, monkeypatch, tmp_path, caplog
):
    """The dataset is away, and where the program runs lies one that looks like it."""
    shutil.move(project / "photos", tmp_path / "gone")
    for i in range(6):
        Path(tmp_path / "photos").mkdir(exist_ok=True)
        (tmp_path / "photos" / f"{i}.png").write_bytes(b"another file")
    monkeypatch.chdir(tmp_path)
    assert load(project / "out").find("photos/1.png") is None
    assert "are not there" in caplog.text


def test_manifest_of_an_older_version_opens(project, monkeypatch, caplog):
    file = project / "out" / "manifest.json"
    manifest = json.loads(file.read_text())
    assert manifest.pop("absolute_root") == f"{project.as_posix()}/photos"
    file.write_text(json.dumps(manifest))
    assert load("out").paths[1] == "photos/1.png"
    monkeypatch.chdir("/")
    assert all(Path(path).is_file() for path in load(project / "out").paths)  # beside the outputs
    assert caplog.text == ""
    monkeypatch.chdir(project)
    ss.embed_dataset("photos", "out", tiny_backbone(), progress=False)
    assert "absolute_root" in json.loads(file.read_text())


def test_update_from_another_folder_embeds_nothing_again(project, monkeypatch, caplog):
    monkeypatch.chdir("/")
    caplog.set_level(logging.INFO)
    library = ss.embed_dataset(project / "photos", project / "out", tiny_backbone(), progress=False)
    assert (library.report.embedded, library.report.reused) == (0, 6)


def test_library_stays_with_its_files_when_the_current_folder_changes(
    project, monkeypatch, tmp_path
):
    backup = tmp_path / "two"
    paint(backup / "photos" / "1.png", 50)
    made = ss.embed_dataset("photos", "out", tiny_backbone(), progress=False)
    plain = ss.ImageLibrary(made.embeddings, made.paths, tiny_backbone())
    for library in (made, load("out"), plain):
        monkeypatch.chdir(project)
        names = library.names
        assert library.paths[1] == "photos/1.png"
        monkeypatch.chdir(backup)
        assert library.find("photos/1.png") is None
        assert library.find(project / "photos" / "1.png") == 1
        assert library.is_current(1)
        assert library.names == names
        found = ss.search(library, str(project / "photos" / "1.png"), k=5)
        assert 1 not in found.rows
        assert all((project / "photos").samefile(Path(path).parent) for path in found.paths)
        library.save(tmp_path / "saved")  # from here
        monkeypatch.chdir("/")
        assert [Path(path).is_file() for path in load(tmp_path / "saved").paths] == [True] * 6


def test_library_without_a_root_is_found_from_another_folder(
    project, monkeypatch, tmp_path, caplog
):
    made = load("out")
    ss.ImageLibrary(made.embeddings, made.paths, tiny_backbone()).save("plain")
    whole = [project / path for path in made.paths]
    ss.ImageLibrary(made.embeddings, whole, tiny_backbone()).save("whole")
    monkeypatch.chdir("/")
    for name in ("plain", "whole"):
        library = load(project / name)
        assert 1 not in ss.search(library, str(project / "photos" / "1.png"), k=5).rows
        assert all(Path(path).is_file() for path in library.paths)
    assert not caplog.messages
    shutil.move(project / "photos", tmp_path / "gone")
    for name in ("plain", "whole"):
        caplog.clear()
        load(project / name)
        assert "6 of 6 images" in caplog.text


def test_path_of_a_file_is_found_in_a_library_of_a_file_uri(project):
    root = (project / "photos").as_uri()
    library = ss.embed_dataset(root, "uri", tiny_backbone(), progress=False)
    for query in ("photos/1.png", str(project / "photos" / "1.png"), f"{root}/1.png"):
        assert library.find(query) == 1
