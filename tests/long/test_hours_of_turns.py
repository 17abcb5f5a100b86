"""Squatters and hard ends, in real time: what takes minutes because the shortest settings do."""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed

from support.attackers import address, dial
from support.gateway_process import eventually, room, running_gateway
from support.ports import free_port
from support.third_party import uvicorn
from support.upstreams.real_shops import nginx_shop
from support.visitor_client import Visitor

SQUATTERS, SLOTS = 15, 5
TOLD_SECONDS = 90
MAX_SECONDS = 60
SLACK_SECONDS = 60  # machines that stand still, and polls


async def test_squatters_keep_nobody_out(tmp_path: Path) -> None:
    """Fifteen tickets of fifteen addresses poll and never claim; the honest visitor behind them gets in."""
    async with nginx_shop(tmp_path) as shop:
        rooms = [room("sale", upstream=shop.address, max_active=SLOTS)]
        settings = {"workers": 2, "trusted_proxies": ["127.0.0.1"]}
        async with running_gateway(tmp_path / "gateway", rooms, **settings) as gateway:
            inside = [
                Visitor(gateway, "sale", headers={"X-Forwarded-For": f"203.0.113.{number}"}) for number in range(SLOTS)
            ]
            for visitor in inside:
                await visitor.is_let_in()
            squatters = [
                Visitor(gateway, "sale", headers={"X-Forwarded-For": address(number)}) for number in range(SQUATTERS)
            ]
            for squatter in squatters:
                await squatter.call("join")
                assert squatter.cookies
            honest = Visitor(gateway, "sale", headers={"X-Forwarded-For": "203.0.113.100"})
            await honest.waits()
            began = time.monotonic()
            for visitor in inside:
                await visitor.call("leave")

            async def squats(squatter: Visitor) -> None:
                while True:
                    await squatter.status()
                    await asyncio.sleep(2)

            tasks = [asyncio.create_task(squats(squatter)) for squatter in squatters]
            try:

                async def is_in() -> bool:
                    return (await honest.navigate()).status == 200

                await eventually(is_in, seconds=(SQUATTERS / SLOTS + 1) * TOLD_SECONDS + SLACK_SECONDS, every=2)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
            print(f"\nthe honest visitor was in after {time.monotonic() - began:.0f} s")


async def test_a_websocket_ends_with_its_session(tmp_path: Path) -> None:
    """However busy it is: session_max_seconds is the end."""
    sockets = free_port()
    async with nginx_shop(tmp_path, sockets=sockets) as shop, uvicorn(sockets, tmp_path):
        rooms = [
            room("short", upstream=shop.address, session_seconds=60, session_max_seconds=MAX_SECONDS),
            room("open", upstream=shop.address),
        ]
        async with running_gateway(tmp_path / "gateway", rooms, workers=2) as gateway:
            visitor = Visitor(gateway, "short")
            await visitor.is_let_in()
            socket = await dial(gateway, visitor)
            began = time.monotonic()
            with contextlib.suppress(ConnectionClosed):
                while time.monotonic() - began < MAX_SECONDS + SLACK_SECONDS:
                    await socket.send("still here")
                    await socket.recv()
                    await asyncio.sleep(1)
                pytest.fail("an open WebSocket outlived its session")
            assert (await visitor.fetch("/order", "POST", b"item=1")).status != 200
