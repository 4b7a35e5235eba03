"""The command `simsearch`: runs one command and returns its exit status."""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Callable, Sequence

import simsearch as ss
from simsearch.cli.parser import build_parser
from simsearch.printable import valid_unicode


class TerminalFormatter(logging.Formatter):
    """Lines of a log, in which names of files move no terminal's cursor."""

    def format(self, record: logging.LogRecord) -> str:
        """Return a record as one line or more."""
        return valid_unicode(super().format(record))


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
    if logging.lastResort:  # which writes a library's warnings where no log is set up
        logging.lastResort.setFormatter(TerminalFormatter())
    options = vars(build_parser().parse_args(argv))
    run: Callable[..., int | None] = options.pop("run")
    status = 0
    try:
        status = run(**options) or 0
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except ss.SimsearchError as error:
        sys.stderr.write(f"simsearch: {valid_unicode(' '.join(str(error).split()))}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("\nsimsearch: stopped; what was done is kept, run again to go on\n")
        return 130
    return status
