"""The start of each of our processes, without garbage collection, and the command line for it.

Imported modules stay for the life of the process. During imports the collector would scan them repeatedly, a third of
the start time; later each full collection would scan them, while all requests wait for it. So nothing is collected
until all imports are done, and these objects are never scanned again (`gc.freeze`).
"""

from __future__ import annotations

import gc
import importlib
import io
import os
import sys
from collections.abc import Mapping

SETTINGS_PREFIX = "WAITROOM_"


def command() -> None:
    """The ``waitroom`` command."""
    _run("waitroom.cli")


def python_command(module: str, *arguments: str) -> tuple[str, ...]:
    """Returns the command that runs one of our modules with the current Python and installation.

    ``-P`` excludes the working directory: a checkout there may be of another version.
    """
    return sys.executable, "-P", "-m", module, *arguments


def child_environment(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Returns the environment for a child process: ours, without settings, which may be secrets.

    Other processes of the same user could read them in ``/proc``, and so could whatever a child starts.
    """
    given = os.environ if environment is None else environment
    return {name: value for name, value in given.items() if not name.upper().startswith(SETTINGS_PREFIX)}


def _run(module: str) -> None:
    _print_anything()
    gc.disable()
    found = importlib.import_module(module)
    gc.freeze()
    gc.enable()
    found.main()


def _print_anything() -> None:
    """Lets output contain characters that its encoding lacks: a command must not fail after it has changed a room.

    They are escaped, not replaced, so that two names remain two names.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


if __name__ == "__main__":
    # python -m waitroom.process.bootstrap MODULE ARGUMENT…
    _run(sys.argv.pop(1))
