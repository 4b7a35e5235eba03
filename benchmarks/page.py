"""The page on 25,000 rows: time to the first view, and long tasks while 2,000 cards are scrolled.

Makes a library of random embeddings (its pictures are links to some hundred files), serves it by
`simsearch serve` in a process of its own, and opens it in Chromium: with an empty cache of
thumbnails, as soon as the server answers and when it has been idle for some seconds; and with what
the server and the browser have kept of that. Tasks of the page are read from Chromium's trace:
their processor time, which other programs of the machine change least, and their length on the
clock.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.request import urlopen

import numpy as np
from PIL import Image
from playwright.sync_api import Browser, Page, ViewportSize, sync_playwright

import simsearch as ss

FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
FILES, DIMS, GROUPS = 200, 256, 40
CARDS = 2000
LONG_TASK_MS, FIRST_VIEW_MS = 50, 1000
REST_SECONDS, LOOK_SECONDS = 8, 0.005
VIEWPORT: ViewportSize = {"width": 1440, "height": 900}
ALL_IN_VIEW = """[...document.querySelectorAll("#library img")]
    .filter((each) => each.getBoundingClientRect().top < innerHeight)
    .every((each) => each.classList.contains("ready"))"""
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
    """Return (processor ms, clock ms) of each task of the page's main thread.

    The browser renders parts of its own window, too: the page's thread is the busiest one.
    """
    events = json.loads(trace.read_text("utf-8"))["traceEvents"]
    tasks: dict[tuple[int, int], list[tuple[float, float]]] = {
        (each["pid"], each["tid"]): []
        for each in events
        if each.get("name") == "thread_name" and each["args"].get("name") == "CrRendererMain"
    }
    for each in events:
        thread = each["pid"], each["tid"]
        if each.get("name", "").endswith("RunTask") and thread in tasks and "dur" in each:
            tasks[thread].append((each.get("tdur", 0) / 1000, each["dur"] / 1000))
    return max(tasks.values(), key=lambda each: sum(cpu for cpu, _ in each))


def traced(
    browser: Browser, page: Page, trace: Path, action: Callable[[], None]
) -> list[tuple[float, float]]:
    """Run an action, and return the tasks of the page meanwhile."""
    browser.start_tracing(page=page, path=trace, categories=["toplevel", "devtools.timeline"])
    action()
    browser.stop_tracing()
    return main_thread_tasks(trace)


def first_view(page: Page, address: str) -> tuple[float, float]:
    """Open the page; return the ms until one picture, and until all in view, are there."""
    page.goto(address)
    page.locator("#library .picture img.ready").first.wait_for()
    first = float(page.evaluate("performance.now()"))
    while not page.evaluate(ALL_IN_VIEW):
        time.sleep(LOOK_SECONDS)
    return first, float(page.evaluate("performance.now()"))


@contextmanager
def served(outputs: Path, cache: Path) -> Iterator[tuple[str, int]]:
    """Serve a library; yield the address and the process, once it answers."""
    command = [sys.executable, "-m", "simsearch.cli", "serve", str(outputs), "--port", "0"]
    environment = os.environ | {"XDG_CACHE_HOME": str(cache)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) as server:
        assert server.stdout is not None
        address = server.stdout.readline().split()[-1]
        while True:
            with suppress(OSError), urlopen(f"{address}api/health"):
                break
            time.sleep(LOOK_SECONDS)
        yield address, server.pid
        server.terminate()


def processor_ms(pid: int) -> float:
    """Return the processor time of a process and of those that it has started, by `ps`."""
    listed = subprocess.run(
        ["ps", "-eo", "pid=,ppid="],
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [line.split() for line in listed.stdout.splitlines()]
    parents = {int(one): int(parent) for one, parent in lines}
    mine, size = {pid}, 0
    while len(mine) > size:
        size = len(mine)
        mine |= {each for each, parent in parents.items() if parent in mine}
    tick = 1000 / os.sysconf("SC_CLK_TCK")
    total = 0.0
    for each in mine:
        with suppress(OSError):
            fields = Path(f"/proc/{each}/stat").read_text("ascii").rpartition(")")[2].split()
            total += tick * (int(fields[11]) + int(fields[12]))
    return total


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


def new_window(browser: Browser) -> Page:
    """Open a window that is empty, and wait until the browser has made its own parts of it."""
    page = browser.new_page(viewport=VIEWPORT)
    page.goto("about:blank")
    time.sleep(REST_SECONDS)
    return page


def open_timed(browser: Browser, page: Page, turn: str, server: tuple[str, int]) -> None:
    """Open the page, and print how long it took."""
    address, pid = server
    clock: list[tuple[float, float]] = []
    before = processor_ms(pid)
    with tempfile.TemporaryDirectory() as folder:
        tasks = traced(
            browser,
            page,
            Path(folder) / "trace.json",
            lambda: clock.append(first_view(page, address)),
        )
    print(
        f"first view, {turn}: {clock[0][0]:.0f} ms on the clock (limit {FIRST_VIEW_MS}), "
        f"{clock[0][1]:.0f} ms until all pictures in view; processor time "
        f"{sum(cpu for cpu, _ in tasks):.0f} ms of the page, "
        f"{processor_ms(pid) - before:.0f} ms of the server"
    )


def measure(outputs: Path, cards: int, folder: Path) -> None:
    """Open the page, search, and scroll."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        page = new_window(browser)
        with served(outputs, folder / "new") as server:
            open_timed(browser, page, "cold, at once", server)
        page.close()
        with served(outputs, folder / "rested") as server:
            page = new_window(browser)
            open_timed(browser, page, f"cold, after {REST_SECONDS} idle seconds", server)
            open_timed(browser, page, "warm", server)
            use(browser, page, cards, folder)
        browser.close()


def use(browser: Browser, page: Page, cards: int, folder: Path) -> None:
    """Scroll, and search."""
    report("scroll", traced(browser, page, folder / "scroll.json", lambda: scroll(page, cards)))
    picture = page.locator("#library .picture img.ready").first

    def search() -> None:
        picture.click()
        page.locator("#matches .picture img.ready").first.wait_for()

    report("search", traced(browser, page, folder / "search.json", search))


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
        measure(outputs, options.cards, folder)


if __name__ == "__main__":
    main()
