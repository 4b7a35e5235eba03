"""Pages made from the code: API, command line, REST API and notebooks, as Markdown.

Run as a script, it prints one of them: `python docs/generated.py reference/cli.md`.
"""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import simsearch as ss
from simsearch.library.types import Browsable

ROOT = Path(__file__).parents[1]
PARSER = "simsearch.cli.parser:build_parser"  # the function that builds the command line's parser
NOTEBOOKS = ("image_similarity", "recipes", "training")

# Every public name stands in one group; `api_pages` fails for a name that stands in none.
GROUPS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "embed": (
        "Embed and open",
        "Images become embeddings, and embeddings a library.",
        (
            "embed_dataset",
            "embed_images",
            "ImageLibrary",
            "load_backbone",
            "list_backbones",
            "BackboneInfo",
            "Backbone",
            "find_images",
            "load_image",
            "make_sample",
            "verify_library",
            "VerifyReport",
        ),
    ),
    "search": (
        "Search",
        "A query becomes matches. Scores are cosines: larger is closer.",
        (
            "search",
            "Words",
            "recommend",
            "SearchOptions",
            "RankingOptions",
            "KReciprocal",
            "Matches",
            "Match",
            "suggest_threshold",
            "SuggestedThreshold",
        ),
    ),
    "figures": (
        "Figures",
        "Each returns `(fig, axes)` and leaves the current figure alone.",
        (
            "browse",
            "show_matches",
            "show_images",
            "show_map",
            "show_duplicates",
            "show_albums",
            "show_health",
            "show_confusion",
            "show_history",
            "show_precision_recall",
            "show_worst",
        ),
    ),
    "train": (
        "Evaluate and train",
        "How good a library is at finding classes, and how to make it better.",
        (
            "evaluate",
            "Evaluation",
            "train_head",
            "TrainConfig",
            "TrainedHead",
            "refine",
            "Head",
            "ProjectionHead",
            "load_head",
            "save_head",
        ),
    ),
    "analysis": (
        "Duplicates, albums and analysis",
        "Health of a dataset, groups of copies and of similar images, heat maps of a match.",
        (
            "check_dataset",
            "HealthReport",
            "Finding",
            "duplicates",
            "Duplicates",
            "DuplicateGroup",
            "NEAR_DUPLICATE",
            "albums",
            "Albums",
            "AlbumLevel",
            "Album",
            "heat_map",
        ),
    ),
    "cleanup": (
        "Clean up copies",
        "A plan of which copies may go, what it moves away, and the way back.",
        (
            "plan_cleanup",
            "CleanupPlan",
            "PlannedCopy",
            "read_plan",
            "apply_cleanup",
            "CleanupResult",
            "undo_cleanup",
            "UndoResult",
            "mark_not_duplicates",
        ),
    ),
    "scale": (
        "Indexes and clusters",
        "Approximate indexes, embedding on Ray, search on Milvus, and libraries of others.",
        (
            "build_index",
            "load_index",
            "trust_library",
            "TrustReport",
            "FaissIndex",
            "IndexReport",
            "RayEngine",
            "publish",
            "Published",
            "RemoteLibrary",
            "Shards",
            "LanceLibrary",
            "export_library",
            "import_library",
        ),
    ),
    "errors": (
        "Errors",
        "All are children of `SimsearchError`. A message names the value at fault and the call "
        "that mends it.",
        tuple(dict.fromkeys(["SimsearchError", *(n for n in ss.__all__ if n.endswith("Error"))])),
    ),
}
# Classes that inherit methods for users, and which members to show: None for all.
INHERITING: dict[str, list[str] | None] = {
    "ImageLibrary": None,
    "RemoteLibrary": ["close", "refresh"] + [n for n in dir(Browsable) if n[0] != "_"],
    "Shards": [n for n in dir(Browsable) if n[0] != "_"],
}
CONSTANTS = {
    "NEAR_DUPLICATE": "Cosine from which two images count as near-duplicates, unless another is "
    "given.",
}


def pages() -> dict[str, str]:
    """Return the text of each generated page by its name in `docs/`."""
    notebooks = {f"notebooks/{name}.md": notebook_page(name) for name in NOTEBOOKS}
    references = {"reference/cli.md": cli_page(), "reference/rest.md": rest_page()}
    return api_pages() | references | notebooks


