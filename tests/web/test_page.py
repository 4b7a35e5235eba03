"""The web page in a real browser. An error in its console, or a request elsewhere, fails a test."""

import base64
import re
import shutil
import threading
import time
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

import simsearch as ss
from simsearch.images.decode import crop, load_image

sync_api = pytest.importorskip("playwright.sync_api")
uvicorn = pytest.importorskip("uvicorn")
axe = pytest.importorskip("axe_playwright_python.sync_playwright")
expect = sync_api.expect
expect.set_options(timeout=20_000)

pytestmark = pytest.mark.slow

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
EVIL = "<img src=x onerror=document.title='run'>.jpg"
CAPTION = "<script>document.title='run'</script>"
MAX_BYTES, MAX_PIXELS = 2**20, 2_000_000
TOKEN = "a-token-of-twenty-or-so"
SEEN = 24  # matches that the page asks for by itself


# A server, in this process: it can be stopped and started again


def start(outputs, port=0, **settings):
    """Serve a library from a thread; return its address and what stops it."""
    from simsearch.web.app import create_app
    from simsearch.web.server import listen
    from simsearch.web.settings import Settings

    listening = listen("127.0.0.1", port)
    settings = {"max_bytes": MAX_BYTES, "max_pixels": MAX_PIXELS, **settings}
    app = create_app(Settings(str(outputs), **settings))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()

    def stop():
        server.should_exit = True
        thread.join()
        listening.close()

    return f"http://127.0.0.1:{listening.getsockname()[1]}", stop


class Site:
    """A dataset, its library, and the server of both."""

    def __init__(self, folder, **settings):
        self.dataset, self.outputs = folder / "dataset", folder / "outputs"
        self.settings = settings
        self.embed()
        self.address, self.stop = start(self.outputs, **settings)

    def embed(self):
        self.library = ss.embed_dataset(
            self.dataset, self.outputs, "efficientnet_lite0", progress=False
        )
        if "metadata" in self.settings:
            self.library.attach(self.settings["metadata"])

    def restart(self):
        port = int(self.address.rpartition(":")[2])
        _, self.stop = start(self.outputs, port, **self.settings)

    def row(self, name):
        return self.library.names.index(name)


def views(sample, folder, counts):
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for view in sorted((sample / "seg_train" / name).iterdir())[:count]:
            shutil.copy2(view, folder / name)


@pytest.fixture(scope="module")
def site(sample, tmp_path_factory):
    """Serve 66 views, one of them twice, one with a name that is HTML, with a table beside them."""
    folder = tmp_path_factory.mktemp("page")
    views(sample, folder / "dataset", {"cat": 22, "coffee": 21, "grass": 21})
    cats = folder / "dataset/cat"
    Image.open(cats / "0002.jpg").save(cats / "again.jpg", quality=60)
    shutil.copy2(sample / "seg_train/cat/0040.jpg", folder / "dataset" / EVIL)
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
def outside(sample, tmp_path_factory):
    """Photos that the library does not hold."""
    folder = tmp_path_factory.mktemp("outside")
    for name in ("cat", "coffee"):
        shutil.copy2(sample / "seg_test" / name / "0003.jpg", folder / f"{name}.jpg")
    return folder


# A browser


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine: install one to test the page")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def console():
    """What the console complains of; a test takes out what it expects."""
    return []


@pytest.fixture
def new_page(browser, site, console, tmp_path, request):
    """Open pages that are watched; a picture of each stays in `tmp_path` where a test fails."""
    contexts, elsewhere = [], []
    failed = request.session.testsfailed

    def open_one(path="/", address=site.address, **options):
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        contexts.append(context)
        context.set_default_timeout(20_000)
        context.on("request", lambda made: elsewhere.append(made.url))
        context.on("weberror", lambda error: console.append(str(error.error)))
        context.on(
            "console", lambda said: said.type in {"error", "warning"} and console.append(said.text)
        )
        page = context.new_page()
        page.goto(address + path)
        return page

    yield open_one
    for i, context in enumerate(contexts):
        if request.session.testsfailed > failed and context.pages:
            with suppress(sync_api.Error):
                context.pages[0].screenshot(path=tmp_path / f"failed-{i}.png")
        context.close()
    assert console == []
    assert [
        url for url in elsewhere if not re.match(r"http://127\.0\.0\.1:|blob:|data:", url)
    ] == []


