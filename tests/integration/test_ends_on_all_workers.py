"""The end of a session in a gateway of two workers: within a second, on both, tunnels included.

It may be ended, released or moved, by an operator, the visitor, or the shop: in a response or by the API.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from support.admin_client import Operator
from support.gateway_process import Gateway, eventually, room
from support.upstreams.server import Shop
from support.visitor_client import Visitor, Wire, filled
from waitroom.control.auth.accounts import AccountsFile, Role
from waitroom.tokens import Pass

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

ROOMS = [
    room("ended"),
    room("left"),
    room("released", release_grace_seconds=600),
    room("brief", release_grace_seconds=1),
    room("called", release_grace_seconds=600),
    room("held"),
    room("other"),
    room("stock", max_active=1),
]
SETTINGS = {"workers": 2}
EVERY_EDGE = 24  # so many requests surely meet all workers
# Until then at the latest: a view comes every half a second, and what a session's upkeep would tell comes after 15 s.
SECONDS = 8
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
PRIVATE = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nCache-Control: private\r\n\r\nmine"
PAID = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nWaitroom-Command: release\r\n\r\nthanks"


async def inside(gateway: Gateway, name: str) -> Visitor:
    """A visitor whom both workers have seen inside, and the store too."""
    visitor = Visitor(gateway, name)
    await visitor.goes_in()
    session = visitor.pass_.session
    before = (await gateway.members(name, "active"))[session]
    await everywhere(visitor, "GET", 200)

    async def kept() -> bool:
        return (await gateway.members(name, "active"))[session] > before

    await eventually(kept)
    return visitor


async def pause(gateway: Gateway, name: str) -> Operator:
    """Lets nobody in who has no pass, lest a request be forwarded without one."""
    operator = Operator(gateway, name)
    await operator.look()
    await operator.change(state="paused")
    return operator


async def everywhere(visitor: Visitor, method: str, status: int) -> bool:
    """Asserts that all workers answer a request so."""
    for _ in range(EVERY_EDGE):
        assert (await visitor.fetch("/part", method)).status == status
    return True


@asynccontextmanager
async def tunnels(gateway: Gateway, shop: Shop, visitor: Visitor) -> AsyncIterator[list[asyncio.StreamReader]]:
    """Open WebSockets of a visitor on both workers."""
    shop.answers["/socket"] = SWITCHED
    head = (
        f"GET /socket HTTP/1.1\r\nHost: {visitor.host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        f"Cookie: {visitor.pass_cookie}={visitor.cookies[visitor.pass_cookie]}\r\n\r\n"
    )
    writers, readers = [], []
    for _ in range(EVERY_EDGE):
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(head.encode())
        assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
        writers.append(writer)
        readers.append(reader)
    try:
        yield readers
    finally:
        for writer in writers:
            writer.close()


async def all_cut(readers: list[asyncio.StreamReader]) -> None:
    async with asyncio.timeout(SECONDS):
        assert [await reader.read() for reader in readers] == [b""] * len(readers)


async def test_a_session_ended_by_an_operator_is_refused_on_all_workers_and_tunnels_close(
    gateway: Gateway, shop: Shop
) -> None:
    visitor, other = await inside(gateway, "ended"), await inside(gateway, "ended")
    operator = await pause(gateway, "ended")
    async with tunnels(gateway, shop, visitor) as open_, tunnels(gateway, shop, other) as others:
        assert (await operator.end_session(f"{visitor.pass_.session:x}")).status == 204
        pass_ = visitor.cookies[visitor.pass_cookie]

        async def refused() -> bool:
            visitor.cookies = {visitor.pass_cookie: pass_}
            return await everywhere(visitor, "POST", 503)

        await eventually(refused, seconds=SECONDS)
        await all_cut(open_)
        assert not any(reader.at_eof() for reader in others)
    await everywhere(other, "POST", 200)


async def test_a_visitor_who_leaves_is_refused_on_all_workers(gateway: Gateway, shop: Shop) -> None:
    visitor = await inside(gateway, "left")
    await pause(gateway, "left")
    pass_ = visitor.cookies[visitor.pass_cookie]
    async with tunnels(gateway, shop, visitor) as open_:
        assert (await visitor.call("leave")).status == 200

        async def refused() -> bool:
            visitor.cookies = {visitor.pass_cookie: pass_}
            return await everywhere(visitor, "POST", 503)

        await eventually(refused, seconds=SECONDS)
        await all_cut(open_)


async def test_only_the_page_after_an_order_loads_completely(gateway: Gateway, shop: Shop) -> None:
    shop.answers["/order"] = PAID
    visitor = await inside(gateway, "released")
    await pause(gateway, "released")
    before = visitor.cookies[visitor.pass_cookie]
    async with tunnels(gateway, shop, visitor) as open_:
        answer = await visitor.fetch("/order", "POST")
        assert answer.body == b"thanks"
        cookie = answer.cookie(visitor.pass_cookie)
        assert cookie is not None
        assert cookie["max-age"] == "600"
        # The slot is free immediately, and the parts load on every worker, by either pass.
        await eventually(lambda: _is_free(gateway, "released"), seconds=SECONDS)
        for value in (before, cookie["value"]):
            visitor.cookies = {visitor.pass_cookie: value}
            await everywhere(visitor, "GET", 200)

        async def refused() -> bool:
            visitor.cookies = {visitor.pass_cookie: before}
            return await everywhere(visitor, "POST", 503)

        await eventually(refused, seconds=SECONDS)
        await all_cut(open_)
        await everywhere(visitor, "GET", 200)
    async with Wire.open(gateway) as wire:
        await wire.send(
            f"GET /socket HTTP/1.1\r\nHost: {visitor.host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            f"Cookie: {visitor.pass_cookie}={before}\r\n\r\n".encode()
        )
        status, _ = await wire.head()
        assert status == 503


async def test_a_pass_is_invalid_after_the_grace_period(gateway: Gateway, shop: Shop) -> None:
    shop.answers["/order"] = PAID
    visitor = await inside(gateway, "brief")
    await pause(gateway, "brief")
    pass_ = visitor.cookies[visitor.pass_cookie]
    await visitor.fetch("/order", "POST")

    async def refused() -> bool:
        visitor.cookies = {visitor.pass_cookie: pass_}
        return await everywhere(visitor, "GET", 503)

    await eventually(refused, seconds=SECONDS)


# By the API, with a token of the shop's.


@dataclass(frozen=True)
class Till:
    """A program of the shop's, with a token for some rooms."""

    gateway: Gateway
    token: str

    async def post(self, path: str, body: object) -> tuple[int, dict[str, Any]]:
        """The status and the problem."""
        url, headers = f"{self.gateway.admin}/api/v1/rooms/{path}", {"Authorization": f"Bearer {self.token}"}
        async with self.gateway.http.post(url, headers=headers, json=body) as answer:
            return answer.status, await answer.json(content_type=None) or {}

    async def command(self, visitor: Visitor, command: str) -> int:
        status, _ = await self.post(f"{visitor.room}/sessions/{visitor.pass_.session:x}", {"command": command})
        return status


