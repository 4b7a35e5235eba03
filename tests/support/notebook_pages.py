"""Cells of a notebook in a page: run them, read what they print."""

import re

SECONDS = 120


def run_first_cell(page):
    """Run it; until the kernel is connected, JupyterLab forgets that it was asked to."""
    cell = page.locator(".jp-Notebook .jp-CodeCell").first
    for _ in range(SECONDS // 5):
        cell.locator(".cm-content").click()
        page.keyboard.press("Shift+Enter")
        page.wait_for_timeout(5000)
        if cell.locator(".jp-InputPrompt").inner_text().strip() not in {"[ ]:", ""}:
            return


def read_cell(page, index):
    """Run a cell, and return what it prints after READ."""
    cell = page.locator(".jp-Notebook .jp-CodeCell").nth(index)
    cell.locator(".cm-content").click()
    before = cell.locator(".jp-InputPrompt").inner_text()
    page.keyboard.press("Shift+Enter")
    page.wait_for_function(
        "([before, i]) => { const text = document.querySelectorAll('.jp-Notebook .jp-CodeCell')[i]"
        ".querySelector('.jp-InputPrompt').innerText; "
        "return text !== before && /\\d/.test(text); }",
        arg=[before, index],
    )
    output = cell.locator(".jp-OutputArea-output").last
    return re.search(r"READ (.*)", output.inner_text())[1]
