"""The widget in a real JupyterLab, in Chromium."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import numpy as np
import pytest
from PIL import Image

import simsearch as ss

sync_api = pytest.importorskip("playwright.sync_api")
ROOT = Path(ss.__file__).parents[1]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
SECONDS = 120


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A notebook that shows the widget, beside a small library with a backbone."""
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
    cells = [
        "import simsearch as ss\nwidget = ss.browse(ss.ImageLibrary.load('outputs'), k=5)\nwidget",
        "print('READ', widget.query, widget.liked, widget.disliked, widget.box, "
        "widget.matches and widget.matches.paths)",
    ]
    notebook = nbformat.v4.new_notebook(cells=[*map(nbformat.v4.new_code_cell, cells)])
    notebook.metadata.kernelspec = {
        "name": "python3",
        "display_name": "Python 3",
        "language": "python",
    }
    nbformat.write(notebook, folder / "browse.ipynb")
    return folder


@pytest.fixture(scope="module")
def lab(folder):
    """A JupyterLab in that folder; its address."""
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
            *(
                sys.executable,
                "-m",
                "jupyterlab",
                "--no-browser",
                f"--port={port}",
                "--ip=127.0.0.1",
            ),
            *("--allow-root", "--IdentityProvider.token=secret", f"--notebook-dir={folder}"),
            "--LabApp.news_url=None",
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
    yield f"http://127.0.0.1:{port}"
    process.terminate()
    process.wait(60)


@pytest.fixture(scope="module")
def page(lab):
    """The notebook, run until the widget is there."""
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine: install it to test the widget")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1200, "height": 1000})
        page.set_default_timeout(1000 * SECONDS)
        page.goto(f"{lab}/lab/tree/browse.ipynb?token=secret")
        run_first_cell(page)
        page.locator(".simsearch-browse .card").first.wait_for()
        yield page
        browser.close()


def run_first_cell(page):
    """Run it; until the kernel is connected, JupyterLab forgets that it was asked to."""
    cell = page.locator(".jp-Notebook .jp-CodeCell").first
    for _ in range(SECONDS // 5):
        cell.locator(".cm-content").click()
        page.keyboard.press("Shift+Enter")
        page.wait_for_timeout(5000)
        if cell.locator(".jp-InputPrompt").inner_text().strip() not in {"[ ]:", ""}:
            return


@pytest.fixture
def read(page):
    """Run the second cell, and return what it prints of the widget."""

    def read():
        cell = page.locator(".jp-Notebook .jp-CodeCell").nth(1)
        cell.locator(".cm-content").click()
        before = cell.locator(".jp-InputPrompt").inner_text()
        page.keyboard.press("Shift+Enter")
        page.wait_for_function(
            "before => { const text = document.querySelectorAll('.jp-Notebook .jp-CodeCell')[1]"
            ".querySelector('.jp-InputPrompt').innerText; "
            "return text !== before && /\\d/.test(text); }",
            arg=before,
        )
        output = cell.locator(".jp-OutputArea-output").last
        return re.search(r"READ (.*)", output.inner_text())[1]

    return read


def card(page, name):
    return page.locator(".simsearch-browse .card", has_text=name)


def status(page, words):
    page.locator(".simsearch-browse .status", has_text=words).wait_for()


def test_clicks_boxes_likes_and_words_reach_python(page, read, folder):
    status(page, "12 of 12 pictures")
    assert page.locator(".simsearch-browse .card img").count() == 12
    card(page, "03.png").locator(".picture").click()
    status(page, "5 matches")
    library = ss.ImageLibrary.load(folder / "outputs")
    names = [Path(path).name for path in ss.search(library, 3, k=5).paths]
    shown = page.locator(".simsearch-browse .card .caption-name").all_inner_texts()
    assert shown == names
    assert read().startswith("dataset/03.png [] [] None ['dataset/")

    area = page.locator(".simsearch-browse .crop-area").bounding_box()
    page.mouse.move(area["x"] + 5, area["y"] + 5)
    page.mouse.down()
    page.mouse.move(area["x"] + area["width"] / 2, area["y"] + area["height"] - 5, steps=4)
    page.mouse.up()
    page.locator(".simsearch-browse figure button", has_text="Whole picture").wait_for()
    box = [float(edge) for edge in re.search(r"\(([\d., ]+)\)", read())[1].split(",")]
    assert box == pytest.approx([0.03, 0.03, 0.5, 0.96], abs=0.04)

    page.locator(".simsearch-browse figure button", has_text="Whole picture").click()
    page.locator(".simsearch-browse .crop-box").wait_for(state="hidden")
    first, second = names[:2]
    card(page, first).locator(".picture").click(modifiers=["Shift"])
    page.locator(".simsearch-browse .chosen .like").wait_for()
    card(page, second).locator(".picture").click(modifiers=["Alt"])
    page.locator(".simsearch-browse .chosen .dislike").wait_for()
    assert f"['dataset/{first}'] ['dataset/{second}']" in read()

    page.locator(".simsearch-browse input").fill("a red square")
    page.locator(".simsearch-browse form button").click()
    page.locator(".simsearch-browse .words, .simsearch-browse .status.error").first.wait_for()


def test_the_keyboard_does_the_same(page, read):
    page.locator(".simsearch-browse button", has_text="All pictures").click()
    status(page, "12 of 12 pictures")
    card(page, "00.png").locator(".picture").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    status(page, "5 matches")
    assert read().startswith("dataset/01.png [] []")


def test_the_figure_for_the_documentation(page, tmp_path):
    """Nothing of the widget is cut off, and no picture is broken."""
    wide = page.evaluate(
        "() => { const top = document.querySelector('.simsearch-browse'); "
        "return top.scrollWidth - top.clientWidth; }"
    )
    assert wide <= 0
    broken = page.evaluate(
        "() => [...document.querySelectorAll('.simsearch-browse img')]"
        ".filter((each) => each.complete && !each.naturalWidth).length"
    )
    assert broken == 0
