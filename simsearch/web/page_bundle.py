"""Files that a page loads, joined: its style sheets, its first scripts, and its modules.

A browser has a few files sooner than many. Not a bundler for other code: what it does not know is
an error.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

IMPORT = re.compile(r'^import (?:\* as (\w+)|\{([^}]*)\}) from "\./([\w.]+)";\n', re.MULTILINE)
EXPORTED_AGAIN = re.compile(r'^export \{([^}]*)\} from "\./([\w.]+)";\n', re.MULTILINE)
EXPORT = re.compile(r"^export (?=(?:async )?(?:const|function|class) (\w+))", re.MULTILINE)
UNKNOWN = re.compile(r"^(?:import|export|await)\b.*", re.MULTILINE)


def imports(code: str) -> list[str]:
    """Return the modules that a module imports, in the order of its text."""
    found = [(each.start(), each[3]) for each in IMPORT.finditer(code)]
    found += [(each.start(), each[2]) for each in EXPORTED_AGAIN.finditer(code)]
    return [name for _, name in sorted(found)]


def in_order(name: str, read: Callable[[str], str]) -> list[str]:
    """Return a module and all that it imports, directly or not, in the order in which they run.

    Raises
    ------
    ValueError
        If modules import each other in a circle.
    """
    done: dict[str, bool] = {}  # whether all that it imports has been put before it

    def visit(each: str) -> None:
        if each in done:
            if not done[each]:
                raise ValueError(f"{each} imports itself, by way of others")
            return
        done[each] = False
        for other in imports(read(each)):
            visit(other)
        del done[each]
        done[each] = True

    visit(name)
    return list(done)


def join_modules(name: str, read: Callable[[str], str]) -> str:
    r"""Join a module and all that it imports: each is a function, called once, in a script.

    Parameters
    ----------
    name
        File name of the module that the page starts with.
    read
        Returns the code of a module by its file name.

    Raises
    ------
    ValueError
        If a module is written in a way that this does not know.

    Examples
    --------
    >>> b = "export const b = 1;\n"
    >>> code = {"a.js": 'import { b as c } from "./b.js";\nc();\n', "b.js": b}
    >>> print(join_modules("a.js", code.__getitem__))
    const $b = (() => {
    const b = 1;
    return { b };
    })();
    const $a = (() => {
    const { b: c } = $b;
    c();
    return {  };
    })();
    <BLANKLINE>
    """
    return "".join(_as_function(each, read(each)) for each in in_order(name, read))


def join_texts(names: Sequence[str], read: Callable[[str], str]) -> str:
    """Join style sheets, or classic scripts."""
    return "\n".join(map(read, names))


def _as_function(name: str, code: str) -> str:
    """Return a statement that runs a module, and keeps what it exports."""
    exported = [each[1] for each in EXPORT.finditer(code)]
    again = [
        f"{new or old}: {_variable(each[2])}.{old}"
        for each in EXPORTED_AGAIN.finditer(code)
        for old, new in _names(each[1])
    ]
    code = EXPORT.sub("", EXPORTED_AGAIN.sub("", IMPORT.sub(_as_constants, code)))
    if unknown := UNKNOWN.search(code):
        raise ValueError(f"{name}: {unknown[0]!r} cannot be joined; write it as the others do")
    made = f"return {{ {', '.join(exported + again)} }};"
    return f"const {_variable(name)} = (() => {{\n{code}{made}\n}})();\n"


def _as_constants(found: re.Match[str]) -> str:
    """Return an import as constants: no exported name is given another value later."""
    module = _variable(found[3])
    if found[1]:
        return f"const {found[1]} = {module};\n"
    names = ", ".join(f"{old}: {new}" if new else old for old, new in _names(found[2]))
    return f"const {{ {names} }} = {module};\n"


def _names(listed: str) -> list[tuple[str, str]]:
    """Read "a, b as c" as [("a", ""), ("b", "c")]."""
    parts = [each.split() for each in listed.split(",") if each.strip()]
    return [(each[0], each[2] if len(each) == 3 else "") for each in parts]


def _variable(name: str) -> str:
    return f"${name.removesuffix('.js')}"
