"""How each of our processes begins: with the collector of garbage out of the way.

What is imported stays for as long as the process. While it comes, the collector would go through it time and again, a
third of the time that a start takes; later every full collection would, while all who are served wait for it. So
nothing is collected before all is there, and what is there then is never looked at again (`gc.freeze`).
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
