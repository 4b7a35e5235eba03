"""The forms in which groups, albums, findings and measurements are printed."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import simsearch as ss
from simsearch.cli.main import main

COMMANDS = {
    "duplicates": (["--level", "similar", "--threshold", "0.2"], "group"),
    "albums": (["--grain", "coarse"], "grain"),
    "check": ([], "kind"),
    "evaluate": ([], "class"),
}


@pytest.fixture(autouse=True)
def in_folder(tmp_path, monkeypatch):
    """A library of two classes of dark pictures, one name of which a spreadsheet would run."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(24, 8)) + 3 * np.eye(8)[np.arange(24) % 2]
    paths = [f"{'ab'[i % 2]}/{i:02}.jpg" for i in range(23)] + ["=b/1\n2.jpg"]
    for path in map(Path, paths):
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (20, 20), (int(rng.integers(9)), 0, 0)).save(path)
    ss.ImageLibrary(rows, paths).save("outputs")


def run(capsys, *arguments):
    assert main([*arguments, "--quiet"]) in {0, 3}
    return capsys.readouterr().out


def found(command):
    library = ss.ImageLibrary.load("outputs")
    calls = {
        "duplicates": lambda: ss.duplicates(library, level="similar", threshold=0.2),
        "albums": lambda: ss.albums(library),
        "check": lambda: ss.check_dataset(library),
        "evaluate": lambda: ss.evaluate(library),
    }
    return calls[command]()


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(("form", "separator"), [("csv", ","), ("tsv", "\t")])
def test_rows_are_those_of_the_frame(capsys, command, form, separator):
    options, first = COMMANDS[command]
    out = run(capsys, command, "outputs", *options, "--format", form)
    header, *rows = csv.reader(io.StringIO(out), delimiter=separator)
    frame = found(command).to_frame(*options[1:] * (command == "albums"))
    assert header[0] == first
    assert len(rows) == len(frame) > 0
    assert len(out.splitlines()) == len(rows) + 1  # no cell breaks a line
    assert not [cell for row in rows for cell in row if cell.startswith("=")]


@pytest.mark.parametrize("command", COMMANDS)
def test_json_is_one_value(capsys, command):
    options, first = COMMANDS[command]
    value = json.loads(run(capsys, command, "outputs", *options, "--format", "json"))
    assert value == json.loads(run(capsys, command, "outputs", *options, "--json"))
    if command == "evaluate":
        assert value == json.loads(found(command).to_json())
    else:
        assert len(value) == len(found(command).to_frame(*options[1:] * (command == "albums")))
        assert {first, "path"} <= value[0].keys()


@pytest.mark.parametrize("command", COMMANDS)
def test_text_is_the_default(capsys, command):
    options, _ = COMMANDS[command]
    plain = run(capsys, command, "outputs", *options)
    assert plain == run(capsys, command, "outputs", *options, "--format", "text")
    assert len(plain) > 20


def test_forms_do_not_mix_with_plans(capsys):
    assert main(["duplicates", "outputs", "--format", "csv", "--plan", "plan.csv"]) == 1
    assert "--format csv prints groups alone: leave it out with --plan" in capsys.readouterr().err
    assert main(["duplicates", "outputs", "--format", "csv", "--undo", "--root", "x"]) == 1
    assert "--undo does not go with --format" in capsys.readouterr().err
