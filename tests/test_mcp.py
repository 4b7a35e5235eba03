"""The MCP server, asked by a real client over standard input and output."""

import asyncio
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import simsearch as ss
from simsearch.errors import QueryError
from simsearch.mcp import LibraryTools, make_server

mcp = pytest.importorskip("mcp")
ROOT = Path(ss.__file__).parents[1]
NAMES = ["cats/a.png", "cats/b.png", "dogs/c.png", "dogs/d.png"]


@pytest.fixture
def outputs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for name in NAMES:
        file = tmp_path / "dataset" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8)).save(file)
    Image.open("dataset/cats/a.png").save("dataset/dogs/d.png")
    rows = rng.normal(size=(4, 8))
    rows[3] = rows[0]
    library = ss.ImageLibrary(rows, [f"dataset/{name}" for name in NAMES])
    library.root = "dataset"
    library.save("outputs")
    return "outputs"


def as_process():
    """Start the command, as an agent does."""
    from mcp import StdioServerParameters

    command = ["-m", "simsearch.cli", "mcp", "outputs"]
    return StdioServerParameters(
        command=sys.executable, args=command, env={"PYTHONPATH": str(ROOT)}
    )


def in_memory():
    return make_server(LibraryTools("outputs"))


def ask(server, *calls):
    """Return the tools of a server, and the result of each call."""
    from mcp import Client

    async def talk():
        async with Client(server) as client:
            tools = (await client.list_tools()).tools
            return tools, [await client.call_tool(name, given) for name, given in calls]

    return asyncio.run(talk())


def value(result):
    assert not result.is_error, result.content
    return result.structured_content or json.loads(result.content[0].text)


@pytest.mark.parametrize("start", [as_process, in_memory])
def test_an_agent_searches_recommends_and_finds_duplicates(outputs, start):
    library = ss.ImageLibrary.load(outputs)
    tools, results = ask(
        start(),
        ("search", {"query": 1, "k": 2}),
        ("search", {"query": "dataset/cats/b.png", "k": 2}),
        ("search", {"query": "cats/b.png", "k": 2}),
        ("search", {"query": [0, 1], "k": 2}),
        ("search", {"query": 1, "where": "dogs/*", "k": 3}),
        ("recommend", {"liked": [0], "disliked": ["dogs/c.png"], "k": 2}),
        ("duplicates", {"level": "identical"}),
        ("search", {"query": "../secret.png"}),
        ("search", {"query": "https://example.org/a.png"}),
        ("search", {"query": 1, "k": 1000}),
        ("search", {"query": 99}),
    )
    assert {tool.name for tool in tools} == {"search", "recommend", "duplicates"}
    assert all(tool.annotations.read_only_hint for tool in tools)
    found, refused = results[:7], results[7:]
    expected = ss.search(library, 1, k=2).to_dict()
    assert [value(each) for each in found[:3]] == [expected] * 3
    assert value(found[3]) == ss.search(library, [0, 1], k=2, combine="mean").to_dict()
    assert [m["row"] for m in value(found[4])["matches"]] == [
        m.row for m in ss.search(library, 1, k=3, where="dogs/*")
    ]
    assert value(found[5]) == ss.recommend(library, [0], [2], k=2).to_dict()
    assert value(found[6])["groups"] == [
        {"paths": ["dataset/cats/a.png", "dataset/dogs/d.png"], "rows": [0, 3]}
    ]
    assert all(each.is_error for each in refused)
    said = [each.content[0].text for each in refused]
    expected = ["no row and no path", "no row and no path", "k=1000", "99"]
    for text, words in zip(said, expected, strict=True):
        assert words in text


def test_files_are_read_only_where_that_is_allowed(outputs, tmp_path):
    Image.new("RGB", (40, 40)).save(tmp_path / "mine.png")
    with pytest.raises(QueryError, match="no row and no path"):
        LibraryTools(outputs).resolve("mine.png")
    assert LibraryTools(outputs, files=True).resolve("mine.png") == "mine.png"
    for flags in ({"files": True}, {"urls": True}):
        with pytest.raises(QueryError, match="no row and no path"):
            LibraryTools(outputs, **flags).resolve("file:///etc/passwd")
    with pytest.raises(ss.ImageError):  # a private address
        LibraryTools(outputs, urls=True).resolve("http://127.0.0.1:9/a.png")


def test_a_library_that_has_changed_is_opened_again(outputs):
    tools = LibraryTools(outputs)
    assert len(tools.library) == 4
    smaller = ss.ImageLibrary(np.eye(3), [f"dataset/{name}" for name in NAMES[:3]])
    smaller.root = "dataset"
    smaller.save(outputs, overwrite=True)
    assert len(tools.library) == 3
    assert tools.library is tools.library


def test_it_says_at_the_start_that_there_is_no_library(tmp_path):
    with pytest.raises(ss.LibraryError, match="no library"):
        LibraryTools(str(tmp_path / "nowhere"))