@pytest.fixture(scope="module")
def till(gateway: Gateway) -> Till:
    rooms = ["called", "held", "stock", "gone"]
    return Till(gateway, AccountsFile(gateway.data_dir).add_token("till", Role.SHOP, rooms))


async def test_a_release_by_the_api_is_that_of_the_header(gateway: Gateway, shop: Shop, till: Till) -> None:
    visitor, other = await inside(gateway, "called"), await inside(gateway, "called")
    await pause(gateway, "called")
    pass_ = visitor.cookies[visitor.pass_cookie]
    async with tunnels(gateway, shop, visitor) as open_:
        assert await till.command(visitor, "release") == 204
        assert visitor.pass_.session not in await gateway.members("called", "active"), "the slot is free immediately"
        assert await till.command(visitor, "release") == 204, "it may be repeated"
        assert await till.command(visitor, "hold=900") == 404

        async def refused() -> bool:
            visitor.cookies = {visitor.pass_cookie: pass_}
            return await everywhere(visitor, "POST", 503)

        await eventually(refused, seconds=SECONDS)
        await all_cut(open_)
        await everywhere(visitor, "GET", 200)
    await everywhere(other, "POST", 200)


@pytest.mark.parametrize(
    ("command", "seconds"), [("extend=2000", 2000), ("hold=20000", 20_000), ("hold=99999", 28_800)]
)
async def test_a_new_end_by_the_api_is_on_all_workers(
    gateway: Gateway, shop: Shop, till: Till, command: str, seconds: int
) -> None:
    shop.answers["/mine"] = PRIVATE
    visitor = await inside(gateway, "held")
    before, session = visitor.cookies[visitor.pass_cookie], visitor.pass_.session
    slots = await gateway.members("held", "active")
    assert await till.command(visitor, command) == 204
    moved = (await gateway.members("held", "active"))[session] - slots[session]
    renewed: list[Pass] = []

    async def fetch() -> None:
        visitor.cookies = {visitor.pass_cookie: before}
        await visitor.fetch("/mine")
        if visitor.cookies[visitor.pass_cookie] != before:
            renewed.append(visitor.pass_)

    async def on_both_workers() -> bool:
        for _ in range(EVERY_EDGE):
            await fetch()
        return len(renewed) == 2  # each worker has renewed the pass once

    await eventually(on_both_workers, seconds=SECONDS)
    visitor.cookies = {visitor.pass_cookie: before}
    started = visitor.pass_.ends_at - 14_400
    for one in renewed:
        # The first seconds of the session have passed by then, and times are rounded.
        assert seconds - 2 <= one.expires_at - started <= seconds + SECONDS + 30
        assert one.ends_at == max(one.expires_at, visitor.pass_.ends_at)
    assert 1000 * (seconds - 900 - 2) <= moved <= 1000 * (seconds - 900 + SECONDS + 30)


