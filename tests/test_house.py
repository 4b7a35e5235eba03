"""The house and its rules: sizes, names, and what the mission's own path loads."""

import ast
import re
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "simsearch").rglob("*.py"))
STAGES = {"images", "backbones", "library", "embedding", "retrieval", "plotting"}
BASE = {"errors", "files", "registry"}

MAX_FILE_LINES, MAX_CLASS_LINES, MAX_TEST_LINES = 400, 250, 500
MAX_PARAMETERS = 12
MISSION_LINES = 4500

# Names of earlier versions that hid what they stood for; the field has words for all of them.
OLD_NAMES = {
    *("Wish", "Asked", "Question", "Found", "Sketch", "sketch", "sketch_of", "rests", "race"),
    *("careful", "taste", "wish", "wishes", "Gallery", "Network", "Tap", "CARRIED", "Steps"),
    *("Watch", "Recipe", "Pictures", "Task", "Door", "Lock", "Hardened", "Limits", "Keeper"),
    *("keeper", "Room", "Measures", "Measured", "dead", "through_head", "among"),
}
OLD_MODULES = {
    *("batches", "calibration", "conditions", "duplicates", "faiss_index", "finetune", "gallery"),
    *("heads", "learning", "matches", "metrics", "publishing", "ray_engine", "refine", "remote"),
    *("scan", "search", "sketch", "storage", "triplet", "viz", "addresses", "forms", "guard"),
    *("keeper", "measures", "pictures", "cells", "maps", "results"),
}
OLD_SCRIPTS = {"taste", "question", "known", "intake", "notice", "refine", "heat"}


def definitions(tree):
    """Yield every name that a module defines: functions, classes, arguments, variables."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, (ast.Name, ast.Attribute)) and isinstance(node.ctx, ast.Store):
            yield node.id if isinstance(node, ast.Name) else node.attr


@pytest.fixture(scope="module")
def trees():
    return {file: ast.parse(file.read_text("utf-8")) for file in FILES}


def test_no_file_is_too_long():
    long = {str(file): len(file.read_text("utf-8").splitlines()) for file in FILES}
    assert {file: lines for file, lines in long.items() if lines > MAX_FILE_LINES} == {}


def test_no_test_file_is_too_long():
    files = {file: len(file.read_text("utf-8").splitlines()) for file in ROOT.glob("tests/**/*.py")}
    assert {str(file): n for file, n in files.items() if n > MAX_TEST_LINES} == {}


def test_no_class_is_too_long_and_functions_are_short(trees):
    classes, functions = {}, []
    for file, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                classes[f"{file.name}:{node.name}"] = node.end_lineno - node.lineno + 1
            elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                functions.append(node.end_lineno - node.lineno + 1)
    assert {name: lines for name, lines in classes.items() if lines > MAX_CLASS_LINES} == {}
    assert statistics.median(functions) <= 8
    assert statistics.quantiles(functions, n=10)[-1] <= 25


def test_no_public_function_takes_too_many_parameters(trees):
    many = {}
    for file, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                arguments = [*node.args.args, *node.args.kwonlyargs]
                count = len([each for each in arguments if each.arg not in {"self", "cls"}])
                if count > MAX_PARAMETERS:
                    many[f"{file.name}:{node.name}"] = count
    assert many == {}


def test_the_old_names_are_gone(trees):
    for file, tree in trees.items():
        assert {name for name in definitions(tree) if name.lstrip("_") in OLD_NAMES} == set(), file
    tops = {each.stem for each in (ROOT / "simsearch").iterdir()}
    assert tops & OLD_MODULES == set()
    assert {each.stem for each in (ROOT / "simsearch/web").iterdir()} & OLD_MODULES == {"metrics"}
    scripts = {each.stem for each in (ROOT / "simsearch/web/static").glob("*.js")}
    assert scripts & OLD_SCRIPTS == set()


def test_every_package_says_what_it_is_and_defines_nothing(trees):
    for file, tree in trees.items():
        assert ast.get_docstring(tree), file
        if file.name == "__init__.py" and file.parent != ROOT / "simsearch":
            assert len(tree.body) == 1, file


def test_private_names_stay_in_their_module(trees):
    for file, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("simsearch"):
                private = [each.name for each in node.names if each.name.startswith("_")]
                assert private == [], file


# As where the extra "fast" is not installed, and without a network.
BASE_INSTALL = {"SIMSEARCH_RUNTIME": "torch", "HF_HUB_OFFLINE": "1"}
MISSION = """
import sys
import matplotlib
matplotlib.use("agg")
import numpy as np
from PIL import Image
import simsearch as ss

rng = np.random.default_rng(0)
for i in range(20):
    Image.fromarray(rng.integers(0, 256, (60, 60, 3), np.uint8)).save(f"dataset/{i}.png")
library = ss.embed_dataset("dataset", "outputs", progress=False)
ss.show_matches(ss.search(library, "dataset/3.png", k=5))
print("\\n".join(name for name in sys.modules if name.split(".")[0] == "simsearch"))
"""


def test_the_mission_loads_its_six_stages_alone(tmp_path):
    """In a fresh process: embed, search and show, from 20 pictures on."""
    (tmp_path / "dataset").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", MISSION],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "", "HOME": str(tmp_path), **BASE_INSTALL},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    modules = re.findall(r"^simsearch[\w.]*$", done.stdout, re.MULTILINE)
    packages = {name.split(".")[1] for name in modules if "." in name}
    assert packages <= STAGES | BASE
    lines = 0
    for name in modules:
        place = ROOT.joinpath(*name.split("."))
        file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
        lines += len(file.read_text("utf-8").splitlines())
    assert lines < MISSION_LINES
