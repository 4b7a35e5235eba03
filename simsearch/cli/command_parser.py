"""A parser of arguments in any order, which suggests names close to those it does not know."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any, NoReturn

CHOICES_SHOWN = 4


class CommandParser(argparse.ArgumentParser):
    """Parser of the command line, or of one command."""

    def parse_command(self, argv: Sequence[str] | None = None) -> tuple[CommandParser, Any]:
        """Return the parser of the command that is given, and the options for it.

        Arguments without a dash are taken wherever they stand: argparse alone gives up on those
        that an option parts from others.
        """
        options, left = self.parse_known_args(argv)
        command: CommandParser = vars(options).pop("parser", self)
        left = [each for each in left if not command.take(options, each)]
        if left:
            command.error(f"unrecognized arguments: {' '.join(left)}")
        return command, options

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:  # noqa: ANN401
        """Return the options, as argparse does."""
        if namespace is not None:
            return super().parse_args(args, namespace)
        return self.parse_command(args)[1]

    def take(self, options: argparse.Namespace, argument: str) -> bool:
        """Take an argument that stood behind an option; return whether there is room for it."""
        if argument.startswith("-") and argument != "-":
            return False
        given = vars(options)
        for action in self._actions:
            if action.option_strings:
                continue
            if action.nargs == "*":
                given[action.dest] = [*given.get(action.dest, ()), argument]
                return True
            if action.nargs == "?" and action.dest not in given:
                given[action.dest] = argument
                return True
        return False

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and what may have been meant, and exit with 2."""
        usage = " ".join(self.short_usage().split())
        hint = self._hint(message)
        self.exit(
            2,
            f"usage: {usage}\n{self.prog}: error: {_shortened(message)}{hint}\n"
            f"{self.prog} --help lists all that there is\n",
        )

    def short_usage(self) -> str:
        """Return the usage without its options, which `--help` lists."""
        names = (_spelled(action) for action in self._actions if not action.option_strings)
        return " ".join([self.prog, "[OPTION ...]", *names])

    def option_names(self) -> list[str]:
        """Return all options, such as --threshold."""
        return list(self._option_string_actions)

    def flag_of(self, dest: str) -> str | None:
        """Return the option that sets a name, as --threshold; None without one."""
        flags = [a.option_strings[-1] for a in self._actions if a.dest == dest and a.option_strings]
        return flags[0] if flags else None

    def add_to_help(self, dest: str, text: str) -> None:
        """Add a remark to the help of an option that takes a value."""
        for action in self._actions:
            if action.dest == dest and action.nargs != 0 and "default" not in (action.help or ""):
                action.help = f"{action.help or ''} ({text})".strip()

    def _hint(self, message: str) -> str:
        if chosen := re.search(r"invalid choice: '([^']*)'.*?\(choose from (.*)\)", message):
            known = re.findall(r"[\w-]+", chosen[2])
            return did_you_mean([chosen[1]], known)
        if unknown := re.search(r"unrecognized arguments: (.*)", message):
            options = [each.partition("=")[0] for each in unknown[1].split()]
            return did_you_mean([each for each in options if each[0] == "-"], self.option_names())
        return ""


def did_you_mean(words: Iterable[str], known: Iterable[str]) -> str:
    """Return "; did you mean ...?" for the names closest to the words; "" if none is close."""
    names = list(known)
    close = [name for word in words for name in _close_to(word, names)]
    return f"; did you mean {' or '.join(dict.fromkeys(close))}?" if close else ""


def _close_to(word: str, names: Sequence[str]) -> list[str]:
    begun = [name for name in names if len(word) > 2 and name.startswith(word[:3])]
    return get_close_matches(word, names, 2, 0.7) or begun[:2]


def _shortened(message: str) -> str:
    """Leave out a list of many choices, which `--help` has."""
    many = message.count(",") >= CHOICES_SHOWN
    return re.sub(r" \(choose from .*\)", "", message) if many else message


def _spelled(action: argparse.Action) -> str:
    name = str(action.metavar or action.dest)
    if action.nargs in {"*", argparse.PARSER}:
        return f"{name} ..." if action.nargs == argparse.PARSER else f"[{name} ...]"
    return f"[{name}]" if action.nargs == "?" else name
