"""Every child is replaced whatever fails on the way, and a supervisor that can't replace them doesn't stay."""

from __future__ import annotations

import os
import sys
import sysconfig
from pathlib import Path

import pytest

from support.gateway_process import Gateway, eventually, room, running_gateway
from support.upstreams.server import Shop
from support.visitor_client import Visitor

pytestmark = pytest.mark.slow

PYTHON = Path(sys.executable).resolve()
CHECKOUT = str(Path(__file__).parents[2])


async def test_children_are_replaced_although_nobody_reads_the_log(tmp_path: Path, shop: Shop) -> None:
    """The reader of standard output and error goes away while the gateway runs."""
    gateway = Gateway(tmp_path, {}, [room("shop", upstream=shop.address, max_active=1)])
    reads, writes = os.pipe()
    try:
        gateway.output = writes
        await gateway.start()
        inside, waiting = Visitor(gateway, "shop"), Visitor(gateway, "shop")
        await inside.goes_in()
        await waiting.waits()
        os.close(reads)
        for part, count in (("edge.worker", 2), ("valkey", 1), ("control.worker", 1)):
            old = gateway.children(part)
            for one in old:
                one.kill()
            await gateway.replaced(part, count, old)

        await eventually(gateway.is_ready)
        await waiting.position(1)
        assert (await inside.navigate()).status == 200
    finally:
        os.close(writes)
        await gateway.close()


async def test_a_supervisor_that_can_start_no_child_ends(
    tmp_path: Path, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The Python it was started with is gone, as after an installation was removed under a running gateway."""
    python = tmp_path / "python"
    python.symlink_to(PYTHON)
    monkeypatch.setattr(sys, "executable", str(python))
    packages = sysconfig.get_path("purelib")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([CHECKOUT, packages]))
    async with running_gateway(tmp_path, [room("shop", upstream=shop.address)], workers=1) as gateway:
        python.unlink()
        for child in gateway.children():
            child.kill()

        assert await gateway.ended() == 1

        assert "waitroom can't go on: no child process could be started" in gateway.log
        assert "process not started or not supervised, restarting" in gateway.log
