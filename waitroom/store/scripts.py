"""The Lua scripts that run in the store, each in a file of the package that uses it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files

Constant = str | int | float | Sequence[str] | frozenset[str]


def load_script(
    package: str,
    name: str,
    *,
    preludes: Sequence[str] = (),
    keys: Sequence[str] = (),
    constants: Mapping[str, Constant] | None = None,
) -> str:
    """Returns the text of ``scripts/<name>.lua`` in a package, with everything it uses defined before it.

    Args:
        package: The package's full name.
        name: The script's name.
        preludes: Scripts in the same folder to prepend in this order, with shared functions.
        keys: The names of the script's keys, in the order of ``KEYS``: each becomes a local in upper case.
        constants: Values by name. Those that the text names become locals; a set becomes a table of ``true`` by member.
    """
    text = "".join(_read(package, one) for one in (*preludes, name))
    lines = [f"local {', '.join(keys).upper()} = unpack(KEYS)\n"] if keys else []
    for constant, value in (constants or {}).items():
        if re.search(rf"\b{constant}\b", text):
            lines.append(f"local {constant} = {_literal(value)}\n")
    return "".join(lines) + text


@cache
def _read(package: str, name: str) -> str:
    return (files(package) / "scripts" / f"{name}.lua").read_text()


def _literal(value: Constant) -> str:
    if isinstance(value, str):
        if not re.fullmatch(r"[\w:.-]*", value):
            raise ValueError(f"no plain text for a script: {value!r}")
        return f"'{value}'"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, frozenset):
        return f"{{ {', '.join(f'[{_literal(member)}] = true' for member in sorted(value))} }}"
    return f"{{ {', '.join(map(_literal, value))} }}"
