"""HTTPS on the public port, with real clients: its certificate, its limits, and a change of it under load."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import signal
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

from support.certificates import NAME, make_pair
from support.gateway_process import Gateway, eventually, needs, running_gateway
from support.upstreams.server import Seen, Shop, response

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

LARGE = 16 << 20


async def run(*command: str, stdin: bytes | None = None) -> tuple[int, str]:
    """A program's exit code and all that it wrote."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL if stdin is None else asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(60):
            out, _ = await process.communicate(stdin)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    return process.returncode or 0, out.decode("utf-8", "replace")


def trusting(certificate: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=certificate)


class Client:
    """One TLS connection that speaks HTTP by hand."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @property
    def serial(self) -> str:
        return str(self.writer.get_extra_info("peercert")["serialNumber"])

    async def get(self, path: str = "/", *lines: str, body: bytes = b"", host: str = "shop.test") -> tuple[int, bytes]:
        """Status and body of one more request."""
        method = "POST" if body else "GET"
        head = [
            f"{method} {path} HTTP/1.1",
            f"Host: {host}",
            f"Content-Length: {len(body)}" if body else "A: b",
            *lines,
        ]
        self.writer.write("\r\n".join(head).encode() + b"\r\n\r\n" + body)
        start = await self.reader.readuntil(b"\r\n\r\n")
        fields = dict(line.lower().split(": ", 1) for line in start.decode("latin-1").split("\r\n")[1:-2])
        return int(start.split(b" ")[1]), await self.reader.readexactly(int(fields["content-length"]))


@contextlib.asynccontextmanager
async def client(gateway: Gateway, context: ssl.SSLContext) -> AsyncIterator[Client]:
    async with asyncio.timeout(30):
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port, ssl=context, server_hostname=NAME)
    try:
        yield Client(reader, writer)
    finally:
        writer.transport.abort()


@pytest.fixture(scope="module")
def pair(folder: Path) -> tuple[Path, Path]:
    """The files that the gateway reads."""
    first = make_pair(folder, "first")
    files = folder / "shop.pem", folder / "shop.key"
    put(first, files)
    return files


def put(new: tuple[Path, Path], files: tuple[Path, Path]) -> None:
    for source, target in zip(new, files, strict=True):
        target.write_bytes(source.read_bytes())


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(shop: Shop, folder: Path, pair: tuple[Path, Path]) -> AsyncIterator[Gateway]:
    rooms = [{"name": "shop", "hosts": [NAME], "upstream": shop.address, "method": "passthrough"}]
    settings: dict[str, Any] = {"tls_certificate": pair[0].name, "tls_key": pair[1].name}
    async with running_gateway(folder, rooms, **settings) as gateway:
        yield gateway


def curl(gateway: Gateway, pair: tuple[Path, Path], *arguments: str, path: str = "/") -> list[str]:
    reach = ["--cacert", str(pair[0]), "--resolve", f"{NAME}:{gateway.port}:127.0.0.1", "--silent", "--show-error"]
    return [needs("curl"), *reach, "--max-time", "50", *arguments, f"https://{NAME}:{gateway.port}{path}"]


async def test_curl_is_served_and_the_shop_sees_https(gateway: Gateway, pair: tuple[Path, Path], shop: Shop) -> None:
    await eventually(lambda: f"https://127.0.0.1:{gateway.port}" in gateway.log)
    code, out = await run(*curl(gateway, pair, "--http2", "-D", "-", "-H", "Sec-Fetch-Mode: navigate", path="/first"))
    assert code == 0, out
    assert out.startswith("HTTP/1.1 200 OK")
    assert "SameSite=None; Secure" in out
    assert "SameSite=Lax" not in out
    seen = shop.last("/first")
    assert (seen.one("X-Forwarded-Proto"), seen.one("X-Forwarded-For")) == ("https", "127.0.0.1")


async def test_a_connection_is_reused(gateway: Gateway, pair: tuple[Path, Path]) -> None:
    command = curl(gateway, pair, "-w", "%{num_connects}\n", "-o", "/dev/null", path="/[1-5]")
    code, out = await run(*command)
    assert (code, out.split()) == (0, ["1", "0", "0", "0", "0"])


async def test_large_bodies_go_both_ways(gateway: Gateway, pair: tuple[Path, Path], shop: Shop, folder: Path) -> None:
    sent = os.urandom(LARGE)
    (folder / "large").write_bytes(sent)
    shop.answers["/echo"] = echo
    for more in ([], ["-H", "Transfer-Encoding: chunked"], ["-H", "Connection: close"], ["--http1.0"]):
        back = folder / "back"
        upload = ["--data-binary", f"@{folder / 'large'}", "-H", "Content-Type: x/y", "-o", str(back), *more]
        code, out = await run(*curl(gateway, pair, *upload, path="/echo"))
        assert (code, out) == (0, "")
        assert hashlib.sha256(back.read_bytes()).digest() == hashlib.sha256(sent).digest()


async def echo(seen: Seen, writer: asyncio.StreamWriter) -> None:
    writer.write(response(seen.body))


async def test_a_body_without_a_length_ends_with_the_connection(
    gateway: Gateway, pair: tuple[Path, Path], shop: Shop
) -> None:
    async def unframed(seen: Seen, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 300_000)
        await writer.drain()
        writer.close()

    shop.answers["/unframed"] = unframed
    code, out = await run(*curl(gateway, pair, "--http1.0", path="/unframed"))
    assert (code, len(out)) == (0, 300_000)


async def test_a_client_refused_in_the_middle_of_a_body_gets_the_reason(
    gateway: Gateway, pair: tuple[Path, Path], shop: Shop
) -> None:
    async with client(gateway, trusting(pair[0])) as one:
        one.writer.write(b"POST / HTTP/1.1\r\nHost: elsewhere\r\nContent-Length: 10000000\r\n\r\n" + bytes(4_000_000))
        await one.writer.drain()
        start = await one.reader.readuntil(b"\r\n\r\n")
        assert start.startswith(b"HTTP/1.1 421 ")
        assert b"\r\nConnection: close\r\n" in start
        await one.reader.read()


@pytest.mark.parametrize("head", [b"nonsense\r\n\r\n", b"GET /" + b"x" * 100_000])
async def test_an_invalid_request_gets_a_response_and_ends_the_connection(
    gateway: Gateway, pair: tuple[Path, Path], head: bytes
) -> None:
    async with client(gateway, trusting(pair[0])) as one:
        one.writer.write(head)
        answer = await one.reader.read()
        assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 414 ", b"HTTP/1.1 431 "))
        assert b"</html>" in answer or b"}" in answer


async def test_a_slow_reader_gets_the_whole_last_response(
    gateway: Gateway, pair: tuple[Path, Path], shop: Shop
) -> None:
    shop.answers["/slow"] = response(bytes(4_000_000))
    async with client(gateway, trusting(pair[0])) as one:
        one.writer.transport.pause_reading()
        one.writer.write(b"GET /slow HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n")
        await eventually(lambda: shop.paths().count("/slow") == 1)
        one.writer.transport.resume_reading()
        got = await one.reader.read(-1)
        assert len(got.partition(b"\r\n\r\n")[2]) == 4_000_000


async def test_websockets_over_tls(gateway: Gateway, pair: tuple[Path, Path], folder: Path) -> None:
    async def repeat(socket: ServerConnection) -> None:
        async for message in socket:
            await socket.send(message)

    async with serve(repeat, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        rooms = [{"name": "ws", "upstream": f"http://127.0.0.1:{port}", "method": "passthrough"}]
        inner = folder / "ws"
        inner.mkdir()
        settings = {"tls_certificate": str(pair[0]), "tls_key": str(pair[1])}
        async with running_gateway(inner, rooms, **settings) as other:
            url = f"wss://{NAME}:{other.port}/socket"
            async with connect(url, host="127.0.0.1", ssl=trusting(pair[0]), max_size=None) as one:
                for message in ("hello", os.urandom(1_000_000)):
                    await one.send(message)
                    assert await one.recv() == message
            assert one.close_code == 1000


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-tls1_2"], "Protocol version: TLSv1.2"),
        (["-tls1_3"], "Protocol version: TLSv1.3"),
        (["-alpn", "h2,http/1.1"], "ALPN protocol: http/1.1"),
        (["-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"], "SSL routines"),
    ],
)
async def test_openssl_and_the_gateway_agree(
    gateway: Gateway, pair: tuple[Path, Path], arguments: list[str], words: str
) -> None:
    where = ["-connect", f"127.0.0.1:{gateway.port}", "-servername", NAME, "-CAfile", str(pair[0])]
    brief = [] if "-alpn" in arguments else ["-brief"]
    _, out = await run(needs("openssl"), "s_client", *where, *brief, *arguments, stdin=b"Q\n")
    assert words in out


@pytest.mark.parametrize("first", [b"", b"\x16\x03\x01\x02\x00", b"GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n"])
async def test_a_connection_without_a_handshake_is_closed(gateway: Gateway, first: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(first)
    try:
        async with asyncio.timeout(30):
            assert b"HTTP" not in await reader.read()
    except ConnectionResetError:
        pass
    finally:
        writer.transport.abort()


async def test_a_new_certificate_is_used_without_losing_a_request(
    gateway: Gateway, pair: tuple[Path, Path], folder: Path, shop: Shop
) -> None:
    second = make_pair(folder, "second")
    both = trusting(folder / "first.pem")
    both.load_verify_locations(cafile=second[0])
    answered: set[str] = set()
    done = asyncio.Event()

    async def visit(*, again: bool) -> int:
        count = 0
        while not done.is_set():
            async with client(gateway, both) as one:
                answered.add(one.serial)
                while not done.is_set():
                    assert (await one.get("/steady"))[0] == 200
                    count += 1
                    if again:
                        break
        return count

    async def stay(one: Client) -> int:
        count = 0
        while not done.is_set():
            assert (await one.get("/steady"))[0] == 200
            count += 1
        return count

    async with client(gateway, both) as old:
        first_serial = old.serial
        async with asyncio.TaskGroup() as tasks:
            visitors = [tasks.create_task(visit(again=number % 2 == 0)) for number in range(8)]
            visitors.append(tasks.create_task(stay(old)))
            await eventually(lambda: len(shop.paths()) > 100)
            put(second, pair)
            assert gateway.process is not None
            gateway.process.send_signal(signal.SIGHUP)
            await eventually(lambda: len(answered) == 2)
            await eventually(lambda: gateway.log.count("new certificate in use") == 2)
            done.set()
        assert all(visitor.result() for visitor in visitors)
        # Who was connected stays so, under the certificate of before.
        assert (await old.get("/steady"))[0] == 200
        for _ in range(8):
            async with client(gateway, both) as new:
                assert new.serial != first_serial


@pytest.mark.parametrize(
    ("what", "words"),
    [("mismatch", "isn't the key of the certificate"), ("rubbish", "no certificate"), ("expired", "has expired")],
)
async def test_an_invalid_new_certificate_is_logged_and_the_old_one_stays(
    gateway: Gateway, pair: tuple[Path, Path], folder: Path, what: str, words: str
) -> None:
    good = make_pair(folder, f"good-{what}")
    put(good, pair)
    assert gateway.process is not None
    before = gateway.log.count("new certificate in use")
    gateway.process.send_signal(signal.SIGHUP)
    await eventually(lambda: gateway.log.count("new certificate in use") == before + 2)
    if what == "rubbish":
        pair[0].write_text("rubbish")
    else:
        put(make_pair(folder, f"bad-{what}", expired=what == "expired"), pair)
        if what == "mismatch":
            pair[1].write_bytes(good[1].read_bytes())
    gateway.process.send_signal(signal.SIGHUP)
    await eventually(lambda: words in gateway.log)
    # A worker that is replaced gets the good one as well, whatever the files hold.
    workers = gateway.children("edge.worker")
    for worker in workers:
        worker.kill()
    await gateway.replaced("edge.worker", len(workers), workers)

    async def served() -> bool:
        async with client(gateway, trusting(good[0])) as one:
            return (await one.get())[0] == 200

    for _ in range(4):
        assert await eventually(served)
    await eventually(gateway.is_ready)


async def test_check_config_and_start_report_an_invalid_pair(tmp_path: Path, shop: Shop) -> None:
    good, other = make_pair(tmp_path, "good"), make_pair(tmp_path, "other")
    old = make_pair(tmp_path, "old", expired=True)
    rooms = [{"name": "shop", "upstream": shop.address}]

    log = tmp_path / "gateway.log"
    for certificate, key, code, words in (
        (*good, 0, "is valid"),
        (good[0], other[1], 2, 'line 7, tls_key: "'),
        (*old, 2, "certificate has expired"),
    ):
        one = Gateway(tmp_path, {"tls_certificate": certificate.name, "tls_key": key.name}, rooms)
        process = await one.spawn("check-config", str(one.config))
        assert await process.wait() == code
        assert words in " ".join(log.read_text().split())
        log.unlink()
    # A gateway that was restarted in the middle of a sale is worth more than none.
    (tmp_path / "expired").mkdir()
    settings = {"tls_certificate": str(old[0]), "tls_key": str(old[1])}
    async with running_gateway(tmp_path / "expired", rooms, **settings) as gateway:
        await eventually(lambda: "browsers will reject the certificate" in gateway.log)


async def test_stopping_waits_for_responses_but_not_for_clients_that_are_gone(
    folder: Path, shop: Shop, pair: tuple[Path, Path]
) -> None:
    good = make_pair(folder, "stopping")
    inner = folder / "stopping"
    inner.mkdir()
    release = asyncio.Event()

    async def late(seen: Seen, writer: asyncio.StreamWriter) -> None:
        await release.wait()
        writer.write(response(b"late"))

    shop.answers["/late"] = late
    rooms = [{"name": "shop", "upstream": shop.address, "method": "passthrough"}]
    settings = {"tls_certificate": str(good[0]), "tls_key": str(good[1]), "grace_seconds": 120}
    trust = trusting(good[0])
    async with (
        running_gateway(inner, rooms, **settings) as gateway,
        client(gateway, trust) as gone,
        client(gateway, trust) as one,
    ):
        assert (await gone.get())[0] == 200
        gone.writer.transport.pause_reading()  # it will never say goodbye
        asking = asyncio.create_task(one.get("/late"))
        await eventually(lambda: "/late" in shop.paths())
        assert gateway.process is not None
        gateway.process.terminate()
        await eventually(lambda: "stopping" in gateway.log)
        release.set()
        assert await asking == (200, b"late")
        async with asyncio.timeout(60):
            await gateway.process.wait()