@pytest.fixture
def page(new_page):
    return new_page()


def matches(page):
    return page.locator("#matches .card:not(.skeleton)")


def rows_of(page):
    return matches(page).evaluate_all("cards => cards.map((card) => Number(card.dataset.row))")


def until(page, look, wanted):
    """Wait until what is looked at is as wanted."""
    deadline = time.monotonic() + 20
    while (seen := look()) != wanted and time.monotonic() < deadline:
        page.wait_for_timeout(30)
    assert seen == wanted


def expect_found(page, found):
    """Wait until the page shows the matches that the library finds."""
    until(page, lambda: rows_of(page), [match.row for match in found])
    expect(page.locator("#heading")).to_have_text(f"{len(found)} match{'es' * (len(found) != 1)}")


def card(page, row):
    return page.locator(f"#matches .card[data-row='{row}']")


def mark(page, row, what):
    """Like or dislike a match."""
    card(page, row).hover()
    card(page, row).locator(f".{what}").click()


def search(site, query, **options):
    return ss.search(site.library, query, **{"k": SEEN, **options})


def drag(page, start, end):
    """Draw over the query's picture, between two points in fractions of it."""
    area = page.locator(".frame.ready").bounding_box()
    points = [
        (area["x"] + x * area["width"], area["y"] + y * area["height"]) for x, y in (start, end)
    ]
    page.mouse.move(*points[0])
    page.mouse.down()
    page.mouse.move(*points[1], steps=4)
    page.mouse.up()


def box_of(page):
    """Return the box that the address bar holds."""
    expect(page).to_have_url(re.compile("box="))
    return tuple(map(float, re.search(r"box=([\d.,]+)", page.url)[1].split(",")))


# Search


def test_the_library_opens_as_a_grid_that_grows(page, site):
    cards = page.locator("#library .card:not(.skeleton)")
    expect(cards).to_have_count(60)
    page.locator("#more").scroll_into_view_if_needed()
    expect(cards).to_have_count(len(site.library))
    expect(page.locator("#more")).to_be_hidden()
    expect(page.locator("#size")).to_have_text(f"{len(site.library)} pictures")


def test_a_click_searches_and_a_click_on_a_match_searches_from_it(page, site):
    row = site.row("cat/0005.jpg")
    page.locator(f"#library [data-row='{row}'] .picture").click()
    found = search(site, row)
    expect_found(page, found)
    first = matches(page).first
    expect(first.locator("b")).to_have_text(f"{found[0].score:.3f}")
    expect(first.locator(".elided")).to_have_text(found[0].caption)
    expect(first.locator(".share")).to_have_text(re.compile(r"^top [\d.]+%$"))
    expect(page.locator("#heading")).to_be_focused()
    expect(page.locator("#said")).to_have_text(f"{SEEN} matches")
    first.locator(".picture").click()
    expect_found(page, search(site, found[0].row))
    original = matches(page).first.locator(".open")
    answer = page.request.get(site.address + original.get_attribute("href"))
    assert answer.body() == Path(site.library.paths[rows_of(page)[0]]).read_bytes()


def choose(page, file):
    page.locator("#choose").set_input_files(file)


def photograph(page, file):
    page.locator("#photograph").set_input_files(file)


HAND_OVER = """([kind, code]) => {
    const bytes = Uint8Array.from(atob(code), (letter) => letter.charCodeAt(0));
    const data = new DataTransfer();
    data.items.add(new File([bytes], "photo.jpg", { type: "image/jpeg" }));
    const options = { bubbles: true, cancelable: true };
    document.body.dispatchEvent(kind === "paste"
        ? new ClipboardEvent("paste", { ...options, clipboardData: data })
        : new DragEvent("drop", { ...options, dataTransfer: data }));
}"""


