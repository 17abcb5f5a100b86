"""The acceptor of a worker pauses briefly when the system is out of descriptors."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from typing import Any

import pytest
from structlog.testing import capture_logs

from support.edge_world import QUIET, World
from waitroom.edge.client import acceptor as acceptor_module
from waitroom.edge.client.acceptor import ACCEPT_BACKOFF_SECONDS, Acceptor


class Listener:
    """A socket with scripted results of ``accept``."""

    def __init__(self, *outcomes: OSError) -> None:
        self.outcomes = list(outcomes)
        self.asked = 0

    def accept(self) -> tuple[socket.socket, Any]:
        self.asked += 1
        raise self.outcomes.pop(0) if self.outcomes else BlockingIOError()

    def setblocking(self, flag: bool) -> None:
        assert not flag


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
def test_acceptor_backs_off_without_descriptors(number):
    with World(view=QUIET) as world:
        readers: list[Callable[[], None]] = []
        world.loop.add_reader = lambda _, reader: readers.append(reader)  # type: ignore[method-assign,assignment]
        world.loop.remove_reader = lambda _: bool(readers and readers.pop())  # type: ignore[method-assign,assignment]
        evicted: list[int] = []
        world.edge.evict_idle = evicted.append  # type: ignore[method-assign]
        listener: Any = Listener(OSError(number, "no room"), OSError(number, "no room"))
        acceptor = world.loop.do(lambda: Acceptor(world.edge, listener, None, proxied=False))
        world.loop.do(acceptor.open)
        with capture_logs() as logs:
            for again in range(1, 3):
                world.loop.do(readers[0])
                assert (readers, listener.asked) == ([], again)
                assert evicted == [acceptor_module.ACCEPTS_PER_TURN] * again
                world.loop.now += ACCEPT_BACKOFF_SECONDS
                world.loop.settle()
                assert len(readers) == 1
        assert [entry["event"] for entry in logs] == ["accept failed"], "not every second"
        world.loop.do(readers[0])
        assert len(readers) == 1
        world.loop.wait(acceptor.close())


def test_acceptor_pauses_once_for_everything_that_lacks_descriptors():
    with World(view=QUIET) as world:
        watched: list[bool] = []
        evicted: list[int] = []
        world.edge.evict_idle = evicted.append  # type: ignore[method-assign]
        world.loop.add_reader = lambda *_: watched.append(True)  # type: ignore[method-assign]
        world.loop.remove_reader = lambda _: bool(watched and watched.pop())  # type: ignore[method-assign,assignment]
        listener: Any = Listener()
        acceptor = world.loop.do(lambda: Acceptor(world.edge, listener, None, proxied=False))
        world.loop.do(acceptor.open)
        for _ in range(3):
            world.loop.do(acceptor.pause)
            assert not watched
        assert evicted == [acceptor_module.ACCEPTS_PER_TURN, 1, 1], "no more than lack one"
        for _ in range(2):
            world.loop.now += ACCEPT_BACKOFF_SECONDS
            world.loop.settle()
            assert watched == [True]
        world.loop.do(acceptor.pause)
        world.loop.wait(acceptor.close())
        world.loop.now += ACCEPT_BACKOFF_SECONDS
        world.loop.settle()
        assert not watched, "a closed acceptor stays closed"


def test_aborted_connection_does_not_stop_the_acceptor():
    with World(view=QUIET) as world:
        world.loop.add_reader = lambda *_: None  # type: ignore[method-assign]
        world.loop.remove_reader = lambda *_: True  # type: ignore[method-assign,assignment]
        listener: Any = Listener(ConnectionAbortedError())
        acceptor = world.loop.do(lambda: Acceptor(world.edge, listener, None, proxied=False))
        world.loop.do(acceptor._accept)
        assert listener.asked == 2
        world.loop.wait(acceptor.close())


def test_pending_connection_is_evicted():
    """A TLS handshake that never begins is as idle as a silent connection."""
    with World(view=QUIET, most_connections=2, most_per_address=10) as world:
        near, far = socket.socketpair()

        class One(Listener):
            def accept(self) -> tuple[socket.socket, Any]:
                if self.asked:
                    raise BlockingIOError
                self.asked += 1
                return near, ("192.0.2.1", 1)

        async def never(*_: object, **__: object) -> None:
            await asyncio.Event().wait()

        world.loop.add_reader = lambda *_: None  # type: ignore[method-assign]
        world.loop.remove_reader = lambda *_: True  # type: ignore[method-assign,assignment]
        world.loop.connect_accepted_socket = never  # type: ignore[method-assign,assignment]
        acceptor = world.loop.do(lambda: Acceptor(world.edge, One(), object(), proxied=False))  # type: ignore[arg-type]
        world.loop.do(acceptor._accept)
        assert world.edge.connections.per_neighbourhood == {"192.0.2.1": 1}
        assert world.client("192.0.2.2").aborted
        world.pass_time(2)
        assert not world.client("192.0.2.2").lost
        assert near.fileno() == -1
        assert world.edge.connections.per_neighbourhood == {"192.0.2.2": 1}
        far.close()
