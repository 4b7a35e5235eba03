"""Text that a terminal can show, whatever names files have."""

CONTROLS = {*range(0x20), *range(0x7F, 0xA0)} - {ord("\n")}
DIRECTION_MARKS = {0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)}
UNPRINTABLE = {code: ascii(chr(code))[1:-1] for code in CONTROLS | DIRECTION_MARKS}


def valid_unicode(text: str) -> str:
    r"""Return text that every UTF-8 stream takes, and that moves no terminal's cursor.

    Bytes that are not UTF-8, control characters but the line feed, and marks that turn the
    direction of writing are written in hex: names of files may hold them.

    Examples
    --------
    >>> print(valid_unicode("a\x1b[2Jb.jpg"))
    a\x1b[2Jb.jpg
    """
    return text.translate(UNPRINTABLE).encode("utf-8", "backslashreplace").decode("utf-8")


def one_line(name: str) -> str:
    """Return a name as `valid_unicode` does, its line feeds written in hex, too."""
    return valid_unicode(name).replace("\n", "\\x0a")
