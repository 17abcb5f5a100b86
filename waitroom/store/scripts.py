"""The Lua scripts that run in the store, each in a file of the package that uses it."""

from __future__ import annotations

from functools import cache
from importlib.resources import files


@cache
def load_script(package: str, name: str, *, prelude: str = "") -> str:
    """Returns the text of ``scripts/<name>.lua`` in a package.

    Args:
        package: The package's full name.
        name: The script's name.
        prelude: A script in the same folder to prepend, with shared functions.
    """
    folder = files(package) / "scripts"
    before = (folder / f"{prelude}.lua").read_text() if prelude else ""
    return before + (folder / f"{name}.lua").read_text()
