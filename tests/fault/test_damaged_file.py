"""The embedded store's file is damaged, as by a power cut: the shop opens again, and places are kept."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from support.faults import killed
from support.gateway_process import eventually, room, running_gateway
from support.upstreams.server import Shop
from support.visitor_client import Visitor

pytestmark = pytest.mark.slow

ASIDE = "appendonlydir/*.damaged-*"


def zeros(content: bytes) -> bytes:
    return content + bytes(4096)


def rubbish(content: bytes) -> bytes:
    return content + b"\xff\x00*3\r\n$3\r\nSE" * 9


def cut_short(content: bytes) -> bytes:
    return content[:-7]


@pytest.mark.parametrize(
    "damage", [zeros, *(pytest.param(one, marks=pytest.mark.long) for one in (rubbish, cut_short))]
)
async def test_a_damaged_end_is_set_aside_and_the_gateway_starts(
    tmp_path: Path, shop: Shop, damage: Callable[[bytes], bytes]
) -> None:
    rooms = [room("sale", upstream=shop.address, max_active=1)]
    async with running_gateway(tmp_path, rooms, workers=1) as gateway:
        inside, first, second = (Visitor(gateway, "sale") for _ in range(3))
        await inside.goes_in()
        await first.waits()
        await second.waits()
        places = [first.ticket.place, second.ticket.place]
        file = await killed(gateway)
        content = file.read_bytes()
        file.write_bytes(damage(content))

        await gateway.start()

        (aside,) = gateway.data_dir.glob(ASIDE)
        kept = file.read_bytes()[: len(content)]
        assert content.startswith(kept[:100])
        (line,) = (line for line in gateway.log.splitlines() if "damaged end of the store" in line)
        assert str(aside) in line
        assert re.search(rf"bytes\W+{aside.stat().st_size}\b", line), line
        if damage is not cut_short:
            assert damage(content) == content + aside.read_bytes()
        assert (await inside.navigate()).status == 200
        for position, visitor in enumerate((first, second), 1):
            await visitor.position(position)
        assert [first.ticket.place, second.ticket.place] == places

        await inside.call("leave")
        await first.state("called")
        await first.is_let_in()


async def test_a_damaged_base_file_is_left_alone_and_the_error_says_what_to_do(tmp_path: Path, shop: Shop) -> None:
    rooms = [room("sale", upstream=shop.address, max_active=1)]
    async with running_gateway(tmp_path, rooms, workers=1) as gateway:
        waiting = Visitor(gateway, "sale")
        await Visitor(gateway, "sale").goes_in()
        await waiting.waits()
        folder = gateway.data_dir / "appendonlydir"
        async with gateway.store() as redis:
            await redis.bgrewriteaof()
        await eventually(lambda: (folder / "appendonly.aof.2.base.rdb").exists() and _rewritten(folder))
        await killed(gateway)
        (base,) = folder.glob("*.base.rdb")
        content = bytearray(base.read_bytes())
        content[len(content) // 2] ^= 0xFF
        base.write_bytes(content)

        process = await gateway.spawn()
        assert await process.wait() == 3
        await gateway.ended()
        assert base.read_bytes() == content
        # The error may be wrapped to the width of a terminal.
        assert f"Movethefolder'{folder}'aside" in "".join(gateway.log.split()), gateway.log

        folder.rename(tmp_path / "aside")
        await gateway.start()
        place = waiting.ticket.place
        await waiting.position(1)
        assert waiting.ticket.place == place


def _rewritten(folder: Path) -> bool:
    manifest = (folder / "appendonly.aof.manifest").read_text()
    return (
        "appendonly.aof.2.base.rdb" in manifest and "type h" not in manifest and len(list(folder.glob("*.base.*"))) == 1
    )
