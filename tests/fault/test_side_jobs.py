"""Side jobs fail for as long as a test lasts: disks, folders and files are gone or full. Visitors notice nothing."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
import pytest_asyncio

from support.faults import fill, small_disk
from support.gateway_process import Gateway, Process, eventually, room, running_gateway
from support.redis_server import SystemRedis, system_redis
from support.upstreams.server import Shop
from support.visitor_client import Visitor
from waitroom.control.auth.accounts import LOCAL_TOKEN_FILE

pytestmark = pytest.mark.slow

FAILED = "background job failed"


@pytest_asyncio.fixture
async def redis(tmp_path: Path) -> AsyncIterator[SystemRedis]:
    async with system_redis(tmp_path / "redis") as redis:
        yield redis


async def some_traffic(inside: Visitor, waiting: Visitor) -> None:
    assert (await inside.navigate("/page")).status == 200
    assert (await waiting.status())["state"] == "waiting"


def _one(gateway: Gateway, slot: int) -> Sequence[str]:
    lines = [line for line in gateway.log.splitlines() if FAILED in line and f'"edge {slot}"' in line]
    assert lines, "not yet"
    return lines[:1]


def pids(processes: Sequence[Process]) -> set[int]:
    return {one.pid for one in processes}


async def _all_alive(gateway: Gateway) -> bool:
    workers = (await gateway.room("shop"))["workers"]
    async with gateway.http.get(f"{gateway.admin}/metrics") as answer:
        return workers == {"alive": 2, "wanted": 2} and "waitroom_workers_alive 2.0\n" in await answer.text()


async def one_in_one_out(inside: Visitor, waiting: Visitor) -> None:
    """The queue moves."""
    await inside.call("leave")
    await waiting.state("called")
    await waiting.is_let_in()


async def test_the_disk_of_data_dir_is_full(tmp_path: Path, shop: Shop, redis: SystemRedis) -> None:
    """With a healthy store elsewhere, it costs history and metrics."""
    rooms = [room("shop", upstream=shop.address, max_active=1)]
    with small_disk(tmp_path / "disk") as disk:
        settings = {"redis_url": redis.url, "data_dir": str(disk / "data")}
        async with running_gateway(tmp_path / "gateway", rooms, **settings) as gateway:
            gateway.folder = disk  # its data
            log = tmp_path / "gateway" / "gateway.log"
            inside, waiting = Visitor(gateway, "shop"), Visitor(gateway, "shop")
            await inside.goes_in()
            await waiting.waits()
            before = pids(gateway.children())

            async def failed() -> bool:
                fill(disk)
                await some_traffic(inside, waiting)
                lines = [line for line in log.read_text().splitlines() if FAILED in line and "No space left" in line]
                return {slot for slot in (0, 1) for line in lines if f'"edge {slot}"' in line} == {0, 1}

            await eventually(failed)
            for _ in range(3):
                await _shows_life(disk / "data" / "metrics")
                await some_traffic(inside, waiting)
            assert pids(gateway.children()) == before, "no process was ended by a side job"
            assert await gateway.is_ready()

            # What has to start again on the full disk serves, too.
            for part, count in (("control.worker", 1), ("edge.worker", 2)):
                old = gateway.children(part)
                for one in old:
                    one.kill()
                await gateway.replaced(part, count, old)
            await eventually(gateway.is_ready)
            await eventually(lambda: _all_alive(gateway))
            await some_traffic(inside, waiting)
            await one_in_one_out(inside, waiting)

            fill(disk).unlink()
            await eventually(lambda: "background job recovered" in log.read_text())
            # The token of the control process that started on the full disk.
            await eventually(lambda: (disk / "data" / LOCAL_TOKEN_FILE).stat().st_size > 0)
            gateway.folder = tmp_path / "gateway"


async def _shows_life(folder: Path) -> None:
    paths = [folder / f"edge-{slot}.json" for slot in (0, 1)]
    written = {path: path.stat().st_mtime_ns for path in paths}
    await eventually(lambda: all(path.stat().st_mtime_ns > at for path, at in written.items()))


@pytest.mark.long
async def test_the_metrics_folder_is_removed(tmp_path: Path, shop: Shop) -> None:
    rooms = [room("shop", upstream=shop.address, max_active=1)]
    async with running_gateway(tmp_path, rooms) as gateway:
        inside, waiting = Visitor(gateway, "shop"), Visitor(gateway, "shop")
        await inside.goes_in()
        await waiting.waits()
        before = pids(gateway.children())
        admitted = await _counted(gateway)
        folder = gateway.data_dir / "metrics"
        shutil.rmtree(folder)
        await eventually(lambda: len(list(folder.glob("edge-*.json"))) == 2)
        assert folder.stat().st_mode & 0o777 == 0o700
        await _shows_life(folder)
        assert await _counted(gateway) >= admitted, "no count is lost"

        # Something else is in its place.
        shutil.rmtree(folder)
        folder.touch()
        try:
            for slot in (0, 1):
                await eventually(lambda slot=slot: _one(gateway, slot))
            await some_traffic(inside, waiting)
            # The control process reads the files, and has to start without them.
            (control,) = gateway.children("control.worker")
            control.kill()
            await gateway.replaced("control.worker", 1, [control])
            await some_traffic(inside, waiting)
            await one_in_one_out(inside, waiting)
            assert pids(gateway.children()) - pids(gateway.children("control.worker")) == before - {control.pid}
        finally:
            with contextlib.suppress(FileNotFoundError):
                folder.unlink()
        await eventually(gateway.is_ready)


async def _counted(gateway: Gateway) -> float:
    return (await gateway.metrics()).get(("waitroom_requests_total", "admitted"), 0)


@pytest.mark.long
async def test_a_worker_starts_with_a_damaged_file_of_its_predecessor(tmp_path: Path, shop: Shop) -> None:
    rooms = [room("shop", upstream=shop.address)]
    async with running_gateway(tmp_path, rooms, workers=1) as gateway:
        visitor = Visitor(gateway, "shop")
        await visitor.goes_in()
        (edge,) = gateway.children("edge.worker")
        path = gateway.data_dir / "metrics" / "edge-0.json"
        await edge.suspend()
        path.write_bytes(path.read_bytes()[:20])
        edge.kill()
        await gateway.replaced("edge.worker", 1, [edge])
        await eventually(gateway.is_ready)
        assert (await visitor.navigate()).status == 200
        assert gateway.log.count("process exited unexpectedly") == 1
        assert "metrics of the previous worker not read" in gateway.log
