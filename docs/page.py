"""Take docs/page.png: start `simsearch serve`, then `python docs/page.py ADDRESS ROW`.

Likes the third match, asks why of the second, and keeps 256 colours, which a README needs no more.
"""

import argparse
import shutil
from io import BytesIO
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright


def use(page: Page) -> None:
    """Use the page as somebody would who looks for something."""
    cards = page.locator("#matches .card")
    liked = cards.nth(2).get_attribute("data-row")
    cards.nth(2).hover()
    cards.nth(2).locator(".like").click()
    expect(page.locator(f"#matches [data-row='{liked}']")).to_have_count(0)
    cards.nth(1).hover()
    cards.nth(1).locator(".why").click()
    expect(page.locator(".map")).to_be_visible()
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(1000)  # for what fades in


def main() -> None:
    """Take the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address", help="such as http://127.0.0.1:8000")
    parser.add_argument("row", type=int, help="the query")
    options = parser.parse_args()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--headless", "--no-sandbox"]
        )
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.goto(f"{options.address}/?row={options.row}")
        use(page)
        picture = Image.open(BytesIO(page.screenshot()))
        browser.close()
    small = picture.convert("RGB").quantize(256, kmeans=3)
    small.save(Path(__file__).with_name("page.png"), optimize=True)


if __name__ == "__main__":
    main()