# Python API


def api_pages() -> dict[str, str]:
    """Write a page of mkdocstrings directives for each group, and one that lists all names."""
    grouped = {name for _, _, names in GROUPS.values() for name in names}
    if missing := set(ss.__all__) ^ grouped:
        raise LookupError(f"{sorted(missing)}: public, or in docs/generated.py, but not both")
    made = {f"reference/api/{key}.md": _api_page(*group) for key, group in GROUPS.items()}
    return made | {"reference/api/index.md": _api_index()}


def _api_page(title: str, text: str, names: Sequence[str]) -> str:
    return "\n\n".join([f"# {title}", text, *map(_api_entry, names)])


def _api_entry(name: str) -> str:
    if name in CONSTANTS:
        return f"### `{name}` {{ #{name} }}\n\n`{getattr(ss, name)!r}`. {CONSTANTS[name]}"
    value = getattr(ss, name)
    path = f"{value.__module__}.{value.__qualname__}"
    options = {"heading": name, "inherited_members": name in INHERITING}
    if members := INHERITING.get(name):
        options["members"] = members
    lines = [f"      {option}: {json.dumps(setting)}" for option, setting in options.items()]
    return "\n".join([f"<a id='{name}'></a>\n\n::: {path}\n    options:", *lines])


def _api_index() -> str:
    lines = ["# Python API", "", "```python", "import simsearch as ss", "```", ""]
    lines += [
        "Every public name is an attribute of `simsearch`. Importing the package is quick: a name "
        "loads what it needs when it is used.",
        "",
    ]
    for key, (title, _, names) in GROUPS.items():
        lines += [f"## [{title}]({key}.md)", "", "| name | |", "| --- | --- |"]
        lines += [f"| [`{name}`]({key}.md#{name}) | {_summary(name)} |" for name in names]
        lines += [""]
    return "\n".join(lines)


def _summary(name: str) -> str:
    text = CONSTANTS.get(name) or str(getattr(ss, name).__doc__)
    return text.strip().partition("\n\n")[0].replace("\n", " ").replace("|", r"\|")


# Command line


def cli_page() -> str:
    """Describe every command from the parser itself."""
    module, _, function = PARSER.partition(":")
    parser: argparse.ArgumentParser = getattr(importlib.import_module(module), function)()
    lines = [
        "# Command line",
        "",
        "Options that are not given are left to the library: their defaults are those of the "
        "[Python API](api/index.md). A command ends with 0; with 1 and one line on standard error "
        "if something is wrong; with 2 if the command line cannot be parsed; with 130 after "
        "Ctrl-C.",
        "",
        *_command(parser),
    ]
    for name, command in _commands(parser).items():
        lines += [f"## simsearch {name}", "", str(command.description), "", *_command(command)]
    return "\n".join(lines)


