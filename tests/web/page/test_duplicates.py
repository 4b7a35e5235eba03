"""The page of duplicates: looked at side by side, chosen, exported as a plan, never applied."""

import csv
import re
from pathlib import Path

import numpy as np
import pytest
from page_cases import axe, expect, serve
from scenes import scene

import simsearch as ss

pytestmark = pytest.mark.slow


@pytest.fixture
def project(tmp_path):
    """Two pictures with a smaller copy each, and the address of their server."""
    folder = tmp_path / "dataset"
    (folder / "new").mkdir(parents=True)
    for seed in range(2):
        scene(seed).save(folder / f"{seed}.png")
        scene(seed).resize((200, 150)).save(folder / f"new/{seed}.png")
    paths = sorted(str(path) for path in folder.rglob("*.png"))
    rows = np.eye(2)[[int(Path(path).stem) for path in paths]]
    ss.ImageLibrary(rows, paths).save(tmp_path / "outputs")
    address, stop = serve(tmp_path / "outputs")
    yield folder, address
    stop()


@pytest.fixture
def open_duplicates(new_page, project):
    """Open the page and look for duplicates."""

    def open_duplicates(**options):
        page = new_page("/duplicates", project[1], **options)
        page.get_by_role("button", name="Find duplicates").click()
        expect(page.locator(".copies")).to_have_count(2)
        return page

    return open_duplicates


def export(page, file):
    with page.expect_download() as download:
        page.get_by_role("button", name="Export the plan").click()
    assert download.value.suggested_filename == "plan.csv"
    download.value.save_as(file)
    expect(page.get_by_role("heading", name="The plan is in plan.csv")).to_be_visible()
    with Path(file).open(newline="") as stream:
        return [(row["keep"], row["extra"]) for row in csv.DictReader(stream)]


def copy(page, name):
    return page.locator(".copy", has=page.locator(f"[title='{name}']"))


def pictures(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png"))


def test_plan_is_exported_and_applied_at_the_command_line(open_duplicates, project, tmp_path):
    folder, _ = project
    page = open_duplicates()
    expect(copy(page, "0.png").locator(".verdict")).to_have_text("Stays")
    expect(copy(page, "new/0.png").locator(".verdict")).to_have_text("Can be removed Resized")
    expect(copy(page, "new/0.png").locator(".caption-detail")).to_have_text(
        re.compile(r"200 × 150 · .* · new")  # what decides comes first: a long folder is cut off
    )
    expect(page.locator("#summary")).to_contain_text("2 groups · 2 copies can be removed · ")
    before = pictures(folder)
    plan = export(page, tmp_path / "plan.csv")
    assert plan == [("0.png", "new/0.png"), ("1.png", "new/1.png")]
    expect(page.locator("#exported")).to_contain_text("--apply plan.csv --root DATASET")
    assert pictures(folder) == before
    result = ss.apply_cleanup(ss.read_plan(tmp_path / "plan.csv", folder), folder, progress=False)
    assert len(result.moved) == 2
    page.close()


def test_kept_picture_can_be_swapped_and_groups_left_alone(open_duplicates, tmp_path):
    page = open_duplicates()
    copy(page, "new/0.png").get_by_role("button", name="Keep this one").click()
    expect(copy(page, "new/0.png").locator(".verdict")).to_have_text("Stays")
    expect(copy(page, "0.png").locator(".verdict")).to_contain_text("Can be removed")
    expect(page.get_by_role("button", name="Keep this one: 0.png")).to_be_focused()
    page.get_by_role("region", name="Group 2").get_by_role("button", name="Leave this").click()
    expect(page.locator("#summary")).to_contain_text("2 groups · 1 copy can be removed")
    page.reload()  # the browser keeps what was chosen
    expect(copy(page, "new/0.png").locator(".verdict")).to_have_text("Stays")
    assert export(page, tmp_path / "plan.csv") == [("new/0.png", "0.png")]
    expect(page.locator("#exported")).to_contain_text("1 picture kept: left where it is.")
    page.close()


def test_pair_marked_as_no_duplicate_is_remembered_when_the_plan_is_exported(
    open_duplicates, tmp_path
):
    page = open_duplicates()
    mark = copy(page, "new/1.png").get_by_role("button", name="Not a duplicate")
    mark.click()
    expect(mark).to_have_attribute("aria-pressed", "true")
    mark.click()  # a mistake can be taken back
    expect(copy(page, "new/1.png").locator(".verdict")).to_contain_text("Can be removed")
    mark.click()
    assert export(page, tmp_path / "plan.csv") == [("0.png", "new/0.png")]
    expect(page.locator("#exported")).to_contain_text(
        "1 pair will be remembered as not being duplicates"
    )
    expect(page.locator(".copies")).to_have_count(1)
    library = ss.ImageLibrary.load(tmp_path / "outputs")
    assert len(ss.duplicates(library, progress=False)) == 1
    page.close()


def test_progress_is_shown_while_the_search_runs(new_page, project):
    page = new_page("/duplicates", project[1])
    state = {"version": "x", "state": "running", "step": "Reading pictures", "done": 1200}
    page.route(
        "**/api/duplicates/search", lambda route: route.fulfill(json=state | {"total": 9000})
    )
    page.route("**/api/duplicates?*", lambda route: route.fulfill(json=state | {"total": 9000}))
    page.get_by_role("button", name="Find duplicates").click()
    expect(page.locator(".step")).to_have_text("Reading pictures: 1,200 of 9,000")
    bar = page.get_by_role("progressbar")
    assert bar.evaluate("bar => bar.value / bar.max") == pytest.approx(1200 / 9000)
    page.unroute("**/api/duplicates?*")
    expect(page.get_by_role("button", name="Find duplicates")).to_be_visible()
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_and_a_phone_shows_all(open_duplicates, scheme):
    page = open_duplicates(
        color_scheme=scheme, viewport={"width": 390, "height": 844}, reduced_motion="reduce"
    )
    copy(page, "new/1.png").get_by_role("button", name="Not a duplicate").click()
    with page.expect_download():
        page.get_by_role("button", name="Export the plan").click()
    expect(page.locator("#exported")).to_be_visible()
    found = axe.Axe().run(page).response["violations"]
    assert [(each["id"], [node["html"] for node in each["nodes"]]) for each in found] == []
    wide = "document.documentElement.scrollWidth > document.documentElement.clientWidth"
    assert not page.evaluate(wide)
    page.close()
