"""Jupyter servers in a folder with notebooks that show the widgets, and Chromium to open them."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import nbformat
import numpy as np
import pytest
from notebook_pages import SECONDS, run_first_cell
from PIL import Image

import simsearch as ss

ROOT = Path(ss.__file__).parents[1]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
LOAD = "import simsearch as ss\nlibrary = ss.ImageLibrary.load('outputs')\n"
NOTEBOOKS = {
    "browse": [
        f"{LOAD}widget = ss.browse(library, k=5)\nwidget",
        "print('READ', widget.query, widget.liked, widget.disliked, widget.box, "
        "widget.matches and widget.matches.paths)",
    ],
    "map": [
        f"{LOAD}widget = ss.show_map(library, interactive=True)\nwidget",
        "print('READ', widget.rows)",
        "widget.rows = [3, 5]\nprint('READ', widget.paths)",
    ],
}


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """The notebooks, beside a small library with a backbone."""
    folder = tmp_path_factory.mktemp("lab")
    rng = np.random.default_rng(0)
    (folder / "dataset").mkdir()
    for i in range(12):
        colour = rng.integers(0, 256, 3)
        pixels = np.clip(rng.normal(colour, 40, (80, 80, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "dataset" / f"{i:02}.png")
    before = Path.cwd()
    os.chdir(folder)
    try:
        ss.embed_dataset("dataset", "outputs", "efficientnet_lite0", progress=False)
    finally:
        os.chdir(before)
    for name, cells in NOTEBOOKS.items():
        notebook = nbformat.v4.new_notebook(cells=[*map(nbformat.v4.new_code_cell, cells)])
        notebook.metadata.kernelspec = {
            "name": "python3",
            "display_name": "Python 3",
            "language": "python",
        }
        nbformat.write(notebook, folder / f"{name}.ipynb")
    return folder


@contextmanager
def running(module, folder):
    """Run a Jupyter server in that folder, and yield its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = {
        "PYTHONPATH": str(ROOT),
        "JUPYTER_PREFER_ENV_PATH": "1",
        "JUPYTER_CONFIG_DIR": str(folder),
    }
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", module, "--no-browser", f"--port={port}", "--ip=127.0.0.1"),
            *("--allow-root", "--IdentityProvider.token=secret"),
            *(f"--ServerApp.root_dir={folder}", "--LabApp.news_url=None"),
        ],
        env=os.environ | own,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    until = time.monotonic() + SECONDS
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/api", timeout=5) as answer:
                json.load(answer)
            break
        except OSError:
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.5)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(60)


@pytest.fixture(scope="session")
def lab(folder):
    """A JupyterLab; its address."""
    with running("jupyterlab", folder) as address:
        yield address


@pytest.fixture(scope="session")
def notebook7(folder):
    """A Notebook 7; its address."""
    with running("notebook", folder) as address:
        yield address


@pytest.fixture(scope="session")
def chromium():
    """A browser."""
    sync_api = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine: install it to test the widgets")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def open_notebook(chromium):
    """Open an address in a page of its own, and run the first cell."""

    @contextmanager
    def opened(address):
        page = chromium.new_page(viewport={"width": 1200, "height": 1000})
        page.set_default_timeout(1000 * SECONDS)
        page.goto(address)
        run_first_cell(page)
        yield page
        page.close()

    return opened
