"""Compiles the request path when a wheel is built.

The Python code is the only source. A wheel contains both it and the compiled modules, and so does whatever is installed
from a checkout. Without a C compiler, the wheel is pure Python. ``WAITROOM_PURE=1`` requests that; ``WAITROOM_PURE=0``
makes a failed compilation an error.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

# Marks a module to compile: everything that a request or a poll passes through between two system calls.
MARKER = "# mypyc: compile"


class CustomBuildHook(BuildHookInterface):
    """See above."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Adds the compiled modules to the wheel."""
        pure = os.environ.get("WAITROOM_PURE")
        if version == "editable" or pure == "1":
            return
        folder = Path(tempfile.mkdtemp(prefix="waitroom-build-"))
        self._folder = folder
        try:
            built = _compile(Path(self.root), folder)
        except (Exception, SystemExit) as error:
            if pure == "0":
                raise
            self.app.display_warning(f"compilation failed ({error}); the wheel is pure Python")
            return
        build_data["force_include"].update({str(path): str(path.relative_to(folder / "lib")) for path in built})
        build_data["pure_python"] = False
        build_data["infer_tag"] = True

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Removes the temporary files."""
        if hasattr(self, "_folder"):
            shutil.rmtree(self._folder, ignore_errors=True)


def compiled_modules(root: Path) -> list[str]:
    """Returns the modules that carry the marker, as paths from the root."""
    modules = sorted((root / "waitroom").rglob("*.py"))
    return [str(path.relative_to(root)) for path in modules if MARKER in path.read_text(encoding="utf-8").splitlines()]


def _compile(root: Path, folder: Path) -> list[Path]:
    from mypyc.build import mypycify
    from setuptools import Distribution
    from setuptools.command.build_ext import build_ext

    before = Path.cwd()
    os.chdir(root)
    try:
        extensions = mypycify(
            # A class whose base is unknown would be compiled with a layout of its own and corrupt memory. Other
            # packages aren't analyzed: an isolated build doesn't have them, and every build should give the same code.
            [
                *("--config-file=", "--ignore-missing-imports", "--disallow-subclassing-any", "--no-site-packages"),
                *("--follow-imports=silent", *compiled_modules(root)),
            ],
            opt_level="2",
            debug_level="0",
            target_dir=str(folder / "c"),
            group_name="waitroom",
        )
        command = build_ext(Distribution({"name": "waitroom", "ext_modules": extensions}))
        command.build_lib, command.build_temp = str(folder / "lib"), str(folder / "temp")
        command.ensure_finalized()
        command.run()
    finally:
        os.chdir(before)
    suffix = ".pyd" if sys.platform == "win32" else ".so"
    return sorted((folder / "lib").rglob(f"*{suffix}"))
