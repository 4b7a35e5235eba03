"""The page "What simsearch reads and how": every statement names the test that checks it."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "guides" / "reading.md"
TRUST = ROOT / "docs" / "trust.md"
SOURCE = re.compile(r"<!-- (tests/\S+\.py)::(test_\w+) -->")


def statements(text):
    """Return the list items of a page; each is a statement, with its lines joined."""
    items = re.split(r"^- ", text, flags=re.MULTILINE)[1:]
    return [" ".join(re.split(r"\n(?=\n|#)", item)[0].split()) for item in items]


def names_in(file):
    tree = ast.parse((ROOT / file).read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def problems(text):
    """Return the statements that name no test, or one that does not exist."""
    found = []
    for statement in statements(text):
        sources = SOURCE.findall(statement)
        missing = [s for s in sources if not (ROOT / s[0]).is_file() or s[1] not in names_in(s[0])]
        if not sources or missing:
            found.append(statement)
    return found


def test_every_statement_names_a_test_that_exists():
    assert problems(PAGE.read_text()) == []


def test_every_promise_about_libraries_of_others_names_a_test_that_exists():
    parts = re.split(r"^## ", TRUST.read_text(), flags=re.MULTILINE)
    parts = [part for part in parts if part.startswith(("Libraries of", "Any library"))]
    assert len(parts) == 2
    assert sum(len(statements(part)) for part in parts) >= 10
    assert [problems(part) for part in parts] == [[], []]


@pytest.mark.parametrize(
    "statement",
    [
        "- Pictures are read.\n",
        "- Pictures are read. <!-- tests/docs/test_reading.py::test_absent -->\n",
        "- Pictures are read. <!-- tests/absent.py::test_absent -->\n",
    ],
)
def test_a_statement_without_a_test_is_found(statement):
    assert len(problems(f"# Title\n\n{statement}\n## Next\n")) == 1
