"""The start of each of our processes, without garbage collection.

Imported modules stay for the life of the process. During imports the collector would scan them repeatedly, a third of
the start time; later each full collection would scan them, while all requests wait for it. So nothing is collected
until all imports are done, and these objects are never scanned again (`gc.freeze`).
"""

from __future__ import annotations

import gc
import importlib
import sys


def command() -> None:
    """The ``waitroom`` command."""
    _run("waitroom.cli")


def _run(module: str) -> None:
    gc.disable()
    found = importlib.import_module(module)
    gc.freeze()
    gc.enable()
    found.main()


if __name__ == "__main__":
    # python -m waitroom.process.bootstrap MODULE ARGUMENT…
    _run(sys.argv.pop(1))
