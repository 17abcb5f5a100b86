"""The Lua scripts that run in the store, each in a file of the package that uses it."""

from __future__ import annotations

from functools import cache
from importlib.resources import files


@cache
def load_script(package: str, name: str, *, prelude: str = "") -> str:
    """The text of ``scripts/<name>.lua`` in a package.

    Args:
        package: The package's full name.
        name: The script's.
        prelude: Of a script in the same folder that goes before it, with the functions that several share.
    """
    folder = files(package) / "scripts"
    before = (folder / f"{prelude}.lua").read_text() if prelude else ""
    return before + (folder / f"{name}.lua").read_text()
