"""Starting and stopping: what is under way ends well, nothing is left, and what can't start says why."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from support.gateway_process import Gateway, eventually, room, running_gateway
from support.ports import free_port, port_is_free
from support.upstreams.server import PAGE, Seen, Shop
from support.visitor_client import Visitor, Wire

pytestmark = pytest.mark.slow

CUT = (asyncio.IncompleteReadError, ConnectionError)


class Slow:
    """A page that is begun and ended when the test says so."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.end = asyncio.Event()

    async def __call__(self, seen: Seen, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\nCache-Control: no-store\r\n\r\nfirst")
        await writer.drain()
        self.asked.set()
        await self.end.wait()
        writer.write(b"after")


@contextlib.asynccontextmanager
async def under_way(gateway: Gateway, shop: Shop) -> AsyncIterator[tuple[Wire, Slow]]:
    """A request whose answer has begun."""
    slow = shop.answers["/slow"] = Slow()
    async with Wire.open(gateway) as wire:
        await wire.send(b"GET /slow HTTP/1.1\r\nHost: shop.test\r\nAccept: text/html\r\n\r\n")
        status, _ = await wire.head()
        assert status == 200
        await slow.asked.wait()
        yield wire, slow


def one_room(shop: Shop) -> list[dict[str, object]]:
    return [room("shop", upstream=shop.address)]


async def refuses(gateway: Gateway) -> None:
    """Waits until the public port takes nobody any more."""
    await eventually(lambda: port_is_free(gateway.port))


async def test_requests_in_progress_finish(tmp_path: Path, shop: Shop) -> None:
    async with running_gateway(tmp_path, one_room(shop)) as gateway, Wire.open(gateway) as idle:
        async with under_way(gateway, shop) as (wire, slow):
            waiting = slow_head = Slow()

            async def before_the_head(seen: Seen, writer: asyncio.StreamWriter) -> None:
                slow_head.asked.set()
                await slow_head.end.wait()
                writer.write(PAGE)

            shop.answers["/head"] = before_the_head
            visitor = Visitor(gateway, "shop")
            request = asyncio.create_task(visitor.navigate("/head", "POST", b"pay"))
            await slow_head.asked.wait()
            assert gateway.process is not None
            gateway.process.terminate()
            await refuses(gateway)
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", gateway.port)
            async with asyncio.timeout(20):
                assert await idle.reader.read() == b""  # one that waits for nothing is closed
            assert gateway.process.returncode is None
            assert await gateway.ready() != 200

            slow.end.set()
            waiting.end.set()
            async with asyncio.timeout(20):
                assert await wire.reader.readexactly(10) == b"firstafter"
            answer = await request
            assert (answer.status, answer.headers["Connection"]) == (200, "close")
            assert visitor.pass_cookie in visitor.cookies
        assert await gateway.ended() == 0


async def test_connections_that_just_arrived_are_served(tmp_path: Path, shop: Shop) -> None:
    """Their requests are on the way when the worker is told to stop."""
    async with running_gateway(tmp_path, one_room(shop), workers=1) as gateway, contextlib.AsyncExitStack() as stack:
        (edge,) = gateway.children("edge.worker")
        known = await stack.enter_async_context(Wire.open(gateway))
        request = b"GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n"
        await known.send(request)
        assert (await known.answer()).status == 200
        await known.send(request[:20])
        await edge.suspend()
        new = [await stack.enter_async_context(Wire.open(gateway)) for _ in range(10)]
        for wire in new:
            await wire.send(request)
        await known.send(request[20:])
        assert gateway.process is not None
        gateway.process.terminate()
        await eventually(lambda: edge.awaits(signal.SIGTERM))
        edge.kill(signal.SIGCONT)

        for wire in (known, *new):
            assert (await wire.answer()).status == 200
            async with asyncio.timeout(20):
                assert await wire.reader.read() == b""
        assert await gateway.ended() == 0


async def test_a_signal_to_all_processes_counts_once(tmp_path: Path, shop: Shop) -> None:
    """As service managers and containers send it."""
    async with running_gateway(tmp_path, one_room(shop), workers=1) as gateway:
        async with under_way(gateway, shop) as (wire, slow):
            for process in gateway.processes():
                process.kill(signal.SIGTERM)
            await refuses(gateway)
            slow.end.set()
            async with asyncio.timeout(20):
                assert await wire.reader.readexactly(10) == b"firstafter"
        assert await gateway.ended() == 0


async def test_a_second_signal_stops_immediately(tmp_path: Path, shop: Shop) -> None:
    async with running_gateway(tmp_path, one_room(shop), workers=1, grace_seconds=600) as gateway:
        async with under_way(gateway, shop) as (wire, _):
            assert gateway.process is not None
            gateway.process.send_signal(signal.SIGINT)  # as Ctrl-C does
            await refuses(gateway)
            assert len(gateway.children("edge.worker")) >= 1
            gateway.process.send_signal(signal.SIGINT)
            with pytest.raises(CUT):
                async with asyncio.timeout(20):
                    await wire.reader.readexactly(10)
        assert await gateway.ended() == 0


async def test_requests_beyond_the_grace_period_are_cut(tmp_path: Path, shop: Shop) -> None:
    async with running_gateway(tmp_path, one_room(shop), workers=1, grace_seconds=0.5) as gateway:
        async with under_way(gateway, shop) as (wire, _):
            assert gateway.process is not None
            gateway.process.terminate()
            with pytest.raises(CUT):
                async with asyncio.timeout(20):
                    await wire.reader.readexactly(10)
        assert await gateway.ended() == 0


async def test_a_restart_keeps_places_and_sessions(tmp_path: Path, shop: Shop) -> None:
    rooms = [room("shop", upstream=shop.address, max_active=1)]
    # Its secret is one that it made itself.
    async with running_gateway(tmp_path, rooms, workers=1, secrets=None) as gateway:
        secret = (gateway.data_dir / "secret").read_text()
        assert stat.S_IMODE((gateway.data_dir / "secret").stat().st_mode) == 0o600
        assert stat.S_IMODE(gateway.data_dir.stat().st_mode) == 0o700
        inside, first, second = (Visitor(gateway, "shop") for _ in range(3))
        await inside.goes_in()
        await first.waits()
        await second.waits()
        waiting = await gateway.members("shop", "waiting")

        assert await gateway.stop() == 0
        await gateway.start()

        assert (gateway.data_dir / "secret").read_text() == secret
        assert secret.strip() not in gateway.log
        assert await gateway.members("shop", "waiting") == waiting
        assert (await inside.navigate()).status == 200
        await first.position(1)
        await second.position(2)
        await inside.call("leave")
        await first.state("called")
        await first.is_let_in()
        await second.position(1)
        assert await gateway.total("shop") == 3


async def test_a_second_gateway_on_the_same_port_or_folder_is_refused(tmp_path: Path, shop: Shop) -> None:
    def another(name: str, **settings: object) -> Gateway:
        (tmp_path / name).mkdir()
        return Gateway(tmp_path / name, settings, one_room(shop))

    async with running_gateway(tmp_path / "first", one_room(shop), workers=1) as gateway:
        same_port, same_admin = another("port"), another("admin")
        same_port.port = gateway.port
        same_admin.admin_port = gateway.admin_port
        same_folder = another("folder", data_dir=str(gateway.data_dir))
        with_redis = another("redis", data_dir=str(gateway.data_dir), redis_url="redis://127.0.0.1:1/0")
        others = (same_port, same_admin, same_folder, with_redis)

        ends = [await other.spawn() for other in others]
        async with asyncio.timeout(60):
            codes = [await process.wait() for process in ends]

        assert codes == [3, 3, 3, 3]
        for other, port in ((same_port, gateway.port), (same_admin, gateway.admin_port)):
            assert f"waitroom can't start: can't listen on 127.0.0.1:{port}: Address already in use" in other.log
        for other in (same_folder, with_redis):
            assert "is in use by another gateway" in " ".join(other.log.split())
            assert str(gateway.data_dir) in "".join(other.log.split())
        for other in others:
            assert "Traceback" not in other.log
            assert not other.processes() or other.data_dir == gateway.data_dir
        await Visitor(gateway, "shop").goes_in()
        await eventually(gateway.is_ready)


async def test_a_data_dir_that_is_no_folder(tmp_path: Path, shop: Shop) -> None:
    (tmp_path / "file").write_text("not a folder")
    gateway = Gateway(tmp_path, {"data_dir": str(tmp_path / "file" / "data")}, one_room(shop))

    process = await gateway.spawn()

    assert await process.wait() == 3
    assert "waitroom can't start" in gateway.log
    assert "Traceback" not in gateway.log


async def test_all_errors_in_the_settings_are_reported_together(tmp_path: Path, shop: Shop) -> None:
    secret = "hush hush"
    rooms = [
        room("shop", upstream="ftp://elsewhere", max_active=0, rate_per_minuet=5),
        room("shop", upstream=shop.address, session_seconds="15m", claim_seconds=5),
    ]
    gateway = Gateway(tmp_path, {"worker": 2, "secrets": [secret], "trusted_proxies": ["everybody"]}, rooms)
    for command in (("run", "--config", str(gateway.config)), ("check-config", str(gateway.config))):
        (tmp_path / "gateway.log").unlink(missing_ok=True)

        process = await gateway.spawn(*command)

        assert await process.wait() == 2
        log = gateway.log
        for word in (
            *("worker", "secrets", "trusted_proxies", "everybody", "upstream", "max_active", "rate_per_minuet"),
            *("rate_per_minute", "session_seconds", "900", "claim_seconds", "line "),
        ):
            assert word in log, word
        assert secret not in log
        assert "Traceback" not in log
    assert not gateway.data_dir.exists()
    assert port_is_free(gateway.port)


async def test_one_command_starts_a_gateway_on_ports_chosen_by_the_system(tmp_path: Path, shop: Shop) -> None:
    """Without a settings file: `waitroom run --upstream URL`."""
    gateway = Gateway(tmp_path, {}, one_room(shop))
    addresses = ("--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--workers", "2")
    try:
        await gateway.spawn("run", "--upstream", shop.address, *addresses, "--data-dir", str(gateway.data_dir))
        told = r"Visitors: http://127\.0\.0\.1:(\d+)\s+Dashboard: http://127\.0\.0\.1:(\d+)"
        found = await eventually(lambda: re.search(told, gateway.log), seconds=60)
        gateway.port, gateway.admin_port = int(found[1]), int(found[2])

        await eventually(gateway.is_ready)
        visitor = Visitor(gateway, "shop", host="any.host.at.all")
        await visitor.goes_in()
        for _ in range(6):  # both workers are there
            assert (await visitor.navigate("/hello")).status == 200
        assert shop.last("/hello").one("Waitroom-Room") == "shop"
        other = Gateway(gateway.data_dir, {}, [])
        status = await other.spawn("status", "--admin", gateway.admin, "--json")
        assert await status.wait() == 0
        assert '"name": "shop"' in other.log
    finally:
        await gateway.close()


async def test_status_without_a_gateway(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path, {}, [])

    process = await gateway.spawn("status", "--admin", f"http://127.0.0.1:{free_port()}")

    assert await process.wait() == 3
    assert "Gateway unavailable" in gateway.log


async def test_a_store_that_fails_to_restart_is_retried(tmp_path: Path, shop: Shop) -> None:
    rooms = [room("shop", upstream=shop.address, max_active=1)]
    async with running_gateway(tmp_path, rooms, workers=1) as gateway:
        inside, waiting = Visitor(gateway, "shop"), Visitor(gateway, "shop")
        await inside.goes_in()
        await waiting.waits()
        place = waiting.ticket.place
        (file,) = (gateway.data_dir / "appendonlydir").glob("*.base.rdb")
        (store,) = gateway.children("valkey")

        await store.suspend()
        good = file.read_bytes()
        file.write_bytes(b"this is no file of yours\r\n" * 10)
        store.kill()
        await eventually(lambda: gateway.log.count("embedded store failed to start") >= 2, seconds=60)

        assert (await inside.navigate()).status == 200
        page = await waiting.navigate()
        assert (page.status, page.state) == (503, "held")
        assert await gateway.ready() == 503
        file.write_bytes(good)

        await eventually(gateway.is_ready)
        await waiting.position(1)
        assert waiting.ticket.place == place
