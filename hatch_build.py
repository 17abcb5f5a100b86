"""Compiles the path of a request while the wheel is built, where a C compiler is there to do it.

The Python stays the one source, and what runs where nothing was compiled: in a checkout, and where no compiler is found
or ``WAITROOM_PURE=1`` asks for it. The wheel holds both, side by side.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

# The line that a module carries if it is compiled: all that a request or a poll goes through between two system calls.
MARKER = "# mypyc: compile"


class CustomBuildHook(BuildHookInterface):
    """See above."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Puts what was compiled into the wheel."""
        if version == "editable" or os.environ.get("WAITROOM_PURE") == "1":
            return
        folder = Path(tempfile.mkdtemp(prefix="waitroom-build-"))
        self._folder = folder
        try:
            built = _compile(Path(self.root), folder)
        except (Exception, SystemExit) as error:
            self.app.display_warning(f"nothing was compiled ({error}); what is installed is pure Python")
            return
        build_data["force_include"].update({str(path): str(path.relative_to(folder / "lib")) for path in built})
        build_data["pure_python"] = False
        build_data["infer_tag"] = True

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Removes what is left of the compilation."""
        if hasattr(self, "_folder"):
            shutil.rmtree(self._folder, ignore_errors=True)


def compiled_modules(root: Path) -> list[str]:
    """The modules that carry the marker, as paths from the root."""
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
            # A class whose base isn't known here would be compiled with a layout of its own, and corrupt memory. Of
            # what isn't compiled nothing is asked: the packages that it needs aren't there while a wheel is built.
            [
                *("--config-file=", "--ignore-missing-imports", "--disallow-subclassing-any"),
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
