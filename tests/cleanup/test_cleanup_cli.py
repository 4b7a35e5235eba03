"""The clean-up of `simsearch duplicates`, as typed."""

import csv
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from scenes import scene

import simsearch as ss
from simsearch.cli.main import main


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    """A folder with a dataset, a library of it, and one of an inbox."""
    monkeypatch.chdir(tmp_path)
    for folder in ("dataset/masters", "inbox"):
        Path(folder).mkdir(parents=True)
    for seed in range(2):
        scene(seed).save(f"dataset/masters/{seed}.png")
        scene(seed).resize((200, 150)).save(f"dataset/small {seed}.png")
        scene(seed).save(f"inbox/{seed}.webp", lossless=True)
    for root, outputs in (("dataset", "outputs"), ("inbox", "inbox_outputs")):
        paths = sorted(str(path) for path in Path(root).rglob("*.*"))
        seeds = [int(Path(path).stem[-1]) for path in paths]
        ss.ImageLibrary(np.eye(2)[seeds], paths).save(outputs)
    return tmp_path


def run(capsys, *arguments):
    code = main(["duplicates", *arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def pictures(folder="dataset"):
    paths = Path(folder).rglob("*.*")
    return sorted(path.as_posix() for path in paths if path.is_file() and "/." not in str(path))


def test_plan_apply_and_undo(capsys):
    before = pictures()
    code, out, _ = run(capsys, "outputs", "--plan", "plan.csv", "--protect", "dataset/masters")
    assert code == 0
    assert "2 copies of 2 pictures may go" in out
    with Path("plan.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [Path(row["extra"]).name for row in rows] == ["small 0.png", "small 1.png"]
    assert pictures() == before
    code, out, _ = run(capsys, "outputs", "--apply", "plan.csv", "--root", "dataset", "--yes")
    assert code == 0
    assert "2 copies moved to" in out
    assert "--undo --root dataset" in out
    assert pictures() == before[:2]
    code, out, _ = run(capsys, "outputs", "--undo", "--root", "dataset")
    assert (code, out) == (0, "2 files brought back\n")
    assert pictures() == before


def test_what_was_left_ends_with_an_error(capsys):
    run(capsys, "outputs", "--plan", "plan.json")
    os.utime("dataset/small 0.png")
    code, out, err = run(capsys, "outputs", "--apply", "plan.json", "--root", "dataset", "--yes")
    assert code == 1
    assert "1 copy moved" in out
    assert "small 0.png: it has changed since the plan was made" in out
    assert "1 copies were left" in err


@pytest.mark.parametrize("answer", ["", "n", "no", "EOF"])
def test_nothing_moves_unless_somebody_agrees(capsys, monkeypatch, answer):
    run(capsys, "outputs", "--plan", "plan.csv")
    before = pictures()
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda text: answer)
    code, out, err = run(capsys, "outputs", "--apply", "plan.csv", "--root", "dataset")
    assert code == 1
    assert "nothing was moved" in err
    assert "2 copies of 2 pictures may go" in out
    assert pictures() == before


def test_without_a_terminal_only_what_comes_back_is_moved(capsys):
    run(capsys, "outputs", "--plan", "plan.csv")
    before = pictures()
    flags = ("outputs", "--apply", "plan.csv", "--root", "dataset")
    code, _, err = run(capsys, *flags, "--to-trash")
    assert code == 1
    assert "give --yes" in err
    assert pictures() == before
    code, out, _ = run(capsys, *flags)
    assert code == 0
    assert "2 copies moved" in out


def test_a_yes_at_the_terminal(capsys, monkeypatch):
    run(capsys, "outputs", "--plan", "plan.csv")
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda text: "Y")
    code, out, _ = run(capsys, "outputs", "--apply", "plan.csv", "--root", "dataset")
    assert code == 0
    assert "2 copies moved" in out


def test_a_folder_that_comes_first(capsys):
    shutil.copy("inbox/0.webp", "dataset/0.webp")
    Path("dataset/none").mkdir()
    _, out, _ = run(capsys, "outputs", "--plan", "plan.csv", "--keep", "dataset/none", "dataset")
    assert "its folder comes first" in out


def test_another_library_as_reference(capsys):
    code, out, _ = run(capsys, "inbox_outputs", "outputs", "--plan", "plan.csv", "--csv", "x.csv")
    assert code == 0
    assert "2 extra" in out
    code, _, _ = run(capsys, "inbox_outputs", "--apply", "plan.csv", "--root", "inbox", "--yes")
    assert code == 0
    assert pictures("inbox") == []
    assert len(pictures()) == 4


def test_pairs_that_are_no_duplicates(capsys):
    flags = ("--not-duplicates", "dataset/masters/0.png", "dataset/small 0.png")
    code, out, _ = run(capsys, "outputs", *flags)
    assert (code, out) == (0, "1 pair remembered as no duplicates\n")
    _, out, _ = run(capsys, "outputs")
    assert "1 group of near-duplicates" in out


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--apply", "plan.csv"), "--root DATASET"),
        (("--undo",), "--root DATASET"),
        (("--apply", "plan.csv", "--root", "gone"), "cannot read 'plan.csv'"),
        (("--undo", "--root", "gone"), "is no folder"),
        (("--to-trash",), "--to-trash belongs to --apply"),
        (("--yes",), "--yes belongs to --apply"),
        (("--keep", "oldest"), "--keep belongs to --plan"),
        (("--protect", "x"), "--protect belongs to --plan"),
        (("--plan", "p.csv", "--protect", "x"), "--protect x: there is no such folder"),
        (("--plan", "p.csv", "--keep", "biggest"), "--keep biggest: there is no such folder"),
        (("--undo", "--root", "dataset", "--plan", "x"), "--undo does not go with --plan"),
        (("--plan", "gone/plan.csv"), "cannot write"),
    ],
)
def test_flags_that_do_not_fit_are_refused(capsys, flags, words):
    code, _, err = run(capsys, "outputs", *flags)
    assert code == 1
    assert words in err
