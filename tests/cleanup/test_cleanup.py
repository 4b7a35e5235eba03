"""Plans of a clean-up, carried out and undone, with faults injected on the way."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scenes import scene

import simsearch as ss
from simsearch.cleanup import apply, journal
from simsearch.cleanup.journal import JOURNAL, REMOVED
from simsearch.errors import LibraryError, QueryError
from simsearch.images.compare import compare_files

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Three pictures, each with a smaller copy and one of equal bytes, in folders."""
    root = tmp_path_factory.mktemp("pictures") / "dataset"
    for folder in ("masters", "inbox/new", "old"):
        (root / folder).mkdir(parents=True)
    for seed in range(3):
        scene(seed).save(root / f"masters/{seed}.png")
        scene(seed).resize((200, 150)).save(root / f"inbox/new/small {seed}.png")
        shutil.copy(root / f"masters/{seed}.png", root / f"old/{seed}.png")
        os.utime(root / f"old/{seed}.png", (1e9, 1e9))
    return root


@pytest.fixture
def root(pictures, tmp_path):
    return Path(shutil.copytree(pictures, tmp_path / "dataset"))


def library_of(root):
    paths = sorted(path for path in root.rglob("*.png") if REMOVED not in path.parts)
    seeds = [int(path.name[path.name.index(".") - 1]) for path in paths]
    return ss.ImageLibrary(np.eye(3)[seeds], paths)


def found_in(root, **options):
    return ss.duplicates(library_of(root), progress=False, **options)


def plan_of(root, **rules):
    return ss.plan_cleanup(found_in(root), **rules)


def carry_out(plan, root, **options):
    return ss.apply_cleanup(plan, root, progress=False, **options)


