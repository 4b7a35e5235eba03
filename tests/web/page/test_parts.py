"""Parts on the page: a frame lies where the part is, whatever the shape of picture and element."""

import io
import json

import numpy as np
import pandas as pd
import pytest
from page_cases import Site, card, expect, expect_matches, matches, wait_until
from PIL import Image

import simsearch as ss

pytestmark = pytest.mark.slow

RED = (230, 20, 20)
# Name: size of the upright picture, and the box of its red part.
PICTURES = {
    "square.png": ((300, 300), (30, 60, 120, 150)),
    "left.png": ((600, 200), (10, 30, 110, 170)),
    "right.png": ((600, 200), (480, 20, 590, 120)),
    "bottom.png": ((200, 600), (20, 470, 150, 590)),
    "broad.png": ((600, 200), (40, 60, 560, 160)),  # no square of the picture's height holds it
    "turned.jpg": ((400, 300), (20, 180, 160, 280)),  # stored on its side
    "small.png": ((60, 40), (5, 5, 25, 30)),
}
SIDE = 6  # the EXIF orientation of a picture that a viewer turns by 90 degrees


class PartSite(Site):
    """A site whose pictures have boxes."""

    def embed(self):
        boxes = pd.DataFrame(
            [(name, *box, "patch") for name, (_, box) in PICTURES.items()],
            columns=["path", "left", "top", "right", "bottom", "label"],
        )
        self.library = ss.embed_dataset(
            self.dataset, self.outputs, "efficientnet_lite0", parts=boxes, progress=False
        )


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page_parts")
    (folder / "dataset").mkdir()
    rng = np.random.default_rng(0)
    for name, (size, box) in PICTURES.items():
        noise = rng.integers(60, 200, (*size[::-1], 1), np.uint8)
        picture = Image.fromarray(np.repeat(noise, 3, axis=2))
        picture.paste(RED, box)
        exif = Image.Exif()
        if name == "turned.jpg":
            picture, exif[274] = picture.rotate(90, expand=True), SIDE
        picture.save(folder / "dataset" / name, exif=exif, quality=95)
    site = PartSite(folder)
    yield site
    site.stop()


@pytest.fixture(scope="module")
def query(tmp_path_factory):
    file = tmp_path_factory.mktemp("query") / "red.png"
    Image.new("RGB", (120, 120), RED).save(file)
    return file


def redness(page, area, grow):
    """Share of red pixels in an area of the page that is so many pixels larger on each side."""
    clip = {
        "x": area["x"] - grow,
        "y": area["y"] - grow,
        "width": area["width"] + 2 * grow,
        "height": area["height"] + 2 * grow,
    }
    shot = np.array(Image.open(io.BytesIO(page.screenshot(clip=clip))).convert("RGB"), int)
    return float(np.mean((shot[..., 0] > 180) & (shot[..., 1] < 110)))


def check_frame(page, frame):
    """Nearly all within a frame is red, and little of what is around it."""
    frame.evaluate("node => node.scrollIntoView({ block: 'center' })")
    page.mouse.move(0, 0)
    page.wait_for_timeout(450)  # thumbnails fade in
    area = frame.bounding_box()
    inner = area["width"] * area["height"]
    label = 0.25 if area["height"] < 60 else 0.12  # which hides some of the red
    assert redness(page, area, -4) > 1 - label - 0.02
    grow = 10
    whole = (area["width"] + 2 * grow) * (area["height"] + 2 * grow)
    assert redness(page, area, grow) * whole < 1.06 * inner


@pytest.fixture
def found(new_page, query):
    def search_with_parts(**options):
        page = new_page(**options)
        page.locator("#choose").set_input_files(query)
        expect(matches(page)).to_have_count(len(PICTURES))
        page.locator("#parts").click()
        expect(page.locator("#matches .part-frame").first).to_be_attached()
        page.evaluate(  # labels would hide what is to be seen
            "document.styleSheets[0].insertRule('.part-label { opacity: 0 }')"
        )
        return page

    return search_with_parts


@pytest.mark.parametrize("width", [1440, 390])
def test_frames_lie_over_the_parts(found, site, query, width):
    page = found(viewport={"width": width, "height": 900})
    expect_matches(page, ss.search(site.library, query, k=24, parts=True))
    for name in PICTURES:
        check_frame(page, card(page, site.row(name)).locator(".part-frame"))


@pytest.mark.parametrize("name", ["left.png", "bottom.png", "turned.jpg", "small.png"])
def test_the_large_picture_has_the_frame_too(found, site, name):
    page = found()
    card(page, site.row(name)).hover()
    card(page, site.row(name)).locator(".open").click()
    frame = page.locator("#detail .part-frame")
    check_frame(page, frame)
    page.set_viewport_size({"width": 560, "height": 900})
    check_frame(page, frame)
    box, size = PICTURES[name][1], PICTURES[name][0]
    text = f"patch: {box[0]}, {box[1]} to {box[2]}, {box[3]} of {size[0]} × {size[1]} pixels"
    expect(page.locator("#detail dd").first).to_have_text(text)


def test_a_heat_map_has_the_frame_over_it(found, site):
    page = found()
    row = site.row("left.png")
    card(page, row).hover()
    card(page, row).locator(".explain").click()
    expect(card(page, row).locator(".heatmap")).to_be_visible()
    layers = "nodes => nodes.map((node) => getComputedStyle(node).zIndex)"
    over = card(page, row).locator(".part-layer, .heatmap")
    assert over.evaluate_all(layers) == ["1", "auto"]
    fits = "nodes => nodes.map((node) => getComputedStyle(node).objectPosition)"
    assert len(set(card(page, row).locator(".picture img").evaluate_all(fits))) == 1


def test_the_choice_is_in_the_address_and_off_by_default(found, site, query):
    page = found()
    assert "parts=1" in page.url
    page.reload()
    expect(page.locator("#parts")).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#matches .part-frame").first).to_be_attached()
    page.locator("#parts").click()
    expect(page.locator("#matches .part-frame")).to_have_count(0)
    expect_matches(page, ss.search(site.library, query, k=24))
    assert "parts" not in page.url


def test_feedback_says_that_it_compares_whole_pictures(found, site):
    page = found()
    row = site.row("left.png")
    card(page, row).hover()
    card(page, row).locator(".like").click()
    expect(page.locator("#note")).to_contain_text("with feedback, by whole pictures")
    expect(page.locator("#matches .part-frame")).to_have_count(0)


def test_without_parts_there_is_no_choice(new_page, site):
    described = json.loads(new_page().request.get(f"{site.address}/api/library").text())
    assert described["parts"] is True
    page = new_page()
    page.route("**/api/library", lambda route: route.fulfill(json={**described, "parts": False}))
    page.goto(f"{site.address}/?row=0&parts=1")
    wait_until(page, lambda: matches(page).count(), len(PICTURES) - 1)
    expect(page.locator("#parts")).to_be_hidden()
    expect(page.locator("#matches .part-frame")).to_have_count(0)
