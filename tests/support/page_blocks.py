"""Code blocks of Markdown pages, and the shell lines in them."""

import re
from pathlib import Path
from typing import NamedTuple

FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>\w*)\n(?P<code>.*?)^ *```$", re.DOTALL | re.MULTILINE
)


class Block(NamedTuple):
    """One fenced block: where its code starts, in what language, and the code."""

    file: Path
    line: int
    language: str
    code: str

    @property
    def place(self):
        return f"{self.file.name}:{self.line}"

    @property
    def commands(self):
        """Each shell line, with those that it goes on in."""
        joined = self.code.replace("\\\n", " ")
        return [line.strip() for line in joined.splitlines() if line.strip()]


def blocks_of(file):
    """Return the blocks of a page in order."""
    text = file.read_text("utf-8")
    return [
        Block(
            file,
            text.count("\n", 0, found.start("code")) + 1,
            found["language"],
            re.sub(rf"^{found['indent']}", "", found["code"], flags=re.MULTILINE),
        )
        for found in FENCE.finditer(text)
    ]