def contents(root):
    """Bytes, time and kind of everything below a folder."""
    return {
        path.relative_to(root).as_posix(): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def extras(plan, root):
    return sorted(Path(copy.extra.path).relative_to(root).as_posix() for copy in plan)


class TestPlan:
    def test_the_largest_stays(self, root):
        plan = plan_of(root)
        assert len(plan) == 6
        assert {Path(copy.keep.path).parent.name for copy in plan} == {"old"}  # equal, and older
        assert {copy.level for copy in plan} == {"near", "identical"}
        assert plan.bytes == sum(Path(copy.extra.path).stat().st_size for copy in plan)

    def test_the_oldest_stays(self, root):
        for seed in range(3):
            os.utime(root / f"inbox/new/small {seed}.png", (9e8, 9e8))
        plan = plan_of(root, keep="oldest")
        assert {Path(copy.keep.path).name[:5] for copy in plan} == {"small"}
        assert extras(plan, root) == [f"{f}/{i}.png" for f in ("masters", "old") for i in range(3)]
        assert {copy.reason for copy in plan} == {"it is the oldest"}

    def test_the_first_folder_stays(self, root):
        plan = plan_of(root, keep=[f"{root}/inbox", f"{root}/masters"])
        assert {Path(copy.keep.path).name[:5] for copy in plan} == {"small"}
        assert len(plan) == 6

    def test_nothing_in_a_protected_folder_is_an_extra(self, root):
        plan = plan_of(root, protect=[f"{root}/inbox", f"{root}/masters"])
        assert extras(plan, root) == [f"old/{i}.png" for i in range(3)]
        assert plan.left == {"in a protected folder": 3}
        assert plan_of(root, protect=str(root)).copies == ()

    def test_a_copy_of_the_first_alone_is_compared_with_what_stays(self, root):
        """By a rule another picture stays than that with which all were compared."""
        for seed in range(3):
            scene(seed).resize((360, 270)).save(root / f"masters/left {seed}.png")
        group = ss.DuplicateGroup(
            tuple(range(3)),
            tuple(str(root / each) for each in ("old/0.png", "masters/left 0.png", "old/1.png")),
            (1.0, 1.0, 1.0),
            ("", "near", "near"),
            ("", "resized", "resized"),
        )
        plan = ss.plan_cleanup([group], keep=[f"{root}/masters"])
        assert extras(plan, root) == ["old/0.png"]
        assert plan.left == {"not confirmed as a copy of the picture that stays": 1}

    @pytest.mark.parametrize("keep", ["biggest", [], ""])
    def test_unknown_rules_are_refused(self, root, keep):
        with pytest.raises(QueryError, match="keep="):
            ss.plan_cleanup([], keep=keep)

    def test_links_are_in_no_plan(self, root):
        before = len(plan_of(root))
        (root / "link 0.png").symlink_to(root / "old/0.png")
        os.link(root / "old/1.png", root / "hard 1.png")
        plan = plan_of(root)
        assert plan.left == {"further paths of one file": 2}
        assert len(extras(plan, root)) == before
        assert {Path(copy.extra.path).stat().st_ino for copy in plan}.isdisjoint(
            Path(copy.keep.path).stat().st_ino for copy in plan
        )

    @pytest.mark.parametrize("name", ["plan.csv", "plan.json"])
    def test_a_saved_plan_is_read_as_it_was(self, root, tmp_path, name):
        odd = root / os.fsdecode(b"=1+1 0.\xff.png")
        shutil.copy(root / "masters/0.png", odd)
        plan = plan_of(root)
        assert str(odd) in {copy.extra.path for copy in plan}
        plan.save(tmp_path / name)
        assert ss.read_plan(tmp_path / name).copies == plan.copies
        assert str(plan).startswith("7 copies of 3 pictures may go")

    @pytest.mark.parametrize(
        "text", ["", "a,b\n1,2\n", "{}", '{"format": 1}', "group,keep\n", "\x00"]
    )
    @pytest.mark.parametrize("name", ["plan.csv", "plan.json"])
    def test_other_files_are_no_plans(self, tmp_path, name, text):
        (tmp_path / name).write_text(text)
        with pytest.raises(QueryError, match="no plan of a clean-up"):
            ss.read_plan(tmp_path / name)
        with pytest.raises(QueryError, match="cannot read"):
            ss.read_plan(tmp_path / "gone.csv")


class TestApplied:
    def test_copies_are_moved_and_come_back(self, root):
        before = contents(root)
        result = carry_out(plan_of(root), root)
        assert len(result.moved) == 6
        assert result.left == {}
        assert [path for path in contents(root) if not path.startswith(REMOVED)] == [
            f"old/{i}.png" for i in range(3)
        ]
        assert str(result).startswith(f"6 copies moved to {root}/{REMOVED}/2")
        assert len(ss.find_images(root)[0]) == 3
        undone = ss.undo_cleanup(root)
        assert sorted(undone.restored) == sorted(result.moved)
        assert contents(root) == before
        assert not (root / REMOVED).exists()
        assert str(ss.undo_cleanup(root)) == "0 files brought back"

    def test_several_clean_ups_come_back_together(self, root):
        before = contents(root)
        plan = plan_of(root)
        for copy in plan:
            carry_out(ss.CleanupPlan((copy,)), root)
        assert len(list((root / REMOVED).iterdir())) == 6
        assert len(ss.undo_cleanup(root).restored) == 6
        assert contents(root) == before

    def test_to_the_trash(self, root, monkeypatch):
        sent = []
        monkeypatch.setattr("send2trash.send2trash", sent.append)
        plan = plan_of(root)
        result = carry_out(plan, root, to_trash=True)
        assert sent == list(result.moved) == [copy.extra.path for copy in plan]
        assert result.folder == ""
        assert not (root / REMOVED).exists()

    def test_without_a_trash(self, root, monkeypatch):
        monkeypatch.setitem(sys.modules, "send2trash", None)
        with pytest.raises(ss.MissingExtraError, match=r"simsearch\[trash\]"):
            carry_out(plan_of(root), root, to_trash=True)


def change(path):
    """Change one byte, and keep size and time."""
    status, data = path.stat(), bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def put_link(path):
    path.rename(path.parents[1] / "elsewhere.png")
    path.symlink_to(path.parents[1] / "elsewhere.png")


def link_folder(path):
    path.parent.rename(path.parents[1] / "real")
    path.parent.symlink_to(path.parents[1] / "real")


FAULTS = {
    "gone": (lambda extra, keep: extra.unlink(), "it is not there"),
    "changed": (lambda extra, keep: change(extra), "has changed since the plan"),
    "touched": (lambda extra, keep: os.utime(extra), "has changed since the plan"),
    "a link": (lambda extra, keep: put_link(extra), "no plain file"),
    "behind a link": (lambda extra, keep: link_folder(extra), "behind a link"),
    "a folder": (lambda extra, keep: (extra.unlink(), extra.mkdir()), "no plain file"),
    "keep gone": (lambda extra, keep: keep.unlink(), "that stays is not there"),
    "keep changed": (lambda extra, keep: change(keep), "that stays has changed"),
    "keep linked": (
        lambda extra, keep: (keep.unlink(), keep.symlink_to(extra)),
        "an extra itself",
    ),
    "keep hard-linked": (
        lambda extra, keep: (keep.unlink(), os.link(extra, keep)),
        "an extra itself",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_group_with_a_fault_stays_whole(root, fault):
    plan = plan_of(root)
    group = plan.groups()[0]
    act, reason = FAULTS[fault]
    act(Path(group[-1].extra.path), Path(group[-1].keep.path))
    before = contents(root)
    result = carry_out(plan, root)
    assert set(result.left) >= {copy.extra.path for copy in group}
    assert all(reason in text for text in result.left.values())
    assert len(result.moved) == (0 if fault == "behind a link" else 4)
    ss.undo_cleanup(root)
    assert contents(root) == before


@pytest.mark.parametrize("place", ["/etc/passwd", "../other.png", "x/../../other.png", "."])
def test_nothing_outside_the_root_is_touched(root, place):
    shutil.copy(root / "masters/0.png", root.parent / "other.png")
    plan = plan_of(root)
    first = plan[0]
    extra = first.extra._replace(path=place if place[0] == "/" else f"{root}/{place}")
    forged = ss.CleanupPlan((ss.PlannedCopy(1, first.keep, extra, "identical", "", ""),))
    result = carry_out(forged, root)
    assert result.moved == ()
    assert "below" in result.left[extra.path]
    assert (root.parent / "other.png").exists()


def test_forged_plans_move_no_other_picture(root):
    """Whose keeper is an extra, whose extra stands twice, or whose pictures are unlike."""
    a = plan_of(root)[0]
    unlike = next(copy for copy in plan_of(root) if copy.group != a.group)
    swapped = ss.PlannedCopy(1, a.extra, a.keep, "near", "", "")
    for copies in (
        (a, swapped),
        (a, a),
        (ss.PlannedCopy(1, a.keep, unlike.extra, "near", "", ""),),
    ):
        before = contents(root)
        result = carry_out(ss.CleanupPlan(copies), root)
        assert result.moved == ()
        assert result.left
        assert contents(root) == before


def test_an_unconfirmed_likeness_is_left(root):
    """A plan of level "similar": embeddings alone said so."""
    library = ss.ImageLibrary([[1, 0], [1, 0]], [root / "masters/0.png", root / "masters/1.png"])
    found = ss.duplicates(library, level="similar", progress=False)
    result = carry_out(ss.plan_cleanup(found), root)
    assert "not confirmed" in next(iter(result.left.values()))


KILLED = """
import os, signal, sys
import simsearch as ss
from simsearch.cleanup import apply, journal
step, plan, root = sys.argv[1:]
module, name, after = {
    "before": (apply, "rename_to_free_place", False),
    "after": (apply, "rename_to_free_place", True),
    "between": (journal.os, "link", True),
    "journal": (apply.os, "fsync", False),
}[step]
real, calls = getattr(module, name), []
def deadly(*args, **options):
    calls.append(args)
    if len(calls) == 2 and not after:
        os.kill(os.getpid(), signal.SIGKILL)
    result = real(*args, **options)
    if len(calls) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return result
setattr(module, name, deadly)
ss.apply_cleanup(ss.read_plan(plan), root, progress=False)
"""


@pytest.mark.parametrize("step", ["before", "after", "between", "journal"])
def test_a_killed_clean_up_comes_back_whole(root, tmp_path, step):
    before = contents(root)
    plan_of(root).save(tmp_path / "plan.csv")
    command = [sys.executable, "-c", KILLED, step, tmp_path / "plan.csv", root]
    done = subprocess.run(command, cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    assert contents(root) != before
    assert ss.undo_cleanup(root).left == {}
    assert contents(root) == before


def test_undo_overwrites_nothing(root):
    plan = plan_of(root)
    carry_out(plan, root)
    blocked = Path(plan[0].extra.path)
    blocked.write_bytes(b"mine")
    result = ss.undo_cleanup(root)
    assert result.left == {str(blocked): "another file is in its place"}
    assert len(result.restored) == 5
    assert blocked.read_bytes() == b"mine"
    blocked.unlink()
    assert ss.undo_cleanup(root).restored == (str(blocked),)


def test_undo_makes_folders_that_are_gone(root):
    before = contents(root)
    carry_out(plan_of(root), root)
    shutil.rmtree(root / "inbox")
    ss.undo_cleanup(root)
    assert contents(root) == before


@pytest.mark.parametrize("name", ["../../other.png", "/tmp/other.png", "", "a/../../../x"])
def test_a_forged_journal_leads_nowhere(root, name):
    place = root / REMOVED / "2026"
    place.mkdir(parents=True)
    (place / JOURNAL).write_text(json.dumps({"path": name}) + "\n")
    with pytest.raises(QueryError, match="leads out of its root"):
        ss.undo_cleanup(root)


def test_links_in_place_of_our_folders_are_not_followed(root, tmp_path):
    plan = plan_of(root)
    (tmp_path / "away").mkdir()
    (root / REMOVED).symlink_to(tmp_path / "away")
    with pytest.raises(QueryError, match="is a link"):
        carry_out(plan, root)
    with pytest.raises(QueryError, match="is a link"):
        ss.undo_cleanup(root)
    assert list((tmp_path / "away").iterdir()) == []


def test_a_full_disk_is_said_and_can_be_undone(root, monkeypatch):
    before = contents(root)
    real, calls = journal.rename_to_free_place, []

    def full(source, target):
        calls.append(source)
        if len(calls) == 3:
            raise OSError(28, "No space left on device")
        real(source, target)

    monkeypatch.setattr(apply, "rename_to_free_place", full)
    with pytest.raises(QueryError, match=r"No space left.*--undo"):
        carry_out(plan_of(root), root)
    assert len(ss.undo_cleanup(root).restored) == 2
    assert contents(root) == before


def test_without_hard_links_nothing_is_overwritten(root, monkeypatch):
    before = contents(root)

    def none(*paths, **options):
        raise PermissionError(1, "not permitted")

    monkeypatch.setattr(journal.os, "link", none)
    plan = plan_of(root)
    carry_out(plan, root)
    blocked = Path(plan[0].extra.path)
    blocked.write_bytes(b"mine")
    assert set(ss.undo_cleanup(root).left) == {str(blocked)}
    blocked.unlink()
    ss.undo_cleanup(root)
    assert contents(root) == before


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_whatever_is_moved_has_a_copy_that_stays(pictures, tmp_path_factory, data):
    """Any rule, any lines of its plan, any file changed or gone; and undo restores each byte."""
    root = Path(shutil.copytree(pictures, tmp_path_factory.mktemp("tree") / "dataset"))
    folders = [f"{root}/{name}" for name in ("masters", "inbox", "old")]
    rule = st.one_of(st.sampled_from(["largest", "oldest"]), st.permutations(folders))
    plan = plan_of(root, keep=data.draw(rule), protect=data.draw(st.sets(st.sampled_from(folders))))
    chosen = data.draw(st.lists(st.sampled_from(plan.copies), unique=True)) if plan else []
    files = sorted(path for path in root.rglob("*.png"))
    for path in data.draw(st.lists(st.sampled_from(files), max_size=2, unique=True)):
        data.draw(st.sampled_from([change, Path.unlink, os.utime]))(path)
    before = contents(root)
    result = carry_out(ss.CleanupPlan(tuple(chosen)), root)
    assert {*result.moved, *result.left} == {copy.extra.path for copy in chosen}
    keeps = {copy.extra.path: copy.keep.path for copy in chosen}
    for path in result.moved:
        moved = Path(result.folder) / Path(path).relative_to(root)
        assert compare_files(keeps[path], str(moved))
    ss.undo_cleanup(root)
    assert contents(root) == before


class TestNotDuplicates:
    def test_pairs_are_remembered(self, root, tmp_path):
        library = library_of(root)
        library.save(tmp_path / "outputs")
        library = ss.ImageLibrary.load(tmp_path / "outputs")
        first = ss.duplicates(library, progress=False)[0]
        assert ss.mark_not_duplicates(library, [first.paths[:2]]) == 1
        for level in ("near", "similar"):
            found = ss.duplicates(library, level=level, progress=False)
            for group in found:
                assert not (group.paths[0] == first.paths[0] and first.paths[1] in group.paths)
        assert ss.mark_not_duplicates(library, [first.paths, (0, 4)]) == 4

    def test_faults(self, root, tmp_path):
        with pytest.raises(LibraryError, match="save it first"):
            ss.mark_not_duplicates(library_of(root), [(0, 1)])
        library_of(root).save(tmp_path / "outputs")
        library = ss.ImageLibrary.load(tmp_path / "outputs")
        for bad in ((0, 99), ("gone.png", 1), (1, 1), ()):
            with pytest.raises(QueryError):
                ss.mark_not_duplicates(library, [bad])
        (tmp_path / "outputs/not_duplicates.csv").write_text("a,b\n1,2,3\n")
        with pytest.raises(LibraryError, match="each line has two"):
            ss.duplicates(library, progress=False)


class TestReference:
    def test_pictures_of_one_library_that_are_in_another(self, root):
        ours = library_of(root / "masters")
        theirs = library_of(root / "inbox")
        scene(9).save(root / "inbox/own 2.png")
        theirs = library_of(root / "inbox")
        for found in (
            ss.duplicates(theirs, ours, progress=False),
            ss.duplicates(theirs, ours, level="similar", threshold=0.99, progress=False),
        ):
            copies = sorted(names for group in found for names in group.paths[1:])
            assert [Path(each).name for each in copies if "small" in each] == [
                f"small {i}.png" for i in range(3)
            ]
            assert all("masters" in group.paths[0] for group in found)
            for group in found:
                assert ours.paths[group.rows[0]] == group.paths[0]
                assert [theirs.paths[row] for row in group.rows[1:]] == list(group.paths[1:])
        assert len(ss.duplicates(theirs, ours, progress=False).extras) == 3
        plan = ss.plan_cleanup(ss.duplicates(theirs, ours, progress=False))
        assert len(carry_out(plan, root / "inbox").moved) == 3

    def test_copies_within_either_are_not_looked_for(self, root):
        shutil.copytree(root / "inbox", root / "inbox/again")
        shutil.copytree(root / "masters", root / "old/again")
        found = ss.duplicates(library_of(root / "inbox"), library_of(root / "old"), progress=False)
        assert sorted(map(len, found)) == [3, 3, 3]
        other = ss.duplicates(
            library_of(root / "inbox"), library_of(root / "inbox"), progress=False
        )
        assert len(other.extras) == 0  # each is the same file

    def test_equal_bytes_are_found_without_embeddings(self, root):
        rows = np.eye(6)
        ours = ss.ImageLibrary(rows[:3], sorted((root / "masters").iterdir()))
        theirs = ss.ImageLibrary(rows[3:], sorted((root / "old").iterdir()))
        found = ss.duplicates(theirs, ours, level="identical", progress=False)
        assert [group.levels for group in found] == [("", "identical")] * 3

    def test_embeddings_of_two_kinds_are_refused(self, root):
        other = ss.ImageLibrary(np.eye(4)[:3], sorted((root / "old").iterdir()))
        with pytest.raises(QueryError, match="cannot be compared"):
            ss.duplicates(library_of(root), other, progress=False)

    def test_a_number_is_a_threshold(self, root):
        assert ss.duplicates(library_of(root), 0.9, progress=False).threshold == 0.9