def _commands(parser: argparse.ArgumentParser) -> Mapping[str, argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return action.choices
    return {}


def _command(parser: argparse.ArgumentParser) -> Iterator[str]:
    parser.color = False  # type: ignore[attr-defined]  # of Python 3.14
    usage = " ".join(parser.format_usage().removeprefix("usage:").split())
    yield from ("```text", usage, "```", "")
    actions = [action for action in parser._actions if not _is_hidden(action)]
    if actions:
        yield from ("| argument | |", "| --- | --- |")
        yield from (f"| {_spelling(action)} | {_help(action)} |" for action in actions)
        yield ""
    if parser.epilog:
        _, _, examples = parser.epilog.partition("\n")
        lines = [line.removeprefix("  ") for line in examples.splitlines()]
        yield from ("```sh", *map(_commented, lines), "```", "")


def _is_hidden(action: argparse.Action) -> bool:
    kinds = (argparse._HelpAction, argparse._SubParsersAction)
    return isinstance(action, kinds) or action.help == argparse.SUPPRESS


def _commented(line: str) -> str:
    """Turn what stands behind an example, after a gap, into a comment."""
    command, gap, remark = line.partition("   ")
    return f"{command}  # {remark.strip()}" if gap else line.replace("  ", "  # ", 1)


def _spelling(action: argparse.Action) -> str:
    names = action.metavar if isinstance(action.metavar, tuple) else (action.metavar,)
    value = " ".join(name for name in names if name)
    if not action.option_strings:
        return f"`{value or action.dest}`" + (" ..." if action.nargs == "+" else "")
    if action.choices:
        value = ",".join(map(str, action.choices))
    elif action.nargs != 0 and not value:
        value = action.dest.upper()
    more = " ..." if action.nargs == "+" else ""
    return f"`{', '.join(action.option_strings)}{f' {value}' if value else ''}{more}`"


def _help(action: argparse.Action) -> str:
    return (action.help or "").replace("|", r"\|").replace("*", r"\*")


# REST API


def rest_page() -> str:
    """Describe every address from the app's own OpenAPI schema."""
    schema = _openapi()
    lines = [
        "# REST API",
        "",
        "A server that runs lists the same at `/docs`, and the schema at `/api/openapi.json`. "
        "Where a token is needed, send `Authorization: Bearer TOKEN`. An error is answered as "
        "`application/problem+json`.",
        "",
    ]
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            lines += _operation(f"{method.upper()} {path}", operation)
    lines += ["## Schemas", ""]
    for name, model in schema["components"]["schemas"].items():
        lines += [f"### {name}", "", model.get("description", ""), "", *_fields(model)]
    return "\n".join(lines)


def _openapi() -> dict[str, Any]:
    from simsearch.web.app import create_app
    from simsearch.web.settings import Settings

    with tempfile.TemporaryDirectory() as folder:  # the schema is that of any library
        ss.ImageLibrary(np.eye(2, dtype=np.float32), ["a.jpg", "b.jpg"]).save(folder)
        logging.disable(logging.WARNING)  # that this library has no backbone
        try:
            return create_app(Settings(folder)).openapi()
        finally:
            logging.disable(logging.NOTSET)


def _operation(title: str, operation: Mapping[str, Any]) -> Iterator[str]:
    yield from (f"## `{title}`", "", operation["summary"], operation["description"], "")
    if parameters := operation.get("parameters"):
        yield from ("| parameter | in | type | |", "| --- | --- | --- | --- |")
        for each in parameters:
            text = _cell(each.get("description", ""))
            yield f"| `{each['name']}` | {each['in']} | {_type(each['schema'])} | {text} |"
        yield ""
    for kind, body in operation.get("requestBody", {}).get("content", {}).items():
        yield from (f"Body: {_type(body['schema'])}, as `{kind}`.", "")
    yield from ("| status | answer | |", "| --- | --- | --- |")
    for status, response in sorted(operation["responses"].items()):
        kinds = [
            _type(content["schema"]) if content.get("schema") else f"`{kind}`"
            for kind, content in response.get("content", {}).items()
        ]
        yield f"| {status} | {', '.join(kinds)} | {_cell(response['description'])} |"
    yield ""


def _fields(model: Mapping[str, Any]) -> Iterator[str]:
    needed = model.get("required", ())
    yield from ("| field | type | |", "| --- | --- | --- |")
    for name, field in model.get("properties", {}).items():
        text = " ".join(["Required."] * (name in needed) + [_cell(field.get("description", ""))])
        yield f"| `{name}` | {_type(field)} | {text} |"
    yield ""


def _type(schema: Mapping[str, Any]) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(map(_type, schema["anyOf"])))
    if "const" in schema or "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    return str(schema.get("format") or schema.get("type", "any"))


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", r"\|").replace("*", r"\*")


# Notebooks


def notebook_page(name: str) -> str:
    """Show a notebook's cells; it is committed without outputs, and not executed here."""
    from nbconvert import MarkdownExporter

    text, _ = MarkdownExporter().from_filename(str(ROOT / f"{name}.ipynb"))
    title, _, rest = text.strip().partition("\n")
    note = (
        f"!!! note\n    This is `{name}.ipynb` without its outputs. Run it to see the figures: "
        f"`jupyter lab {name}.ipynb`."
    )
    return f"{title}\n\n{note}\n{rest}"


if __name__ == "__main__":
    sys.stdout.write(pages()[sys.argv[1]])
