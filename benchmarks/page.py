"""The page on 25,000 rows: time to the first view, and long tasks while 2,000 cards are scrolled.

Makes a library of random embeddings (its pictures are links to some hundred files), serves it, and
opens it in Chromium. Tasks of the page are read from Chromium's trace: their processor time, which
other programs of the machine change least, and their length on the clock.
"""

import argparse
import json
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import uvicorn
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

import simsearch as ss
from simsearch.web.app import create_app
from simsearch.web.protocol import uvicorn_config
from simsearch.web.server import listen
from simsearch.web.settings import Settings

FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
FILES, DIMS, GROUPS = 200, 256, 40
CARDS = 2000
LONG_TASK_MS, FIRST_VIEW_MS = 50, 1000
WHEEL_PIXELS, WHEEL_PAUSE_MS = 600, 40


def make_library(folder: Path, rows: int, seed: int) -> Path:
    """Make a library whose pictures have many shapes."""
    random = np.random.default_rng(seed)
    files = folder / "files"
    files.mkdir(parents=True)
    for i in range(FILES):
        size = tuple(random.integers(200, 420, 2).tolist())
        noise = random.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC).save(files / f"{i}.jpg")
    paths = []
    for i in range(rows):
        path = folder / "dataset" / f"{i % GROUPS:02}" / f"{i:05}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(files / f"{i % FILES}.jpg", path)
        paths.append(path.as_posix())
    centres = random.normal(size=(GROUPS, DIMS))
    vectors = centres[np.arange(rows) % GROUPS] + random.normal(size=(rows, DIMS))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    ss.ImageLibrary(vectors.astype(np.float32), paths).save(folder / "outputs")
    return folder / "outputs"


def main_thread_tasks(trace: Path) -> list[tuple[float, float]]:
    """Return (processor ms, clock ms) of each task of the page's main thread."""
    events = json.loads(trace.read_text("utf-8"))["traceEvents"]
    main = {
        (each["pid"], each["tid"])
        for each in events
        if each.get("name") == "thread_name" and each["args"].get("name") == "CrRendererMain"
    }
    return [
        (each.get("tdur", 0) / 1000, each["dur"] / 1000)
        for each in events
        if each.get("name", "").endswith("RunTask") and (each["pid"], each["tid"]) in main
        if "dur" in each
    ]


def traced(
    browser: Browser, page: Page, trace: Path, action: Callable[[], None]
) -> list[tuple[float, float]]:
    """Run an action, and return the tasks of the page meanwhile."""
    browser.start_tracing(page=page, path=trace, categories=["toplevel", "devtools.timeline"])
    action()
    browser.stop_tracing()
    return main_thread_tasks(trace)


def first_view(page: Page, address: str) -> float:
    """Open the page, and return the ms until cards with pictures are painted."""
    page.goto(address)
    page.locator("#library .picture img.ready").first.wait_for()
    return float(page.evaluate("performance.now()"))


def scroll(page: Page, cards: int) -> None:
    """Scroll until so many cards are there."""
    page.mouse.move(600, 500)
    while page.locator("#library .card").count() < cards:
        page.mouse.wheel(0, WHEEL_PIXELS)
        page.wait_for_timeout(WHEEL_PAUSE_MS)
    for _ in range(20):
        page.mouse.wheel(0, -WHEEL_PIXELS)
        page.wait_for_timeout(WHEEL_PAUSE_MS)


def report(name: str, tasks: list[tuple[float, float]]) -> None:
    """Print how long the tasks were, and how many Chromium calls long."""
    for clock, what in enumerate(("of processor time", "on the clock")):
        spent = [task[clock] for task in tasks]
        long = sum(each > LONG_TASK_MS for each in spent)
        print(f"{name}: longest of {len(tasks):,} tasks {max(spent):.0f} ms {what}, {long} long")


def measure(address: str, cards: int, folder: Path) -> None:
    """Open the page, search, and scroll."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        for turn in ("cold", "warm"):
            clock: list[float] = []
            before = time.process_time()
            open_page = partial(lambda clock: clock.append(first_view(page, address)), clock)
            tasks = traced(browser, page, folder / f"{turn}.json", open_page)
            print(
                f"first view, {turn}: {clock[0]:.0f} ms on the clock (limit {FIRST_VIEW_MS}); "
                f"processor time {sum(cpu for cpu, _ in tasks):.0f} ms of the page, "
                f"{1000 * (time.process_time() - before):.0f} ms of the server and this script"
            )
        report("scroll", traced(browser, page, folder / "scroll.json", lambda: scroll(page, cards)))
        picture = page.locator("#library .picture img.ready").first

        def search() -> None:
            picture.click()
            page.locator("#matches .picture img.ready").first.wait_for()

        report("search", traced(browser, page, folder / "search.json", search))
        browser.close()


def main() -> None:
    """Make, serve, measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=25_000)
    parser.add_argument("--cards", type=int, default=CARDS)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        outputs = make_library(folder, options.rows, options.seed)
        listening = listen("127.0.0.1", 0)
        app = create_app(Settings(str(outputs), cache=str(folder / "cache")))
        server = uvicorn.Server(uvicorn_config(app))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        measure(f"http://127.0.0.1:{listening.getsockname()[1]}", options.cards, folder)
        server.should_exit = True
        thread.join()


if __name__ == "__main__":
    main()
