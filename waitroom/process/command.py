"""How our own processes are started."""

from __future__ import annotations

import sys


def python_command(module: str, *arguments: str) -> tuple[str, ...]:
    """The command that runs a module of ours with the Python, and the installation, that run here.

    ``-P`` keeps out what the working folder holds: a checkout there may be of another version.
    """
    return sys.executable, "-P", "-m", module, *arguments
