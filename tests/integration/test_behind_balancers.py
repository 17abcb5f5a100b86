"""A TCP load balancer in front: HAProxy sends the PROXY protocol's header, before plain HTTP and before TLS."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from support.certificates import NAME, make_pair
from support.gateway_process import Gateway, eventually, needs, running_gateway
from support.ports import free_port
from support.upstreams.server import Shop
from waitroom.net.proxy_protocol import LOCAL

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

BALANCER = "127.0.0.42"  # the source address of what is trusted
VISITOR = "127.0.0.77"
V1 = b"PROXY TCP4 203.0.113.9 10.0.0.1 56324 443\r\n"
GET = b"GET /%b HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n"


@pytest.fixture(scope="module", params=["http", "https"])
def scheme(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def pair(folder: Path) -> tuple[Path, Path]:
    return make_pair(folder, "shop")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(shop: Shop, folder: Path, pair: tuple[Path, Path], scheme: str) -> AsyncIterator[Gateway]:
    inner = folder / scheme
    inner.mkdir()
    tls = {"tls_certificate": str(pair[0]), "tls_key": str(pair[1])} if scheme == "https" else {}
    settings: dict[str, Any] = {
        "proxy_protocol": True,
        "trusted_proxies": [BALANCER, "10.0.0.0/8"],
        "client_head_seconds": 10.0,
        "client_connections_per_address": 3,
        "workers": 1,
        **tls,
    }
    rooms = [{"name": "shop", "upstream": shop.address, "method": "passthrough"}]
    async with running_gateway(inner, rooms, **settings) as gateway:
        yield gateway


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def balancers(gateway: Gateway, folder: Path, scheme: str) -> AsyncIterator[dict[str, int]]:
    """HAProxy in TCP mode; the port for each version of the header."""
    program = needs("haproxy")
    ports = {"send-proxy": free_port(), "send-proxy-v2": free_port(), "send-proxy-v2-ssl": free_port(), "": free_port()}
    parts = ["defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n"]
    for words, port in ports.items():
        parts.append(
            f"listen at{port}\n  bind 127.0.0.1:{port}\n"
            f"  server shop 127.0.0.1:{gateway.port} source {BALANCER} {words} check inter 200ms\n"
        )
    config = folder / f"haproxy-{scheme}.cfg"
    config.write_text("".join(parts))
    process = await asyncio.create_subprocess_exec(program, "-db", "-q", "-f", str(config))
    try:
        for port in ports.values():
            await eventually(lambda port=port: connects(port))
        yield ports
    finally:
        process.kill()
        await process.wait()


async def connects(port: int) -> bool:
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.transport.abort()
    return True


async def curl(scheme: str, pair: tuple[Path, Path], port: int, *arguments: str, path: str) -> tuple[int, str]:
    reach = ["--cacert", str(pair[0]), "--resolve", f"{NAME}:{port}:127.0.0.1", "--interface", VISITOR]
    process = await asyncio.create_subprocess_exec(
        *(needs("curl"), "-sS", *reach, *arguments, "--max-time", "30", f"{scheme}://{NAME}:{port}{path}"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await process.communicate()
    return process.returncode or 0, out.decode()


@pytest.mark.parametrize("version", ["send-proxy", "send-proxy-v2", "send-proxy-v2-ssl"])
async def test_the_shop_gets_the_visitors_address_behind_haproxy(
    balancers: dict[str, int], gateway: Gateway, scheme: str, pair: tuple[Path, Path], shop: Shop, version: str
) -> None:
    path = f"/{scheme}-{version}"
    lie = ["-H", "X-Forwarded-For: 6.6.6.6", "-H", "Forwarded: for=6.6.6.6"]
    twice = [*lie, "-o", "/dev/null", "-w", "%{http_code} %{num_connects}\n"]
    code, out = await curl(scheme, pair, balancers[version], *twice, path=f"{path}?[1-3]")
    assert (code, out.split("\n")) == (0, ["200 1", "200 0", "200 0", ""]), gateway.log
    seen = shop.last(path)
    assert seen.one("X-Forwarded-For") == VISITOR
    assert seen.one("X-Forwarded-Proto") == scheme
    assert seen.one("Forwarded") is None


async def test_a_proxy_that_sends_no_header_is_refused(
    balancers: dict[str, int], gateway: Gateway, scheme: str, pair: tuple[Path, Path], shop: Shop
) -> None:
    code, _ = await curl(scheme, pair, balancers[""], path="/without")
    assert code != 0
    assert "/without" not in shop.paths()
    await eventually(lambda: "connections refused" in gateway.log)


class Sent:
    """A connection from an address of one's choice."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def answer(self) -> bytes:
        """All that comes back; nothing where the connection was refused."""
        try:
            async with asyncio.timeout(30):
                return await self.reader.read()
        except ConnectionError:
            return b""


@contextlib.asynccontextmanager
async def connection(
    gateway: Gateway, source: str, header: bytes, scheme: str, pair: tuple[Path, Path]
) -> AsyncIterator[Sent]:
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port, local_addr=(source, 0))
    try:
        writer.write(header)
        if scheme == "https":
            await writer.start_tls(ssl.create_default_context(cafile=pair[0]), server_hostname=NAME)
        yield Sent(reader, writer)
    finally:
        writer.transport.abort()


