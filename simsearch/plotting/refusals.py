"""How messages name what a figure cannot show."""

import textwrap


def short_repr(value: object) -> str:
    """Return the `repr` of a value for a message, shortened."""
    return textwrap.shorten(repr(value), 60, placeholder=" ...")
