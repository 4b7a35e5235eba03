"""A real browser on a real server, and helpers to use the page.

An error in the browser's console, or a request to another host, fails a test.
"""

import re
import shutil
import threading
import time
from contextlib import suppress

import pandas as pd
import pytest
from PIL import Image

import simsearch as ss

sync_api = pytest.importorskip("playwright.sync_api")
uvicorn = pytest.importorskip("uvicorn")
axe = pytest.importorskip("axe_playwright_python.sync_playwright")
expect = sync_api.expect
expect.set_options(timeout=20_000)

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
HTML_NAME = "<img src=x onerror=document.title='run'>.jpg"
CAPTION = "<script>document.title='run'</script>"
MAX_BYTES, MAX_PIXELS = 2**20, 2_000_000
TOKEN = "a-token-of-twenty-or-so"
DEFAULT_K = 24  # matches on the page, unless the user sets another number


def serve(outputs, port=0, **settings):
    """Serve a library from a thread; return its address and a function that stops it."""
    from simsearch.web.app import create_app
    from simsearch.web.settings import Settings

    settings = {"max_bytes": MAX_BYTES, "max_pixels": MAX_PIXELS, **settings}
    return run_app(create_app(Settings(str(outputs), **settings)), port)


def run_app(app, port=0):
    """Run an app on a thread; return its address and a function that stops it."""
    from simsearch.web.server import listen

    listening = listen("127.0.0.1", port)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()

    def stop():
        server.should_exit = True
        thread.join()
        listening.close()

    return f"http://127.0.0.1:{listening.getsockname()[1]}", stop


class Site:
    """A dataset, its library, and a server that can be stopped and started again."""

    def __init__(self, folder, **settings):
        self.dataset, self.outputs = folder / "dataset", folder / "outputs"
        self.settings = settings
        self.embed()
        self.address, self.stop = serve(self.outputs, **settings)

    def embed(self):
        self.library = ss.embed_dataset(
            self.dataset, self.outputs, "efficientnet_lite0", progress=False
        )
        if "metadata" in self.settings:
            self.library.attach(self.settings["metadata"])

    def restart(self):
        port = int(self.address.rpartition(":")[2])
        _, self.stop = serve(self.outputs, port, **self.settings)

    def row(self, name):
        return self.library.names.index(name)


def copy_views(sample, folder, counts):
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for view in sorted((sample / "seg_train" / name).iterdir())[:count]:
            shutil.copy2(view, folder / name)


@pytest.fixture(scope="module")
def site(sample, tmp_path_factory):
    """Serve 66 views with metadata: one view is there twice, and one has HTML as its name."""
    folder = tmp_path_factory.mktemp("page")
    copy_views(sample, folder / "dataset", {"cat": 22, "coffee": 21, "grass": 21})
    cats = folder / "dataset/cat"
    Image.open(cats / "0002.jpg").save(cats / "again.jpg", quality=60)
    shutil.copy2(sample / "seg_train/cat/0040.jpg", folder / "dataset" / HTML_NAME)
    names = [file.relative_to(folder / "dataset").as_posix() for file in cats.parent.rglob("*.jpg")]
    table = pd.DataFrame({"path": sorted(names)})
    table["title"] = [f"Print {i}" if i else CAPTION for i in range(len(table))]
    table["price"] = [float(i) for i in range(len(table))]
    table["colour"] = [("red", "green", "blue")[i % 3] for i in range(len(table))]
    table.to_csv(folder / "facts.csv", index=False)
    site = Site(folder, metadata=str(folder / "facts.csv"))
    yield site
    site.stop()


@pytest.fixture(scope="module")
def other_photos(sample, tmp_path_factory):
    """Photos that the library does not hold."""
    folder = tmp_path_factory.mktemp("other_photos")
    for name in ("cat", "coffee"):
        shutil.copy2(sample / "seg_test" / name / "0003.jpg", folder / f"{name}.jpg")
    return folder


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine: install it to test the page")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def console():
    """Errors and warnings of the console; a test removes those that it expects."""
    return []


@pytest.fixture
def new_page(browser, site, console, tmp_path, request):
    """Open pages and watch them; after a failed test their screenshots are in `tmp_path`."""
    contexts, requested = [], []
    failed = request.session.testsfailed

    def open_page(path="/", address=site.address, **options):
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        contexts.append(context)
        context.set_default_timeout(20_000)
        context.on("request", lambda sent: requested.append(sent.url))
        context.on("weberror", lambda error: console.append(str(error.error)))
        context.on(
            "console",
            lambda entry: entry.type in {"error", "warning"} and console.append(entry.text),
        )
        page = context.new_page()
        page.goto(address + path)
        return page

    yield open_page
    for i, context in enumerate(contexts):
        if request.session.testsfailed > failed and context.pages:
            with suppress(sync_api.Error):
                context.pages[0].screenshot(path=tmp_path / f"failed-{i}.png")
        context.close()
    assert console == []
    assert [
        url for url in requested if not re.match(r"http://127\.0\.0\.1:|blob:|data:", url)
    ] == []


@pytest.fixture
def page(new_page):
    return new_page()


def matches(page):
    return page.locator("#matches .card:not(.skeleton)")


def rows_of(page):
    return matches(page).evaluate_all("cards => cards.map((card) => Number(card.dataset.row))")


def wait_until(page, look, wanted):
    """Wait until `look()` returns `wanted`, also while the browser goes to another page."""
    deadline = time.monotonic() + 20
    while (value := _seen(look)) != wanted and time.monotonic() < deadline:
        page.wait_for_timeout(30)
    assert value == wanted


def _seen(look):
    try:
        return look()
    except sync_api.Error as error:
        if "Execution context was destroyed" not in str(error):
            raise
        return error


def expect_matches(page, found):
    """Wait until the page shows the matches that the library finds."""
    wait_until(page, lambda: rows_of(page), [match.row for match in found])
    expect(page.locator("#heading")).to_have_text(f"{len(found)} match{'es' * (len(found) != 1)}")


def card(page, row):
    return page.locator(f"#matches .card[data-row='{row}']")


def press_action(page, row, action):
    """Press the like, dislike or explain button of a match."""
    card(page, row).hover()
    card(page, row).locator(f".{action}").click()


def search(site, query, **options):
    return ss.search(site.library, query, **{"k": DEFAULT_K, **options})


def box_in_url(page):
    """Return the box in the URL of the page."""
    expect(page).to_have_url(re.compile("box="))
    return tuple(map(float, re.search(r"box=([\d.,]+)", page.url)[1].split(",")))


def drag(page, start, end):
    """Drag over the query image, between two points in fractions of it."""
    area = page.locator(".crop-area.ready").bounding_box()
    points = [
        (area["x"] + x * area["width"], area["y"] + y * area["height"]) for x, y in (start, end)
    ]
    page.mouse.move(*points[0])
    page.mouse.down()
    page.mouse.move(*points[1], steps=4)
    page.mouse.up()


def choose(page, file):
    page.locator("#choose").set_input_files(file)


def open_panel(page):
    page.locator("#filters").click()
    expect(page.locator("#panel")).to_be_visible()
