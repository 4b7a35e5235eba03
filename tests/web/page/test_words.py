"""Words in the box of the page: searched with, refined, shared by their address."""

import re

import pytest
from page_cases import DEFAULT_K, expect, expect_matches, press_action, rows_of, serve, wait_until

import simsearch as ss

pytestmark = pytest.mark.slow


def ask(page, text):
    box = page.get_by_label("Words, or the address of an image")
    box.fill(text)
    box.press("Enter")


def test_words_find_pictures_and_are_in_the_address(page, site, new_page):
    ask(page, "a cup of coffee")
    expect_matches(page, ss.search(site.library, text="a cup of coffee", k=DEFAULT_K))
    expect(page.locator("#query .words")).to_have_text("“a cup of coffee”")
    expect(page).to_have_title("a cup of coffee – simsearch")
    expect(page).to_have_url(re.compile(r"text=a\+cup\+of\+coffee"))
    shared = new_page(page.url.removeprefix(site.address))
    expect_matches(shared, ss.search(site.library, text="a cup of coffee", k=DEFAULT_K))


def test_words_are_refined_by_likes(page, site):
    ask(page, "a cup of coffee")
    expect(page.locator("#query .words")).to_be_visible()
    row = ss.search(site.library, text="a cup of coffee", k=DEFAULT_K)[2].row
    expect(page.locator(f"#matches [data-row='{row}']")).to_be_visible()
    press_action(page, row, "like")
    expected = ss.recommend(site.library, [ss.Words("a cup of coffee"), row], k=DEFAULT_K)
    wait_until(page, lambda: rows_of(page), [match.row for match in expected])


def test_words_that_mean_no_class_are_told(page, site):
    ask(page, "quarterly tax report")
    expect(page.locator("#note")).to_contain_text("no concept near")


def test_words_that_no_picture_shows_are_told(page, site):
    ask(page, "a submarine")
    expect(page.locator("#note")).to_contain_text("no picture clearly shows this")


@pytest.mark.parametrize("text", ["<img src=x onerror=document.title='run'>", "🎉🎉", "日本語"])
def test_hostile_words_get_an_answer(page, text):
    ask(page, text)
    expect(page.locator("#query .words")).to_have_text(f"“{text}”")
    expect(page.locator("#matches .card:not(.skeleton)")).to_have_count(DEFAULT_K)
    expect(page).to_have_title(f"{text} – simsearch")


@pytest.mark.parametrize(
    ("typed", "reason"),
    [("...", "Type a word or more"), ("https://example.org/a.jpg", "no pictures from addresses")],
)
def test_what_cannot_be_asked_is_told_in_one_line(page, typed, reason):
    ask(page, typed)
    expect(page.locator("#upload-error")).to_contain_text(reason)
    expect(page.locator("#panel")).to_have_attribute("data-mode", "library")


def test_a_library_of_unknown_origin_offers_no_box(new_page, site, tmp_path, console):
    library = ss.ImageLibrary(site.library.embeddings[:9], site.library.paths[:9])
    library.save(tmp_path / "outputs")
    address, stop = serve(tmp_path / "outputs", root=str(site.dataset))
    try:
        page = new_page("/", address)
        expect(page.locator("#library .card:not(.skeleton)").first).to_be_visible()
        expect(page.locator("#url-form")).to_be_hidden()
        page.close()
    finally:
        stop()
