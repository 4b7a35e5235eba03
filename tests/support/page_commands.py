"""Run or check the shell lines of a page."""

import os
import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
ADDRESS = "127.0.0.1:8000"  # where the pages have the server
START_SECONDS, COMMAND_SECONDS = 120, 300


def environment():
    """Let a shell find the command of this environment, and the package of this repository."""
    folder = str(Path(sys.executable).parent)
    own = {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    nowhere = dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9")
    return os.environ | own | nowhere | {"no_proxy": "127.0.0.1", "MPLBACKEND": "agg"}


def words(line):
    """Split a line as a shell does; unlike shlex, keep a # within a word."""
    return shlex.split(re.sub(r"(^|\s)#.*", "", line))


class Shell:
    """Runs the lines of one page in a folder; a server that they start ends with the page."""

    def __init__(self, folder):
        self.folder, self.server, self.address = folder, None, ADDRESS

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.server:
            self.server.terminate()
            self.server.wait(30)
            self.server.stdout.close()

    def run(self, line):
        """Run a line as it is written, but for the server's port; return what it printed."""
        if line.startswith("simsearch serve"):
            return self._serve(line)
        done = subprocess.run(
            line.replace(ADDRESS, self.address),
            shell=True,
            cwd=self.folder,
            env=environment(),
            timeout=COMMAND_SECONDS,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}"
        return done.stdout

    def _serve(self, line):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = words(line)
        self.address = f"127.0.0.1:{port}"
        self.server = subprocess.Popen(
            [*command, "--port", str(port)],
            cwd=self.folder,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        printed = self.server.stdout.readline()
        assert self.address in printed, printed + self.server.stdout.read()
        return printed


def check(line, parser):
    """Check a line that is not run: the command, extra or target that it names must exist."""
    tokens = words(line)
    while tokens and (tokens[0] == "nohup" or re.match(r"\w+=", tokens[0])):
        tokens.pop(0)
    for operator in (">", "&"):
        if operator in tokens:
            tokens = tokens[: tokens.index(operator)]
    if tokens[0] == "simsearch":
        parser.parse_args(tokens[1:])
    elif tokens[:2] == ["pip", "install"]:
        extras = {name for names in re.findall(r"\[([\w,]+)\]", line) for name in names.split(",")}
        project = (ROOT / "pyproject.toml").read_text("utf-8")
        table = project.partition("[project.optional-dependencies]")[2].partition("\n[")[0]
        assert extras <= set(re.findall(r"^(\w+) = \[", table, re.MULTILINE)), line
    elif tokens[0] == "make":
        makefile = (ROOT / "Makefile").read_text("utf-8")
        assert set(tokens[1:]) <= set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE)), line