async def asked(
    gateway: Gateway, source: str, header: bytes, scheme: str, pair: tuple[Path, Path], path: bytes
) -> bytes:
    try:
        async with connection(gateway, source, header, scheme, pair) as one:
            one.writer.write(GET % path)
            return await one.answer()
    except (ConnectionError, ssl.SSLError):
        return b""


@pytest.mark.parametrize(
    ("source", "header"),
    [
        (VISITOR, V1),
        (VISITOR, LOCAL),
        (VISITOR, b""),
        ("127.0.0.1", V1),
        ("127.0.0.1", b"PROXY UNKNOWN\r\n"),
        (BALANCER, b""),
        (BALANCER, b"PROXY TCP4 203.0.113.9\r\n"),
        (BALANCER, V1 + V1),
    ],
)
async def test_an_untrusted_or_malformed_proxy_header_is_refused(
    gateway: Gateway, scheme: str, pair: tuple[Path, Path], shop: Shop, source: str, header: bytes
) -> None:
    answer = await asked(gateway, source, header, scheme, pair, b"refused")
    assert b" 200 OK" not in answer
    assert "/refused" not in shop.paths()


@pytest.mark.parametrize(
    ("header", "told"),
    [
        (V1, "203.0.113.9"),
        (b"PROXY TCP6 2001:db8::9 ::1 1 2\r\n", "2001:db8::9"),
        (b"PROXY TCP6 ::ffff:203.0.113.9 ::1 1 2\r\n", "203.0.113.9"),
        (b"PROXY UNKNOWN\r\n", BALANCER),
        (LOCAL, BALANCER),
    ],
)
async def test_the_address_in_the_header_becomes_the_clients(
    gateway: Gateway, scheme: str, pair: tuple[Path, Path], shop: Shop, header: bytes, told: str
) -> None:
    assert b" 200 OK" in await asked(gateway, BALANCER, header, scheme, pair, b"told")
    assert shop.last("/told").one("X-Forwarded-For") == told


async def test_forwarding_headers_of_a_visitor_of_unknown_address_are_ignored(
    gateway: Gateway, scheme: str, pair: tuple[Path, Path], shop: Shop
) -> None:
    """The balancer passes on what it was sent; that it is trusted itself says nothing of that."""
    for header, believed in ((b"PROXY UNKNOWN\r\n", False), (b"PROXY TCP4 10.0.0.9 10.0.0.1 1 2\r\n", True)):
        async with connection(gateway, BALANCER, header, scheme, pair) as one:
            one.writer.write((GET % b"lie").replace(b"Host", b"X-Forwarded-For: 6.6.6.6\r\nHost"))
            assert b" 200 OK" in await one.answer()
        assert ("6.6.6.6" in (shop.last("/lie").one("X-Forwarded-For") or "")) is believed


async def test_a_header_may_arrive_in_pieces_and_with_following_data(
    gateway: Gateway, pair: tuple[Path, Path], scheme: str, shop: Shop
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port, local_addr=(BALANCER, 0))
    sent = V1 if scheme == "https" else V1 + GET % b"pieces"
    for at in range(0, len(sent), 5):
        writer.write(sent[at : at + 5])
        await asyncio.sleep(0)
    if scheme == "https":
        await writer.start_tls(ssl.create_default_context(cafile=pair[0]), server_hostname=NAME)
        writer.write(GET % b"pieces")
    assert b" 200 OK" in await Sent(reader, writer).answer()
    assert shop.last("/pieces").one("X-Forwarded-For") == "203.0.113.9"
    writer.transport.abort()


async def test_a_missing_header_times_out(gateway: Gateway, scheme: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port, local_addr=(BALANCER, 0))
    writer.write(V1[:20])
    assert await Sent(reader, writer).answer() == b""
    writer.transport.abort()


async def test_the_connection_limit_counts_visitors_and_not_the_balancer(
    gateway: Gateway, pair: tuple[Path, Path], scheme: str
) -> None:
    async with contextlib.AsyncExitStack() as stack:

        async def held(address: bytes) -> bool:
            header = b"PROXY TCP4 %b 10.0.0.1 1 2\r\n" % address
            try:
                one = await stack.enter_async_context(connection(gateway, BALANCER, header, scheme, pair))
            except (ConnectionError, ssl.SSLError):
                return False
            one.writer.write((GET % b"held").replace(b"close", b"keep-alive"))
            try:
                return (await one.reader.readline()).startswith(b"HTTP/1.1 200")
            except ConnectionError:
                return False

        assert [await held(b"198.51.100.1") for _ in range(4)] == [True, True, True, False]
        assert [await held(b"198.51.100.%d" % number) for number in range(2, 8)] == [True] * 6

    async def again() -> bool:
        return b" 200 OK" in await asked(
            gateway, BALANCER, V1.replace(b"203.0.113.9", b"198.51.100.1"), scheme, pair, b"x"
        )

    await eventually(again)


async def test_the_gateway_is_ready(gateway: Gateway) -> None:
    await eventually(gateway.is_ready)
