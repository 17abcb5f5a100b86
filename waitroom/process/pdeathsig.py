"""Runs a command that ends when its parent does: ``python -m waitroom.process.pdeathsig PARENT_PID COMMAND …``.

For children that, unlike our own, can't watch a pipe. On systems without support (macOS), the command outlives its
parent, and the next start must handle an orphan.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    """Ties this process to the life of its parent and executes the command."""
    parent, command = int(arguments[0]), arguments[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        sys.exit("the parent process has already exited")
    os.execv(command[0], command)  # noqa: S606 - the command is our own, no shell is wanted


if __name__ == "__main__":
    main(sys.argv[1:])
