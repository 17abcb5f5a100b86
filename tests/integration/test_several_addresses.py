"""An upstream name with several addresses, one of which is silent: real sockets, and a resolver of the test's."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop

from support.ca import Authority
from waitroom.edge.upstream.connector import Connector, UpstreamAddress, UpstreamUnavailableError

SILENT, LIVE, REFUSING = "127.0.0.2", "127.0.0.3", "127.0.0.4"
NAME = "shop.internal"
PATIENCE = 60.0  # far more than a connection needs, so that a slow machine fails nothing


class Loop(uvloop.Loop):
    """The loop that workers run on, with a resolver that knows one name, and a record of what is tried."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.tried: list[str] = []
        self.tried_one = asyncio.Event()

    async def getaddrinfo(self, host: Any, port: Any, **how: Any) -> Any:
        if host != NAME:
            return await super().getaddrinfo(host, port, **how)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in self.addresses]

    async def sock_connect(self, sock: Any, address: Any) -> None:
        self.tried.append(address[0])
        self.tried_one.set()
        await super().sock_connect(sock, address)


def run(main: Callable[[Loop], Coroutine[Any, Any, None]]) -> None:
    with asyncio.Runner(loop_factory=Loop) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, Loop)
        runner.run(asyncio.wait_for(main(loop), 2 * PATIENCE))


@contextlib.contextmanager
def silent_listener(port: int) -> Iterator[None]:
    """An address that drops SYNs: Linux does where a listener's queue is full."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind((SILENT, port))
        listener.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex((SILENT, port))
        yield


@contextlib.asynccontextmanager
async def live_server(**options: Any) -> AsyncIterator[int]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(100):
                writer.write(data)
        writer.close()

    server = await asyncio.start_server(serve, LIVE, 0, **options)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


class Echo(asyncio.Protocol):
    def __init__(self) -> None:
        self.heard: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.write(b"hello")

    def data_received(self, data: bytes) -> None:
        self.heard.set_result(data)

    def connection_lost(self, _exc: Exception | None) -> None:
        self.gone.set_result(None)


async def echoes(connector: Connector, url: str) -> str:
    """Connects, sends something and gets it back; returns the address that answered."""
    echo = await connector.connect(UpstreamAddress.parse(url), Echo)
    assert await echo.heard == b"hello"
    peer: str = echo.transport.get_extra_info("peername")[0]
    echo.transport.close()
    await echo.gone
    return peer


def test_a_silent_address_costs_a_moment_and_is_then_tried_last() -> None:
    async def main(loop: Loop) -> None:
        loop.addresses = [SILENT, LIVE]
        async with live_server() as port:
            with silent_listener(port):
                connector = Connector(PATIENCE)
                url = f"http://{NAME}:{port}"
                assert await echoes(connector, url) == LIVE
                assert loop.tried == [SILENT, LIVE]
                loop.tried.clear()
                for _ in range(3):
                    assert await echoes(connector, url) == LIVE
                assert loop.tried == [LIVE] * 3

    run(main)


def test_an_address_that_refuses_costs_nothing_and_is_then_tried_last() -> None:
    async def main(loop: Loop) -> None:
        loop.addresses = [REFUSING, LIVE]
        async with live_server() as port:
            connector = Connector(PATIENCE)
            for _ in range(2):
                assert await echoes(connector, f"http://{NAME}:{port}") == LIVE
            assert loop.tried == [REFUSING, LIVE, LIVE]

    run(main)


def test_tls_is_verified_for_the_name_on_the_address_that_connects(tmp_path: Path) -> None:
    authority = Authority.make(tmp_path / "authority")
    tls = ssl.create_default_context(cafile=str(authority.file))

    async def main(loop: Loop) -> None:
        loop.addresses = [SILENT, LIVE]
        async with live_server(ssl=authority.server(f"DNS:{NAME}")) as port:
            with silent_listener(port):
                assert await echoes(Connector(PATIENCE, tls), f"https://{NAME}:{port}") == LIVE
                with pytest.raises(UpstreamUnavailableError, match="certificate"):
                    await echoes(Connector(PATIENCE, tls, "another.internal"), f"https://{NAME}:{port}")

    run(main)


def test_no_connection_if_no_address_accepts_one() -> None:
    async def main(loop: Loop) -> None:
        loop.addresses = [REFUSING, "127.0.0.5"]
        with pytest.raises(UpstreamUnavailableError) as raised:
            await echoes(Connector(PATIENCE), f"http://{NAME}:9")
        assert raised.value.cause == "connect"
        assert loop.tried == [REFUSING, "127.0.0.5"]

    run(main)


def test_a_name_with_one_address() -> None:
    async def main(loop: Loop) -> None:
        loop.addresses = [LIVE]
        async with live_server() as port:
            assert await echoes(Connector(PATIENCE), f"http://{NAME}:{port}") == LIVE
            assert loop.tried == []

    run(main)


def test_an_abandoned_connection_leaves_no_socket_behind() -> None:
    async def main(loop: Loop) -> None:
        loop.addresses = [SILENT, SILENT]
        async with live_server() as port:
            with silent_listener(port):
                made = asyncio.create_task(
                    Connector(PATIENCE).connect(UpstreamAddress.parse(f"http://{NAME}:{port}"), Echo)
                )
                for _ in range(2):
                    await loop.tried_one.wait()
                    loop.tried_one.clear()
                assert loop.tried == [SILENT, SILENT]
                made.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await made

    run(main)  # an open socket would be a ResourceWarning, and so a failure
