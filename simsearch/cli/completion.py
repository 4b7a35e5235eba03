"""Scripts that complete commands, options and files in a shell."""

from __future__ import annotations

import argparse

from simsearch.errors import MissingExtraError

FILES = {
    "outputs",
    "root",
    "queries",
    "reference",
    "library",
    "liked",
    "disliked",
    "metadata",
    "save",
    "csv",
    "weights",
}


def completion_script(parser: argparse.ArgumentParser, shell: str) -> str:
    """Return the script for a shell: bash, zsh or tcsh.

    Raises
    ------
    MissingExtraError
        If shtab is not installed.
    """
    try:
        import shtab
    except ImportError as error:
        raise MissingExtraError('completion needs: pip install "simsearch[terminal]"') from error
    for command in _with_commands(parser):
        for action in command._actions:
            if action.dest in FILES:
                action.complete = shtab.FILE  # type: ignore[attr-defined]
    return str(shtab.complete(parser, shell))


def _with_commands(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    found = [parser]
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found += action.choices.values()
    return found
