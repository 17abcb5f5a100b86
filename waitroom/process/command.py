"""The command line of our own processes."""

from __future__ import annotations

import sys


def python_command(module: str, *arguments: str) -> tuple[str, ...]:
    """Returns the command that runs one of our modules with the current Python and installation.

    ``-P`` excludes the working directory: a checkout there may be of another version.
    """
    return sys.executable, "-P", "-m", module, *arguments
