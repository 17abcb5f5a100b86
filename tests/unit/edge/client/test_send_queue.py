"""The number of bytes that the kernel has yet to send."""

from __future__ import annotations

import os
import socket

from waitroom.edge.client.send_queue import unacknowledged


def test_unacknowledged_bytes_are_counted():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    with near, far:
        assert unacknowledged(near.fileno()) == 0
        near.setblocking(False)
        sent = 0
        try:
            while True:
                sent += near.send(b"x" * 65536)
        except BlockingIOError:
            pass
        waits = unacknowledged(near.fileno())
        assert 0 < waits <= sent
        near.setblocking(True)
        near.shutdown(socket.SHUT_WR)
        taken = 0
        while piece := far.recv(1 << 20):
            taken += len(piece)
        assert taken == sent
        assert unacknowledged(near.fileno()) < waits


def test_unacknowledged_bytes_of_a_non_socket_are_zero():
    with open(os.devnull, "rb") as file:
        assert unacknowledged(file.fileno()) == 0
    assert unacknowledged(-1) == 0
