"""Messages of the library in the words of the command line: commands and flags, not Python."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable

PREFIX = r"(?:simsearch\.|ss\.)?"
TEXT = r"(?:'([^']*)'|\"([^\"]*)\")"

# What stands in messages, and what is typed in its place; the more exact comes first.
CALLS = (
    (
        r"embed_dataset\(\w+, outputs, parts=\"grid\"\)",
        "simsearch embed DATASET OUTPUTS --parts grid",
    ),
    (r"embed_dataset\(parts=\"grid\"\)", "simsearch embed DATASET OUTPUTS --parts grid"),
    (rf"embed_dataset\(\w+, {TEXT}\)", r"simsearch embed DATASET \1\2"),
    (r"embed_dataset\(\)|embed_dataset\b(?!\()", "simsearch embed"),
    (r"(?:build|load)_index\(library\)", "simsearch index OUTPUTS"),
    (r"build_index\b(?!\()", "simsearch index"),
    (rf"trust_library\({TEXT}\)", r"simsearch trust \1\2"),
    (r"trust_library\(outputs\)", "simsearch trust OUTPUTS"),
    (rf"publish\(library, {TEXT}, {TEXT}\)", r"simsearch publish OUTPUTS \1\2 \3\4"),
    (rf"make_sample\({TEXT}\)", r"simsearch sample \1\2"),
    (r"make_sample\b(?!\()", "simsearch sample"),
    (r"plan_cleanup\([^()]*\)\.save\([^()]*\)", "simsearch duplicates OUTPUTS --plan FILE"),
    (r"export_library\([^()]*\)", "simsearch export OUTPUTS FILE"),
    (r"import_library\([^()]*\)", "simsearch import FILE OUTPUTS"),
    (r"verify_library\([^()]*\)", "simsearch verify OUTPUTS"),
)
PHRASES = (
    (r" \(--[\w-]+ on the command line\)", ""),
    (r"\((?:None|'([^']*)'), (?:None|'([^']*)')\) is no range", r"\1..\2 is no range"),
    (r"library\.attach\(table\) adds others", "--metadata CSV adds others"),
    (r"ImageLibrary\.load\(outputs, root=\"new/place\"\)", "--root new/place"),
    (r"undo_cleanup, or (--undo)", r"\1"),
    (r"call (`simsearch)", r"run \1"),
    (r"timm\.list_models\(\) names them", "its documentation names them"),
)
REPEATED = (  # what the library says in both forms
    (r"`([^`]+)`,? \(?(?:or )?`[^`]+`\)?", r"`\1`"),
    (r"(--[\w-]+)((?: [^\s,;()]+)?),? (?:\(|or )\1(?: [^\s,;()]*[^\s,;().])?\)?", r"\1\2"),
    (r"(`[^`]*?(--[\w-]+)[^`]*`) \(\2[^()]*\)", r"\1"),
)
VALUE = r"'[^']*'|\"[^\"]*\"|\[[^\]]*\]|\([^)]*\)|\{[^}]*\}|[-+]?[\w.]+"


def in_commands(message: str, flag_of: Callable[[str], str | None] = lambda _: None) -> str:
    """Put a message of the library in the words of the command line.

    `flag_of` gives the flag that sets an option of the command that ran, if it has one.

    Examples
    --------
    >>> in_commands("run embed_dataset again, or pass k=3", {"k": "-k"}.get)
    'run `simsearch embed` again, or pass -k 3'
    """
    for pattern, command in CALLS:
        message = re.sub(rf"`?\b{PREFIX}{pattern}`?", f"`{command}`", message)
    for pattern, phrase in PHRASES:
        message = re.sub(pattern, phrase, message)
    message = _in_flags(message, flag_of)
    for pattern, kept in REPEATED:
        message = re.sub(pattern, kept, message)
    return message


def _in_flags(message: str, flag_of: Callable[[str], str | None]) -> str:
    """Replace option=value by its flag, where the command has it; not within other words."""

    def replace(found: re.Match[str]) -> str:
        flag = flag_of(found[1])
        if flag is None:
            return found[0]
        return " ".join([flag, *_as_typed(found[2])])

    return re.sub(rf"(?<![^\s(])([a-z_]+)=({VALUE})?", replace, message)


def _as_typed(value: str | None) -> list[str]:
    """Return a Python value as words of a command line; nothing for one that has no such form."""
    try:
        read = ast.literal_eval(value) if value else True
    except (SyntaxError, ValueError):
        return [str(value)]
    if isinstance(read, (list, tuple)):
        return [*map(str, read)]
    return [] if read is True or read is None or isinstance(read, dict) else [str(read)]
