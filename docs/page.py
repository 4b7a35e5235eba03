"""Screenshot docs/page.png of the search page: a query with feedback and a heat map.

Start `simsearch serve`, then run `python docs/page.py ADDRESS ROW`.
"""

import argparse
import shutil
from io import BytesIO
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright

FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
COLOURS = 256  # enough for a README, in a quarter of the bytes
FADE_MS = 1000  # until all transitions of the page have ended


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
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(FADE_MS)


def screenshot(url: str) -> Image.Image:
    """Open the page at a search, use it, and return its picture."""
    with sync_playwright() as playwright:
        chromium = shutil.which("chromium")
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.goto(url)
        give_feedback(page)
        picture = Image.open(BytesIO(page.screenshot()))
        browser.close()
    return picture.convert("RGB")


def main() -> None:
    """Save the screenshot beside this file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address", help="such as http://127.0.0.1:8000")
    parser.add_argument("row", type=int, help="row of the query image in the library")
    options = parser.parse_args()
    picture = screenshot(f"{options.address}/?row={options.row}")
    picture.quantize(COLOURS, kmeans=3).save(Path(__file__).with_name("page.png"), optimize=True)


if __name__ == "__main__":
    main()