def hand_over(kind):
    def hand(page, file):
        page.evaluate(HAND_OVER, [kind, base64.b64encode(file.read_bytes()).decode()])

    return hand


@pytest.mark.parametrize("give", [choose, photograph, hand_over("paste"), hand_over("drop")])
def test_an_image_comes_in_every_way(page, site, outside, give):
    expect(page.locator("#library .picture img").first).to_be_visible()
    give(page, outside / "cat.jpg")
    expect_found(page, search(site, outside / "cat.jpg"))
    expect(page.locator(".frame.ready img")).to_be_visible()


def test_a_box_drawn_with_the_mouse_searches_by_that_part(new_page, site):
    row = site.row("coffee/0004.jpg")
    page = new_page(f"/?row={row}")
    expect_found(page, search(site, row))
    drag(page, (0.5, 0.1), (0.95, 0.6))
    box = box_of(page)
    assert box == pytest.approx((0.5, 0.1, 0.95, 0.6), abs=0.01)
    expect_found(page, search(site, row, box=box))
    drag(page, (0.7, 0.3), (0.6, 0.5))  # moves it
    expect(page).not_to_have_url(re.compile(re.escape(",".join(f"{side:g}" for side in box))))
    moved = box_of(page)
    assert moved == pytest.approx((0.4, 0.3, 0.85, 0.8), abs=0.01)
    expect_found(page, search(site, row, box=moved))
    drag(page, moved[2:], (1, 1))  # takes its lower right corner
    expect(page).to_have_url(re.compile("box=[^&]*,1,1"))
    expect_found(page, search(site, row, box=box_of(page)))
    page.locator("#whole").click()
    expect_found(page, search(site, row))
    assert "box" not in page.url


