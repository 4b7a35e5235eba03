"""A clean-up against hostile plans, other clean-ups at the same time, and links put in place."""

import fcntl
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from scenes import scene

import simsearch as ss
from simsearch.cleanup import apply
from simsearch.errors import QueryError


@pytest.fixture
def root(tmp_path):
    """A picture, its copy of equal bytes, and a smaller one."""
    root = tmp_path / "dataset"
    root.mkdir()
    scene(0).save(root / "a.png")
    shutil.copy(root / "a.png", root / "b.png")
    scene(0).resize((200, 150)).save(root / "c.png")
    return root


@pytest.fixture
def plan(root):
    library = ss.ImageLibrary(np.ones((3, 1)), sorted(root.iterdir()))
    return ss.plan_cleanup(ss.duplicates(library, progress=False))


def carry_out(plan, root, **options):
    return ss.apply_cleanup(plan, root, progress=False, **options)


def test_a_link_in_the_old_place_does_not_cost_the_picture(root, plan):
    """Somebody put a link to the moved picture where it was."""
    result = carry_out(plan, root)
    for path in result.moved:
        Path(path).symlink_to(Path(result.folder) / Path(path).name)
    undone = ss.undo_cleanup(root)
    assert set(undone.left) == set(result.moved)
    assert all((Path(result.folder) / Path(path).name).is_file() for path in result.moved)
    for path in result.moved:
        Path(path).unlink()
    assert set(ss.undo_cleanup(root).restored) == set(result.moved)


def test_one_clean_up_of_a_folder_at_a_time(root, plan):
    """Two with opposite plans could each move what the other one keeps."""
    number = os.open(root, os.O_RDONLY)
    fcntl.flock(number, fcntl.LOCK_EX)
    for act in (lambda: carry_out(plan, root), lambda: ss.undo_cleanup(root)):
        with pytest.raises(QueryError, match="another clean-up"):
            act()
    os.close(number)
    assert len(carry_out(plan, root).moved) == 2


def test_what_stays_is_looked_at_before_each_move(root, plan, monkeypatch):
    real = apply.rename_to_free_place

    def delete_what_stays(source, target):
        real(source, target)
        Path(plan[0].keep.path).unlink()

    monkeypatch.setattr(apply, "rename_to_free_place", delete_what_stays)
    result = carry_out(plan, root)
    assert len(result.moved) == 1
    assert "has changed just now" in next(iter(result.left.values()))


def test_a_trash_that_fails_is_said(root, plan, monkeypatch):
    def fail(path):
        raise RuntimeError("no trash on this volume")

    monkeypatch.setattr("send2trash.send2trash", fail)
    with pytest.raises(QueryError, match=r"no trash on this volume.*0 were sent"):
        carry_out(plan, root, to_trash=True)
    assert len(list(root.iterdir())) == 3


@pytest.mark.parametrize("number", ["1e999", "-Infinity", "NaN", "[]", "null", '"x"', "9" * 5000])
def test_absurd_numbers_in_a_plan_are_one_error(tmp_path, plan, number):
    file = tmp_path / "plan.json"
    plan.save(file)
    size = str(plan[0].extra.bytes)
    file.write_text(file.read_text().replace(f" {size},", f" {number},"))
    with pytest.raises(QueryError, match="no plan of a clean-up"):
        ss.read_plan(file)


def test_a_deep_plan_is_one_error(tmp_path):
    file = tmp_path / "plan.json"
    file.write_text("[" * 200_000)
    with pytest.raises(QueryError, match="no plan of a clean-up"):
        ss.read_plan(file)


def test_a_folder_that_cannot_be_written_moves_nothing(root, plan):
    root.chmod(0o500)
    try:
        if os.access(root, os.W_OK):
            pytest.skip("nothing is read-only for this user")
        with pytest.raises(QueryError, match="cannot move"):
            carry_out(plan, root)
        assert len(list(root.iterdir())) == 3
    finally:
        root.chmod(0o700)


def test_a_protected_folder_is_known_by_any_path(root, tmp_path):
    """The library was made through a link, and the folder is named without it; and the reverse."""
    link = tmp_path / "link"
    link.symlink_to(root)
    for seen, named in ((link, root), (root, link)):
        library = ss.ImageLibrary(np.ones((3, 1)), sorted(seen.glob("*.png")))
        found = ss.duplicates(library, progress=False)
        assert len(ss.plan_cleanup(found)) == 2
        plan = ss.plan_cleanup(found, protect=str(named))
        assert plan.copies == ()
        assert plan.left == {"in a protected folder": 2}


def test_folders_that_are_not_there_are_refused(root):
    for rule in ({"keep": ["gone"]}, {"protect": "gone"}, {"protect": [str(root), "gone"]}):
        with pytest.raises(QueryError, match="'gone': there is no such folder"):
            ss.plan_cleanup([], **rule)


def test_pictures_in_no_listed_folder_stay_for_another_reason(root, tmp_path):
    library = ss.ImageLibrary(np.ones((3, 1)), sorted(root.glob("*.png")))
    found = ss.duplicates(library, progress=False)
    for folder, reason in ((tmp_path, "its folder comes first"), (root / "x", "it is the largest")):
        folder.mkdir(exist_ok=True)
        plan = ss.plan_cleanup(found, keep=[str(folder)])
        assert {copy.reason for copy in plan} == {reason}


def crop(image, share):
    """Cut the middle out of a picture."""
    x, y = (round(side * (1 - share) / 2) for side in image.size)
    return image.crop((x, y, image.width - x, image.height - y))


@pytest.mark.parametrize(
    ("part", "goes"),
    [(1.0, True), (1.6, False)],  # sides of the part, in those that it has in the whole
)
def test_a_whole_picture_never_goes_for_a_part_of_it(tmp_path, part, goes):
    """A part may go, unless it has more pixels than the whole has there; that keeps both."""
    whole, inner = scene(3, (600, 450)), crop(scene(3, (600, 450)), 0.8)
    whole.save(tmp_path / "whole.png")
    inner.resize([round(side * part) for side in inner.size]).save(tmp_path / "part.png")
    library = ss.ImageLibrary(np.ones((2, 1)), sorted(tmp_path.glob("*.png")))
    found = ss.duplicates(library, progress=False)
    assert len(found) == 1
    for rule in ("largest", "oldest"):
        os.utime(tmp_path / "part.png", (1, 1))  # so that by age it would stay
        plan = ss.plan_cleanup(found, keep=rule)
        if goes and rule == "largest":
            assert [Path(copy.extra.path).name for copy in plan] == ["part.png"]
        else:
            assert plan.copies == ()
            assert "is a part" in next(iter(plan.left))
    similar = ss.plan_cleanup(ss.duplicates(library, level="similar", progress=False))
    files = {Path(each.path).name: each for each in (similar[0].keep, similar[0].extra)}
    forged = ss.PlannedCopy(1, files["part.png"], files["whole.png"], "near", "crop", "")
    result = carry_out(ss.CleanupPlan((forged,)), tmp_path)
    assert result.moved == ()
    assert "is a part of it" in next(iter(result.left.values()))
