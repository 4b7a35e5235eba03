"""Messages speak of commands and flags, not of Python; help gives the library's defaults."""

import ast
import inspect
import re
from dataclasses import fields
from pathlib import Path

import pytest

import simsearch as ss
from simsearch.cli.defaults import DEFAULTS
from simsearch.cli.parser import build_parser
from simsearch.cli.wording import in_commands
from simsearch.retrieval.options import SearchOptions
from simsearch.web.server import serve

PACKAGE = Path(ss.__file__).parent
# Calls that a message may name on the command line as well: they have no command.
PYTHON_ALONE = {
    *("load_image", "load_backbone", "show_matches", "search", "recommend", "Words"),
    *("ImageLibrary", "RayEngine", "Shards", "duplicates", "albums", "evaluate"),
}
FUNCTIONS = {
    "embed": [ss.embed_dataset],
    "recommend": [ss.recommend],
    "duplicates": [ss.duplicates, ss.plan_cleanup],
    "albums": [ss.albums],
    "check": [ss.check_dataset],
    "index": [ss.build_index],
    "evaluate": [ss.evaluate],
    "train": [ss.train_head],
    "publish": [ss.publish],
}


@pytest.fixture(scope="module")
def commands():
    parser = build_parser()
    return next(a for a in parser._actions if a.dest == "run" or a.choices).choices


def messages():
    """Yield what the package may say: the text of its errors and warnings, with {} for values."""
    for file in sorted(PACKAGE.rglob("*.py")):
        if "cli" in file.parts:
            continue
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
                for argument in node.exc.args:
                    if isinstance(argument, (ast.JoinedStr, ast.Constant)):
                        yield file, "".join(map(text_of, getattr(argument, "values", [argument])))


def text_of(node):
    if isinstance(node, ast.Constant):
        return str(node.value)
    return "'x'" if node.conversion == ord("r") else "x"


def test_no_message_names_a_call_that_has_a_command():
    public = "|".join(sorted(set(ss.__all__) - PYTHON_ALONE))
    left = [
        (file.name, text)
        for file, text in messages()
        if re.search(rf"\b({public})\(", in_commands(text))
    ]
    assert left == []


@pytest.mark.parametrize(
    ("command", "said", "typed"),
    [
        ("search", "threshold='high': give a cosine", "--threshold high: give a cosine"),
        ("search", "k=0: ask for a whole number", "-k 0: ask for a whole number"),
        ("search", "box=(0.5, 0, 1, 1) is not", "--box 0.5 0 1 1 is not"),
        ("evaluate", "or give labels= some", "or give --labels some"),
        ("embed", "run with allow_shrink=True (--allow-shrink).", "run with --allow-shrink."),
        ("embed", "the name k=3.jpg is no option", "the name k=3.jpg is no option"),
        ("search", "a/k=3 and x.k=3 stay", "a/k=3 and x.k=3 stay"),
        ("search", "colour='red' is no option", "colour='red' is no option"),
        (
            "search",
            "make one with simsearch.embed_dataset(dataset, 'out')",
            "make one with `simsearch embed DATASET out`",
        ),
        (
            "search",
            'embed_dataset(dataset, outputs, parts="grid") (--parts grid), and search',
            "`simsearch embed DATASET OUTPUTS --parts grid`, and search",
        ),
        (
            "search",
            "call simsearch.trust_library('out') (`simsearch trust OUTPUTS`) once",
            "run `simsearch trust out` once",
        ),
        (
            "info",
            'moved: ImageLibrary.load(outputs, root="new/place"), or --root new/place.',
            "moved: --root new/place.",
        ),
        ("search", "library.attach(table) adds others", "--metadata CSV adds others"),
    ],
)
def test_messages_are_put_in_commands(commands, command, said, typed):
    assert in_commands(said, commands[command].flag_of) == typed


def test_help_speaks_of_commands_and_flags(commands):
    public = "|".join(ss.__all__)
    for name, command in commands.items():
        for text in (action.help or "" for action in command._actions):
            assert in_commands(text, command.flag_of) == text, name
            assert not re.search(rf"`|\b({public})\(|[a-z_]+=(\"|None|True|False)", text), name
    texts = {action.dest: action.help for action in commands["search"]._actions}
    assert texts["weights"].startswith("with --combine mean, how much")
    assert texts["combine"].startswith("take a list of queries as one: mean searches")
    assert "(simsearch embed DATASET OUTPUTS --parts grid)" in texts["parts"]


def test_defaults_in_the_help_are_those_of_the_library(commands):
    for name, functions in FUNCTIONS.items():
        known = {}
        for function in reversed(functions):
            parameters = inspect.signature(function).parameters.values()
            known |= {p.name: p.default for p in parameters}
        for option, shown in DEFAULTS.get(name, {}).items():
            if isinstance(shown, str) and shown.startswith("("):
                assert known.get(option) in {None, ()} or known.get(option) == "all", option
            else:
                assert known[option] == shown, f"{name} {option}"
    serving = inspect.signature(serve).parameters
    for option in ("host", "port"):
        assert serving[option].default == DEFAULTS["serve"][option]


def test_every_option_with_a_default_says_so(commands):
    for name, functions in FUNCTIONS.items():
        parameters = {
            p.name: p.default for f in functions for p in inspect.signature(f).parameters.values()
        }
        assert without_default(commands[name], parameters) == [], name
    searching = {each.name: each.default for each in fields(SearchOptions)}
    assert without_default(commands["search"], searching) == []


def without_default(parser, known):
    """Return the options that take a value, whose help leaves out a default that is a value."""
    return [
        action.dest
        for action in parser._actions
        if action.option_strings
        and action.nargs != 0
        and known.get(action.dest) not in {None, (), False, inspect.Parameter.empty}
        and "default" not in (action.help or "")
    ]
