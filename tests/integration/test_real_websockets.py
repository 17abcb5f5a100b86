"""WebSockets from the `websockets` library to uvicorn, and what the two agree on with the gateway in between."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.extensions.permessage_deflate import PerMessageDeflate

from support.gateway_process import Gateway, eventually, room
from support.ports import free_port
from support.third_party import uvicorn
from support.visitor_client import Visitor, Wire

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

PORT = free_port()
CROWD = 100
# On a busy machine all handshakes of one session may be in flight at the same time.
ROOMS = [room("chat", upstream=f"http://127.0.0.1:{PORT}", session_requests_in_flight=2 * CROWD)]
SETTINGS = {"workers": 1}


@pytest_asyncio.fixture(scope="module", loop_scope="module", autouse=True)
async def server(folder: Path) -> AsyncIterator[None]:
    async with uvicorn(PORT, folder):
        yield


@pytest_asyncio.fixture(loop_scope="module")
async def pass_(gateway: Gateway) -> str:
    return str((await Visitor(gateway, "chat").call("join")).json["pass"])


def dial(gateway: Gateway, pass_: str, path: str = "/chat", **options: Any) -> connect:
    return connect(
        f"ws://chat.test:{gateway.port}{path}",
        host="127.0.0.1",
        port=gateway.port,
        proxy=None,
        additional_headers={"Waitroom-Pass": pass_},
        **options,
    )


async def echoes(socket: ClientConnection) -> None:
    async with asyncio.timeout(30):
        for message in ("hello", "", "ünïcödé 🎟", b"", bytes(range(256)), b"\x00" * 900_000, "x" * 65_536):
            await socket.send(message)
            assert await socket.recv() == message
        await socket.send(["in ", "three ", "pieces"])
        assert await socket.recv() == "in three pieces"
        await (await socket.ping(b"are you there"))


@pytest.mark.parametrize("compression", [None, "deflate"])
async def test_subprotocol_and_extensions_are_negotiated_end_to_end(
    gateway: Gateway, pass_: str, compression: str | None
) -> None:
    async with dial(gateway, pass_, subprotocols=["chat.v1", "chat.v2"], compression=compression) as socket:
        assert socket.subprotocol == "chat.v2"
        assert socket.response is not None
        extensions = [one for one in socket.protocol.extensions if isinstance(one, PerMessageDeflate)]
        assert len(extensions) == (compression is not None)
        assert ("Sec-WebSocket-Extensions" in socket.response.headers) == (compression is not None)
        offered = socket.response.headers.get("X-Extensions", "")
        assert ("permessage-deflate" in offered) == (compression is not None), "the shop saw what was offered"
        await echoes(socket)


async def test_no_subprotocol_if_none_is_known(gateway: Gateway, pass_: str) -> None:
    async with dial(gateway, pass_, subprotocols=["chat.v3"]) as socket:
        assert socket.subprotocol is None
        await echoes(socket)


async def test_compressed_messages_stay_compressed(gateway: Gateway, pass_: str) -> None:
    """Of a message that can be made small, little goes over the wire to and from the client."""
    message = "waitroom " * 100_000
    async with Wire.open(gateway) as wire:
        lines = (
            *("GET /chat HTTP/1.1", "Host: chat.test", f"Waitroom-Pass: {pass_}", "Connection: Upgrade"),
            *("Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="),
            "Sec-WebSocket-Extensions: permessage-deflate; client_no_context_takeover; server_no_context_takeover",
        )
        await wire.send("\r\n".join((*lines, "", "")).encode())
        status, headers = await wire.head()
        assert status == 101
        assert headers["Sec-WebSocket-Accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        assert headers["Sec-WebSocket-Extensions"].startswith("permessage-deflate")
        assert (headers["Upgrade"].lower(), headers["Connection"].lower()) == ("websocket", "upgrade")
        deflate = zlib.compressobj(wbits=-12)
        small = (deflate.compress(message.encode()) + deflate.flush(zlib.Z_SYNC_FLUSH))[:-4]
        # FIN, RSV1 and text; masked with zeros, with a length of 16 bits.
        await wire.send(b"\xc1\xfe" + len(small).to_bytes(2) + bytes(4) + small)
        async with asyncio.timeout(30):
            first, length = await wire.reader.readexactly(2)
            assert first == 0xC1
            assert length in (126, *range(126))
            size = int.from_bytes(await wire.reader.readexactly(2)) if length == 126 else length
            back = await wire.reader.readexactly(size)

    assert size < len(message) // 50
    assert zlib.decompressobj(wbits=-15).decompress(back + b"\0\0\xff\xff").decode() == message


async def test_both_ends_may_close(gateway: Gateway, pass_: str) -> None:
    async with dial(gateway, pass_) as socket:
        await socket.send("bye")
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4001, "as you like")

    async with dial(gateway, pass_) as socket:
        await socket.close(4002, "enough")
    assert (socket.close_code, socket.close_reason) == (4002, "enough")


async def test_a_shop_that_declines(gateway: Gateway, pass_: str) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with dial(gateway, pass_, "/closed"):
            pass

    assert refused.value.response.status_code == 403


async def test_a_hundred_websockets_at_the_same_time(gateway: Gateway, pass_: str) -> None:
    async def one(number: int) -> str | bytes:
        async with dial(gateway, pass_) as socket:
            await socket.send(str(number))
            return await socket.recv()

    async with asyncio.timeout(60):
        assert await asyncio.gather(*(one(number) for number in range(CROWD))) == [str(at) for at in range(CROWD)]

    async def all_gone() -> bool:
        return (await gateway.metrics_of("chat"))[("waitroom_upstream_in_flight",)] == 0

    await eventually(all_gone)


async def test_aiohttp_s_websockets(gateway: Gateway, pass_: str) -> None:
    headers = {"Host": "chat.test", "Waitroom-Pass": pass_}
    async with (
        aiohttp.ClientSession() as http,
        asyncio.timeout(30),
        http.ws_connect(f"{gateway.url}/chat", headers=headers, protocols=["chat.v2"], compress=15) as socket,
    ):
        assert (socket.protocol, socket.compress) == ("chat.v2", 12)  # as uvicorn wants it
        await socket.send_str("hello")
        assert await socket.receive_str() == "hello"
        await socket.send_bytes(b"\x00" * 100_000)
        assert await socket.receive_bytes() == b"\x00" * 100_000