async def test_what_a_shop_may_not_do_is_refused_as_a_problem(gateway: Gateway, till: Till) -> None:
    visitor, elsewhere = await inside(gateway, "held"), await inside(gateway, "other")
    session = f"{visitor.pass_.session:x}"
    for path, body, status in (
        (f"held/sessions/{elsewhere.pass_.session + 1000:x}", {"command": "hold=900"}, 404),
        ("held/sessions/ffffffffffffffff", {"command": "release"}, 404),
        (f"called/sessions/{session}", {"command": "release"}, 404),
        ("held/sessions/Z", {"command": "release"}, 422),
        (f"held/sessions/{session}", {"command": "end"}, 422),
        (f"held/sessions/{session}", {}, 422),
        (f"other/sessions/{elsewhere.pass_.session:x}", {"command": "release"}, 403),
        (f"gone/sessions/{session}", {"command": "release"}, 404),
        ("gone/stock", {"remaining": 5}, 404),
    ):
        got, problem = await till.post(path, body)
        assert (got, problem["status"]) == (status, status), path
        assert problem["detail"]
    assert (await gateway.members("held", "active")).keys() >= {visitor.pass_.session}
    assert (await gateway.members("other", "active")).keys() >= {elsewhere.pass_.session}


async def test_a_shop_s_commands_are_counted_and_an_operator_s_are_audited(gateway: Gateway, till: Till) -> None:
    visitor = await inside(gateway, "held")
    session = f"{visitor.pass_.session:x}"
    before = (await gateway.metrics_of("held"))["waitroom_api_commands_total", "hold", "done"]
    for _ in range(3):
        assert await till.command(visitor, "hold=10") == 204
    assert (await gateway.metrics_of("held"))["waitroom_api_commands_total", "hold", "done"] == before + 3
    operator = Operator(gateway, "held")
    told = await operator.ask("POST", f"/sessions/{session}", {"command": "hold=20"})
    assert told.status == 204

    async def audited() -> list[dict[str, Any]]:
        return [entry for entry in await operator.audit() if entry["action"] == "session_command"]

    (entry,) = await eventually(audited)
    assert (entry["who"], entry["outcome"]) == ("local", "done")
    assert entry["new"] == {"session": session, "command": "hold", "seconds": 20}


async def test_the_stock_by_the_api_is_shown_on_all_workers(gateway: Gateway, till: Till) -> None:
    await filled(gateway, "stock")
    waiting = Visitor(gateway, "stock")
    await waiting.waits()
    for remaining, state in ((1200, "waiting"), (0, "sold_out"), (1, "waiting")):
        assert (await till.post("stock/stock", {"remaining": remaining}))[0] == 204

        async def shown(remaining: int = remaining, state: str = state) -> bool:
            found = [await waiting.status() for _ in range(EVERY_EDGE)]
            return {(status["remaining"], status["state"]) for status in found} == {(remaining, state)}

        await eventually(shown, seconds=SECONDS)
    stock = (await gateway.room("stock"))["stock"]
    assert (stock["remaining"], stock["sold"], stock["units"]) == (1, 1199, None)


async def _is_free(gateway: Gateway, name: str) -> bool:
    return await gateway.members(name, "active") == {}