def test_a_box_drawn_with_a_finger_searches_by_that_part(new_page, site, outside):
    page = new_page(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    choose(page, outside / "coffee.jpg")
    area = page.locator(".frame.ready").bounding_box()
    hand = page.context.new_cdp_session(page)
    for kind, share in (("Start", 0.2), ("Move", 0.5), ("Move", 0.8), ("End", None)):
        place = share and {
            "x": area["x"] + share * area["width"],
            "y": area["y"] + share * area["height"],
        }
        touches = [place] if place else []
        hand.send("Input.dispatchTouchEvent", {"type": f"touch{kind}", "touchPoints": touches})
    box = box_of(page)
    assert box == pytest.approx((0.2, 0.2, 0.8, 0.8), abs=0.02)
    expect_found(page, search(site, outside / "coffee.jpg", box=box))


def test_likes_and_dislikes_move_the_matches(new_page, site):
    row = site.row("cat/0003.jpg")
    page = new_page(f"/?row={row}")
    found = search(site, row)
    expect_found(page, found)
    liked, disliked = found[5].row, found[2].row
    mark(page, liked, "like")
    expect_found(page, ss.recommend(site.library, [row, liked], k=SEEN))
    mark(page, disliked, "dislike")
    expect_found(page, ss.recommend(site.library, [row, liked], [disliked], k=SEEN))
    expect(page.locator("#taste li")).to_have_count(2)
    page.locator("#taste .side").first.get_by_role("button").click()
    expect_found(page, ss.recommend(site.library, [row], [disliked], k=SEEN))
    page.locator("#forget").click()
    expect_found(page, found)
    expect(page.locator("#taste")).to_be_hidden()


def test_an_upload_and_the_part_of_a_row_are_liked_themselves(new_page, site, outside):
    page = new_page()
    choose(page, outside / "cat.jpg")
    liked = search(site, outside / "cat.jpg")[4].row
    mark(page, liked, "like")
    expect_found(page, ss.recommend(site.library, [outside / "cat.jpg", liked], k=SEEN))
    row, box = site.row("coffee/0004.jpg"), (0.1, 0.1, 0.7, 0.8)
    page.goto(f"{site.address}/?row={row}&box=0.1,0.1,0.7,0.8&liked={liked}")
    part = crop(load_image(site.library.paths[row]), box)
    taste = ss.recommend(site.library, [part, liked], k=SEEN, exclude=[row])
    expect(matches(page)).to_have_count(SEEN)
    # The browser has decoded the JPEG in its own way: neighbours may change places.
    assert len(set(rows_of(page)) & {match.row for match in taste}) >= SEEN - 1
    assert rows_of(page)[0] == taste[0].row
    assert row not in rows_of(page)


# Conditions


def open_panel(page):
    page.locator("#refine").click()
    expect(page.locator("#panel")).to_be_visible()


def test_filters_choose_by_folder_number_and_text(new_page, site):
    row = site.row("cat/0001.jpg")
    page = new_page(f"/?row={row}")
    open_panel(page)
    page.get_by_label("coffee 21").check()
    expect_found(page, search(site, row, where={"folder": "coffee"}))
    page.get_by_label("price from").fill("30")
    page.get_by_label("price to").fill("40")
    page.get_by_label("price to").press("Enter")
    expect_found(page, search(site, row, where={"folder": "coffee", "price": (30, 40)}))
    page.get_by_label("green").check()
    where = {"folder": "coffee", "price": (30, 40), "colour": ["green"]}
    expect_found(page, search(site, row, where=where))
    expect(page.locator("#chips li")).to_have_count(3)
    page.locator("#chips button", has_text="price").click()
    del where["price"]
    expect_found(page, search(site, row, where=where))
    page.get_by_label("File name contains").fill("/001")
    where["path"] = "*/001*"
    expect_found(page, search(site, row, where=where))
    page.locator("#home").click()  # the library is filtered, too
    expect(page.locator("#library .card")).to_have_count(int(site.library.where(where).sum()))
    page.locator("#clear").click()
    expect(page.locator("#heading")).to_have_text("Library")


def slide(page, name, keys):
    for key in keys:
        page.get_by_label(name).press(key)


def test_k_and_threshold_have_sliders(new_page, site):
    row = site.row("cat/0001.jpg")
    page = new_page(f"/?row={row}")
    open_panel(page)
    slide(page, "How many matches", ["Home", "ArrowRight", "ArrowRight"])
    expect_found(page, search(site, row, k=3))
    slide(page, "How many matches", ["End"])
    expect_found(page, search(site, row, k=len(site.library)))
    page.get_by_label("Auto", exact=False).check()
    expect_found(page, search(site, row, k=len(site.library), threshold="auto"))
    page.get_by_label("At least").check()
    slide(page, "Least cosine", ["End", "ArrowLeft"])
    expect(page.get_by_role("heading", name="No matches")).to_be_visible()
    expect(page.locator("#said")).to_have_text("0 matches")
    page.get_by_role("button", name="Take any likeness").click()
    expect_found(page, search(site, row, k=len(site.library)))


def test_near_duplicates_fold_and_unfold(new_page, site):
    row = site.row("cat/0001.jpg")
    page = new_page(f"/?row={row}&k=40")
    expect_found(page, search(site, row, k=40))
    page.locator("#unique").click()
    found = search(site, row, k=40, unique=True)
    expect_found(page, found)
    twice = next(match for match in found if match.duplicates)
    inside = card(page, twice.row)
    expect(inside.locator(".fold")).to_be_hidden()
    inside.get_by_role("button", name=f"+{len(twice.duplicates)} alike").click()
    expect(inside.locator(".fold img")).to_have_count(len(twice.duplicates))
    inside.locator(".fold a").first.click()
    other = site.library.find(twice.duplicates[0])
    expect_found(page, search(site, other, k=40, unique=True))


def test_heat_maps_show_why(new_page, site):
    row = site.row("coffee/0002.jpg")
    page = new_page(f"/?row={row}")
    found = search(site, row)
    expect_found(page, found)
    first = card(page, found[0].row)
    first.hover()
    first.locator(".why").click()
    drawn = first.get_by_alt_text("Heat map: bright where it is alike")
    expect(drawn).to_be_visible()
    width, height = load_image(found[0].path).size
    until(
        page,
        lambda: drawn.evaluate("map => [map.naturalWidth, map.naturalHeight]"),
        [width, height],  # of the thumbnail, which is no larger than the image
    )
    first.locator(".why").click()
    expect(drawn).to_be_hidden()
    page.locator("#heat").click()
    expect(page.locator("#matches .map").nth(3)).to_be_visible()
    expect(page).to_have_url(re.compile("heat=1"))
    page.locator("#heat").click()
    expect(page.locator("#matches .map:visible")).to_have_count(0)


# The address bar


def test_back_and_forward_go_through_what_was_asked(page, site, outside):
    row = site.row("grass/0001.jpg")
    page.locator(f"#library [data-row='{row}'] .picture").click()
    first = search(site, row)
    expect_found(page, first)
    matches(page).nth(1).locator(".picture").click()
    second = search(site, first[1].row)
    expect_found(page, second)
    mark(page, second[0].row, "like")
    taste = ss.recommend(site.library, [first[1].row, second[0].row], k=SEEN)
    expect_found(page, taste)
    choose(page, outside / "cat.jpg")
    uploaded = search(site, outside / "cat.jpg")
    expect_found(page, uploaded)
    for found in (taste, second, first):
        page.go_back()
        expect_found(page, found)
    page.go_back()
    expect(page.locator("#library .card").first).to_be_visible()
    for found in (first, second, taste, uploaded):
        page.go_forward()
        expect_found(page, found)


def test_a_link_shows_others_the_same(page, new_page, site):
    row = site.row("cat/0007.jpg")
    page.locator(f"#library [data-row='{row}'] .picture").click()
    drag(page, (0.1, 0.1), (0.7, 0.7))
    open_panel(page)
    page.get_by_label("price to").fill("50")
    page.get_by_label("price to").press("Tab")
    page.locator("#unique").click()
    where = {"price": (None, 50)}
    found = search(site, row, where=where, box=box_of(page), unique=True)
    expect_found(page, found)
    other = new_page(page.url.removeprefix(site.address))
    expect_found(other, found)
    expect(other.locator(".mark")).to_be_visible()
    expect(other.locator("figcaption .elided")).to_have_text(site.library.caption(row))


def test_an_upload_does_not_outlive_the_page(page, site, outside):
    choose(page, outside / "cat.jpg")
    expect_found(page, search(site, outside / "cat.jpg"))
    page.reload()
    expect(page.get_by_role("heading", name="Your picture is no longer here")).to_be_visible()
    choose(page, outside / "coffee.jpg")
    expect_found(page, search(site, outside / "coffee.jpg"))


# Without a mouse, on a phone, in the dark


def test_all_of_it_goes_by_keyboard(page, site):
    expect(page.locator("#library .card:not(.skeleton)")).to_have_count(60)
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#results")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.locator("#refine")).to_be_focused()
    page.keyboard.press("Tab")
    for key in ("ArrowRight", "ArrowRight", "ArrowLeft", "ArrowDown", "ArrowUp"):
        page.keyboard.press(key)
    second = page.locator("#library .card").nth(1)
    expect(second.locator(".picture")).to_be_focused()
    row = int(second.get_attribute("data-row"))
    page.keyboard.press("Enter")
    expect_found(page, search(site, row))
    expect(page.locator("#heading")).to_be_focused()

    page.locator("#part").focus()
    page.keyboard.press("Enter")
    expect(page.locator(".mark")).to_be_focused()
    for key in ("ArrowRight", "ArrowRight", "ArrowUp", "Shift+ArrowDown", "Shift+ArrowLeft"):
        page.keyboard.press(key)
    expect(page).to_have_url(re.compile("box=0.29,0.23,0.77,0.75$"))
    expect_found(page, search(site, row, box=(0.29, 0.23, 0.77, 0.75)))
    page.keyboard.press("Escape")
    expect(page.locator("#part")).to_be_focused()
    found = search(site, row)
    expect_found(page, found)

    matches(page).nth(2).locator(".picture").focus()
    page.keyboard.press("l")
    expect_found(page, ss.recommend(site.library, [row, found[2].row], k=SEEN))
    expect(matches(page).nth(2).locator(".like")).to_be_focused()
    page.locator("#refine").press("Enter")
    expect(page.get_by_label("How many matches")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.locator("#refine")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.locator("#library .card").first).to_be_visible()


def overflow(page):
    return page.evaluate(
        "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    )


def test_a_phone_reaches_everything(new_page, site):
    page = new_page(viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    expect(page.locator("#photograph")).to_be_attached()
    expect(page.get_by_text("Take a photo")).to_be_visible()
    page.locator("#library .card:not(.skeleton) .picture").first.tap()
    expect(matches(page)).to_have_count(SEEN)
    assert overflow(page) == 0
    page.locator("#refine").tap()
    page.get_by_label("cat 23").check()
    expect(page.locator("#chips li")).to_have_count(1)
    assert overflow(page) == 0
    page.locator("#refine").tap()
    matches(page).first.locator(".like").tap()
    expect(page.locator("#taste li")).to_have_count(1)
    assert overflow(page) == 0
    sides = page.locator("button:visible, a:visible, input:visible").evaluate_all(
        "all => all.map((each) => each.getBoundingClientRect()).map((at) => [at.left, at.right])"
    )
    placed = [side for side in sides if side[1] - side[0] > 1]  # not for a screen reader alone
    assert len(placed) > 100
    assert all(0 <= left < right <= 360 for left, right in placed)
    for path in ("/docs", "/static/login.html"):
        page.goto(site.address + path)
        expect(page.get_by_role("heading", level=1)).to_be_visible()
        assert overflow(page) == 0


def test_the_theme_is_kept(new_page):
    page = new_page(color_scheme="light")

    def ground():
        return page.locator("body").evaluate("body => getComputedStyle(body).backgroundColor")

    light = ground()
    page.get_by_role("button", name="Dark theme").click()
    dark = ground()
    assert dark != light
    page.reload()
    assert ground() == dark
    page.emulate_media(color_scheme="dark")
    page.evaluate("localStorage.clear()")
    page.reload()
    assert ground() == dark


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_keeps_anybody_out(new_page, site, scheme):
    page = new_page(color_scheme=scheme, reduced_motion="reduce")
    checker = axe.Axe()

    def check():
        found = checker.run(page).response["violations"]  # of any weight
        assert [(each["id"], [node["html"] for node in each["nodes"]]) for each in found] == []

    expect(page.locator("#library .card:not(.skeleton)").first).to_be_visible()
    check()
    row = site.row("cat/0001.jpg")
    page.goto(f"{site.address}/?row={row}&liked={row + 1}&box=.1,.1,.6,.6&unique=1&folder=cat")
    expect(matches(page).first).to_be_visible()
    open_panel(page)
    check()
    page.goto(f"{site.address}/docs")
    expect(page.locator(".call").first).to_be_visible()
    check()
    page.goto(f"{site.address}/static/login.html")
    check()


# What goes wrong


def test_names_and_captions_are_only_ever_text(new_page, site, outside, tmp_path):
    row = site.row(EVIL)
    page = new_page(f"/?row={row}")
    assert site.library.caption(row).startswith(CAPTION)
    expect(page.locator("figcaption .elided")).to_contain_text(CAPTION)
    expect_found(page, search(site, row))
    matches(page).first.locator(".picture").click()
    expect(page.locator(f"#matches [data-row='{row}'] .elided")).to_contain_text(CAPTION)
    file = tmp_path / EVIL
    shutil.copy2(outside / "cat.jpg", file)
    choose(page, file)
    expect(page.locator("figcaption .elided")).to_have_text(EVIL)
    expect_found(page, search(site, file))
    expect(page).to_have_title(f"{EVIL} – simsearch")


def test_an_unreadable_image_is_told_apart_from_the_rest(page, site, outside, console, tmp_path):
    (tmp_path / "broken.jpg").write_bytes((outside / "cat.jpg").read_bytes()[:300])
    choose(page, tmp_path / "broken.jpg")
    expect(page.get_by_role("alert").get_by_role("heading")).to_have_text(
        "That cannot be searched with"
    )
    (tmp_path / "notes.pdf").write_text("no picture")
    choose(page, tmp_path / "notes.pdf")
    expect(page.locator("#fault")).to_contain_text("“notes.pdf” is not a picture")
    choose(page, outside / "cat.jpg")
    expect_found(page, search(site, outside / "cat.jpg"))
    expect(page.locator("#fault")).to_be_hidden()
    assert all("422" in console.pop() for _ in list(console))


def test_an_image_too_large_is_refused_here_or_there(page, console, tmp_path):
    (tmp_path / "long.jpg").write_bytes(bytes(MAX_BYTES + 1))
    choose(page, tmp_path / "long.jpg")
    expect(page.locator("#fault")).to_contain_text("“long.jpg” has 1.0 MB, and at most 1 MB")
    expect(page.locator("#library .card").first).to_be_visible()
    Image.new("L", (1500, 1500)).save(tmp_path / "wide.png")
    choose(page, tmp_path / "wide.png")
    expect(page.locator("#message p")).to_contain_text("over the limit of 2,000,000")
    assert "422" in console.pop()


def test_a_row_that_is_not_there_leads_back(new_page, console):
    page = new_page("/?row=123456")
    expect(page.get_by_role("heading", name="There is no such picture")).to_be_visible()
    page.get_by_role("button", name="Back to the library").click()
    expect(page.locator("#library .card").first).to_be_visible()
    assert "404" in console.pop()


def test_a_busy_server_is_asked_again(page, site, console):
    turned_away = []

    def refuse(route):
        turned_away.append(route)
        route.fulfill(status=503, headers={"Retry-After": "1"}, json={"detail": "full"})

    page.route("**/api/search", refuse, times=2)
    row = site.row("cat/0001.jpg")
    page.locator(f"#library [data-row='{row}'] .picture").click()
    expect(page.locator("#note")).to_have_text("The server is busy; asking again in 1 s")
    expect_found(page, search(site, row))
    assert len(turned_away) == 2
    assert all("503" in console.pop() for _ in list(console))


def test_a_late_answer_does_not_overwrite_a_newer_one(page, site):
    held = []

    def hold(route):
        held.append(route)

    page.route("**/api/search", hold, times=1)
    slow, quick = site.row("cat/0001.jpg"), site.row("coffee/0001.jpg")
    page.locator(f"#library [data-row='{slow}'] .picture").click()
    until(page, lambda: len(held), 1)
    page.locator("#home").click()
    page.locator(f"#library [data-row='{quick}'] .picture").click()
    expect_found(page, search(site, quick))
    with suppress(sync_api.Error):  # the page has hung up already
        held[0].continue_()
    mark(page, search(site, quick)[0].row, "why")  # time enough for it to arrive
    expect(page.locator("#matches .map")).to_be_visible()
    expect_found(page, search(site, quick))


def test_the_page_survives_a_server_that_goes_away(page, site, console):
    row = site.row("cat/0001.jpg")
    page.locator(f"#library [data-row='{row}'] .picture").click()
    found = search(site, row)
    expect_found(page, found)
    site.stop()
    matches(page).nth(1).locator(".picture").click()
    expect(page.locator("#banner")).to_contain_text("The server does not answer")
    expect(page.get_by_role("button", name="Try now")).to_be_visible()
    site.restart()
    expect_found(page, search(site, found[1].row))
    expect(page.locator("#banner")).to_be_hidden()
    assert all("ERR_" in console.pop() for _ in list(console))


def test_the_page_gives_up_on_an_answer_that_never_arrives(page, site, console):
    page.route("**/api/search", lambda route: route.abort())
    page.locator("#library .card:not(.skeleton) .picture").first.click()
    expect(page.locator("#banner")).to_be_visible()
    expect(page.locator("#message")).to_contain_text("its answer does not arrive")
    page.unroute("**/api/search")
    page.get_by_role("button", name="Try again").click()
    expect(matches(page)).to_have_count(SEEN)
    expect(page.locator("#banner")).to_be_hidden()
    assert all("ERR_FAILED" in console.pop() for _ in list(console))


def test_an_address_is_searched_with_where_the_server_allows_it(new_page, site, console):
    address, stop = start(site.outputs, urls=True)
    try:
        page = new_page("/", address)
        page.get_by_label("Address of an image").fill("http://127.0.0.1:9/private.jpg")
        with page.expect_request("**/api/search") as asked:
            page.get_by_label("Address of an image").press("Enter")
        assert "http://127.0.0.1:9/private.jpg" in asked.value.post_data
        expect(page.get_by_role("heading", name="That cannot be searched with")).to_be_visible()
        expect(page).to_have_url(re.compile("url=http"))
        assert "422" in console.pop()
        page.close()
    finally:
        stop()


def test_the_page_follows_a_library_that_is_embedded_again(new_page, sample, console, tmp_path):
    views(sample, tmp_path / "dataset", {"cat": 5, "coffee": 3})
    site = Site(tmp_path)
    try:
        page = new_page(f"/?row={site.row('cat/0004.jpg')}", site.address)
        before = search(site, site.row("cat/0004.jpg"))
        expect_found(page, before)
        (site.dataset / "cat/0001.jpg").unlink()  # every row number is another image's now
        version = page.request.get(f"{site.address}/api/health").json()["version"]
        site.embed()
        until(
            page,
            lambda: page.request.get(f"{site.address}/api/health").json()["version"] != version,
            wanted=True,
        )
        page.locator("#unique").click()
        row = site.row("cat/0004.jpg")
        expect_found(page, search(site, row, unique=True))
        expect(page).to_have_url(re.compile(f"row={row}&"))
        expect(page.locator("#size")).to_have_text("7 pictures")
        assert all("status of 4" in console.pop() for _ in list(console))
        page.close()
    finally:
        site.stop()


def test_the_log_in_asks_for_the_token(new_page, site, console):
    address, stop = start(site.outputs, token=TOKEN)
    try:
        page = new_page("/", address)
        expect(page.get_by_role("heading", name="Who is there?")).to_be_visible()
        expect(page.locator("#wrong")).to_be_hidden()
        page.get_by_label("Token").fill("not this one")
        page.get_by_label("Token").press("Enter")
        expect(page.locator("#wrong")).to_be_visible()
        page.get_by_label("Token").fill(TOKEN)
        page.get_by_label("Token").press("Enter")
        expect(page.locator("#library .card:not(.skeleton)").first).to_be_visible()
        assert all("401" in console.pop() for _ in list(console))
        page.close()  # before its pictures are asked for in vain
    finally:
        stop()


def test_the_apis_page_lists_every_call_with_a_command(page, site):
    described = page.request.get(f"{site.address}/api/openapi.json").json()
    page.get_by_role("link", name="API").click()
    calls = {(method.upper(), path) for path, each in described["paths"].items() for method in each}
    expect(page.locator(".call")).to_have_count(len(calls))
    heads = page.locator(".call h2").evaluate_all(
        "all => all.map((head) => [head.firstChild.textContent, head.lastChild.textContent])"
    )
    assert {(method, path) for method, path in heads} == calls
    command = page.locator("#post-api-search pre").inner_text()
    assert command.split() == [
        "curl",
        f"{site.address}/api/search",
        "\\",
        "-F",
        "image=@photo.jpg",
        "\\",
        "-F",
        "k=10",
    ]
    expect(page.locator("#post-api-search .fields").first).to_contain_text("threshold")
