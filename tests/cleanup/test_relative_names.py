"""Plans whose names are relative to a root, as the page exports them."""

import csv
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scenes import scene

import simsearch as ss
from simsearch.cleanup.relative_names import relative_name, resolved_name
from simsearch.cleanup.rules import plan_pair
from simsearch.cli.main import main
from simsearch.errors import QueryError


@pytest.fixture
def project(tmp_path):
    """A dataset of two pictures, each with a smaller copy, and its plan with relative names."""
    (tmp_path / "dataset/new").mkdir(parents=True)
    for seed in range(2):
        scene(seed).save(tmp_path / f"dataset/{seed}.png")
        scene(seed).resize((200, 150)).save(tmp_path / f"dataset/new/{seed}.png")
    paths = sorted(str(path) for path in (tmp_path / "dataset").rglob("*.png"))
    rows = np.eye(2)[[int(Path(path).stem) for path in paths]]
    plan = ss.plan_cleanup(ss.duplicates(ss.ImageLibrary(rows, paths)))
    for name in ("plan.csv", "plan.json"):
        plan.save(tmp_path / name, root=tmp_path / "dataset")
    return tmp_path


def names(project, folder="dataset"):
    root = project / folder
    found = (path for path in root.rglob("*.png") if ".simsearch-removed" not in path.parts)
    return sorted(path.relative_to(root).as_posix() for path in found)


@pytest.mark.parametrize("name", ["plan.csv", "plan.json"])
def test_relative_plan_is_applied_where_the_dataset_has_moved(project, capsys, name):
    text = (project / name).read_text()
    assert "new/0.png" in text
    assert str(project) not in text
    (project / "dataset").rename(project / "moved")
    moved = str(project / "moved")
    arguments = ["duplicates", "outputs", "--apply", str(project / name), "--root", moved, "--yes"]
    assert main(arguments) == 0
    assert "2 copies moved" in capsys.readouterr().out
    assert names(project, "moved") == ["0.png", "1.png"]
    ss.undo_cleanup(moved)
    assert names(project, "moved") == ["0.png", "1.png", "new/0.png", "new/1.png"]


def test_relative_plan_needs_a_root(project):
    with pytest.raises(QueryError, match=r"line 1: .* no root= \(--root\) is given"):
        ss.read_plan(project / "plan.csv")


@pytest.mark.parametrize("column", ["keep", "extra"])
@pytest.mark.parametrize("name", ["../outside.png", "new/../../outside.png", "", ".", "a\0b"])
def test_name_that_leads_out_of_the_root_is_refused(project, column, name):
    shutil.copy2(project / "dataset/new/0.png", project / "outside.png")
    with (project / "plan.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    rows[0][column] = name
    with (project / "bad.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    with pytest.raises(QueryError, match="no plan of a clean-up"):
        ss.read_plan(project / "bad.csv", project / "dataset")


def test_name_through_a_link_is_refused(project):
    (project / "dataset/new").rename(project / "elsewhere")
    (project / "dataset/new").symlink_to(project / "elsewhere")
    with pytest.raises(QueryError, match="leads through a link, 'new'"):
        ss.read_plan(project / "plan.csv", project / "dataset")


def test_file_that_changed_stays_though_its_name_is_relative(project):
    scene(5).save(project / "dataset/new/0.png")
    plan = ss.read_plan(project / "plan.csv", project / "dataset")
    result = ss.apply_cleanup(plan, project / "dataset", progress=False)
    assert [Path(path).name for path in result.moved] == ["1.png"]
    assert len(result.left) == 1
    assert names(project) == ["0.png", "1.png", "new/0.png"]


def test_plan_with_a_picture_outside_the_root_has_no_relative_names(project):
    plan = ss.read_plan(project / "plan.csv", project / "dataset")
    with pytest.raises(QueryError, match="does not lie below"):
        plan.save(project / "other.csv", root=project / "dataset/new")
    assert not (project / "other.csv").exists()


PART = st.one_of(st.sampled_from(["..", ".", "", "~", "link", "new", "C:", "\\"]), st.text())


@given(st.lists(PART, max_size=5).map("/".join), st.booleans())
@example("link/0.png", False)
@example("new/..", False)
def test_no_name_leads_out_of_the_root(tmp_path_factory, name, absolute):
    base = tmp_path_factory.getbasetemp() / "names"
    root = base / "root"
    if not root.exists():
        (root / "new").mkdir(parents=True)
        (root / "link").symlink_to(base)
    name = "/" + name if absolute else name
    try:
        path = resolved_name(name, root)
    except ValueError:
        return
    assert Path(path).is_relative_to(root)
    assert Path(os.path.realpath(os.path.normpath(path))).is_relative_to(root.resolve())
    assert Path(path) != root
    again = resolved_name(relative_name(path, root), root)
    assert again == path


def test_pair_is_planned_only_as_its_pixels_allow(project):
    whole, small = project / "dataset/0.png", project / "dataset/new/0.png"
    planned = plan_pair(7, str(small), str(whole), "chosen")
    assert (planned.group, planned.keep.path, planned.extra.path) == (7, str(small), str(whole))
    other = str(project / "dataset/1.png")
    assert "not confirmed" in plan_pair(1, str(whole), other, "chosen")
    part = project / "dataset/part.png"
    scene(0).crop((60, 45, 340, 255)).save(part)
    assert "is a part" in plan_pair(1, str(part), str(whole), "chosen")
    os.link(whole, project / "dataset/again.png")
    assert "further path" in plan_pair(1, str(whole), str(project / "dataset/again.png"), "chosen")
    assert "cannot be read" in plan_pair(1, str(project / "gone.png"), str(whole), "chosen")
