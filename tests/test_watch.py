"""A library that follows its dataset, and never touches a picture."""

import ast
import shutil
import threading
import time
from pathlib import Path

import pytest
from PIL import Image

import simsearch as ss
from simsearch import watch
from simsearch.cli.main import main

pytest.importorskip("watchfiles")


def picture(file, shade):
    file.parent.mkdir(parents=True, exist_ok=True)
    image = Image.linear_gradient("L").point(lambda x: (x * shade) % 256)
    image.convert("RGB").resize((64, 64)).save(file)


def wait_for(condition, seconds=120):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "nothing happened"
        time.sleep(0.1)


@pytest.fixture
def watched(tmp_path, monkeypatch):
    """A dataset that is watched: its folder, and the lines that are reported."""
    monkeypatch.chdir(tmp_path)
    for name in "abc":
        picture(tmp_path / "dataset" / f"{name}.png", ord(name))
    lines, stop = [], threading.Event()
    options = {"stop": stop, "report": lines.append, "progress": False}
    thread = threading.Thread(
        target=watch.follow_dataset,
        args=("dataset", "dataset/outputs"),
        kwargs=options | {"backbone": "efficientnet_lite0", "workers": 1},
    )
    thread.start()
    wait_for(lambda: lines)
    yield tmp_path / "dataset", lines
    stop.set()
    thread.join(30)
    assert not thread.is_alive()


def names():
    return ss.ImageLibrary.load("dataset/outputs").names


def test_what_comes_and_goes_is_followed(watched):
    folder, lines = watched
    assert lines == ["Watching dataset; Ctrl-C ends it"]
    picture(folder / "new" / "d.png", 77)
    wait_for(lambda: len(lines) == 2)
    assert names() == ["a.png", "b.png", "c.png", "new/d.png"]
    assert "1 embedded; 4 images, 0 skipped" in lines[1]
    before = {file: file.read_bytes() for file in folder.glob("**/*.png")}
    shutil.move(folder / "a.png", folder / "new" / "e.png")
    (folder / "b.png").unlink()
    wait_for(lambda: len(lines) == 3)
    assert names() == ["c.png", "new/d.png", "new/e.png"]
    assert "1 moved" in lines[2] or "1 embedded" in lines[2]
    left = {file.read_bytes() for file in folder.glob("**/*.png")}
    assert left == set(before.values()) - {before[folder / "b.png"]}
    picture(folder / "f.png", 99)  # what the library itself writes, below the dataset, is no change
    wait_for(lambda: len(lines) == 4)
    assert "1 embedded; 4 images, 0 skipped" in lines[3]


def test_a_dataset_that_is_away_leaves_the_library_as_it_is(watched, caplog):
    folder, lines = watched
    for file in folder.glob("*.png"):
        file.unlink()
    wait_for(lambda: any("stays as it is" in text or "kept" in text for text in caplog.messages))
    assert names() == ["a.png", "b.png", "c.png"]
    picture(folder / "d.png", 5)
    wait_for(lambda: len(lines) == 2)
    assert "d.png" in names()


def test_nothing_in_it_can_remove_a_file():
    tree = ast.parse(Path(watch.__file__).read_text("utf-8"))
    called = {
        node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
    }
    assert not called & {"unlink", "remove", "rmdir", "rmtree", "rename", "replace", "move"}


def test_only_a_folder_is_watched(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for root in ("nowhere", "s3://bucket/photos"):
        assert main(["watch", root, "outputs"]) == 1
        assert "is no folder on this machine" in capsys.readouterr().err
