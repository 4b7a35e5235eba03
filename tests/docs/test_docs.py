"""The documentation does what it says: its commands and its Python blocks are run, page by page."""

import ast
import importlib
import re
import sys

import matplotlib.pyplot as plt
import pytest
from docs_exemptions import PAGES, PYTHON, SHELL
from page_blocks import blocks_of
from page_commands import ROOT, Shell, check

import simsearch as ss

DOCS = ROOT / "docs"
FILES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
EXAMPLES = [file for file in FILES if file.name not in PAGES]
LANGUAGES = {"python", "sh", "text"}


def name_of(file):
    return file.relative_to(ROOT).as_posix()


@pytest.fixture(scope="module")
def generated():
    """The module that writes the generated pages."""
    sys.path.insert(0, str(DOCS))
    try:
        return importlib.import_module("generated")
    finally:
        sys.path.remove(str(DOCS))


@pytest.fixture(scope="module")
def parser(generated):
    module, _, function = generated.PARSER.partition(":")
    return getattr(importlib.import_module(module), function)()


@pytest.mark.parametrize("file", EXAMPLES, ids=name_of)
def test_every_block_names_its_language(file):
    assert [block.place for block in blocks_of(file) if block.language not in LANGUAGES] == []


@pytest.mark.parametrize("file", EXAMPLES, ids=name_of)
def test_the_public_names_of_a_page_exist(file):
    for block in blocks_of(file):
        if block.language == "python":
            tree = ast.parse(block.code, block.place)
            used = {
                node.attr
                for node in ast.walk(tree)
                if isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and node.value.id == "ss"
            }
            assert used <= set(ss.__all__), block.place


@pytest.mark.docs
@pytest.mark.slow
@pytest.mark.parametrize("file", EXAMPLES, ids=name_of)
def test_a_page_runs(file, project, parser):
    names = {"__name__": "__main__"}
    with Shell(project) as shell:
        for block in blocks_of(file):
            if block.language == "python":
                run_python(block, names)
            elif block.language == "sh":
                for line in block.commands:
                    run_line(line, shell, parser)


def run_python(block, names):
    """Execute a block; line numbers of a traceback are those of the page."""
    code = compile("\n" * (block.line - 1) + block.code, str(block.file), "exec")
    if not any(text in block.code for text in PYTHON):
        exec(code, names)
        plt.close("all")


def run_line(line, shell, parser):
    parts = [part.strip() for part in re.split(r"&&", line)]
    if any(re.match(pattern, part) for pattern in SHELL for part in parts):
        for part in parts:
            check(part, parser)
    else:
        shell.run(line)


def test_every_exemption_is_needed():
    blocks = [block for file in EXAMPLES for block in blocks_of(file)]
    lines = [line for block in blocks if block.language == "sh" for line in block.commands]
    parts = [part.strip() for line in lines for part in line.split("&&")]
    codes = [block.code for block in blocks if block.language == "python"]
    assert [p for p in SHELL if not any(re.match(p, part) for part in parts)] == []
    assert [text for text in PYTHON if not any(text in code for code in codes)] == []


def test_the_examples_of_the_command_line_parse(generated, parser):
    lines = re.findall(r"^(?:\w+=\S+ )?simsearch [a-z].*", generated.cli_page(), re.MULTILINE)
    lines = [line for line in lines if "[" not in line]  # but for the usage of each command
    assert len(lines) > 20
    for line in lines:
        check(line, parser)


def test_every_option_of_the_command_line_is_described(generated, parser):
    page = generated.cli_page()
    for name, command in generated._commands(parser).items():
        assert f"## simsearch {name}\n" in page
        shown = [action for action in command._actions if not generated._is_hidden(action)]
        assert all(option in page for action in shown for option in action.option_strings)


def test_every_address_of_the_api_is_described(generated):
    page = generated.rest_page()
    for address in ("GET /api/health", "POST /api/search", "POST /api/recommend"):
        assert f"## `{address}`" in page
    assert "| `k` | integer" in page


def test_every_public_name_is_in_the_reference(generated):
    pages = generated.api_pages()
    for name in ss.__all__:
        assert f"`{name}`" in pages["reference/api/index.md"]


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_the_links_between_files_lead_somewhere(file):
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", file.read_text("utf-8"))
    made = ("reference/", "benchmarks/")  # exist on the site alone; its build checks them
    for link in links:
        assert (file.parent / link).exists() or any(part in link for part in made), link
