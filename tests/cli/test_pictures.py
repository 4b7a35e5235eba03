"""Pictures in a terminal: what is written is read back, pixel by pixel."""

import base64
import io
import os
import pty
import re
import struct
import termios
from contextlib import contextmanager
from fcntl import ioctl
from threading import Thread

import numpy as np
import pytest
from PIL import Image

import simsearch as ss
from simsearch.cli.pictures import (
    CELL,
    PROTOCOLS,
    as_blocks,
    as_iterm,
    as_kitty,
    as_sixel,
    cell_pixels,
    detect_protocol,
    sheets,
)


@pytest.fixture(params=[(4, 2), (31, 14), (200, 90)], ids=str)
def picture(request):
    rng = np.random.default_rng(0)
    width, height = request.param
    colours = rng.integers(0, 256, (20, 3), np.uint8)
    return Image.fromarray(colours[rng.integers(0, 20, (height, width))])


def opened(code):
    return Image.open(io.BytesIO(base64.b64decode(code)))


def test_kitty_gets_the_picture_in_chunks(picture):
    parts = re.findall(r"\x1b_G([^;]*);([^\x1b]*)\x1b\\", as_kitty(picture))
    keys, codes = zip(*parts, strict=True)
    assert [key[-3:] for key in keys] == ["m=1"] * (len(keys) - 1) + ["m=0"] or len(keys) == 1
    assert keys[0].startswith("a=T,f=100,")
    assert all(len(code) <= 4096 for code in codes)
    assert np.array_equal(opened("".join(codes)), picture)


def test_iterm_gets_the_picture(picture):
    code = re.fullmatch(r"\x1b\]1337;File=inline=1;[^:]*:(.*)\a", as_iterm(picture))[1]
    assert np.array_equal(opened(code), picture)


def test_sixels_show_the_picture(picture):
    shown = decode_sixel(as_sixel(picture))
    assert shown.shape == (picture.height, picture.width, 3)
    assert np.abs(shown - np.asarray(picture, int)).max() <= 3  # colours go in percent


def decode_sixel(text):
    """Draw sixels, as a terminal does."""
    width, height = map(int, re.match(r'\x1bPq"1;1;(\d+);(\d+)', text).groups())
    assert text.endswith("\x1b\\")
    body = text[text.index('"') : -2].split(";", 3)[3].lstrip("0123456789")
    drawn = np.full((height + 6, width, 3), -1)
    palette, colour, x, top = {}, None, 0, 0
    for token in re.finditer(r"#(\d+)(?:;2;(\d+);(\d+);(\d+))?|!(\d+)(.)|([$-])|(.)", body):
        name, *rgb, count, repeated, move, single = token.groups()
        if name:
            if rgb[0]:
                palette[name] = [int(part) * 255 / 100 for part in rgb]
            colour = name
        elif move:
            x, top = 0, top + 6 * (move == "-")
        else:
            bits = ord(repeated or single) - 63
            end = x + int(count or 1)
            for line in range(6):
                if bits >> line & 1:
                    drawn[top + line, x:end] = np.round(palette[colour])
            x = end
    assert (drawn[:height] >= 0).all()
    assert (drawn[height:] == -1).all()
    return drawn[:height]


def test_half_blocks_show_the_picture(picture):
    lines = []
    for line in as_blocks(picture).split("\n"):
        cells = re.findall(r"\x1b\[38;2;(\d+);(\d+);(\d+);48;2;(\d+);(\d+);(\d+)m▀", line)
        numbers = np.array(cells, int)
        lines += [numbers[:, :3], numbers[:, 3:]]
        assert line.endswith("\x1b[0m")
    assert np.array_equal(np.array(lines), picture)


@pytest.mark.parametrize("columns", [20, 60, 80, 140])
def test_rows_of_pictures_fit_the_terminal(project, columns):
    matches = ss.search(ss.ImageLibrary.load("outputs"), 0, k=5)
    rows = list(sheets(matches, columns, (1, 2)))
    assert all(row.width <= columns for row in rows)
    assert all(row.height % 2 == 0 for row in rows)
    assert sum(round(row.width / rows[0].height) for row in rows) == 6


def test_a_picture_that_is_gone_is_grey(project, run):
    (project / "dataset" / "dogs" / "e.png").unlink()
    assert run("search", 0, "--pictures", "blocks")[0] == 0


@pytest.mark.parametrize(
    ("environment", "protocol"),
    [
        ({"TERM": "xterm-kitty"}, "kitty"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "ghostty"}, "kitty"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "iTerm.app"}, "iterm"),
        ({"TERM": "xterm-kitty", "TMUX": "1"}, "blocks"),
        ({"TERM": "xterm-256color"}, "blocks"),  # which does not answer here
    ],
    ids=str,
)
def test_the_terminal_says_what_it_shows(monkeypatch, environment, protocol):
    for name in ("TERM", "TERM_PROGRAM", "TMUX", "KITTY_WINDOW_ID", "LC_TERMINAL"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert detect_protocol() == protocol


@contextmanager
def terminal(monkeypatch):
    """A pseudo-terminal as standard input and output: the user's end of it, and the program's."""
    for name in ("TERM_PROGRAM", "TMUX", "KITTY_WINDOW_ID", "LC_TERMINAL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    parent, child = pty.openpty()
    with os.fdopen(child, "w") as stdout, os.fdopen(child, closefd=False) as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        monkeypatch.setattr("sys.stdout", stdout)
        yield parent, child
        monkeypatch.undo()
    os.close(parent)


@pytest.mark.parametrize(
    ("reply", "protocol"),
    [(b"\x1b[?62;4;22c", "sixel"), (b"\x1b[?64;22c", "blocks"), (b"", "blocks")],
)
def test_a_terminal_is_asked_for_sixels_and_left_as_it_was(monkeypatch, reply, protocol):
    asked = []

    def answer():
        asked.append(os.read(parent, 64))
        os.write(parent, reply)

    with terminal(monkeypatch) as (parent, child):
        before = termios.tcgetattr(child)
        thread = Thread(target=answer)
        thread.start()
        found = detect_protocol()
        thread.join(10)
        assert termios.tcgetattr(child) == before
    assert (found, asked) == (protocol, [b"\x1b[c"])


@pytest.mark.parametrize(
    ("size", "cell"), [((24, 80, 800, 480), (10, 20)), ((24, 80, 0, 0), CELL), ((0, 0, 9, 9), CELL)]
)
def test_cells_are_as_large_as_the_terminal_says(monkeypatch, size, cell):
    with terminal(monkeypatch) as (_, child):
        ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", *size))
        found = cell_pixels()
    assert found == cell


@pytest.mark.parametrize("protocol", list(PROTOCOLS))
def test_the_command_writes_pictures_before_the_matches(run, protocol):
    plain = run("search", 0, "-k", 2)[1]
    status, out, _ = run("search", 0, "-k", 2, "--pictures", protocol)
    assert (status, out.endswith(plain)) == (0, True)
    assert len(out) > len(plain) + 500
    assert run("search", 0, "-k", 2, "--pictures", protocol, "--json")[1].startswith("{")


def test_pictures_need_a_terminal_or_a_name(run):
    status, _, err = run("search", 0, "--pictures")
    assert (status, "--pictures needs a terminal; elsewhere name one of kitty" in err) == (1, True)


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_a_shell_completes_commands_and_options(run, shell):
    pytest.importorskip("shtab")
    status, out, _ = run("completion", shell)
    assert status == 0
    assert all(word in out for word in ("search", "duplicates", "threshold", "diversity"))
