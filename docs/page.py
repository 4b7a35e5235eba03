"""Screenshot the page for the documentation: a query with feedback and heat maps, and the map.

Start `simsearch serve`, then run `python docs/page.py ADDRESS ROW`. The stored pictures show
the sample dataset, embedded by EfficientNet-Lite0: row 452, seg_train/cat/0004.jpg.
"""

import argparse
import shutil
from io import BytesIO
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
COLOURS = 256  # enough for a README, in a quarter of the bytes
FADE_MS = 1000  # until all transitions of the page have ended
SIZES = {"page": (1440, 900), "page-tablet": (820, 1060), "page-phone": (390, 844)}
TOUCH_WIDTH = 1000  # below it, the screenshots are those of a device that is touched


def give_feedback(page: Page) -> None:
    """Like the third match, then explain the second one."""
    cards = page.locator("#matches .card")
    liked = cards.nth(2).get_attribute("data-row")
    cards.nth(2).hover()
    cards.nth(2).locator(".like").click()
    expect(page.locator(f"#matches [data-row='{liked}']")).to_have_count(0)
    cards.nth(1).hover()
    cards.nth(1).locator(".explain").click()
    expect(page.locator(".heatmap")).to_be_visible()


def show_first_matches(page: Page) -> None:
    """Scroll a small screen until the matches stand below the query."""
    page.locator("#matches .picture img.ready").nth(3).wait_for()


def draw_map(page: Page) -> None:
    """Wait for the pictures of the map."""
    page.locator("#near a").first.wait_for()


def screenshot(browser: Browser, url: str, size: tuple[int, int], use) -> Image.Image:  # noqa: ANN001
    """Open the page, use it, and return its picture."""
    touch = size[0] < TOUCH_WIDTH
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]}, has_touch=touch, is_mobile=touch
    )
    page = context.new_page()
    page.goto(url)
    use(page)
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(FADE_MS)
    picture = Image.open(BytesIO(page.screenshot())).convert("RGB")
    context.close()
    return picture


def main() -> None:
    """Save the screenshots beside this file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address", help="such as http://127.0.0.1:8000")
    parser.add_argument("row", type=int, help="row of the query image in the library")
    options = parser.parse_args()
    with sync_playwright() as playwright:
        chromium = shutil.which("chromium")
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        views = {
            name: (f"/?row={options.row}", size, show_first_matches if i else give_feedback)
            for i, (name, size) in enumerate(SIZES.items())
        } | {"map": ("/map", SIZES["page"], draw_map)}
        for name, (path, size, use) in views.items():
            picture = screenshot(browser, options.address + path, size, use)
            file = Path(__file__).with_name(f"{name}.png")
            picture.quantize(COLOURS, kmeans=3).save(file, optimize=True)
        browser.close()


if __name__ == "__main__":
    main()
