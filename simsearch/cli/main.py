"""The command `simsearch`: runs one command and returns its exit status."""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import simsearch as ss
from simsearch.cli.locate import place_library, suggest_paths
from simsearch.cli.parser import build_parser
from simsearch.cli.progress import shown_progress
from simsearch.cli.wording import in_commands
from simsearch.printable import valid_unicode

if TYPE_CHECKING:
    from simsearch.cli.command_parser import CommandParser


class TerminalFormatter(logging.Formatter):
    """Lines of a log in the words of a command, in which names move no terminal's cursor."""

    def __init__(self, command: CommandParser) -> None:
        super().__init__()
        self.command = command

    def format(self, record: logging.LogRecord) -> str:
        """Return a record as one line or more."""
        return in_commands(valid_unicode(super().format(record)), self.command.flag_of)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns
    -------
    int
        0, or 1 for an error that is said in one line, or 130 after Ctrl-C. A command line that
        cannot be parsed exits with 2, and `check --fail-on` that finds something with 3.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a character that it lacks ends no command
            stream.reconfigure(errors="backslashreplace")
    command, given = build_parser().parse_command(argv)
    if logging.lastResort:  # which writes a library's warnings where no log is set up
        logging.lastResort.setFormatter(TerminalFormatter(command))
    options = vars(given)
    try:
        status = _run(command, options)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except ss.SimsearchError as error:
        text = in_commands(" ".join(str(error).split()), command.flag_of)
        text += suggest_paths(text, options)
        sys.stderr.write(f"simsearch: {valid_unicode(text)}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("\nsimsearch: stopped; what was done is kept, run again to go on\n")
        return 130
    return status


def _run(command: CommandParser, options: dict[str, Any]) -> int:
    """Carry a command out, with its library found and its progress shown as fits."""
    if command.flag_of("text") and not options.keys() & {"outputs", "text", "queries"}:
        command.error("there is no query: give a picture, or words by --text")
    if command.flag_of("library"):
        place_library(options)
    options = dict(options)
    run: Callable[..., int | None] = options.pop("run")
    quiet = options.pop("quiet", False)
    if quiet and run.__name__ in {"embed", "watch"}:
        options["quiet"] = True  # no summary, either
    with shown_progress(quiet=quiet):
        return run(**options) or 0
