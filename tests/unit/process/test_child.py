"""A child never outlives its supervisor."""

from __future__ import annotations

import socket
import subprocess
import sys

from waitroom.process.child import NO_PAIR, READY, SIGN_OF_LIFE
from waitroom.settings import RoomSettings, Settings, to_json

CHILD = """
from waitroom.process.child import run_child

async def serve(child):
    await child.ready()
    await child.stop.wait()

run_child("edge", serve)
"""


def test_a_child_stops_after_its_supervisor_was_killed_with_signs_of_life_unread() -> None:
    """A supervisor that hung hasn't read them: the system then reports a reset instead of an end."""
    settings = Settings(rooms=(RoomSettings(name="shop", upstream="http://127.0.0.1:3000"),))
    ours, theirs = socket.socketpair()
    ours.settimeout(60)
    with socket.create_server(("127.0.0.1", 0)) as listener, ours, theirs:
        descriptors = (theirs.fileno(), listener.fileno())
        command = (sys.executable, "-c", CHILD, "0", *map(str, descriptors))
        with subprocess.Popen(command, pass_fds=descriptors, stderr=subprocess.PIPE) as child:
            theirs.close()
            ours.sendall(to_json(settings) + b"\n" + NO_PAIR)
            with ours.makefile("rb", buffering=0) as lines:
                assert lines.readline() == READY
            assert ours.recv(1, socket.MSG_PEEK) == SIGN_OF_LIFE
            ours.close()
            try:
                _, errors = child.communicate(timeout=60)
            finally:
                child.kill()
    assert child.returncode == 0
    assert errors == b""
