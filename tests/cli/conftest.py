"""A small library of arrays, so that commands run without a network."""

import numpy as np
import pytest
from PIL import Image

import simsearch as ss
from simsearch.cli.main import main

NAMES = ["cats/a.png", "cats/b.png", "cats/c.png", "dogs/d.png", "dogs/e.png", "日本.png"]


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with pictures and their library, as the current one."""
    rng = np.random.default_rng(0)
    for name in NAMES:
        file = tmp_path / "dataset" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 60, 3), np.uint8)).save(file)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SIMSEARCH_LIBRARY", raising=False)
    library = ss.ImageLibrary(rng.normal(size=(6, 8)), [f"dataset/{name}" for name in NAMES])
    library.root = "dataset"
    library.save("outputs")
    return tmp_path


@pytest.fixture
def run(project, capfdbinary):
    """Run a command here; return its status, and what it wrote."""

    def run(*arguments):
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as stop:
            status = stop.code
        out, err = capfdbinary.readouterr()
        return status, out.decode(), err.decode()

    return run
